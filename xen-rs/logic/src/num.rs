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

/// A guest's number that was found to be below `N`, to look something up by in a table of `N`.
///
/// It is made only by the check, so an unchecked number is no index:
///
/// ```
/// use logic::num::Bounded;
/// let table = [10, 20, 30, 40];
/// assert_eq!(Bounded::<4>::new(2).map(|index| *index.of(&table)), Some(30));
/// assert!(Bounded::<4>::new(4).is_none());
/// ```
///
/// ```compile_fail,E0423
/// use logic::num::Bounded;
/// let index = Bounded::<4>(7);
/// ```
///
/// nor is one that was checked against another length:
///
/// ```compile_fail,E0308
/// use logic::num::Bounded;
/// let table = [10, 20, 30, 40];
/// Bounded::<8>::new(7).map(|index| *index.of(&table));
/// ```
///
/// A CPU that goes on before the check is decided finds the number clamped: see [`index_below`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounded<const N: usize>(usize);

impl<const N: usize> Bounded<N> {
    /// The number, if it is below `N`.
    #[inline(always)]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "masked")]
    pub fn new(number: u64) -> Option<Self> {
        if !N.is_power_of_two() {
            return index_below(number, N).map(Bounded);
        }
        // The compiler must not see that the mask changes nothing by now.
        (number < N as u64).then(|| Bounded(core::hint::black_box(number as usize) & (N - 1)))
    }

    /// The entry of a table.
    #[inline(always)]
    #[allow(clippy::indexing_slicing, reason = "below N by construction")]
    pub const fn of<T>(self, table: &[T; N]) -> &T {
        &table[self.0]
    }

    /// The number.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

/// A guest's number as an index, if it is below `length`; also 0 to a CPU that speculates past the check, so that no
/// memory beyond a table is ever read by a guest's number (Spectre variant 1; Xen's `array_index_nospec`).
#[inline(always)]
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "usize has 64 bits here")]
pub fn index_below(number: u64, length: usize) -> Option<usize> {
    if number >= length as u64 {
        return None;
    }
    // The compiler must not see that this is all ones by now. For numbers and lengths below 2^63 the sign of the
    // difference says which is larger.
    let mask = (number as i64).wrapping_sub(core::hint::black_box(length) as i64) >> 63;
    Some((number & mask.cast_unsigned()) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_is_an_index() {
        for length in [0_usize, 1, 7, 4096] {
            for number in [0, 1, 6, 7, 4095, 4096, u64::from(u32::MAX), 1 << 63, u64::MAX] {
                let wanted = usize::try_from(number).ok().filter(|&index| index < length);
                assert_eq!(index_below(number, length), wanted, "{number} {length}");
                if length == 4096 {
                    assert_eq!(Bounded::<4096>::new(number).map(Bounded::index), wanted, "{number}");
                }
            }
        }
    }
}
