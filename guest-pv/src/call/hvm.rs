//! `hvm_op` (public `hvm/hvm_op.h`): parameters of PVH domains.
//!
//! Unsafe: a hypercall is told the address of a structure.

use super::command;
use xen_abi::errno::Errno;
use xen_abi::hvm::{HVMOP_GET_PARAM, HVMOP_SET_PARAM, HvmParam};
use xen_abi::hypercall::HYPERVISOR_HVM_OP;
use xen_abi::ids::DomId;

/// Sets a parameter (`HVM_PARAM_*`) of a domain.
///
/// # Errors
/// Those of the hypercall.
pub fn set_param(domid: DomId, index: u32, value: u64) -> Result<(), Errno> {
    let mut arg = HvmParam { domid, pad: 0, index, value };
    // SAFETY: the hypervisor only reads the struct; what parameters of this domain name stays this domain's memory.
    unsafe { command(HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, &mut arg) }.map(drop)
}

/// A parameter of a domain.
///
/// # Errors
/// Those of the hypercall.
pub fn get_param(domid: DomId, index: u32) -> Result<u64, Errno> {
    let mut arg = HvmParam { domid, index, ..Default::default() };
    // SAFETY: the hypervisor reads and writes the struct.
    unsafe { command(HYPERVISOR_HVM_OP, HVMOP_GET_PARAM, &mut arg) }?;
    Ok(arg.value)
}
