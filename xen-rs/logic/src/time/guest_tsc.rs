//! What a domain reads as its TSC: the CPU's own, one that the hardware makes of that, or one that is counted for it by system
//! time (`XEN_DOMCTL_settscinfo`, Xen's `docs/man/xl.cfg.5`, "tsc_mode").

use xen_abi::domctl::TscInfo;
use xen_abi::errno::Errno;

use super::{Nanos, Scale, Scaled, Scaling, SystemClock, TimeBody};

/// Native where the frequencies agree; else the hardware's, or emulated.
pub const TSC_MODE_DEFAULT: u32 = 0;
/// Every read is answered by the hypervisor.
pub const TSC_MODE_ALWAYS_EMULATE: u32 = 1;
/// The guest reads the CPU's.
pub const TSC_MODE_NEVER_EMULATE: u32 = 2;

/// Where its readings come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The guest reads the CPU's.
    Native,
    /// The guest reads what the hardware makes of the CPU's.
    Scaled(Scaled),
    /// The hypervisor answers.
    Emulated,
}

/// The host at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// System time.
    pub now: Nanos,
    /// The CPU's TSC.
    pub ticks: u64,
    /// How fast that counts.
    pub hertz: u64,
}

impl Host {
    /// Thousands of ticks in a second, as guests are told.
    #[must_use]
    pub fn khz(&self) -> u32 {
        u32::try_from(self.hertz / 1000).unwrap_or(u32::MAX)
    }
}

/// A domain's TSC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestTsc {
    /// `TSC_MODE_*`.
    pub mode: u32,
    /// Its frequency where it is not native.
    pub khz: u32,
    /// Counts how often the domain was restored, from 1.
    pub incarnation: u32,
    /// By [`Self::khz`].
    pub scale: Scale,
    /// The system time at which it reads 0: wraps for a domain that is older than the host.
    start: Nanos,
    /// No later reading is below this.
    last: u64,
    /// Where readings come from.
    way: Way,
}

impl GuestTsc {
    /// The CPU's own.
    #[must_use]
    pub const fn native() -> Self {
        let scale = Scale { mul: 0, shift: 0 };
        Self { mode: TSC_MODE_DEFAULT, khz: 0, incarnation: 0, scale, start: Nanos::ZERO, last: 0, way: Way::Native }
    }

    /// Where its readings come from.
    #[must_use]
    pub const fn way(&self) -> Way {
        self.way
    }

    /// Whether the hypervisor answers its reads.
    #[must_use]
    pub const fn is_emulated(&self) -> bool {
        matches!(self.way, Way::Emulated)
    }

    /// The system time at which it began, as the hypervisor's CPUID leaves tell it: 0 where its readings have that in them.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        if self.is_emulated() { 0 } else { self.start.0 }
    }

    /// As the toolstack wants it. `scaling`: what the hardware can do for this domain. The host's frequency is that of a domain
    /// of which none is said.
    ///
    /// # Errors
    /// `EINVAL`: there is no such mode.
    pub fn set(&mut self, info: &TscInfo, host: &Host, scaling: Option<Scaling>) -> Result<(), Errno> {
        let incarnation = info.incarnation.wrapping_add(1);
        let mut new = Self { mode: info.tsc_mode, incarnation, last: 0, way: Way::Native, ..*self };
        match info.tsc_mode {
            TSC_MODE_DEFAULT | TSC_MODE_ALWAYS_EMULATE => {
                new.start = Nanos(host.now.0.wrapping_sub(info.elapsed_nsec));
                new.khz = if info.gtsc_khz == 0 { host.khz() } else { info.gtsc_khz };
                new.scale = Scale::from_hertz(u64::from(new.khz) * 1000).ok_or(Errno::EINVAL)?;
                if info.tsc_mode == TSC_MODE_ALWAYS_EMULATE {
                    new.way = Way::Emulated;
                } else if new.khz != host.khz() {
                    let scaled = scaling.and_then(|scaling| new.by_hardware(host, scaling));
                    new.way = scaled.map_or(Way::Emulated, Way::Scaled);
                }
            }
            TSC_MODE_NEVER_EMULATE => {}
            _ => return Err(Errno::EINVAL),
        }
        *self = new;
        Ok(())
    }

    /// The hardware's that goes on from what the emulated one reads now.
    fn by_hardware(&self, host: &Host, scaling: Scaling) -> Option<Scaled> {
        let multiplier = scaling.multiplier(self.khz, host.hertz)?;
        let scaled = Scaled::new(multiplier, scaling.fraction, host.ticks, self.at(host.now));
        // A guest must be able to make time of it.
        scaled.scale(Scale::from_hertz(host.hertz)?).map(|_| scaled)
    }

    /// What a restored domain goes on with.
    #[must_use]
    pub fn info(&self, host: &Host) -> TscInfo {
        let (elapsed, khz) = match (self.mode, self.way) {
            (TSC_MODE_NEVER_EMULATE, _) => (0, 0),
            (_, Way::Emulated) => (host.now.0.wrapping_sub(self.start.0), self.khz),
            (_, Way::Scaled(scaled)) => (self.scale.nanos(scaled.at(host.ticks)).0, self.khz),
            (_, Way::Native) => (self.scale.nanos(host.ticks).0, host.khz()),
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

    /// The record by which a guest makes system time of its readings. `clock`: of the CPU that it runs on.
    #[must_use]
    pub fn body(&self, clock: &SystemClock, stable: bool) -> TimeBody {
        let (tsc_timestamp, scale) = match self.way {
            Way::Native => (clock.ticks, clock.scale),
            // The clock is bent to the right time where its TSC runs a little faster or slower than was measured.
            Way::Scaled(scaled) => (scaled.at(clock.ticks), scaled.scale(clock.scale).unwrap_or(self.scale)),
            Way::Emulated => (self.at(clock.time), self.scale),
        };
        TimeBody { tsc_timestamp, tsc_to_system_mul: scale.mul, tsc_shift: scale.shift, ..TimeBody::new(clock, stable) }
    }
}

#[cfg(all(test, not(loom)))]
mod unit {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn emulated(khz: u32, elapsed_nsec: u64, now: u64) -> GuestTsc {
        let mut tsc = GuestTsc::native();
        let info = TscInfo { tsc_mode: TSC_MODE_ALWAYS_EMULATE, gtsc_khz: khz, elapsed_nsec, ..TscInfo::default() };
        tsc.set(&info, &host(now, 0), None).unwrap();
        tsc
    }

    /// A host of 2 GHz.
    fn host(now: u64, ticks: u64) -> Host {
        Host { now: Nanos(now), ticks, hertz: 2_000_000_000 }
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
        let told = before.info(&host(4 * SECOND, 9));
        assert_eq!((told.elapsed_nsec, told.gtsc_khz, told.incarnation), (3 * SECOND, 1_000_000, 1));
        let mut after = GuestTsc::native();
        after.set(&told, &host(0, 0), None).unwrap();
        assert_eq!(after.incarnation, 2);
        assert!(after.read(Nanos(1)).abs_diff(before.read(Nanos(4 * SECOND))) < 4);
    }

    #[test]
    fn another_frequency_is_the_hardwares_where_it_can() {
        let info = TscInfo { gtsc_khz: 3_000_000, elapsed_nsec: 10 * SECOND, ..TscInfo::default() };
        let mut tsc = GuestTsc::native();
        tsc.set(&info, &host(100 * SECOND, 7000), Some(Scaling::VMX)).unwrap();
        let Way::Scaled(scaled) = tsc.way() else { panic!("{tsc:?}") };
        assert_eq!(scaled.multiplier, 3 << 47);
        // What an emulated one would read goes on, by the CPU's ticks.
        assert!(scaled.at(7000).abs_diff(30 * SECOND) < 16);
        assert_eq!(scaled.at(7000 + 2 * SECOND) - scaled.at(7000), 3 * SECOND);
        assert_eq!((tsc.is_emulated(), tsc.offset()), (false, 90 * SECOND));
        let told = tsc.info(&host(105 * SECOND, 7000 + 10 * SECOND));
        assert_eq!((told.tsc_mode, told.gtsc_khz), (TSC_MODE_DEFAULT, 3_000_000));
        assert!(told.elapsed_nsec.abs_diff(15 * SECOND) < 16, "{}", told.elapsed_nsec);
        // Elsewhere, where the hardware cannot.
        let mut after = GuestTsc::native();
        after.set(&told, &host(3, 4), None).unwrap();
        assert!(after.is_emulated() && after.read(Nanos(3)).abs_diff(45 * SECOND) < 64);
        // Nor is there a multiplier for everything.
        after.set(&TscInfo { gtsc_khz: 1, ..info }, &host(3, 4), Some(Scaling::SVM)).unwrap();
        assert!(after.is_emulated());
        // Strictly emulated, or the CPU's own frequency.
        after.set(&TscInfo { tsc_mode: TSC_MODE_ALWAYS_EMULATE, ..info }, &host(3, 4), Some(Scaling::VMX)).unwrap();
        assert!(after.is_emulated());
        for gtsc_khz in [0, 2_000_000] {
            after.set(&TscInfo { gtsc_khz, ..info }, &host(3, 4), Some(Scaling::VMX)).unwrap();
            assert_eq!(after.way(), Way::Native);
        }
    }

    #[test]
    fn a_guest_makes_system_time_of_the_hardwares() {
        for khz in [500_000, 1_999_999, 2_400_000, 5_000_000] {
            for scaling in [Scaling::VMX, Scaling::SVM] {
                let mut tsc = GuestTsc::native();
                let info = TscInfo { gtsc_khz: khz, ..TscInfo::default() };
                tsc.set(&info, &host(50 * SECOND, 100 * SECOND), Some(scaling)).unwrap();
                let Way::Scaled(scaled) = tsc.way() else { panic!("{tsc:?}") };
                // This CPU counts a thousandth faster than was measured, from another value.
                let hertz = 2_002_000_000;
                let clock = SystemClock { ticks: 77, time: Nanos(3), scale: Scale::from_hertz(hertz).unwrap() };
                let body = tsc.body(&clock, false);
                let ticks = 77 + hertz * 40;
                let delta = scaled.at(ticks).wrapping_sub(body.tsc_timestamp);
                let scale = Scale { mul: body.tsc_to_system_mul, shift: body.tsc_shift };
                let seen = body.system_time + scale.nanos(delta).0;
                assert!(seen.abs_diff(clock.at(ticks).0) < 100, "{khz} kHz: {seen}");
            }
        }
    }

    #[test]
    fn modes() {
        let mut tsc = GuestTsc::native();
        let info = |tsc_mode| TscInfo { tsc_mode, ..TscInfo::default() };
        let host = host(5, 2000);
        assert_eq!(tsc.set(&info(3), &host, None), Err(Errno::EINVAL));
        assert_eq!(tsc, GuestTsc::native());
        tsc.set(&info(TSC_MODE_DEFAULT), &host, None).unwrap();
        assert_eq!(tsc.info(&host).elapsed_nsec, 1000);
        tsc.set(&info(TSC_MODE_NEVER_EMULATE), &host, None).unwrap();
        let told = tsc.info(&host);
        assert_eq!((told.tsc_mode, told.elapsed_nsec, told.gtsc_khz), (TSC_MODE_NEVER_EMULATE, 0, 0));
        assert!(!tsc.is_emulated());
    }
}
