//! What the boot loader told us, in the form that the hypervisor above works with.
//!
//! Unsafe: modules of the boot loader become slices.

use alloc::vec::Vec;
use core::ops::Range;
use logic::boot::loader::Told;
pub use logic::boot::memory_map::{MemoryKind, MemoryRange, clip};

/// One boot module, or memory taken at boot for a while: the only owner of the frames it lies in.
#[derive(Debug)]
pub struct Module {
    /// Its command line, without the file name that some loaders put in front.
    pub command_line: &'static str,
    pub(crate) phys: Range<u64>,
}

impl Module {
    /// The physical addresses it occupies (bytes).
    #[must_use]
    pub fn phys(&self) -> Range<u64> {
        self.phys.clone()
    }

    /// Its content, for as long as the module keeps its frames.
    #[cfg(target_os = "none")]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let start = crate::mem::direct_map::va_of_phys(self.phys.start);
        let length = (self.phys.end - self.phys.start) as usize;
        // SAFETY: the loader put it in RAM, which is in the direct map; the frames are this object's and nobody writes.
        unsafe { core::slice::from_raw_parts(start as *const u8, length) }
    }

    /// Its content, to be overwritten: a place to unpack something in.
    #[cfg(target_os = "none")]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let start = crate::mem::direct_map::va_of_phys(self.phys.start);
        let length = (self.phys.end - self.phys.start) as usize;
        // SAFETY: as in `bytes`, and the object is borrowed for writing.
        unsafe { core::slice::from_raw_parts_mut(start as *mut u8, length) }
    }
}

/// Everything the loader said.
#[derive(Debug)]
pub struct BootInfo {
    /// The hypervisor's own command line, without a file name in front.
    pub command_line: &'static str,
    /// Name of the boot loader, or nothing.
    pub loader: &'static str,
    /// The machine's memory, sorted by address, without overlaps.
    pub memory_map: Vec<MemoryRange>,
    /// The modules in their order: dom0's kernel, its ramdisk, and what else there is.
    pub modules: Vec<Module>,
    /// Physical address of ACPI's root pointer, where the loader knows it.
    pub rsdp: Option<u64>,
}

impl From<Told> for BootInfo {
    /// What was said, kept for good: the loader's memory is reused.
    fn from(told: Told) -> Self {
        let modules = told.modules.into_iter();
        Self {
            command_line: told.command_line.leak(),
            loader: told.loader.leak(),
            memory_map: told.memory_map,
            modules: modules.map(|one| Module { command_line: one.command_line.leak(), phys: one.phys }).collect(),
            rsdp: told.rsdp,
        }
    }
}
