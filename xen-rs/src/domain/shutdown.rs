//! A domain stops: by its own wish or by a crash.

use log::{error, info};
use logic::lock::Held;

use machine::arch::x86_64::power;
use xen_abi::{sched, trace::TRC_SCHED_SHUTDOWN};

use super::{Domain, Vcpu, life::Shutdown};
use crate::{console, cpu_loop, event, trace};

impl Domain {
    /// Stops it for `reason` and tells the control domain. The control domain's own end is the machine's.
    pub fn shut_down(&self, reason: Shutdown, held: &mut Held<'_, 0>) {
        let reason = self.life.code_or(reason);
        if self.is_control() {
            end_machine(reason);
        }
        if self.life.record_shutdown(reason) {
            trace::event(TRC_SCHED_SHUTDOWN, || [self.id.0.into(), u32::MAX, reason.code()]);
            self.pause(held);
            event::raise_dom_exc(held);
        }
    }

    /// Takes a vCPU of it down (`VCPUOP_down`, or `hlt` where nothing can end that). The last one takes the domain with it.
    pub fn take_down(&self, vcpu: &Vcpu, held: &mut Held<'_, 0>) {
        let _ = vcpu.seat.ready.take_down();
        cpu_loop::release(vcpu, held);
        cpu_loop::kick(vcpu);
        // Only now: of several that go down at once the last one sees all of them.
        if !self.vcpus().iter().any(|other| other.seat.ready.is_up()) {
            self.shut_down(Shutdown::new(sched::SHUTDOWN_POWEROFF), held);
        }
    }

    /// The guest is broken: prints why and stops it. Never the host's end, unless it is the control domain.
    pub fn crash(&self, why: &dyn core::fmt::Display, held: &mut Held<'_, 0>) {
        error!("domain_crash called for d{}: {why}", self.id);
        self.shut_down(Shutdown::CRASH, held);
    }
}

/// What the control domain's end means for the machine, in Xen's words.
fn end_machine(reason: Shutdown) -> ! {
    console::flush();
    let reboot = match reason.code() {
        sched::SHUTDOWN_POWEROFF => {
            info!("Hardware Dom0 halted: halting machine");
            false
        }
        sched::SHUTDOWN_CRASH => {
            let what_now =
                if power::no_reboot() { "'noreboot' set - not rebooting." } else { "rebooting machine in 5 seconds." };
            error!("Hardware Dom0 crashed: {what_now}");
            !power::no_reboot()
        }
        sched::SHUTDOWN_REBOOT => {
            info!("Hardware Dom0 shutdown: rebooting machine");
            true
        }
        sched::SHUTDOWN_WATCHDOG => {
            info!("Hardware Dom0 shutdown: watchdog rebooting machine");
            true
        }
        other => {
            info!("Hardware Dom0 shutdown: unknown reason {other}, rebooting machine");
            true
        }
    };
    if reboot { power::reboot() } else { power::halt_machine() }
}
