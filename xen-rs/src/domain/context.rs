//! A vCPU's whole state as the toolstack and `VCPUOP_initialise` hand it in.

use alloc::{boxed::Box, sync::Arc};

use logic::lock::Held;
use xen_abi::{arch_x86::VcpuGuestContext, errno::Errno};

use super::Domain;
use crate::vcpu::Vcpu;

/// Gives a vCPU that does not run its state; `Ok(false)`: not finished, call again.
pub fn set(
    _domain: &Arc<Domain>,
    _vcpu: &Arc<Vcpu>,
    _wanted: &VcpuGuestContext,
    _held: &mut Held<'_, 0>,
) -> Result<bool, Errno> {
    Err(Errno::ENOSYS)
}

/// The state of a vCPU that does not run.
pub fn get(_domain: &Arc<Domain>, _vcpu: &Arc<Vcpu>, _held: &mut Held<'_, 0>) -> Result<Box<VcpuGuestContext>, Errno> {
    Err(Errno::ENOSYS)
}
