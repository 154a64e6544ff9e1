//! Page-table entries as a PV guest may write them, and as they are stored.
//!
//! Bit numbers: SDM vol. 3A 4.5; what a guest may set: Xen public header `arch-x86/xen.h`, and the rule that kernel and
//! user of a 64-bit PV guest both run in ring 3: every present entry gets USER, and an L1 entry without USER is marked
//! GUEST_KERNEL, which keeps it from being global. So the switch between the two page-table roots evicts it.

use xen_abi::ids::Mfn;

use super::env::Table;
use super::word::Kind;

/// A page-table entry of any level.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry(pub u64);

impl core::fmt::Debug for Entry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// The bits of an entry.
#[allow(missing_docs, reason = "named as in the SDM")]
pub mod bit {
    pub const PRESENT: u64 = 1 << 0;
    pub const RW: u64 = 1 << 1;
    pub const USER: u64 = 1 << 2;
    pub const PWT: u64 = 1 << 3;
    pub const PCD: u64 = 1 << 4;
    pub const ACCESSED: u64 = 1 << 5;
    pub const DIRTY: u64 = 1 << 6;
    /// In an L1 entry.
    pub const PAT: u64 = 1 << 7;
    /// In an L2 or L3 entry.
    pub const PSE: u64 = 1 << 7;
    pub const GLOBAL: u64 = 1 << 8;
    pub const AVAIL: u64 = 7 << 9;
    /// Bits 52 to 62: for software.
    pub const AVAIL_HIGH: u64 = 0x7ff << 52;
    /// A guest-kernel mapping (bit 52), set by us.
    pub const GUEST_KERNEL: u64 = 1 << 52;
    pub const NX: u64 = 1 << 63;
    /// Where the frame number is.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    /// How the mapping is cached.
    pub const CACHING: u64 = PWT | PCD | PAT;
    /// Uncacheable in Xen's page attribute table 0x050100070406 (PCD and PWT: entry 3).
    pub const UC: u64 = PCD | PWT;
}

/// Bits that a guest may change without a new validation of the entry: they affect neither what is mapped, nor whether
/// it can be written, nor how it is cached.
const HARMLESS: u64 = bit::NX | bit::AVAIL_HIGH | bit::AVAIL | bit::GLOBAL | bit::DIRTY | bit::ACCESSED | bit::USER;

impl Entry {
    /// Whether the CPU uses it.
    #[inline(always)]
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 & bit::PRESENT != 0
    }

    /// Whether it allows writing.
    #[inline(always)]
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.0 & bit::RW != 0
    }

    /// The frame it points to.
    #[inline(always)]
    #[must_use]
    pub const fn mfn(self) -> Mfn {
        Mfn((self.0 & bit::ADDRESS) >> 12)
    }

    /// The same for another frame.
    #[must_use]
    pub const fn with_mfn(self, mfn: Mfn) -> Self {
        Entry(self.0 & !bit::ADDRESS | (mfn.0 << 12) & bit::ADDRESS)
    }

    /// Whether it points to the table that it is in.
    #[inline(always)]
    pub(super) fn is_own(self, table: &Table<'_>) -> bool {
        self.mfn() == table.mfn()
    }

    /// Bits that no guest may set in a present entry of a table of this kind. `caching`: the domain may choose how its
    /// mappings are cached, since it has been given I/O memory or ports. `nx`: the CPU has the no-execute bit.
    #[inline(always)]
    #[must_use]
    pub const fn forbidden(kind: Kind, caching: bool, nx: bool) -> u64 {
        let nx = if nx { 0 } else { bit::NX };
        match kind {
            Kind::L1 if caching => nx,
            Kind::L1 => bit::CACHING | nx,
            _ => bit::CACHING | bit::GLOBAL | nx,
        }
    }

    /// The entry as it is stored in a table of this kind.
    #[inline(always)]
    #[must_use]
    pub const fn adjusted(self, kind: Kind) -> Entry {
        if !self.is_present() {
            return self;
        }
        if !matches!(kind, Kind::L1) {
            return Entry(self.0 | bit::USER);
        }
        if self.0 & bit::USER == 0 {
            Entry((self.0 | bit::GUEST_KERNEL | bit::USER) & !bit::GLOBAL)
        } else if self.0 & bit::GUEST_KERNEL == 0 {
            Entry(self.0 | bit::GLOBAL)
        } else {
            Entry(self.0 & !bit::GLOBAL)
        }
    }

    /// Whether a change from `self` to `new` (both present) leaves every counted reference as it is.
    #[inline(always)]
    #[must_use]
    pub const fn same_reference(self, new: Entry, kind: Kind) -> bool {
        // Above L1 it makes no difference to the table below whether it is reached for writing.
        let harmless = if matches!(kind, Kind::L1) { HARMLESS } else { HARMLESS | bit::RW };
        (self.0 ^ new.0) & !harmless == 0
    }

    /// Whether a change from `self` to `new` (both present, of an L1) is one of the right to write and nothing else that
    /// matters.
    #[inline(always)]
    #[must_use]
    pub const fn differs_in_write_only(self, new: Entry) -> bool {
        (self.0 ^ new.0) & !HARMLESS == bit::RW
    }

    /// Index of the caching type in the page attribute table.
    #[inline]
    const fn pat_index(self) -> u64 {
        ((self.0 & bit::PAT) >> 5) | ((self.0 & bit::PCD) >> 3) | ((self.0 & bit::PWT) >> 3)
    }

    /// The same without the right to write.
    #[inline]
    #[must_use]
    pub const fn read_only(self) -> Entry {
        Entry(self.0 & !bit::RW)
    }

    /// A mapping of device memory: cached types are forced to uncacheable.
    #[inline]
    #[must_use]
    pub const fn for_device(self) -> Entry {
        // Xen's table: 0 WB, 1 WT, 2 UC-, 3 UC, 4 WC, 5 WP, 6 and 7 UC.
        match self.pat_index() {
            0 | 1 | 5 => Entry((self.0 & !bit::CACHING) | bit::UC),
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_entries_are_never_global() {
        let kernel = Entry(bit::PRESENT | bit::RW | bit::GLOBAL).adjusted(Kind::L1);
        assert_eq!(kernel.0, bit::PRESENT | bit::RW | bit::USER | bit::GUEST_KERNEL);
        let user = Entry(bit::PRESENT | bit::USER).adjusted(Kind::L1);
        assert_eq!(user.0, bit::PRESENT | bit::USER | bit::GLOBAL);
        let smuggled = Entry(bit::PRESENT | bit::USER | bit::GLOBAL | bit::GUEST_KERNEL).adjusted(Kind::L1);
        assert_eq!(smuggled.0 & bit::GLOBAL, 0);
        assert_eq!(Entry(bit::RW).adjusted(Kind::L1).0, bit::RW);
        assert_eq!(Entry(bit::PRESENT).adjusted(Kind::L3).0, bit::PRESENT | bit::USER);
    }

    #[test]
    fn device_memory_is_never_cached() {
        assert_eq!(Entry(bit::PRESENT).for_device().0, bit::PRESENT | bit::UC);
        assert_eq!(Entry(bit::PRESENT | bit::PAT).for_device().0, bit::PRESENT | bit::PAT);
        assert_eq!(Entry(bit::PRESENT | bit::PAT | bit::PWT).for_device().0, bit::PRESENT | bit::UC);
        assert_eq!(Entry(bit::PRESENT | bit::PCD).for_device().0, bit::PRESENT | bit::PCD);
    }

    #[test]
    fn forbidden_bits() {
        assert_eq!(Entry::forbidden(Kind::L1, false, true), bit::CACHING);
        assert_eq!(Entry::forbidden(Kind::L1, true, true), 0);
        assert_eq!(Entry::forbidden(Kind::L3, true, false), bit::CACHING | bit::GLOBAL | bit::NX);
    }
}
