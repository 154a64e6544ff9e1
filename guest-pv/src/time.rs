//! The clock and the one-shot timer.
//!
//! Unsafe: the instruction that reads the time stamp counter.

use crate::call;
use crate::{events, smp};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use xen_abi::arch_x86::{XEN_PVCLOCK_TSC_STABLE_BIT, shared_info, vcpu_info};
use xen_abi::ids::Port;

/// The port of each vCPU's `VIRQ_TIMER`; no port has number 0.
static TIMER: [AtomicU32; smp::MAX] = [const { AtomicU32::new(0) }; smp::MAX];

/// Reads the time-stamp counter.
pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter. The fence keeps earlier loads before it, as pvclock asks for.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// System time in nanoseconds: since the hypervisor booted, never going backwards.
///
/// The formula is that of `struct vcpu_time_info` (public `xen.h`).
pub fn now() -> u64 {
    // `version`, `tsc_timestamp`, `system_time`, and the factor with its shift.
    const PLACES: [usize; 4] = [
        vcpu_info::TIME_VERSION,
        vcpu_info::TIME_TSC_TIMESTAMP,
        vcpu_info::TIME_SYSTEM_TIME,
        vcpu_info::TIME_TSC_TO_SYSTEM_MUL,
    ];
    const { assert!(PLACES[1] == PLACES[0] + 8 && PLACES[2] == PLACES[0] + 16 && PLACES[3] == PLACES[0] + 24) };
    const { assert!(vcpu_info::TIME_TSC_SHIFT == PLACES[3] + 4) };
    let [version, stamp, base, scale] = events::shared().words(events::vcpu_info_of(smp::index()) + PLACES[0]);
    loop {
        let before = version.load(Ordering::Acquire) as u32;
        let (stamp, base) = (stamp.load(Ordering::Acquire), base.load(Ordering::Acquire));
        let scale = scale.load(Ordering::Acquire);
        let (mul, shift) = (scale as u32, (scale >> 32) as i8);
        let now = tsc();
        fence(Ordering::SeqCst);
        if before & 1 != 0 || before != version.load(Ordering::Acquire) as u32 {
            continue;
        }
        let delta = now.wrapping_sub(stamp);
        let delta = if shift >= 0 { delta << shift } else { delta >> -shift };
        let scaled = (u128::from(delta) * u128::from(mul)) >> 32;
        return base.wrapping_add(scaled as u64);
    }
}

/// How far two CPUs' clocks may be apart where the TSC is not the clock of the whole machine, as the missing
/// `XEN_PVCLOCK_TSC_STABLE_BIT` says. Hypervisors promise no bound; this is far above what is seen and below what a timer that
/// fires too early would show.
const SKEW: u64 = 1_000_000;

/// Whether a deadline has come, be it by the clock of another CPU, where this vCPU was until now.
pub fn has_come(deadline: u64) -> bool {
    let flags =
        events::shared().u8_at(events::vcpu_info_of(smp::index()) + vcpu_info::TIME_FLAGS).load(Ordering::Acquire);
    let skew = if flags & XEN_PVCLOCK_TSC_STABLE_BIT != 0 { 0 } else { SKEW };
    now() + skew >= deadline
}

/// Unix time in nanoseconds.
pub fn wall_clock() -> u64 {
    let shared = events::shared();
    loop {
        let version = shared.load_u32(shared_info::WC_VERSION);
        let low = shared.load_u32(shared_info::WC_SEC);
        let nsec = shared.load_u32(shared_info::WC_NSEC);
        let high = shared.load_u32(shared_info::WC_SEC_HI);
        if version & 1 == 0 && version == shared.load_u32(shared_info::WC_VERSION) {
            let seconds = u64::from(high) << 32 | u64::from(low);
            return seconds * 1_000_000_000 + u64::from(nsec) + now();
        }
    }
}

/// Binds this vCPU's timer interrupt and stops its periodic timer.
pub(crate) fn init_vcpu() {
    call::vcpu::stop_periodic_timer(smp::this()).expect("the periodic timer can be stopped");
    let port = events::bind_virq(xen_abi::hypercall::VIRQ_TIMER).expect("the timer can be bound");
    TIMER[smp::index()].store(port.0, Ordering::Relaxed);
}

/// The port of this vCPU's timer interrupt.
pub fn timer_port() -> Port {
    Port(TIMER[smp::index()].load(Ordering::Relaxed))
}

pub(crate) fn is_timer(port: Port) -> bool {
    port == timer_port()
}

/// Arms the one-shot timer for system time `deadline` (ns). A time gone by fires at once.
pub(crate) fn set_timer(deadline: u64) {
    call::vcpu::set_singleshot_timer(smp::this(), deadline, 0).expect("the timer can be set");
}

/// Sleeps for so many nanoseconds; events stay pending meanwhile.
pub fn sleep(ns: u64) {
    let end = now() + ns;
    while now() < end {
        call::sched::poll(&[], end).expect("a vCPU can always sleep");
    }
}
