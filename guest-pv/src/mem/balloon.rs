//! The balloon: giving memory of this domain back to the hypervisor, and asking for it again.
//!
//! Unsafe: memory is taken out of the direct map.

use super::table::{READ_WRITE, set_entry};
use super::{Frame, INVALID, address, p2m_entry};
use crate::call;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use spin::Mutex;
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Pfn};

/// Frames without memory.
static BALLOON: Mutex<Vec<Pfn>> = Mutex::new(Vec::new());

/// The frame list follows. In a container there is none: numbers stay.
fn note(pfn: Pfn, mfn: u64) {
    if let Some(entry) = p2m_entry(pfn) {
        entry.store(mfn, Ordering::Relaxed);
    }
}

/// Frames that have been given back.
pub fn size() -> usize {
    BALLOON.lock().len()
}

/// Gives a frame's memory back to the hypervisor.
///
/// # Errors
/// Those of the hypercalls; the frame is lost to the allocator then.
pub fn release(frame: Frame) -> Result<(), Errno> {
    let mfn = frame.mfn();
    let pfn = frame.leak();
    // SAFETY: the frame was ours alone and is not used any more.
    unsafe { set_entry(address(pfn), 0) }?;
    note(pfn, INVALID);
    if call::memory::decrease_reservation(DomId::SELF, &[mfn.0], 0)? != 1 {
        return Err(Errno::EBUSY);
    }
    BALLOON.lock().push(pfn);
    Ok(())
}

/// Asks the hypervisor for memory for a frame that was given back. The contents are arbitrary.
///
/// # Errors
/// `ENOENT` when nothing was given back, `ENOMEM` when the hypervisor has none, else those of the hypercalls.
pub fn reclaim() -> Result<Frame, Errno> {
    let mut balloon = BALLOON.lock();
    let pfn = *balloon.last().ok_or(Errno::ENOENT)?;
    let mut extent = [pfn.0];
    if call::memory::populate_physmap(DomId::SELF, &mut extent, 0, 0)? != 1 {
        return Err(Errno::ENOMEM);
    }
    note(pfn, extent[0]);
    balloon.pop();
    // SAFETY: nothing is mapped there.
    unsafe { set_entry(address(pfn), extent[0] << 12 | READ_WRITE) }?;
    Ok(Frame::from_pfn(pfn))
}
