//! The time stamp counter: how fast it runs, and whether all CPUs agree on it.
//!
//! Unsafe: the instruction that reads the time stamp counter.

use super::cpu::{Features, has, rdtsc};
use super::lapic;
use super::platform_timer::{self, PlatformTimer};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use logic::time::Nanos;

static HERTZ: AtomicU64 = AtomicU64::new(1_000_000_000);
static SYNCHRONOUS: AtomicBool = AtomicBool::new(true);

/// The platform timer is watched for so many of its ticks: its steps are then a small part of the whole.
const CALIBRATION_TICKS: u64 = 100_000;
/// A timer that takes longer to come round is not left alone for so long.
const ROUND_THAT_IS_SEEN: Nanos = Nanos::from_secs(1);
/// How long the APIC's timer is measured. It need not be exact: a deadline that it meets too early is set again.
const APIC_CALIBRATION_US: u64 = 1000;

/// Ticks in a second.
#[inline]
#[must_use]
pub fn hertz() -> u64 {
    HERTZ.load(Ordering::Relaxed)
}

/// Whether the TSC can be the clock of the whole machine: one rate in all states, the same on all CPUs. QEMU's emulated
/// one is, though CPUID does not say so; of other hypervisors that do not say so, nobody knows.
#[must_use]
pub fn is_reliable() -> bool {
    is_synchronous() && (has(Features::INVARIANT_TSC) || has(Features::EMULATED))
}

/// Whether the CPUs have been seen to agree.
#[must_use]
pub fn is_synchronous() -> bool {
    SYNCHRONOUS.load(Ordering::Relaxed)
}

/// Waits.
pub fn delay_us(us: u64) {
    let ticks = hertz() / 1_000_000 * us;
    let start = rdtsc();
    while rdtsc().wrapping_sub(start) < ticks {
        <crate::mailbox::Poll as spin::RelaxStrategy>::relax();
    }
}

/// Reads a counter and the TSC at one moment: the closest of a few tries, so that an interruption does not count.
pub(super) fn pair(counter: &impl Fn() -> u64) -> (u64, u64) {
    let mut best = (0, 0, u64::MAX);
    for _ in 0..5 {
        let before = rdtsc();
        let value = counter();
        let after = rdtsc();
        let width = after.wrapping_sub(before);
        if width < best.2 {
            best = (value, before + width / 2, width);
        }
    }
    (best.0, best.1)
}

/// Ticks of the TSC in a second, by the platform's timer.
fn measure(timer: &PlatformTimer) -> Option<u64> {
    let counter = || timer.read();
    let (first, start) = pair(&counter);
    let span = CALIBRATION_TICKS.min(timer.mask / 4 * 3);
    let mut rounds = 0u32;
    // SPIN: a device's counter, which is known to run; for a limited number of reads.
    while counter().wrapping_sub(first) & timer.mask < span {
        rounds += 1;
        if rounds > 100_000_000 {
            return None;
        }
    }
    let (last, end) = pair(&counter);
    let counted = last.wrapping_sub(first) & timer.mask;
    u64::try_from(u128::from(end - start) * u128::from(timer.hertz) / u128::from(counted.max(1))).ok()
}

/// The same, twice if the timer comes round so soon that a whole round may go by unseen (in a machine that is itself
/// emulated): two measurements that agree have missed none.
fn measure_surely(timer: &PlatformTimer) -> Option<u64> {
    let mut last = measure(timer)?;
    if timer.round() > ROUND_THAT_IS_SEEN {
        return Some(last);
    }
    for _ in 0..10 {
        let next = measure(timer)?;
        if next.abs_diff(last) < last / 256 {
            return Some(next);
        }
        last = next;
    }
    Some(last)
}

/// Measures, on the boot processor.
pub(crate) fn init() {
    let hertz = platform_timer::chosen().and_then(measure_surely).unwrap_or_else(|| {
        log::error!("TSC: nothing to measure it by; a guess");
        1_000_000_000
    });
    HERTZ.store(hertz, Ordering::Relaxed);
    log::info!("Detected {}.{:03} MHz processor.", hertz / 1_000_000, hertz / 1000 % 1000);
    lapic::calibrate(hertz / 1_000_000 * APIC_CALIBRATION_US);
}

/// The latest reading of any CPU while two compare.
static LATEST: AtomicU64 = AtomicU64::new(0);

/// Compares with a CPU that does the same at the same time: readings in turn must not run backwards.
pub(crate) fn compare() {
    for _ in 0..1000 {
        let seen = LATEST.load(Ordering::SeqCst);
        let now = rdtsc();
        if now < seen && SYNCHRONOUS.swap(false, Ordering::Relaxed) {
            log::warn!("TSC: CPUs differ by {} ticks or more", seen - now);
        }
        LATEST.fetch_max(now, Ordering::SeqCst);
    }
}
