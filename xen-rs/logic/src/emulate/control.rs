//! The control registers as a PV guest sees them.

/// CR0.TS: task switched.
pub const CR0_TS: u64 = 1 << 3;

/// CR4 bits by name (SDM vol. 3A, 2.5).
pub mod cr4 {
    /// Time-stamp disable.
    pub const TSD: u64 = 1 << 2;
    /// Debugging extensions.
    pub const DE: u64 = 1 << 3;
    /// Physical address extension.
    pub const PAE: u64 = 1 << 5;
    /// Machine check.
    pub const MCE: u64 = 1 << 6;
    /// Global pages.
    pub const PGE: u64 = 1 << 7;
    /// FXSAVE.
    pub const OSFXSR: u64 = 1 << 9;
    /// SIMD exceptions.
    pub const OSXMMEXCPT: u64 = 1 << 10;
    /// RDFSBASE and its kin.
    pub const FSGSBASE: u64 = 1 << 16;
    /// Process-context identifiers.
    pub const PCIDE: u64 = 1 << 17;
    /// XSAVE.
    pub const OSXSAVE: u64 = 1 << 18;
}

/// The bits of CR4 that a guest chooses.
pub const CR4_GUEST: u64 = cr4::TSD | cr4::DE | cr4::FSGSBASE | cr4::OSXSAVE;
/// The bits of the host's CR4 that a guest is shown. Not PGE: a PV guest has no global pages.
pub const CR4_SHOWN: u64 = cr4::PAE | cr4::MCE | cr4::OSFXSR | cr4::OSXMMEXCPT;

/// A write to CR0 that tries to change more than TS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmodifiable;

/// Value of CR0 for a guest: the host's with the guest's own TS.
#[must_use]
pub const fn read_cr0(host: u64, task_switched: bool) -> u64 {
    host & !CR0_TS | if task_switched { CR0_TS } else { 0 }
}

/// Checks a write to CR0 and returns the new TS.
///
/// # Errors
/// [`Unmodifiable`]: #GP for the guest.
pub const fn write_cr0(host: u64, value: u64) -> Result<bool, Unmodifiable> {
    if (host ^ value) & !CR0_TS != 0 { Err(Unmodifiable) } else { Ok(value & CR0_TS != 0) }
}

/// Which CR4 bits of [`CR4_GUEST`] the domain's CPUID policy allows.
#[must_use]
pub const fn cr4_allowed(tsc: bool, de: bool, fsgsbase: bool, xsave: bool) -> u64 {
    let mut mask = 0;
    if tsc {
        mask |= cr4::TSD;
    }
    if de {
        mask |= cr4::DE;
    }
    if fsgsbase {
        mask |= cr4::FSGSBASE;
    }
    if xsave {
        mask |= cr4::OSXSAVE;
    }
    mask
}

/// The CR4 that a guest reads back after writing `value`: other bits are dropped in silence.
#[must_use]
pub const fn fix_cr4(value: u64, allowed: u64, host: u64) -> u64 {
    value & CR4_GUEST & allowed | host & CR4_SHOWN
}

/// The CR4 to run a guest with. OSXSAVE stays as the host has it; TSD and FSGSBASE must be honest, since ring 3 code
/// reads the hardware.
#[must_use]
pub const fn hardware_cr4(host: u64, guest: u64) -> u64 {
    let chosen = cr4::TSD | cr4::FSGSBASE;
    host & !chosen | guest & chosen & (host | cr4::TSD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cr0_changes_only_ts() {
        let host = 0x8005_0033;
        assert_eq!(read_cr0(host, true), host | CR0_TS);
        assert_eq!(write_cr0(host, host | CR0_TS), Ok(true));
        assert_eq!(write_cr0(host | CR0_TS, host), Ok(false));
        assert_eq!(write_cr0(host, host & !(1 << 16)), Err(Unmodifiable));
    }

    #[test]
    fn cr4_is_a_mixture() {
        let host = 0x3506e0; // FSGSBASE | OSXSAVE | SMEP | SMAP | ...
        let allowed = cr4_allowed(true, true, true, false);
        let seen = fix_cr4(u64::MAX, allowed, host);
        assert_eq!(seen & cr4::OSXSAVE, 0);
        assert_ne!(seen & cr4::FSGSBASE, 0);
        assert_eq!(seen & 0x30_0000, 0, "SMEP and SMAP are not shown");
        assert_eq!(hardware_cr4(host, seen) & cr4::FSGSBASE, cr4::FSGSBASE);
        assert_eq!(hardware_cr4(host, 0), host & !cr4::FSGSBASE);
        assert_eq!(hardware_cr4(host & !cr4::FSGSBASE, seen) & cr4::FSGSBASE, 0);
        assert_ne!(hardware_cr4(host, cr4::TSD) & cr4::TSD, 0);
    }
}
