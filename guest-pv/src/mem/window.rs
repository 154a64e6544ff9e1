//! Windows: parts of the address space for machine frames outside of the direct map.
//!
//! Unsafe: frames are mapped where they are not yet.

use super::table::{self, READ_ONLY, READ_WRITE, UNCACHED};
use super::{PAGE_SIZE, SharedBytes};
use crate::call;
use crate::{Mode, mode};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use spin::Mutex;
use xen_abi::errno::Errno;
use xen_abi::grant_table::GnttabUnmapGrantRef;
use xen_abi::ids::{DomId, GrantHandle};
use xen_abi::mmu::{MMU_NORMAL_PT_UPDATE, MMU_PT_UPDATE_NO_TRANSLATE};

/// Start of the address range for windows, far behind any direct map.
const BASE: u64 = 0xffff_a000_0000_0000;
/// Its size in pages: 256 GiB.
const PAGES: u64 = 1 << 26;

/// Free parts of the range: first page and number of pages, ordered.
static FREE: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());
static READY: spin::Once<()> = spin::Once::new();

fn reserve(pages: u64) -> Option<u64> {
    let mut free = FREE.lock();
    READY.call_once(|| free.push((0, PAGES)));
    let at = free.iter().position(|&(_, len)| len >= pages)?;
    let (first, len) = free[at];
    if len == pages {
        free.remove(at);
    } else {
        free[at] = (first + pages, len - pages);
    }
    Some(BASE + first * PAGE_SIZE)
}

fn release(va: u64, pages: u64) {
    let first = (va - BASE) / PAGE_SIZE;
    let mut free = FREE.lock();
    let at = free.partition_point(|&(start, _)| start < first);
    free.insert(at, (first, pages));
    if free.get(at + 1).is_some_and(|&(start, _)| start == first + pages) {
        free[at].1 += free.remove(at + 1).1;
    }
    if at > 0 && free[at - 1].0 + free[at - 1].1 == first {
        free[at - 1].1 += free.remove(at).1;
    }
}

/// Pages of the range in use: other domains' that are mapped here, and what else there is.
#[must_use]
pub fn pages_in_use() -> u64 {
    let free: u64 = FREE.lock().iter().map(|(_, len)| len).sum();
    if READY.is_completed() { PAGES - free } else { 0 }
}

/// What a grant operation is told of a page in a window: its address, and in a container the address of the guest frame
/// that it is kept for. Those begin above all memory that guests of this runtime have.
pub fn host_address(va: u64) -> u64 {
    const PLACES: u64 = 32 << 30;
    match mode() {
        Mode::Pv => va,
        Mode::Pvh => va - BASE + PLACES,
    }
}

/// Why memory could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapError {
    /// Which of the pages asked for.
    pub index: usize,
    /// What the hypervisor said.
    pub errno: Errno,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}: {}", self.index, self.errno)
    }
}

/// What may be done with mapped memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Writes fault.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

impl Access {
    const fn flags(self) -> u64 {
        match self {
            Self::ReadOnly => READ_ONLY,
            Self::ReadWrite => READ_WRITE,
        }
    }
}

#[derive(Debug)]
enum Kind {
    /// Mapped by page-table updates.
    Frames,
    /// Put into the domain, which is in a container.
    Placed,
    /// Mapped by grant operations: of each page its handle, and its address for devices.
    Grants(Vec<(GrantHandle, u64)>),
}

/// Machine frames mapped side by side; unmapped when dropped. Use it as [`SharedBytes`].
#[derive(Debug)]
pub struct Mapping {
    bytes: SharedBytes,
    kind: Kind,
}

impl Deref for Mapping {
    type Target = SharedBytes;

    fn deref(&self) -> &SharedBytes {
        &self.bytes
    }
}

/// Address space that is not mapped yet.
pub(crate) struct Window {
    pub va: u64,
    pages: u64,
}

impl Window {
    /// Reserves address space; the tables down to L1 are there.
    pub(crate) fn new(pages: usize) -> Result<Self, Errno> {
        let pages = pages as u64;
        let window = Self { va: reserve(pages).ok_or(Errno::ENOMEM)?, pages };
        let mut va = window.va;
        while va < window.va + pages * PAGE_SIZE {
            table::ensure_slot(va)?;
            va = (va | (512 * PAGE_SIZE - 1)) + 1;
        }
        Ok(window)
    }

    /// In a container grants are mapped at guest frames, to which the window's page tables lead.
    pub(crate) fn show_places(&self) -> Result<(), Errno> {
        let entries = (0..self.pages).map(|page| host_address(self.va + page * PAGE_SIZE) | READ_WRITE);
        // SAFETY: the window is not used yet.
        unsafe { table::set_entries(self.va, entries, DomId::SELF) }.map_err(|error| error.errno)
    }

    /// The guest frames that are kept for it.
    fn places(&self) -> Vec<u64> {
        let first = host_address(self.va) / PAGE_SIZE;
        (first..first + self.pages).collect()
    }

    /// Takes out what is at its guest frames.
    fn take_out(&self) {
        for place in self.places() {
            // Where nothing was put, nothing is.
            let _ = call::memory::remove_from_physmap(place);
        }
    }

    fn into_mapping(self, kind: Kind) -> Mapping {
        let len = (self.pages * PAGE_SIZE) as usize;
        // SAFETY: the window was mapped by the caller, and only the mapping unmaps it.
        let bytes = unsafe { SharedBytes::new(self.va as *mut u8, len) };
        core::mem::forget(self);
        Mapping { bytes, kind }
    }

    /// The window has been filled by grant operations.
    pub(crate) fn into_grants(self, handles: Vec<(GrantHandle, u64)>) -> Mapping {
        self.into_mapping(Kind::Grants(handles))
    }

    fn clear(&self) {
        let empty = (0..self.pages).map(|_| 0);
        // SAFETY: the window is not used any more.
        let cleared = unsafe { table::set_entries(self.va, empty, DomId::SELF) };
        cleared.expect("entries can always be cleared");
        call::mmu::flush_tlb().expect("the TLB can always be flushed");
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        release(self.va, self.pages);
    }
}

impl Mapping {
    fn map(frames: &[u64], flags: u64, owner: DomId) -> Result<Self, MapError> {
        Self::map_by(MMU_NORMAL_PT_UPDATE, frames, flags, owner)
    }

    fn map_by(command: u64, frames: &[u64], flags: u64, owner: DomId) -> Result<Self, MapError> {
        let window = Window::new(frames.len()).map_err(|errno| MapError { index: 0, errno })?;
        let entries = frames.iter().map(|mfn| mfn << 12 | flags);
        // SAFETY: the window is new.
        let mapped = unsafe { table::set_entries_by(command, window.va, entries, owner) };
        match mapped {
            Ok(()) => Ok(window.into_mapping(Kind::Frames)),
            Err(error) => {
                window.clear();
                Err(error)
            }
        }
    }

    /// Maps memory of another domain by machine frame (for a PV domain) or guest frame.
    ///
    /// # Errors
    /// Which page cannot be mapped, and why. Nothing stays mapped then.
    pub fn foreign(owner: DomId, frames: &[u64], access: Access) -> Result<Self, MapError> {
        match mode() {
            Mode::Pv => Self::map(frames, access.flags(), owner),
            Mode::Pvh => Self::place(frames.len(), |places| call::memory::add_foreign(owner, frames, places)),
        }
    }

    /// Maps frames of a resource of another domain's (`XENMEM_RESOURCE_*`), from its first on.
    ///
    /// # Errors
    /// Which page cannot be mapped, and why. Nothing stays mapped then.
    pub fn resource(owner: DomId, (kind, id): (u16, u32), pages: usize, access: Access) -> Result<Self, MapError> {
        let acquire = |frames: &mut [u64]| {
            call::memory::acquire_resource(owner, kind, id, 0, frames).map_err(|errno| MapError { index: 0, errno })
        };
        match mode() {
            Mode::Pv => {
                let mut frames = vec![0; pages];
                acquire(&mut frames)?;
                // Machine frames, also of a domain whose own numbers are guest frames.
                Self::map_by(MMU_PT_UPDATE_NO_TRANSLATE, &frames, access.flags(), owner)
            }
            Mode::Pvh => Self::place(pages, |places| acquire(places)),
        }
    }

    /// Pages that `put` puts at guest frames, to which page tables lead then.
    fn place(pages: usize, put: impl FnOnce(&mut [u64]) -> Result<(), MapError>) -> Result<Self, MapError> {
        let refused = |errno| MapError { index: 0, errno };
        let window = Window::new(pages).map_err(refused)?;
        let done = put(&mut window.places()).and_then(|()| window.show_places().map_err(refused));
        if let Err(error) = done {
            window.take_out();
            return Err(error);
        }
        Ok(window.into_mapping(Kind::Placed))
    }

    /// Maps machine frames that this domain may access but that are not its memory: the shared info page, its grant
    /// table.
    ///
    /// # Errors
    /// Which page cannot be mapped, and why.
    pub fn own(frames: &[u64], access: Access) -> Result<Self, MapError> {
        Self::map(frames, access.flags(), DomId::SELF)
    }

    /// Maps pages of this domain's own memory once more, behind a page that is not mapped: what runs downward past them
    /// faults. The unmapped page is the mapping's first.
    pub(crate) fn guarded(frames: &[u64]) -> Result<Self, MapError> {
        let window = Window::new(frames.len() + 1).map_err(|errno| MapError { index: 0, errno })?;
        let entries = core::iter::once(0).chain(frames.iter().map(|mfn| mfn << 12 | READ_WRITE));
        // SAFETY: the window is new.
        match unsafe { table::set_entries(window.va, entries, DomId::SELF) } {
            Ok(()) => Ok(window.into_mapping(Kind::Frames)),
            Err(error) => {
                window.clear();
                Err(error)
            }
        }
    }

    /// Maps `pages` pages of device memory at machine frame `first`, uncached.
    ///
    /// # Errors
    /// Which page cannot be mapped, and why.
    pub fn device(first: u64, pages: usize) -> Result<Self, MapError> {
        let frames: Vec<u64> = (first..first + pages as u64).collect();
        Self::map(&frames, READ_WRITE | UNCACHED, DomId::IO)
    }

    /// The machine address of a granted page, for a device that is to read or write it. The granting domain cannot take
    /// the page back while this mapping lives.
    pub fn machine_address(&self, page: usize) -> Option<u64> {
        match &self.kind {
            Kind::Frames | Kind::Placed => None,
            Kind::Grants(pages) => pages.get(page).map(|&(_, address)| address),
        }
    }

    /// Bytes that stay mapped for good.
    pub fn leak(self) -> &'static SharedBytes {
        let bytes = alloc::boxed::Box::leak(alloc::boxed::Box::new(self));
        &bytes.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let window = Window { va: self.bytes.address(), pages: self.bytes.len() as u64 / PAGE_SIZE };
        match &self.kind {
            Kind::Frames => window.clear(),
            Kind::Placed => {
                window.clear();
                window.take_out();
            }
            Kind::Grants(handles) => {
                let mut ops: Vec<GnttabUnmapGrantRef> = handles
                    .iter()
                    .zip(0u64..)
                    .map(|(&(handle, _), page)| GnttabUnmapGrantRef {
                        host_addr: host_address(window.va + page * PAGE_SIZE),
                        handle,
                        ..Default::default()
                    })
                    .collect();
                // SAFETY: the mapping is being dropped, so nothing uses it.
                let unmapped = unsafe { call::grant_table::unmap(&mut ops) };
                assert!(unmapped.is_ok() && ops.iter().all(|op| op.status == 0), "a mapped grant can be unmapped");
                if mode() == Mode::Pvh {
                    window.clear();
                }
            }
        }
    }
}
