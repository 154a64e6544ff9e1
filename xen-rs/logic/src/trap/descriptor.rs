//! Which segment descriptors a PV guest may have in its GDT and LDT, and how they are defused.
//!
//! Code and data segments are harmless at any base and limit once their privilege is 3. System descriptors would
//! enter ring 0, so only a call gate is taken, at privilege 0: using it raises #GP.

use super::selector;

const TYPE_SHIFT: u32 = 40;
const S: u64 = 1 << 44;
const DPL_SHIFT: u32 = 45;
const DPL: u64 = 3 << DPL_SHIFT;
const PRESENT: u64 = 1 << 47;

const TYPE_NULL: u64 = 0;
const TYPE_CALL_GATE: u64 = 0xc;

/// The descriptor cannot be allowed in any form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden;

/// A descriptor that may be installed: the proof for writing it into a table in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked(u64);

impl Checked {
    /// Checks one, in the form that [`check`] gives it.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub const fn new(raw: u64) -> Result<Self, Forbidden> {
        match check(raw) {
            Ok(raw) => Ok(Self(raw)),
            Err(forbidden) => Err(forbidden),
        }
    }

    /// Its value.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// Checks a descriptor and returns it in the form in which it may be installed.
///
/// # Errors
/// [`Forbidden`]: the caller answers `-EINVAL`, or refuses the page its type.
pub const fn check(raw: u64) -> Result<u64, Forbidden> {
    if raw & PRESENT == 0 {
        return Ok(raw); // any use of it faults
    }
    let wanted = raw & DPL;
    let raw = raw | DPL;
    if raw & S != 0 {
        return Ok(raw);
    }
    match raw >> TYPE_SHIFT & 0xf {
        // The second half of a call gate looks like this.
        TYPE_NULL => Ok(raw),
        TYPE_CALL_GATE => check_call_gate(raw & !DPL, wanted >> DPL_SHIFT),
        _ => Err(Forbidden),
    }
}

const fn check_call_gate(raw: u64, _wanted: u64) -> Result<u64, Forbidden> {
    #[allow(clippy::cast_possible_truncation, reason = "the selector field is 16 bits wide")]
    let target = (raw >> 16) as u16;
    if !target_is_allowed(target) {
        return Err(Forbidden);
    }
    // Bits 0-7 of the upper half are reserved in a 64-bit gate.
    if raw >> 32 & 0xff != 0 {
        return Err(Forbidden);
    }
    // For a 64-bit guest every gate aims at ring 3: the level that it was meant for is kept in the selector.
    Ok(raw & !(3 << 16) | 3 << 16)
}

/// Whether a gate may name the selector: its own tables, or the flat code segment.
const fn target_is_allowed(target: u16) -> bool {
    const LOCAL: u16 = 4;
    target & LOCAL != 0 || target >> 3 < selector::FIRST_RESERVED_ENTRY || target as u64 == selector::FLAT_CODE64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privilege_is_forced_to_3() {
        assert_eq!(check(0x00af_9b00_0000_ffff), Ok(0x00af_fb00_0000_ffff), "64-bit code, ring 0");
        assert_eq!(check(0x00cf_f300_0000_ffff), Ok(0x00cf_f300_0000_ffff));
        assert_eq!(check(0), Ok(0));
        assert_eq!(check(0x0000_1200_dead_beef), Ok(0x0000_1200_dead_beef), "absent ones stay as they are");
    }

    #[test]
    fn system_segments_are_refused() {
        for kind in [0x2u64, 0x5, 0x9, 0xb, 0xe, 0xf] {
            assert_eq!(check(PRESENT | DPL | kind << TYPE_SHIFT), Err(Forbidden), "type {kind:x}");
        }
    }

    #[test]
    fn call_gates_are_defused() {
        let gate = |cs: u64| PRESENT | DPL | TYPE_CALL_GATE << TYPE_SHIFT | cs << 16 | 0x1234;
        let kept = check(gate(0xe033)).unwrap();
        assert_eq!(kept & DPL, 0);
        assert_eq!(kept & 0xffff, 0x1234);
        assert_eq!(check(gate(0xe008)), Err(Forbidden));
        assert!(check(gate(0x33)).is_ok());
        assert_eq!(check(gate(0x33) | 1 << 32), Err(Forbidden));
    }
}
