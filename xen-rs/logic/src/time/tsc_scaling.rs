//! A guest's TSC at another rate than the CPU's, made by the hardware: the CPU's is multiplied by a fixed-point number, and an
//! offset is added (SDM vol. 3C, 26.3 "RDTSC"; APM vol. 2, 15.30.5).

use super::Scale;

/// What the hardware can multiply by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaling {
    /// How many bits of the multiplier are behind the point, at most 48.
    pub fraction: u8,
    /// The largest multiplier.
    pub most: u64,
}

impl Scaling {
    /// VT-x: 16.48.
    pub const VMX: Self = Self { fraction: 48, most: u64::MAX };
    /// AMD-V: 8.32.
    pub const SVM: Self = Self { fraction: 32, most: (1 << 40) - 1 };

    /// The multiplier for a guest's frequency on a CPU with another one. `None`: there is none that is right to a millionth.
    #[must_use]
    pub fn multiplier(&self, guest_khz: u32, host_hertz: u64) -> Option<u64> {
        let (wanted, host) = ((u128::from(guest_khz) * 1000) << self.fraction, u128::from(host_hertz));
        let nearest = wanted.checked_add(host / 2)?.checked_div(host)?;
        let multiplier = u64::try_from(nearest).ok().filter(|found| (1..=self.most).contains(found))?;
        let wrong = (nearest * host).abs_diff(wanted);
        (wrong <= wanted / 1_000_000).then_some(multiplier)
    }
}

/// A TSC that the hardware makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaled {
    /// The fixed-point number.
    pub multiplier: u64,
    /// How many of its bits are behind the point.
    pub fraction: u8,
    /// Added.
    pub offset: u64,
}

impl Scaled {
    /// With this multiplier, and reading `value` when the CPU's reads `ticks`.
    #[must_use]
    pub fn new(multiplier: u64, fraction: u8, ticks: u64, value: u64) -> Self {
        let from_zero = Self { multiplier, fraction, offset: 0 };
        Self { offset: value.wrapping_sub(from_zero.at(ticks)), ..from_zero }
    }

    /// What it reads when the CPU's reads `ticks`: as the hardware computes it.
    #[must_use]
    #[inline]
    pub const fn at(&self, ticks: u64) -> u64 {
        #[allow(clippy::cast_possible_truncation, reason = "the counter wraps")]
        let scaled = ((ticks as u128 * self.multiplier as u128) >> self.fraction) as u64;
        scaled.wrapping_add(self.offset)
    }

    /// The least number of the CPU's ticks in which it counts this far.
    #[must_use]
    pub fn host_ticks(&self, span: u64) -> u64 {
        let ticks = (u128::from(span) << self.fraction).div_ceil(u128::from(self.multiplier.max(1)));
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// How its ticks become nanoseconds where the CPU's become them by `host`. `None`: by no factor that a record can hold.
    #[must_use]
    pub fn scale(&self, host: Scale) -> Option<Scale> {
        /// What keeps 32 bits of any quotient.
        const BITS: u32 = 80;
        let factor = (u128::from(host.mul) << BITS).checked_div(u128::from(self.multiplier))?;
        let spare = (128 - factor.leading_zeros()).checked_sub(32)?;
        let mul = u32::try_from(factor >> spare).ok()?;
        let shift = i32::from(host.shift) + i32::from(self.fraction) + spare.cast_signed() - BITS.cast_signed();
        Some(Scale { mul, shift: i8::try_from(shift).ok().filter(|shift| (-31..=31).contains(shift))? })
    }
}

#[cfg(all(test, not(loom)))]
mod unit {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Nanos;

    const EACH: [Scaling; 2] = [Scaling::VMX, Scaling::SVM];

    #[test]
    fn the_manuals_examples() {
        // Twice as fast, half as fast, as fast.
        assert_eq!(Scaling::VMX.multiplier(4_000_000, 2_000_000_000), Some(2 << 48));
        assert_eq!(Scaling::SVM.multiplier(1_000_000, 2_000_000_000), Some(1 << 31));
        for scaling in EACH {
            assert_eq!(scaling.multiplier(2_000_000, 2_000_000_000), Some(1 << scaling.fraction));
        }
    }

    #[test]
    fn what_no_multiplier_says_is_refused() {
        // More than the bits before the point hold.
        assert_eq!(Scaling::SVM.multiplier(256_000, 1_000_000), None);
        assert!(Scaling::SVM.multiplier(255_000, 1_000_000).is_some());
        assert_eq!(Scaling::VMX.multiplier(u32::MAX, 1000), None);
        // Less than the bits behind it say exactly enough.
        assert_eq!(Scaling::SVM.multiplier(1, 4_000_000_000), None);
        assert!(Scaling::VMX.multiplier(1, 4_000_000_000).is_some());
        for scaling in EACH {
            assert_eq!(scaling.multiplier(0, 1_000_000_000), None);
            assert_eq!(scaling.multiplier(1_000_000, 0), None);
            assert_eq!(scaling.multiplier(1, u64::MAX), None);
        }
    }

    #[test]
    fn it_goes_on_from_where_it_is_set() {
        let scaled = Scaled::new(3 << 47, 48, 1 << 63, 1000);
        assert_eq!((scaled.at(1 << 63), scaled.at((1 << 63) + 2)), (1000, 1003));
        // The counter wraps, and so does what is made of it.
        let late = Scaled::new(1 << 49, 48, u64::MAX - 1, 7);
        assert_eq!((late.at(u64::MAX - 1), late.at(u64::MAX)), (7, 9));
        assert_eq!(Scaled { multiplier: 1, fraction: 48, offset: 0 }.host_ticks(u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn the_multiplier_is_the_nearest_there_is(khz in 1000u32.., hertz in 1_000_000u64..20_000_000_000) {
            for scaling in EACH {
                let Some(multiplier) = scaling.multiplier(khz, hertz) else { continue };
                let wanted = (u128::from(khz) * 1000) << scaling.fraction;
                let wrong = |multiplier: u64| (u128::from(multiplier) * u128::from(hertz)).abs_diff(wanted);
                prop_assert!(wrong(multiplier) <= wrong(multiplier - 1));
                prop_assert!(multiplier == scaling.most || wrong(multiplier) <= wrong(multiplier + 1));
            }
        }

        #[test]
        fn a_span_is_over_when_its_ticks_have_passed(
            multiplier in 1u64 << 38..1 << 58, start in any::<u64>(), value in any::<u64>(), span in 0u64..1 << 40,
        ) {
            let scaled = Scaled::new(multiplier, 48, start, value);
            let passed = scaled.host_ticks(span);
            let counted = |ticks: u64| scaled.at(start.wrapping_add(ticks)).wrapping_sub(value);
            // Rounding down at the start and at the end leaves one tick open.
            if start.checked_add(passed).is_some() {
                prop_assert!(counted(passed) + 1 >= span);
                prop_assert!(passed < 2 || counted(passed - 2) <= span);
            }
        }

        #[test]
        fn a_guests_nanoseconds_are_the_hosts(
            khz in 100_000u32..10_000_000, hertz in 500_000_000u64..6_000_000_000, ticks in 1u64 << 20..1 << 44,
        ) {
            let host = Scale::from_hertz(hertz).unwrap();
            for scaling in EACH {
                let Some(multiplier) = scaling.multiplier(khz, hertz) else { continue };
                let scaled = Scaled { multiplier, fraction: scaling.fraction, offset: 0 };
                let guest = scaled.scale(host).unwrap();
                prop_assert!(guest.mul >= 1 << 31);
                let (by_host, by_guest) = (host.nanos(ticks), guest.nanos(scaled.at(ticks)));
                // A part of 2^31 for each factor, and what the shift drops of a tick.
                let wrong = by_host.0.abs_diff(by_guest.0);
                prop_assert!(wrong <= (by_host.0 >> 30) + 200, "{by_host:?} {by_guest:?}");
                // As the frequency says it, but for what the multiplier is off.
                let told = Scale::from_hertz(u64::from(khz) * 1000).unwrap();
                let Nanos(by_told) = told.nanos(scaled.at(ticks));
                prop_assert!(by_told.abs_diff(by_host.0) <= by_host.0 / 900_000 + 200);
            }
        }
    }
}
