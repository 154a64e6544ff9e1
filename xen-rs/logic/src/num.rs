//! Numbers as they come from a guest's registers, in the width that the public headers give them.

use xen_abi::ids::DomId;

/// A C `unsigned int` argument: the low half of its register, whatever the rest holds.
#[inline(always)]
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "that is the calling convention")]
pub const fn uint(register: u64) -> u32 {
    register as u32
}

/// A `domid_t` argument.
#[inline(always)]
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "that is the calling convention")]
pub const fn domid(register: u64) -> DomId {
    DomId(register as u16)
}

/// A C `int` result as it stands in rax.
#[inline(always)]
#[must_use]
pub fn int_result(value: u32) -> u64 {
    i64::from(value.cast_signed()).cast_unsigned()
}

/// A length or index of ours that the ABI gives 32 bits. What does not fit would be a table of billions of entries.
#[inline(always)]
#[must_use]
pub fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
