//! Model-specific registers as a PVH guest sees them. What the hardware exchanges with the guest does not come here; what is
//! not here goes by the list of PV guests ([`crate::msr`]), and what is not there either raises #GP.

use crate::msr::{Fault, index};

/// Where the value of a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// EFER of the container.
    Efer,
    /// PAT of the container.
    Pat,
    /// A register of the local APIC, by its x2APIC number, or APIC_BASE and the TSC deadline.
    Apic(u32),
    /// MTRRcap: no ranges, fixed or variable.
    MtrrCapability,
    /// MTRRdefType: the guest's, and nothing follows from it.
    MtrrDefault,
    /// It is shared with PV guests.
    Common,
}

/// MTRRs are on, and everything is write-back (SDM vol. 3A, 12.11.2.1).
pub const MTRR_DEFAULT: u64 = 1 << 11 | 6;

const MTRR_CAPABILITY: u32 = 0xfe;
const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
const TSC_DEADLINE: u32 = 0x6e0;

/// Where a register is.
#[inline]
#[must_use]
pub const fn place(number: u32) -> Place {
    match number {
        index::EFER => Place::Efer,
        index::PAT => Place::Pat,
        index::APIC_BASE | TSC_DEADLINE | 0x800..=0x8ff => Place::Apic(number),
        MTRR_CAPABILITY => Place::MtrrCapability,
        MTRR_DEFAULT_TYPE => Place::MtrrDefault,
        _ => Place::Common,
    }
}

/// What a guest reads of a register that is not there and that kernels read all the same: AMD's enabling of C1E, as Xen answers
/// guests in containers.
#[cold]
pub const fn read_missing(number: u32) -> Result<u64, Fault> {
    const ENABLE_C1E: u32 = 0xc001_0055;
    if number == ENABLE_C1E { Ok(0) } else { Err(Fault) }
}

const SCE: u64 = 1;
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;
const NXE: u64 = 1 << 11;
const FFXSR: u64 = 1 << 14;

/// The EFER that a write leaves; `paging`: CR0.PG is set.
///
/// # Errors
/// A bit that the guest has not, or long mode changed under paging.
pub const fn efer(old: u64, new: u64, paging: bool, nx: bool, ffxsr: bool) -> Result<u64, Fault> {
    let mut allowed = SCE | LME | LMA;
    if nx {
        allowed |= NXE;
    }
    if ffxsr {
        allowed |= FFXSR;
    }
    if new & !allowed != 0 || (paging && (new ^ old) & LME != 0) {
        return Err(Fault);
    }
    // The CPU alone decides whether long mode is active.
    Ok(new & !LMA | old & LMA)
}

/// Whether MTRRdefType takes a value: a memory type, and bits 10 and 11 (SDM vol. 3A, 12.11.2.1). All of a guest's memory is
/// write-back whatever it says, as where no device of its sees memory past the caches.
#[must_use]
pub const fn is_mtrr_default(value: u64) -> bool {
    value & !0xcff == 0 && matches!(value & 0xff, 0 | 1 | 4..=6)
}

/// Whether each byte of a page attribute table is a memory type that there is.
#[must_use]
pub const fn is_pat(value: u64) -> bool {
    let mut rest = value;
    let mut i = 0;
    while i < 8 {
        if !matches!(rest & 0xff, 0 | 1 | 4..=7) {
            return false;
        }
        rest >>= 8;
        i += 1;
    }
    true
}

#[cfg(all(test, not(loom)))]
mod unit {
    use super::*;

    #[test]
    fn efer_is_the_guests_within_limits() {
        assert_eq!(efer(0, LME | SCE, false, true, false), Ok(LME | SCE));
        assert_eq!(efer(LME | LMA, LME | NXE, true, true, false), Ok(LME | LMA | NXE));
        assert_eq!(efer(LME | LMA, NXE, true, true, false), Err(Fault));
        assert_eq!(efer(0, NXE, false, false, false), Err(Fault));
        // SVME.
        assert_eq!(efer(0, 1 << 12, false, true, true), Err(Fault));
        assert_eq!(efer(0, LMA, false, true, true), Ok(0));
    }

    #[test]
    fn what_is_missing() {
        assert_eq!(read_missing(0xc001_0055), Ok(0));
        assert_eq!(read_missing(0xc001_0056), Err(Fault));
    }

    #[test]
    fn memory_types() {
        assert!(is_mtrr_default(MTRR_DEFAULT) && is_mtrr_default(0) && is_mtrr_default(0xc01));
        assert!(!is_mtrr_default(2) && !is_mtrr_default(7) && !is_mtrr_default(0x1006) && !is_mtrr_default(0x106));
        assert!(is_pat(0x0007_0406_0007_0406) && is_pat(0x0000_0501_0007_0406));
        assert!(!is_pat(2) && !is_pat(0x0300_0000_0000_0000) && !is_pat(8));
    }
}
