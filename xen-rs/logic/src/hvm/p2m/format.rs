//! The entries of nested page tables: Intel's EPT (SDM vol. 3C, 29.3.2) and AMD's NPT (APM vol. 2, 15.25, which takes the
//! format of ordinary page tables).
//!
//! Both leave bits 52 to 58 to software (EPT: 57 and above have a meaning only with controls that are never on); 52 and
//! 53 hold the [`Use`], 54 is for [`Format::EptSmallCode`]. Accessed and dirty are set from the start, so that no CPU has to write them.

use xen_abi::ids::Mfn;

use super::{Access, Order, Use};

/// Whose tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// VT-x.
    Ept,
    /// VT-x on a CPU that can be stopped by code in large pages (CVE-2018-12207): they are not executable, and split where
    /// code is to be run.
    EptSmallCode,
    /// AMD-V.
    Npt,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Nothing is there.
    Absent,
    /// The next lower table.
    Table(Mfn),
    /// Memory.
    Leaf { mfn: Mfn, access: Access, usage: Use },
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// EPT: the entry maps 2 MiB or 1 GiB; in NPT the bit is the same.
const LARGE: u64 = 1 << 7;
const USE_SHIFT: u32 = 52;
/// [`Format::EptSmallCode`]: what a large page is split into can be executed.
const CODE_WHEN_SMALL: u64 = 1 << 54;

mod ept {
    pub const READ: u64 = 1;
    pub const WRITE: u64 = 1 << 1;
    pub const EXECUTE: u64 = 1 << 2;
    pub const WRITE_BACK: u64 = 6 << 3;
    /// Whatever memory type the guest wants.
    pub const IGNORE_PAT: u64 = 1 << 6;
    pub const ACCESSED: u64 = 1 << 8;
    pub const DIRTY: u64 = 1 << 9;
}

mod npt {
    pub const PRESENT: u64 = 1;
    pub const WRITE: u64 = 1 << 1;
    /// The walk for a guest counts as one of user mode.
    pub const USER: u64 = 1 << 2;
    pub const ACCESSED: u64 = 1 << 5;
    pub const DIRTY: u64 = 1 << 6;
    pub const NO_EXECUTE: u64 = 1 << 63;
}

const fn given(condition: bool, bits: u64) -> u64 {
    if condition { bits } else { 0 }
}

impl Format {
    /// An entry that leads to the next lower table.
    #[must_use]
    pub(super) const fn table(self, mfn: Mfn) -> u64 {
        (mfn.0 << 12)
            | match self {
                Format::Ept | Format::EptSmallCode => ept::READ | ept::WRITE | ept::EXECUTE | ept::ACCESSED,
                Format::Npt => npt::PRESENT | npt::WRITE | npt::USER | npt::ACCESSED,
            }
    }

    /// An entry that maps memory.
    #[must_use]
    pub(super) const fn leaf(self, mfn: Mfn, order: Order, access: Access, usage: Use) -> u64 {
        let is_large = !matches!(order, Order::Page);
        let bits = match self {
            Format::Ept | Format::EptSmallCode => {
                let small_code = is_large && matches!(self, Format::EptSmallCode);
                let execute = if small_code { CODE_WHEN_SMALL } else { ept::EXECUTE };
                let rights = given(access.write, ept::WRITE) | given(access.execute, execute);
                ept::READ | rights | ept::WRITE_BACK | ept::IGNORE_PAT | ept::ACCESSED | ept::DIRTY
            }
            Format::Npt => {
                let rights = given(access.write, npt::WRITE) | given(!access.execute, npt::NO_EXECUTE);
                npt::PRESENT | npt::USER | rights | npt::ACCESSED | npt::DIRTY
            }
        };
        (mfn.0 << 12) | bits | given(is_large, LARGE) | (usage as u64) << USE_SHIFT
    }

    /// Reads an entry of a table of this level (0: the lowest).
    #[inline(always)]
    #[must_use]
    pub(super) const fn item(self, raw: u64, level: u8) -> Item {
        // Every entry in use can be read.
        if raw & 1 == 0 {
            return Item::Absent;
        }
        let mfn = Mfn((raw & ADDRESS) >> 12);
        if level > 0 && raw & LARGE == 0 {
            return Item::Table(mfn);
        }
        let usage = match raw >> USE_SHIFT & 3 {
            0 => Use::Ram,
            1 => Use::Shared,
            2 => Use::Grant,
            _ => Use::Foreign,
        };
        let access = match self {
            Format::Ept | Format::EptSmallCode => {
                Access { write: raw & ept::WRITE != 0, execute: raw & (ept::EXECUTE | CODE_WHEN_SMALL) != 0 }
            }
            Format::Npt => Access { write: raw & npt::WRITE != 0, execute: raw & npt::NO_EXECUTE == 0 },
        };
        Item::Leaf { mfn, access, usage }
    }

    /// What a CPU register holds to walk from this root: the EPT pointer (write-back, four levels, accessed and dirty
    /// flags where the CPU has them), or nested CR3.
    #[must_use]
    pub const fn pointer(self, root: Mfn, accessed_dirty: bool) -> u64 {
        match self {
            Format::Ept | Format::EptSmallCode => (root.0 << 12) | 6 | 3 << 3 | given(accessed_dirty, 1 << 6),
            Format::Npt => root.0 << 12,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod unit {
    use super::*;

    #[test]
    fn round_trips() {
        for format in [Format::Ept, Format::EptSmallCode, Format::Npt] {
            assert_eq!(format.item(0, 0), Item::Absent);
            assert_eq!(format.item(format.table(Mfn(77)), 2), Item::Table(Mfn(77)));
            for order in Order::ALL {
                for access in [Access::ALL, Access::DATA, Access::READ, Access { write: false, execute: true }] {
                    for usage in [Use::Ram, Use::Shared, Use::Grant, Use::Foreign] {
                        let raw = format.leaf(Mfn(1 << 18), order, access, usage);
                        assert_eq!(format.item(raw, order.level()), Item::Leaf { mfn: Mfn(1 << 18), access, usage });
                    }
                }
            }
        }
    }

    #[test]
    fn bits_are_the_manuals() {
        // SDM vol. 3C, table 29-6: R, W, X; write-back, the guest's PAT ignored; accessed, dirty.
        assert_eq!(
            Format::Ept.leaf(Mfn(1), Order::Page, Access::ALL, Use::Ram),
            0x1000 | 0b111 | 0b110 << 3 | 1 << 6 | 0x300
        );
        assert_eq!(Format::Ept.table(Mfn(2)), 0x2000 | 0x107);
        // Large ones without X, and with bit 54 instead.
        assert_eq!(Format::EptSmallCode.leaf(Mfn(1), Order::Page, Access::ALL, Use::Ram), 0x1000 | 0x377);
        assert_eq!(
            Format::EptSmallCode.leaf(Mfn(512), Order::Large, Access::ALL, Use::Ram),
            1 << 54 | 512 << 12 | 0x3f3
        );
        assert_eq!(Format::EptSmallCode.leaf(Mfn(512), Order::Large, Access::DATA, Use::Ram), 512 << 12 | 0x3f3);
        // APM vol. 2, 5.4: P, R/W, U/S, A, D, PS.
        assert_eq!(Format::Npt.leaf(Mfn(512), Order::Large, Access::ALL, Use::Ram), 512 << 12 | 0xe7);
        assert_eq!(Format::Npt.leaf(Mfn(1), Order::Page, Access::READ, Use::Ram), 1 << 63 | 0x1000 | 0x65);
        // SDM vol. 3C, 25.6.11: memory type 6, walk length 4 (minus one), bit 6.
        assert_eq!(Format::Ept.pointer(Mfn(5), true), 0x5000 | 0x5e);
        assert_eq!(Format::Npt.pointer(Mfn(5), true), 0x5000);
    }
}
