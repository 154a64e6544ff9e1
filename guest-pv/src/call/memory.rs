//! `memory_op` (public `memory.h`).
//!
//! Unsafe: a hypercall is told addresses of arrays, and gives memory away.

use super::{check, command, raw};
use crate::mem::MapError;
use alloc::vec;
use alloc::vec::Vec;
use xen_abi::errno::Errno;
use xen_abi::hypercall::HYPERVISOR_MEMORY_OP;
use xen_abi::ids::DomId;
use xen_abi::memory::{
    AddToPhysmap, AddToPhysmapBatch, E820Entry, ForeignMemoryMap, MemAcquireResource, MemoryDomain, MemoryExchange,
    MemoryMap, MemoryReservation, RemoveFromPhysmap, XENMAPSPACE_GMFN_FOREIGN, XENMEM_ACQUIRE_RESOURCE,
    XENMEM_ADD_TO_PHYSMAP, XENMEM_ADD_TO_PHYSMAP_BATCH, XENMEM_CLAIM_PAGES, XENMEM_CURRENT_RESERVATION,
    XENMEM_DECREASE_RESERVATION, XENMEM_EXCHANGE, XENMEM_MACHINE_MEMORY_MAP, XENMEM_MAXIMUM_GPFN,
    XENMEM_MAXIMUM_RAM_PAGE, XENMEM_MAXIMUM_RESERVATION, XENMEM_MEMORY_MAP, XENMEM_POPULATE_PHYSMAP,
    XENMEM_REMOVE_FROM_PHYSMAP, XENMEM_SET_MEMORY_MAP,
};

fn reservation(dom: DomId, frames: &[u64], order: u32, mem_flags: u32) -> MemoryReservation {
    MemoryReservation {
        extent_start: frames.as_ptr() as u64,
        nr_extents: frames.len() as u64,
        extent_order: order,
        mem_flags,
        domid: dom,
        _pad: [0; 3],
    }
}

/// Gives `dom` memory at the pseudo-physical frames listed, in extents of `1 << order` frames. For a PV domain each
/// number is replaced by the first machine frame of its extent. Returns how many extents were filled.
///
/// # Errors
/// Those of the hypercall.
pub fn populate_physmap(dom: DomId, frames: &mut [u64], order: u32, mem_flags: u32) -> Result<usize, Errno> {
    let mut arg = reservation(dom, frames, order, mem_flags);
    arg.extent_start = frames.as_mut_ptr() as u64;
    // SAFETY: new frames are unknown to anyone yet; the hypervisor writes within `frames`.
    let done = unsafe { command(HYPERVISOR_MEMORY_OP, XENMEM_POPULATE_PHYSMAP, &mut arg) }?;
    Ok(done as usize)
}

/// Takes the frames listed (machine frames of a PV domain) away from `dom`. Returns how many extents were freed.
/// A frame that is still mapped somewhere is freed with its last mapping.
///
/// # Errors
/// Those of the hypercall.
pub fn decrease_reservation(dom: DomId, frames: &[u64], order: u32) -> Result<usize, Errno> {
    let mut arg = reservation(dom, frames, order, 0);
    // SAFETY: mappings hold references, so no mapped memory goes away.
    let done = unsafe { command(HYPERVISOR_MEMORY_OP, XENMEM_DECREASE_RESERVATION, &mut arg) }?;
    Ok(done as usize)
}

/// Trades machine frames of ours, which are mapped nowhere, for extents of `1 << order` frames. `taken` has the pseudo-physical
/// frames that these are to back, and is given their first machine frames.
///
/// # Errors
/// Those of the hypercall; of one extent nothing was traded then.
pub fn exchange(given: &[u64], taken: &mut [u64], order: u32) -> Result<(), Errno> {
    let mut out = reservation(DomId::SELF, taken, order, 0);
    out.extent_start = taken.as_mut_ptr() as u64;
    let mut arg = MemoryExchange { in_: reservation(DomId::SELF, given, 0, 0), out, nr_exchanged: 0 };
    // SAFETY: a frame that is mapped is not traded; the hypervisor writes within `taken`.
    unsafe { command(HYPERVISOR_MEMORY_OP, XENMEM_EXCHANGE, &mut arg) }.map(drop)
}

/// One more than the highest machine frame that is memory.
///
/// # Errors
/// Those of the hypercall.
pub fn maximum_ram_page() -> Result<u64, Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { raw(HYPERVISOR_MEMORY_OP.into(), [XENMEM_MAXIMUM_RAM_PAGE.into(), 0]) })
}

/// The highest number that a page of `dom` has in it.
///
/// # Errors
/// Those of the hypercall.
pub fn maximum_gpfn(dom: DomId) -> Result<u64, Errno> {
    // SAFETY: the hypervisor only reads the struct.
    unsafe { command(HYPERVISOR_MEMORY_OP, XENMEM_MAXIMUM_GPFN, &mut MemoryDomain { domid: dom }) }
}

/// Pages that `dom` has.
///
/// # Errors
/// Those of the hypercall.
pub fn current_reservation(dom: DomId) -> Result<u64, Errno> {
    // SAFETY: the hypervisor only reads the struct.
    unsafe { command(HYPERVISOR_MEMORY_OP, XENMEM_CURRENT_RESERVATION, &mut MemoryDomain { domid: dom }) }
}

/// Pages that `dom` may have.
///
/// # Errors
/// Those of the hypercall.
pub fn maximum_reservation(dom: DomId) -> Result<u64, Errno> {
    // SAFETY: the hypervisor only reads the struct.
    unsafe { command(HYPERVISOR_MEMORY_OP, XENMEM_MAXIMUM_RESERVATION, &mut MemoryDomain { domid: dom }) }
}

fn read_map(which: u32) -> Result<Vec<E820Entry>, Errno> {
    let mut entries = vec![E820Entry::default(); 128];
    let mut arg = MemoryMap { nr_entries: 128, _pad: 0, buffer: entries.as_mut_ptr() as u64 };
    // SAFETY: the hypervisor writes at most `nr_entries` entries.
    unsafe { command(HYPERVISOR_MEMORY_OP, which, &mut arg) }?;
    entries.truncate(arg.nr_entries as usize);
    Ok(entries)
}

/// This domain's pseudo-physical memory map.
///
/// # Errors
/// Those of the hypercall; `ENOSYS` when the toolstack has set none.
pub fn memory_map() -> Result<Vec<E820Entry>, Errno> {
    read_map(XENMEM_MEMORY_MAP)
}

/// The machine's memory map (initial domain only).
///
/// # Errors
/// Those of the hypercall.
pub fn machine_memory_map() -> Result<Vec<E820Entry>, Errno> {
    read_map(XENMEM_MACHINE_MEMORY_MAP)
}

/// Sets the memory map that `domid` will see.
///
/// # Errors
/// Those of the hypercall.
pub fn set_memory_map(domid: DomId, entries: &[E820Entry]) -> Result<(), Errno> {
    let nr_entries = u32::try_from(entries.len()).map_err(|_| Errno::EINVAL)?;
    let map = MemoryMap { nr_entries, _pad: 0, buffer: entries.as_ptr() as u64 };
    let mut arg = ForeignMemoryMap { domid, _pad: [0; 3], map };
    // SAFETY: the hypervisor only reads the struct and the entries.
    unsafe { command(HYPERVISOR_MEMORY_OP, XENMEM_SET_MEMORY_MAP, &mut arg) }.map(drop)
}

/// Sets memory aside for a domain that is being built; 0 gives back what is left.
///
/// # Errors
/// Those of the hypercall.
pub fn claim_pages(dom: DomId, pages: u64) -> Result<(), Errno> {
    let mut arg = reservation(dom, &[], 0, 0);
    arg.extent_start = 0;
    arg.nr_extents = pages;
    // SAFETY: the hypervisor only reads the struct.
    unsafe { command(HYPERVISOR_MEMORY_OP, XENMEM_CLAIM_PAGES, &mut arg) }.map(drop)
}

/// Puts a page of `space` (`XENMAPSPACE_*`) into an auto-translated domain.
///
/// # Errors
/// Those of the hypercall.
pub fn add_to_physmap(domid: DomId, space: u32, idx: u64, gpfn: u64) -> Result<(), Errno> {
    let mut arg = AddToPhysmap { domid, size: 0, space, idx, gpfn };
    // SAFETY: refused for PV domains, so this domain's memory is not concerned.
    unsafe { command(HYPERVISOR_MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, &mut arg) }.map(drop)
}

/// Puts frames of another domain into this one, at the places `gpfns`, in a container.
///
/// # Errors
/// Which of them cannot be put there, and why; or those of the hypercall, for the first one.
pub fn add_foreign(owner: DomId, frames: &[u64], gpfns: &[u64]) -> Result<(), MapError> {
    /// The hypercall counts by 16 bits.
    const CHUNK: usize = 1024;
    for (first, (frames, gpfns)) in (0..).step_by(CHUNK).zip(frames.chunks(CHUNK).zip(gpfns.chunks(CHUNK))) {
        let mut errs = vec![0i32; frames.len()];
        let mut arg = AddToPhysmapBatch {
            domid: DomId::SELF,
            space: XENMAPSPACE_GMFN_FOREIGN as u16,
            size: frames.len() as u16,
            foreign_domid: owner,
            idxs: frames.as_ptr() as u64,
            gpfns: gpfns.as_ptr() as u64,
            errs: errs.as_mut_ptr() as u64,
        };
        // SAFETY: the callers name places where there is no memory of ours; the hypervisor writes within `errs`.
        unsafe { command(HYPERVISOR_MEMORY_OP, XENMEM_ADD_TO_PHYSMAP_BATCH, &mut arg) }
            .map_err(|errno| MapError { index: first, errno })?;
        if let Some(at) = errs.iter().position(|&err| err != 0) {
            let errno = Errno::from_number(errs[at].saturating_neg()).unwrap_or(Errno::EINVAL);
            return Err(MapError { index: first + at, errno });
        }
    }
    Ok(())
}

/// Takes a page out of this domain, in a container. What it was stays whose it was.
///
/// # Errors
/// Those of the hypercall.
pub fn remove_from_physmap(gpfn: u64) -> Result<(), Errno> {
    let mut arg = RemoveFromPhysmap { domid: DomId::SELF, gpfn, ..Default::default() };
    // SAFETY: the callers use the page no more.
    unsafe { command(HYPERVISOR_MEMORY_OP, XENMEM_REMOVE_FROM_PHYSMAP, &mut arg) }.map(drop)
}

/// Machine frames of a resource of `domid` (`XENMEM_RESOURCE_*`), starting at `frame`; to be mapped as frames of
/// `domid`. In a container `frames` says at which places of this domain they are to be put instead.
///
/// # Errors
/// Those of the hypercall.
pub fn acquire_resource(domid: DomId, type_: u16, id: u32, frame: u64, frames: &mut [u64]) -> Result<(), Errno> {
    let nr_frames = u32::try_from(frames.len()).map_err(|_| Errno::EINVAL)?;
    let frame_list = frames.as_mut_ptr() as u64;
    let mut arg = MemAcquireResource { domid, type_, id, nr_frames, pad: 0, frame, frame_list };
    // SAFETY: the hypervisor writes `nr_frames` numbers.
    unsafe { command(HYPERVISOR_MEMORY_OP, XENMEM_ACQUIRE_RESOURCE, &mut arg) }.map(drop)
}
