//! A device's registers in memory.

use core::fmt;
use core::sync::atomic::Ordering::{Acquire, Release};
use guest_pv::mem::{Mapping, PAGE_SIZE};

/// A part of a device's memory, mapped uncached. Accesses outside of it read as all ones and write nowhere, as those to a
/// bus do.
pub struct Registers {
    mapping: Mapping,
    /// Where the part begins in what is mapped.
    at: usize,
    len: usize,
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registers").field("len", &self.len).finish_non_exhaustive()
    }
}

macro_rules! access {
    ($read:ident, $write:ident, $ty:ty, $cell:ident) => {
        /// Reads a register.
        #[must_use]
        pub fn $read(&self, offset: usize) -> $ty {
            if !self.holds(offset, size_of::<$ty>()) {
                return <$ty>::MAX;
            }
            self.mapping.$cell(self.at + offset).load(Acquire)
        }

        /// Writes a register, after all that was written to memory before.
        pub fn $write(&self, offset: usize, value: $ty) {
            if self.holds(offset, size_of::<$ty>()) {
                self.mapping.$cell(self.at + offset).store(value, Release);
            }
        }
    };
}

impl Registers {
    /// Maps `len` bytes of a device's memory from a machine address on.
    ///
    /// # Errors
    /// What the hypervisor says; `EINVAL` for an address that is none.
    pub(crate) fn map(address: u64, len: usize) -> Result<Self, xen_abi::errno::Errno> {
        let at = (address % PAGE_SIZE) as usize;
        let pages = (at + len).div_ceil(PAGE_SIZE as usize);
        if address == 0 || len == 0 {
            return Err(xen_abi::errno::Errno::EINVAL);
        }
        let mapping = Mapping::device(address / PAGE_SIZE, pages).map_err(|error| error.errno)?;
        Ok(Self { mapping, at, len })
    }

    fn holds(&self, offset: usize, len: usize) -> bool {
        offset.is_multiple_of(len) && (self.at + offset).is_multiple_of(len) && offset + len <= self.len
    }

    /// Bytes of the part.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    access!(read8, write8, u8, u8_at);
    access!(read16, write16, u16, u16_at);
    access!(read32, write32, u32, u32_at);

    /// Reads 64 bits as two halves, the lower one first: not every device takes them in one.
    #[must_use]
    pub fn read64(&self, offset: usize) -> u64 {
        u64::from(self.read32(offset)) | u64::from(self.read32(offset + 4)) << 32
    }

    /// Writes 64 bits as two halves, the lower one first.
    pub fn write64(&self, offset: usize, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }
}
