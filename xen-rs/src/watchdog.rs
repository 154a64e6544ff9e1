//! A domain's watchdogs (`SCHEDOP_watchdog`): if the guest does not feed one in time, it is shut down.

use core::sync::atomic::{AtomicU64, Ordering};

use logic::{lock::Held, time::Nanos};
use xen_abi::{errno::Errno, ids::DomId, sched::SHUTDOWN_WATCHDOG};

use crate::{
    cpu::CpuLocal,
    cpu_loop::{self, Key},
    domain::{self, Domain, Shutdown},
    time,
};

/// The watchdogs of a domain: when each bites, 0 for one that is not in use.
#[derive(Debug, Default)]
pub struct Watchdogs([AtomicU64; Self::COUNT as usize]);

impl Watchdogs {
    /// How many a domain has (`NR_DOMAIN_WATCHDOG_TIMERS` of Xen).
    pub const COUNT: u32 = 2;

    /// None in use.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Self::COUNT as usize])
    }
}

/// `SCHEDOP_watchdog`: `id` 0 takes a new one and gives its number; otherwise feeds one, or gives it back for timeout 0.
/// `EINVAL` for a number that is not in use, `ENOSPC` when all are.
pub fn set(domain: &Domain, id: u32, seconds: u32, cpu: &mut CpuLocal, held: &mut Held<'_, 0>) -> Result<u64, Errno> {
    let deadline = time::now().after(Nanos::from_secs(seconds.into()));
    let all = &domain.watchdogs.0;
    let arm = |cpu: &mut CpuLocal, slot: u32, held: &mut Held<'_, 0>| {
        // Without memory nobody barks.
        let _ = cpu_loop::set_timer(cpu.id, &mut cpu.sched.timer, Key::Watchdog(domain.id, slot), deadline, held);
    };
    if id == 0 {
        let free = |slot: &AtomicU64| slot.compare_exchange(0, deadline.0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let slot = all.iter().position(free).ok_or(Errno::ENOSPC)?;
        let slot = u32::try_from(slot).map_err(|_| Errno::ENOSPC)?;
        arm(cpu, slot, held);
        return Ok(u64::from(slot) + 1);
    }
    let slot = all.get(id as usize - 1).ok_or(Errno::EINVAL)?;
    if slot.load(Ordering::Acquire) == 0 {
        return Err(Errno::EINVAL);
    }
    if seconds == 0 {
        slot.store(0, Ordering::Release);
    } else {
        slot.store(deadline.0, Ordering::Release);
        arm(cpu, id - 1, held);
    }
    Ok(0)
}

/// A deadline on some CPU's queue has come. It may be one from before the watchdog was fed on another CPU.
pub(crate) fn expire(domain: DomId, slot: u32, now: Nanos, held: &mut Held<'_, 0>) {
    let Some(domain) = domain::find(domain, held) else { return };
    let due = domain.watchdogs.0.get(slot as usize).map_or(0, |slot| slot.load(Ordering::Acquire));
    if due != 0 && due <= now.0 {
        log::warn!("d{} watchdog fired", domain.id);
        domain.shut_down(Shutdown::new(SHUTDOWN_WATCHDOG), held);
    }
}
