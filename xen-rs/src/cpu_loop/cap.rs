//! Caps of domains: whose time is up in this period waits for the next one.
//!
//! Whoever finds that no time is left marks the vCPU, sets a timer for the end of the period, and looks again: if the period
//! ended in between, one of the two takes the mark away.

use alloc::sync::Arc;

use logic::{lock::Held, sched::Allowance, time::Nanos};

use super::{
    look_again, queues,
    timer::{self, CpuTimer, Key},
};
use crate::{domain::Domain, time, vcpu::Vcpu};

/// The cap of a domain: percent of one CPU, 0 for none.
pub fn set_cap(domain: &Arc<Domain>, cap: u16, held: &mut Held<'_, 0>) {
    let now = time::now();
    domain.budget.lock_leaf(|budget| budget.set_cap(cap, now));
    for vcpu in domain.vcpus() {
        let woken = vcpu.seat.ready.uncap();
        queues::wake(vcpu, woken, held);
        // What it was given under the old cap ends now.
        if vcpu.seat.ready.is_running() {
            look_again(vcpu.seat.processor());
            queues::kick(vcpu);
        }
    }
}

/// How long a vCPU may run from now on, having run for so long; `None`: as long as it likes. Where its domain's time is up
/// it may not run afterwards.
pub(super) fn settle(
    domain: &Domain,
    vcpu: &Vcpu,
    ran: Nanos,
    now: Nanos,
    (cpu, timer): (u32, &mut CpuTimer),
    held: &mut Held<'_, 0>,
) -> Option<Nanos> {
    let allowance = domain.budget.lock_leaf(|budget| {
        budget.burn(ran, now);
        budget.allowance(now)
    });
    match allowance {
        Allowance::Unlimited => None,
        Allowance::For(left) => Some(left),
        Allowance::NotBefore(end) => {
            vcpu.seat.ready.cap();
            let is_set = timer::set_timer(cpu, timer, Key::Budget(domain.id), end, held);
            let still = domain.budget.lock_leaf(|budget| budget.allowance(time::now()));
            if !is_set || !matches!(still, Allowance::NotBefore(_)) {
                // It is on this CPU or in its hands, so there is nothing else to do.
                let _ = vcpu.seat.ready.uncap();
            }
            Some(Nanos::ZERO)
        }
    }
}

/// A period has ended.
pub(super) fn renew(domain: &Arc<Domain>, now: Nanos, cpu: u32, held: &mut Held<'_, 0>) {
    match domain.budget.lock_leaf(|budget| budget.allowance(now)) {
        // What was overdrawn is more than a period's.
        Allowance::NotBefore(end) if timer::requeue(cpu, Key::Budget(domain.id), end, held) => {}
        _ => {
            for vcpu in domain.vcpus() {
                let woken = vcpu.seat.ready.uncap();
                queues::wake(vcpu, woken, held);
            }
        }
    }
}
