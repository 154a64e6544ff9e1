//! `grant_table_op` (public `grant_table.h`).
//!
//! Unsafe: a hypercall is told addresses of structures, and maps pages.

use super::commands;
use xen_abi::errno::Errno;
use xen_abi::grant_table::{
    GNTTABOP_COPY, GNTTABOP_MAP_GRANT_REF, GNTTABOP_QUERY_SIZE, GNTTABOP_SETUP_TABLE, GNTTABOP_UNMAP_GRANT_REF,
    GnttabCopy, GnttabMapGrantRef, GnttabQuerySize, GnttabSetupTable, GnttabUnmapGrantRef,
};
use xen_abi::hypercall::HYPERVISOR_GRANT_TABLE_OP;
use xen_abi::ids::DomId;

/// The size of a domain's grant table; look at `status` in the answer.
///
/// # Errors
/// Those of the hypercall.
pub fn query_size(dom: DomId) -> Result<GnttabQuerySize, Errno> {
    let mut op = [GnttabQuerySize { dom, ..Default::default() }];
    // SAFETY: the hypervisor fills the struct.
    unsafe { commands(HYPERVISOR_GRANT_TABLE_OP, GNTTABOP_QUERY_SIZE, &mut op) }?;
    Ok(op[0])
}

/// Makes a domain's table at least `frames.len()` frames long and fills in their numbers. Returns the status.
///
/// # Errors
/// Those of the hypercall.
pub fn setup_table(dom: DomId, frames: &mut [u64]) -> Result<i16, Errno> {
    let nr_frames = u32::try_from(frames.len()).map_err(|_| Errno::EINVAL)?;
    let mut op = [GnttabSetupTable { dom, nr_frames, frame_list: frames.as_mut_ptr() as u64, ..Default::default() }];
    // SAFETY: the hypervisor writes `nr_frames` numbers.
    unsafe { commands(HYPERVISOR_GRANT_TABLE_OP, GNTTABOP_SETUP_TABLE, &mut op) }?;
    Ok(op[0].status)
}

/// Maps grants; each element has its own status.
///
/// # Safety
/// What is mapped at each `host_addr` is replaced.
///
/// # Errors
/// Those of the hypercall itself.
pub unsafe fn map(ops: &mut [GnttabMapGrantRef]) -> Result<(), Errno> {
    // SAFETY: by the contract above.
    unsafe { commands(HYPERVISOR_GRANT_TABLE_OP, GNTTABOP_MAP_GRANT_REF, ops) }.map(drop)
}

/// Unmaps grants; each element has its own status.
///
/// # Safety
/// Nothing uses the mappings any more.
///
/// # Errors
/// Those of the hypercall itself.
pub unsafe fn unmap(ops: &mut [GnttabUnmapGrantRef]) -> Result<(), Errno> {
    // SAFETY: by the contract above.
    unsafe { commands(HYPERVISOR_GRANT_TABLE_OP, GNTTABOP_UNMAP_GRANT_REF, ops) }.map(drop)
}

/// Copies between frames; each element has its own status.
///
/// # Safety
/// Frames of this domain named as destinations are written to.
///
/// # Errors
/// Those of the hypercall itself.
pub unsafe fn copy(ops: &mut [GnttabCopy]) -> Result<(), Errno> {
    // SAFETY: by the contract above.
    unsafe { commands(HYPERVISOR_GRANT_TABLE_OP, GNTTABOP_COPY, ops) }.map(drop)
}
