//! Grant tables, version 1: letting other domains at our pages, mapping theirs, and copying to and from them.
//!
//! Unsafe: frames of the grant table are mapped and shared with the hypervisor.

mod copy;

pub use copy::{Copier, Move, Way};

use crate::call::{grant_table, memory};
use crate::mem::window::{Window, host_address};
use crate::mem::{self, Access, Frame, Mapping, PAGE_SIZE, SharedBytes};
use crate::{Mode, mode};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use spin::Mutex;
use xen_abi::errno::Errno;
use xen_abi::grant_table::{
    GNTMAP_HOST_MAP, GNTMAP_READONLY, GNTST_OKAY, GNTTAB_NR_RESERVED_ENTRIES, GTF_PERMIT_ACCESS, GTF_READING,
    GTF_READONLY, GTF_WRITING, GnttabMapGrantRef, GnttabUnmapGrantRef,
};
use xen_abi::ids::{DomId, GrantRef, Mfn};
use xen_abi::memory::XENMAPSPACE_GRANT_TABLE;

/// Entries per frame of the table: 8 bytes each (`grant_entry_v1_t`).
const PER_FRAME: u32 = 512;

struct Table {
    frames: Vec<&'static SharedBytes>,
    free: Vec<u32>,
}

static TABLE: Mutex<Table> = Mutex::new(Table { frames: Vec::new(), free: Vec::new() });

impl Table {
    /// Adds one frame to the table.
    fn grow(&mut self) -> Result<(), Errno> {
        let have = self.frames.len();
        let page = match mode() {
            Mode::Pv => {
                let mut mfns = vec![0; have + 1];
                if grant_table::setup_table(DomId::SELF, &mut mfns)? != GNTST_OKAY {
                    return Err(Errno::ENOSPC);
                }
                Mapping::own(&mfns[have..], Access::ReadWrite).map_err(|error| error.errno)?.leak()
            }
            // It takes the place of a page of ours.
            Mode::Pvh => {
                let place = Frame::zeroed().ok_or(Errno::ENOMEM)?.leak();
                memory::add_to_physmap(DomId::SELF, XENMAPSPACE_GRANT_TABLE, have as u64, place.0)?;
                mem::shared_page(place)
            }
        };
        self.frames.push(page);
        let first = have as u32 * PER_FRAME;
        self.free.extend((first.max(GNTTAB_NR_RESERVED_ENTRIES)..first + PER_FRAME).rev());
        Ok(())
    }

    fn take(&mut self) -> Result<u32, Errno> {
        if self.free.is_empty() {
            self.grow()?;
        }
        self.free.pop().ok_or(Errno::ENOSPC)
    }

    fn entry(&self, reference: u32) -> Option<(&'static SharedBytes, usize)> {
        let frame = self.frames.get((reference / PER_FRAME) as usize)?;
        Some((frame, (reference % PER_FRAME) as usize * 8))
    }
}

/// Lets `dom` map the page.
///
/// # Errors
/// `ENOSPC` when the table is full, `EINVAL` for frames above 16 TiB, else those of the hypercalls.
pub fn grant(dom: DomId, page: Mfn, access: Access) -> Result<GrantRef, Errno> {
    let frame = u32::try_from(page.0).map_err(|_| Errno::EINVAL)?;
    let mut table = TABLE.lock();
    let reference = table.take()?;
    let (bytes, at) = table.entry(reference).ok_or(Errno::EINVAL)?;
    let flags = match access {
        Access::ReadOnly => GTF_PERMIT_ACCESS | GTF_READONLY,
        Access::ReadWrite => GTF_PERMIT_ACCESS,
    };
    bytes.u16_at(at + 2).store(dom.0, Ordering::Relaxed);
    bytes.u32_at(at + 4).store(frame, Ordering::Relaxed);
    // The flags make the entry valid, so they come last.
    bytes.u16_at(at).store(flags, Ordering::Release);
    Ok(GrantRef(reference))
}

/// Takes the permission back.
///
/// # Errors
/// `EBUSY` while the page is mapped; `EINVAL` for a reference outside of the table.
pub fn revoke(reference: GrantRef) -> Result<(), Errno> {
    let mut table = TABLE.lock();
    let (bytes, at) = table.entry(reference.0).ok_or(Errno::EINVAL)?;
    let flags = bytes.u16_at(at);
    flags
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |flags| {
            (flags & (GTF_READING | GTF_WRITING) == 0).then_some(0)
        })
        .map_err(|_| Errno::EBUSY)?;
    table.free.push(reference.0);
    Ok(())
}

/// Whether somebody has the page mapped.
#[must_use]
pub fn is_mapped(reference: GrantRef) -> bool {
    let table = TABLE.lock();
    let flags = table.entry(reference.0).map_or(0, |(bytes, at)| bytes.u16_at(at).load(Ordering::Acquire));
    flags & (GTF_READING | GTF_WRITING) != 0
}

/// The table's frame that holds entries `512 * index ..`, for direct access; made when missing.
///
/// # Errors
/// Those of [`grant`].
pub fn table_frame(index: usize) -> Result<&'static SharedBytes, Errno> {
    let mut table = TABLE.lock();
    while table.frames.len() <= index {
        table.grow()?;
    }
    Ok(table.frames[index])
}

/// Why a grant could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantError {
    /// Which of the references asked for.
    pub index: usize,
    /// `GNTST_*`.
    pub status: i16,
}

/// Maps pages that `dom` granted, side by side.
///
/// # Errors
/// The first page that could not be mapped; nothing stays mapped then.
pub fn map(dom: DomId, references: &[GrantRef], access: Access) -> Result<Mapping, GrantError> {
    let no_space = GrantError { index: 0, status: xen_abi::grant_table::GNTST_NO_SPACE };
    let window = Window::new(references.len()).map_err(|_| no_space)?;
    let flags = match access {
        Access::ReadOnly => GNTMAP_HOST_MAP | GNTMAP_READONLY,
        Access::ReadWrite => GNTMAP_HOST_MAP,
    };
    let mut ops: Vec<GnttabMapGrantRef> = references
        .iter()
        .zip(0u64..)
        .map(|(&ref_, page)| GnttabMapGrantRef {
            host_addr: host_address(window.va + page * PAGE_SIZE),
            flags,
            ref_,
            dom,
            ..Default::default()
        })
        .collect();
    // SAFETY: the window is new.
    unsafe { grant_table::map(&mut ops) }.map_err(|_| no_space)?;
    if let Some(index) = ops.iter().position(|op| op.status != GNTST_OKAY) {
        let status = ops[index].status;
        let mut undo: Vec<GnttabUnmapGrantRef> = ops
            .iter()
            .filter(|op| op.status == GNTST_OKAY)
            .map(|op| GnttabUnmapGrantRef { host_addr: op.host_addr, handle: op.handle, ..Default::default() })
            .collect();
        // SAFETY: nobody uses the window yet.
        let undone = unsafe { grant_table::unmap(&mut undo) };
        assert!(undone.is_ok(), "a mapped grant can be unmapped");
        return Err(GrantError { index, status });
    }
    if mode() == Mode::Pvh {
        window.show_places().map_err(|_| no_space)?;
    }
    Ok(window.into_grants(ops.iter().map(|op| (op.handle, op.dev_bus_addr)).collect()))
}
