//! `mmu_update`, `update_va_mapping` and `mmuext_op`: page tables.
//!
//! Unsafe: these calls change page tables.

use super::{check, raw};
use xen_abi::errno::Errno;
use xen_abi::hypercall::{
    HYPERVISOR_MMU_UPDATE, HYPERVISOR_MMUEXT_OP, HYPERVISOR_UPDATE_VA_MAPPING, HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN,
};
use xen_abi::ids::{DomId, Mfn};
use xen_abi::mmu::{MMUEXT_PIN_L4_TABLE, MMUEXT_TLB_FLUSH_LOCAL, MMUEXT_UNPIN_TABLE, MmuUpdate, MmuextOp};

/// Applies the requests in order; `owner` owns the frames that new entries point to. On an error the first part of
/// the result says how many requests were done.
///
/// # Safety
/// The page tables of this domain change: no memory in use may lose its mapping.
///
/// # Errors
/// The number of requests done, and the errno of the next one.
pub unsafe fn mmu_update(requests: &[MmuUpdate], owner: DomId) -> Result<(), (usize, Errno)> {
    let mut done = 0u32;
    let args = [requests.as_ptr() as u64, requests.len() as u64, (&raw mut done) as u64, owner.0.into()];
    // SAFETY: by the contract above; `done` outlives the call.
    match check(unsafe { raw(HYPERVISOR_MMU_UPDATE.into(), args) }) {
        Ok(_) => Ok(()),
        Err(errno) => Err((done as usize, errno)),
    }
}

/// Sets the L1 entry that maps `va`, which must have an L1 table, and flushes as `flags` (`UVMF_*`) say.
///
/// # Safety
/// As for [`mmu_update`].
///
/// # Errors
/// Those of the hypercall.
pub unsafe fn update_va_mapping(va: u64, entry: u64, flags: u64) -> Result<(), Errno> {
    // SAFETY: by the contract above.
    check(unsafe { raw(HYPERVISOR_UPDATE_VA_MAPPING.into(), [va, entry, flags]) }).map(drop)
}

/// [`update_va_mapping`] with a frame of another domain.
///
/// # Safety
/// As for [`mmu_update`].
///
/// # Errors
/// Those of the hypercall.
pub unsafe fn update_va_mapping_otherdomain(va: u64, entry: u64, flags: u64, owner: DomId) -> Result<(), Errno> {
    let args = [va, entry, flags, owner.0.into()];
    // SAFETY: by the contract above.
    check(unsafe { raw(HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN.into(), args) }).map(drop)
}

/// Runs the operations in order.
///
/// # Safety
/// As for [`mmu_update`].
///
/// # Errors
/// The number of operations done, and the errno of the next one.
pub unsafe fn mmuext_op(operations: &[MmuextOp], domain: DomId) -> Result<(), (usize, Errno)> {
    let mut done = 0u32;
    let args = [operations.as_ptr() as u64, operations.len() as u64, (&raw mut done) as u64, domain.0.into()];
    // SAFETY: by the contract above; `done` outlives the call.
    match check(unsafe { raw(HYPERVISOR_MMUEXT_OP.into(), args) }) {
        Ok(_) => Ok(()),
        Err(errno) => Err((done as usize, errno)),
    }
}

fn one(cmd: u32, arg1: u64, domain: DomId) -> Result<(), Errno> {
    let op = MmuextOp { cmd, _pad: 0, arg1, arg2: 0 };
    // SAFETY: used below only for operations that change no mapping of this domain.
    unsafe { mmuext_op(&[op], domain) }.map_err(|(_, errno)| errno)
}

/// Pins an L4 table of `domain`: it is validated now and stays a page table.
///
/// # Errors
/// Those of the hypercall.
pub fn pin_l4(domain: DomId, table: Mfn) -> Result<(), Errno> {
    one(MMUEXT_PIN_L4_TABLE, table.0, domain)
}

/// Undoes a pin.
///
/// # Errors
/// Those of the hypercall.
pub fn unpin(domain: DomId, table: Mfn) -> Result<(), Errno> {
    one(MMUEXT_UNPIN_TABLE, table.0, domain)
}

/// Flushes this CPU's TLB.
///
/// # Errors
/// Those of the hypercall.
pub fn flush_tlb() -> Result<(), Errno> {
    if crate::pvh::is_active() {
        // Every entry was flushed as it was written.
        return Ok(());
    }
    one(MMUEXT_TLB_FLUSH_LOCAL, 0, DomId::SELF)
}
