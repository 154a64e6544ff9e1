//! Which vCPU runs next on this CPU: waking, kicking, switching, idling.

use alloc::sync::Arc;

use logic::{lock::Held, regs::GuestRegs};

use crate::{cpu::Cpu, vcpu::Vcpu};

/// The vCPU may have become runnable: puts it on a queue and tells a CPU.
pub fn wake(_vcpu: &Arc<Vcpu>, _held: &mut Held<'_, 0>) {}

/// Makes the CPU that runs it, if one does, look at it again soon (for events, or because it may no longer run).
pub fn kick(_vcpu: &Arc<Vcpu>, _held: &mut Held<'_, 0>) {}

/// Whether no CPU owns its private state.
#[must_use]
pub fn is_parked(vcpu: &Vcpu, held: &mut Held<'_, 0>) -> bool {
    vcpu.parked.lock(held).0.is_some()
}

/// An interrupt arrived for the hypervisor: a timer, another CPU, a device.
pub fn interrupt(_cpu: &mut Cpu, _vector: u8, _held: Held<'_, 0>) {}

/// The last thing before every return to a guest: whatever is pending for this CPU, the choice of the vCPU, its events.
pub fn before_guest(_cpu: &mut Cpu, _regs: &mut GuestRegs, _held: Held<'_, 0>) {}
