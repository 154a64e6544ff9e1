//! The time stamp counter: how fast it runs, and whether all CPUs agree on it.
//!
//! Unsafe: the instruction that reads the time stamp counter.

use super::cpu::{Features, has, rdtsc};
use super::port::{inb, inl, outb};
use super::{acpi, lapic};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static HERTZ: AtomicU64 = AtomicU64::new(1_000_000_000);
static SYNCHRONOUS: AtomicBool = AtomicBool::new(true);

/// ACPI PM timer and PIT frequencies (ACPI 6.5, 4.8.2.1; the PC's 14.31818 MHz / 12).
const PM_TIMER_HERTZ: u64 = 3_579_545;
const PIT_HERTZ: u64 = 1_193_182;
/// How long is measured.
const CALIBRATION_MS: u64 = 10;

/// Ticks in a second.
#[inline]
#[must_use]
pub fn hertz() -> u64 {
    HERTZ.load(Ordering::Relaxed)
}

/// Whether the TSC can be the clock of the whole machine: one rate in all states, the same on all CPUs.
#[must_use]
pub fn is_reliable() -> bool {
    SYNCHRONOUS.load(Ordering::Relaxed) && (has(Features::INVARIANT_TSC) || has(Features::HYPERVISOR))
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
fn pair(counter: &impl Fn() -> u64) -> (u64, u64) {
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

/// Ticks of the TSC in a second, by a counter of known frequency that wraps at `mask`.
fn measure(counter: impl Fn() -> u64, hertz: u64, mask: u64) -> Option<u64> {
    let (first, start) = pair(&counter);
    let span = hertz * CALIBRATION_MS / 1000;
    let mut rounds = 0u32;
    while counter().wrapping_sub(first) & mask < span {
        rounds += 1;
        // A counter that stands still is not there.
        if rounds > 100_000_000 {
            return None;
        }
    }
    let (last, end) = pair(&counter);
    let counted = last.wrapping_sub(first) & mask;
    u64::try_from(u128::from(end - start) * u128::from(hertz) / u128::from(counted.max(1))).ok()
}

/// By the PIT's second channel, which no interrupt hangs on (8254 data sheet; port 0x61 gates it).
fn by_pit() -> Option<u64> {
    // SAFETY: the PIT's and the gate's registers; speaker off.
    unsafe {
        outb(0x61, (inb(0x61) & !2) | 1);
        outb(0x43, 0xb4);
        outb(0x42, 0xff);
        outb(0x42, 0xff);
    }
    let counter = || {
        // SAFETY: latch and read channel 2.
        unsafe {
            outb(0x43, 0x80);
            let low = inb(0x42);
            0xffff - u64::from(u16::from_le_bytes([low, inb(0x42)]))
        }
    };
    measure(counter, PIT_HERTZ, 0xffff)
}

/// Measures, on the boot processor.
pub(crate) fn init() {
    let by_pm_timer = acpi::platform().pm_timer.and_then(|(port, wide)| {
        let mask = if wide { 0xffff_ffff } else { 0xff_ffff };
        // SAFETY: reading the PM timer's port has no effect.
        measure(|| u64::from(unsafe { inl(port) }), PM_TIMER_HERTZ, mask)
    });
    let (hertz, source) = match (by_pm_timer, by_pm_timer.is_none().then(by_pit).flatten()) {
        (Some(hertz), _) => (hertz, "ACPI PM timer"),
        (None, Some(hertz)) => (hertz, "PIT"),
        (None, None) => (1_000_000_000, "nothing (a guess)"),
    };
    HERTZ.store(hertz, Ordering::Relaxed);
    log::info!("TSC: {}.{:03} MHz by {source}", hertz / 1_000_000, hertz / 1000 % 1000);
    lapic::calibrate(hertz / 1000 * CALIBRATION_MS);
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
