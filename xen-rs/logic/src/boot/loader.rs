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

use super::memory_map::MemoryRange;

/// What PVH's entry point puts into EAX, since the loader leaves the register undefined: the structure's own magic number.
pub const PVH_MAGIC: u32 = pvh::MAGIC;
/// Longer command lines are cut.
const MAX_LINE: usize = 4095;
/// More modules and more ranges of memory than that are not looked at.
const MAX_ENTRIES: usize = 256;

/// Physical memory.
pub trait Physical: Copy {
    /// A byte: zero where nothing can be read.
    fn byte(self, at: u64) -> u8;
}

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

/// A loader's structure, by its address.
#[derive(Clone, Copy)]
struct Area<P> {
    memory: P,
    at: u64,
}

impl<P: Physical> Area<P> {
    /// What another address, found in this structure, leads to.
    fn follow(self, at: u64) -> Self {
        Area { at, ..self }
    }

    fn byte(self, offset: u64) -> u8 {
        self.memory.byte(self.at.saturating_add(offset))
    }

    fn u32(self, offset: u64) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|i| self.byte(offset.saturating_add(i))))
    }

    fn u64(self, offset: u64) -> u64 {
        u64::from(self.u32(offset)) | u64::from(self.u32(offset.saturating_add(4))) << 32
    }

    /// The string at an address. Address 0 stands for no string.
    fn string_at(self, at: u64) -> String {
        if at == 0 { String::new() } else { self.follow(at).string(0) }
    }

    /// The string at an offset, in ASCII.
    fn string(self, offset: u64) -> String {
        (offset..)
            .take(MAX_LINE)
            .map(|at| self.byte(at))
            .take_while(|byte| *byte != 0)
            .map(|byte| if byte.is_ascii() { char::from(byte) } else { '?' })
            .collect()
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
