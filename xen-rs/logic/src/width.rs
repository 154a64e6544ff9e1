//! How wide `unsigned long` is for a guest's kernel, and where that puts what it shares with the hypervisor: the bits of
//! its ports and its wall clock in `shared_info`, the selector in `vcpu_info` (public headers `xen.h`, `arch-x86/xen.h`).
//!
//! The pending bits, the marks of upcalls and the time record are at the same place in both forms.

use core::mem::offset_of;

use xen_abi::arch_x86::{SharedInfo, VcpuInfo};
use xen_abi::compat;
use xen_abi::ids::Port;

/// The two widths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Width {
    /// 64-bit kernels, and every domain at its start.
    #[default]
    Long64,
    /// Kernels that are 32-bit throughout.
    Long32,
}

/// Offsets of the wall clock's words in the shared page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallPlaces {
    /// Odd while it is written.
    pub version: usize,
    /// Seconds, low half.
    pub sec: usize,
    /// Nanoseconds.
    pub nsec: usize,
    /// Seconds, high half.
    pub sec_hi: usize,
}

const _: () = {
    assert!(offset_of!(compat::SharedInfo, evtchn_pending) == offset_of!(SharedInfo, evtchn_pending));
    assert!(size_of::<compat::VcpuInfo>() == size_of::<VcpuInfo>());
    assert!(offset_of!(compat::VcpuInfo, evtchn_upcall_pending) == offset_of!(VcpuInfo, evtchn_upcall_pending));
    assert!(offset_of!(compat::VcpuInfo, evtchn_upcall_mask) == offset_of!(VcpuInfo, evtchn_upcall_mask));
    assert!(offset_of!(compat::VcpuInfo, time) == offset_of!(VcpuInfo, time));
};

impl Width {
    /// Bits of a word.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Long64 => u64::BITS,
            Self::Long32 => u32::BITS,
        }
    }

    /// Ports of the 2-level layout, port 0 among them: a bit of the selector for each word of them.
    #[inline(always)]
    #[must_use]
    pub const fn ports(self) -> u32 {
        self.bits() * self.bits()
    }

    /// Whether there is a bit for a port, which is one of the wider form's.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, port: Port) -> bool {
        matches!(self, Self::Long64) || port.0 < self.ports()
    }

    /// Offset of `evtchn_mask` in the shared page.
    #[inline(always)]
    #[must_use]
    pub const fn mask(self) -> usize {
        match self {
            Self::Long64 => offset_of!(SharedInfo, evtchn_mask),
            Self::Long32 => offset_of!(compat::SharedInfo, evtchn_mask),
        }
    }

    /// The word that a port's bit is in: which bit of the selector stands for it.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, port: Port) -> u32 {
        port.0 / self.bits()
    }

    /// Where a bit of the selector is: the offset in `vcpu_info` of 64 bits, and the bit of them.
    #[inline(always)]
    #[must_use]
    pub const fn selector(self, word: u32) -> (usize, u32) {
        match self {
            Self::Long64 => (offset_of!(VcpuInfo, evtchn_pending_sel), word),
            // The upper half of the word that begins with the marks of upcalls.
            Self::Long32 => (0, u32::BITS + word % u32::BITS),
        }
    }

    /// The whole selector: its offset in `vcpu_info`, in 64 bits, and which of them it is.
    #[must_use]
    pub const fn selectors(self) -> (usize, u64) {
        let (at, first) = self.selector(0);
        (at, u64::MAX << first)
    }

    /// Where the wall clock is in the shared page.
    #[must_use]
    pub const fn wall_clock(self) -> WallPlaces {
        match self {
            Self::Long64 => WallPlaces {
                version: offset_of!(SharedInfo, wc_version),
                sec: offset_of!(SharedInfo, wc_sec),
                nsec: offset_of!(SharedInfo, wc_nsec),
                sec_hi: offset_of!(SharedInfo, wc_sec_hi),
            },
            Self::Long32 => WallPlaces {
                version: offset_of!(compat::SharedInfo, wc_version),
                sec: offset_of!(compat::SharedInfo, wc_sec),
                nsec: offset_of!(compat::SharedInfo, wc_nsec),
                sec_hi: offset_of!(compat::SharedInfo, arch.wc_sec_hi),
            },
        }
    }
}

#[cfg(all(test, not(loom)))]
mod unit {
    use super::*;

    /// Writes a selector's bit as the hypervisor does, and finds it as the guest does.
    #[test]
    fn a_selectors_bit_is_where_the_guest_looks() {
        for (width, at) in [
            (Width::Long64, offset_of!(VcpuInfo, evtchn_pending_sel)),
            (Width::Long32, offset_of!(compat::VcpuInfo, evtchn_pending_sel)),
        ] {
            for port in (0..width.ports()).map(Port) {
                let mut info = [0u8; size_of::<VcpuInfo>()];
                let (word, bit) = width.selector(width.word(port));
                assert!(word % 8 == 0 && bit < 64);
                info[word..word + 8].copy_from_slice(&(1u64 << bit).to_le_bytes());
                let seen = (port.0 / width.bits()) as usize;
                assert_eq!(info[at + seen / 8], 1 << (seen % 8), "{width:?} {port:?}");
                let (all, mask) = width.selectors();
                assert!(all == word && mask & 1 << bit != 0);
            }
        }
        assert_eq!(Width::Long32.selectors(), (0, 0xffff_ffff_0000_0000), "neither the mark of an upcall nor its mask");
    }

    #[test]
    fn there_are_as_many_ports_as_bits() {
        assert_eq!((Width::Long64.ports(), Width::Long32.ports()), (4096, 1024));
        assert!(Width::Long32.has(Port(1023)) && !Width::Long32.has(Port(1024)) && Width::Long64.has(Port(4095)));
        // The masks begin where the pending bits end.
        let pending = offset_of!(SharedInfo, evtchn_pending);
        for width in [Width::Long64, Width::Long32] {
            assert_eq!(width.mask(), pending + width.ports() as usize / 8);
            assert_eq!(width.wall_clock().version, width.mask() + width.ports() as usize / 8);
        }
    }
}
