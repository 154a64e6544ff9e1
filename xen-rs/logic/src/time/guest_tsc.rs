//! What a domain reads as its TSC: the CPU's own, or one that is counted for it by system time (`XEN_DOMCTL_settscinfo`,
//! Xen's `docs/man/xl.cfg.5`, "tsc_mode").

use xen_abi::domctl::TscInfo;
use xen_abi::errno::Errno;

use super::{Nanos, Scale, SystemClock, TimeBody};

/// Native where the host's can be trusted: here, always.
pub const TSC_MODE_DEFAULT: u32 = 0;
/// Every read is answered by the hypervisor.
pub const TSC_MODE_ALWAYS_EMULATE: u32 = 1;
/// The guest reads the CPU's.
pub const TSC_MODE_NEVER_EMULATE: u32 = 2;

/// A domain's TSC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestTsc {
    /// `TSC_MODE_*`.
    pub mode: u32,
    /// Its frequency where it is emulated.
    pub khz: u32,
    /// Counts how often the domain was restored, from 1.
    pub incarnation: u32,
    /// By [`Self::khz`].
    pub scale: Scale,
    /// The system time at which it reads 0: wraps for a domain that is older than the host.
    start: Nanos,
    /// No later reading is below this.
    last: u64,
}

impl GuestTsc {
    /// The CPU's own.
    #[must_use]
    pub const fn native() -> Self {
        let scale = Scale { mul: 0, shift: 0 };
        Self { mode: TSC_MODE_DEFAULT, khz: 0, incarnation: 0, scale, start: Nanos::ZERO, last: 0 }
    }

    /// Whether the hypervisor answers its reads.
    #[must_use]
    pub const fn is_emulated(&self) -> bool {
        self.mode == TSC_MODE_ALWAYS_EMULATE
    }

    /// The system time at which it began, as the hypervisor's CPUID leaves tell it: 0 where its readings have that in them.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        if self.is_emulated() { 0 } else { self.start.0 }
    }

    /// As the toolstack wants it. `cpu_khz`: the host's frequency, which an emulated one has if none is said.
    ///
    /// # Errors
    /// `EINVAL`: there is no such mode.
    pub fn set(&mut self, info: &TscInfo, now: Nanos, cpu_khz: u32) -> Result<(), Errno> {
        let mut new = Self { mode: info.tsc_mode, incarnation: info.incarnation.wrapping_add(1), last: 0, ..*self };
        match info.tsc_mode {
            TSC_MODE_DEFAULT | TSC_MODE_ALWAYS_EMULATE => {
                new.start = Nanos(now.0.wrapping_sub(info.elapsed_nsec));
                new.khz = if info.gtsc_khz == 0 { cpu_khz } else { info.gtsc_khz };
                new.scale = Scale::from_hertz(u64::from(new.khz) * 1000).ok_or(Errno::EINVAL)?;
            }
            TSC_MODE_NEVER_EMULATE => {}
            _ => return Err(Errno::EINVAL),
        }
        *self = new;
        Ok(())
    }

    /// What a restored domain goes on with. `ticks`: the CPU's TSC.
    #[must_use]
    pub fn info(&self, now: Nanos, ticks: u64, cpu_khz: u32) -> TscInfo {
        let (elapsed, khz) = match self.mode {
            TSC_MODE_NEVER_EMULATE => (0, 0),
            TSC_MODE_ALWAYS_EMULATE => (now.0.wrapping_sub(self.start.0), self.khz),
            _ => (self.scale.nanos(ticks).0, cpu_khz),
        };
        // What is negative is nothing.
        let elapsed_nsec = if elapsed.cast_signed() < 0 { 0 } else { elapsed };
        TscInfo {
            tsc_mode: self.mode,
            gtsc_khz: khz,
            incarnation: self.incarnation,
            elapsed_nsec,
            ..TscInfo::default()
        }
    }

    /// Reads the emulated one: never what was read before, on whichever CPU.
    pub fn read(&mut self, now: Nanos) -> u64 {
        let value = self.at(now);
        self.last = if value.wrapping_sub(self.last).cast_signed() > 0 { value } else { self.last.wrapping_add(1) };
        self.last
    }

    /// The emulated one at a time; before it began it wraps.
    #[must_use]
    pub fn at(&self, time: Nanos) -> u64 {
        let since = time.0.wrapping_sub(self.start.0);
        if since.cast_signed() < 0 {
            self.scale.ticks(Nanos(since.wrapping_neg())).wrapping_neg()
        } else {
            self.scale.ticks(Nanos(since))
        }
    }

    /// When the emulated one reads this.
    #[must_use]
    pub fn when(&self, ticks: u64, now: Nanos) -> Nanos {
        let ahead = ticks.saturating_sub(self.at(now));
        // So far ahead is never; a guest can ask for anything.
        let most = self.scale.ticks(Nanos(u64::MAX >> 2));
        now.after(self.scale.nanos(ahead.min(most)))
    }

    /// The record by which a guest makes system time of its readings.
    #[must_use]
    pub fn body(&self, clock: &SystemClock, stable: bool) -> TimeBody {
        TimeBody {
            tsc_timestamp: self.at(clock.time),
            tsc_to_system_mul: self.scale.mul,
            tsc_shift: self.scale.shift,
            ..TimeBody::new(clock, stable)
        }
    }
}

#[cfg(all(test, not(loom)))]
mod unit {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn emulated(khz: u32, elapsed_nsec: u64, now: u64) -> GuestTsc {
        let mut tsc = GuestTsc::native();
        let info = TscInfo { tsc_mode: TSC_MODE_ALWAYS_EMULATE, gtsc_khz: khz, elapsed_nsec, ..TscInfo::default() };
        tsc.set(&info, Nanos(now), 2_000_000).unwrap();
        tsc
    }

    #[test]
    fn it_counts_system_time() {
        let mut tsc = emulated(0, 0, 5 * SECOND);
        assert_eq!((tsc.khz, tsc.incarnation, tsc.is_emulated()), (2_000_000, 1, true));
        let second = tsc.read(Nanos(6 * SECOND));
        assert!(second.abs_diff(2 * SECOND) < 4, "{second}");
        // The same moment on a CPU whose clock is a little behind.
        assert_eq!(tsc.read(Nanos(6 * SECOND - 100)), second + 1);
        assert!(tsc.read(Nanos(7 * SECOND)).abs_diff(4 * SECOND) < 4);
        assert!(tsc.when(6 * SECOND, Nanos(7 * SECOND)).0.abs_diff(8 * SECOND) < 4);
        assert_eq!(tsc.when(5, Nanos(7 * SECOND)), Nanos(7 * SECOND));
        assert!(tsc.when(u64::MAX, Nanos(7 * SECOND)) > Nanos(u64::MAX >> 3));
    }

    #[test]
    fn a_guest_makes_system_time_of_it() {
        for khz in [1000, 20_000, 2_400_000, 5_000_000] {
            for (start, elapsed) in [(100 * SECOND, 0), (3, 1000 * SECOND)] {
                let mut tsc = emulated(khz, elapsed, start);
                let clock = SystemClock { ticks: 77, time: Nanos(2), scale: Scale { mul: 1, shift: 0 } };
                let body = tsc.body(&clock, true);
                let now = Nanos(start + 50 * SECOND);
                let delta = tsc.read(now).wrapping_sub(body.tsc_timestamp);
                let scale = Scale { mul: body.tsc_to_system_mul, shift: body.tsc_shift };
                let seen = body.system_time + scale.nanos(delta).0;
                // One tick's length, and what 31 bits of factor leave.
                assert!(seen.abs_diff(now.0) < 1_000_000 / u64::from(khz) + 1100, "{khz} kHz: {seen} for {}", now.0);
            }
        }
    }

    #[test]
    fn it_goes_on_where_it_was() {
        let mut before = emulated(1_000_000, 0, SECOND);
        let told = before.info(Nanos(4 * SECOND), 9, 3);
        assert_eq!((told.elapsed_nsec, told.gtsc_khz, told.incarnation), (3 * SECOND, 1_000_000, 1));
        let mut after = GuestTsc::native();
        after.set(&told, Nanos(0), 5_000_000).unwrap();
        assert_eq!(after.incarnation, 2);
        assert!(after.read(Nanos(1)).abs_diff(before.read(Nanos(4 * SECOND))) < 4);
    }

    #[test]
    fn modes() {
        let mut tsc = GuestTsc::native();
        let info = |tsc_mode| TscInfo { tsc_mode, ..TscInfo::default() };
        assert_eq!(tsc.set(&info(3), Nanos(0), 1), Err(Errno::EINVAL));
        assert_eq!(tsc, GuestTsc::native());
        tsc.set(&info(TSC_MODE_DEFAULT), Nanos(0), 1_000_000).unwrap();
        assert_eq!(tsc.info(Nanos(5), 1000, 1_000_000).elapsed_nsec, 1000);
        tsc.set(&info(TSC_MODE_NEVER_EMULATE), Nanos(0), 1_000_000).unwrap();
        let told = tsc.info(Nanos(5), 1000, 1_000_000);
        assert_eq!((told.tsc_mode, told.elapsed_nsec, told.gtsc_khz), (TSC_MODE_NEVER_EMULATE, 0, 0));
        assert!(!tsc.is_emulated());
    }
}
