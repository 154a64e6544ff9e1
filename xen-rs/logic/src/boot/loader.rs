//! What a boot loader has left in memory: multiboot 1 (GNU specification 0.6.96) and 2 (2.0), and PVH.
//!
//! The loader is trusted with the machine, but not to make no mistakes: whatever it has left, reading it comes to an end, and
//! needs little memory.

mod multiboot1;
mod multiboot2;
mod pvh;
#[cfg(test)]
mod tests;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use super::area::Area;
pub use super::area::Physical;
use super::memory_map::MemoryRange;

/// What PVH's entry point puts into EAX, since the loader leaves the register undefined: the structure's own magic number.
pub const PVH_MAGIC: u32 = pvh::MAGIC;
/// More modules and more ranges of memory than that are not looked at.
const MAX_ENTRIES: usize = 256;

/// A module: its command line, without the file name that some loaders put in front, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its command line.
    pub command_line: String,
    /// The physical addresses it occupies.
    pub phys: Range<u64>,
}

/// Everything that the loader said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The hypervisor's own command line, without a file name in front.
    pub command_line: String,
    /// Name of the boot loader, or nothing.
    pub loader: String,
    /// The machine's memory, sorted by address, without overlaps.
    pub memory_map: Vec<MemoryRange>,
    /// The modules in their order.
    pub modules: Vec<Module>,
    /// Physical address of ACPI's root pointer, where the loader knows it.
    pub rsdp: Option<u64>,
}

/// Reads the information at an address that a loader left with a magic number. None: it is no loader that we know.
pub fn read(magic: u32, at: u64, memory: impl Physical) -> Option<Told> {
    let info = Area { memory, at };
    match magic {
        multiboot1::MAGIC => Some(multiboot1::read(info)),
        multiboot2::MAGIC => Some(multiboot2::read(info)),
        pvh::MAGIC => pvh::read(info),
        _ => None,
    }
}

/// A command line without the file name in front, if there is one.
fn strip_name(line: &str, name_in_front: bool) -> String {
    let line = line.trim();
    if !name_in_front {
        return line.to_string();
    }
    line.split_once(char::is_whitespace).map_or("", |(_, arguments)| arguments.trim()).to_string()
}
