//! The platform's timers: counters of a known rate that all CPUs read alike. The TSC is measured by one of them, and
//! where it cannot be the machine's clock, they are.
//!
//! Unsafe: I/O ports and the registers of the HPET.

use super::acpi;
use super::cpu::rdtsc;
use super::port::{inb, inl, outb};
use super::tsc;
use crate::command_line::CommandLine;
use crate::mailbox::Poll;
use crate::mem::boot_frames::BootFrames;
use crate::mem::hypervisor_map::Access;
use crate::mem::window::Window;
use logic::time::{Nanos, Widened};
use spin::Once;
use spin::mutex::SpinMutex;

/// Which one.
#[derive(Clone, Copy, Debug)]
enum Counter {
    /// The HPET's main counter (IA-PC HPET specification 1.0a), its low half: the whole of it takes two reads in QEMU
    /// and on old chipsets.
    Hpet(Window),
    /// The ACPI PM timer's port (ACPI 6.5, 4.8.2.1).
    PmTimer(u16),
    /// The 8254's second channel, which no interrupt hangs on.
    Pit,
}

/// A platform timer.
#[derive(Clone, Copy, Debug)]
pub struct PlatformTimer {
    counter: Counter,
    /// Its name in Xen's words.
    pub name: &'static str,
    /// Ticks in a second.
    pub hertz: u64,
    /// The bits that it counts in.
    pub mask: u64,
}

/// ACPI PM timer and PIT frequencies (ACPI 6.5, 4.8.2.1; the PC's 14.31818 MHz / 12).
const PM_TIMER_HERTZ: u64 = 3_579_545;
const PIT_HERTZ: u64 = 1_193_182;

static TIMER: Once<PlatformTimer> = Once::new();
static TOTAL: SpinMutex<Option<Widened>, Poll> = SpinMutex::new(None);

impl PlatformTimer {
    /// Its counter now.
    #[must_use]
    pub fn read(&self) -> u64 {
        let raw = match self.counter {
            Counter::Hpet(window) => u64::from(window.read32(hpet::MAIN_COUNTER)),
            // SAFETY: reading the PM timer's port has no effect.
            Counter::PmTimer(port) => u64::from(unsafe { inl(port) }),
            Counter::Pit => pit::read(),
        };
        raw & self.mask
    }

    /// Whether it counts at all: within more reads than a tick can take.
    fn runs(&self) -> bool {
        let first = self.read();
        // SPIN: a device's counter, for a limited number of reads.
        (0..100_000).any(|_| self.read() != first)
    }

    /// How long it takes to come round.
    #[must_use]
    pub fn round(&self) -> Nanos {
        Nanos((self.mask + 1).saturating_mul(1_000_000_000) / self.hertz)
    }
}

mod hpet {
    //! The HPET's registers.

    /// Capabilities; the upper half is the counter's period in femtoseconds.
    pub(super) const PERIOD: u64 = 4;
    pub(super) const CONFIGURATION: u64 = 0x10;
    pub(super) const MAIN_COUNTER: u64 = 0xf0;
    pub(super) const BYTES: u64 = 0x400;
    pub(super) const ENABLE: u32 = 1;
    /// Takes interrupts 0 and 8 away from PIT and RTC.
    pub(super) const LEGACY_ROUTES: u32 = 2;
    pub(super) const FEMTOSECONDS: u64 = 1_000_000_000_000_000;
    /// The longest period that the specification allows.
    pub(super) const LONGEST_PERIOD: u32 = 100_000_000;
}

mod pit {
    //! Channel 2 of the 8254 (its data sheet); port 0x61 gates it.

    use super::{inb, outb};

    /// Counts down from 65536 again and again.
    pub(super) fn start() {
        // SAFETY: the PIT's and the gate's registers; speaker off.
        unsafe {
            outb(0x61, (inb(0x61) & !2) | 1);
            outb(0x43, 0xb4);
            outb(0x42, 0);
            outb(0x42, 0);
        }
    }

    pub(super) fn read() -> u64 {
        // SAFETY: latch and read channel 2.
        unsafe {
            outb(0x43, 0x80);
            let low = inb(0x42);
            u64::from(u16::from_le_bytes([low, inb(0x42)]).wrapping_neg())
        }
    }
}

fn hpet(frames: &mut BootFrames) -> Option<PlatformTimer> {
    let phys = acpi::platform().hpet?;
    // SAFETY: boot; the firmware's address of the HPET, whose only driver this is.
    let window = unsafe { Window::map(frames, phys, hpet::BYTES, Access::Device) };
    let period = window.read32(hpet::PERIOD);
    if period == 0 || period > hpet::LONGEST_PERIOD {
        return None;
    }
    let configuration = window.read32(hpet::CONFIGURATION) & !hpet::LEGACY_ROUTES;
    window.write32(hpet::CONFIGURATION, configuration | hpet::ENABLE);
    let hertz = hpet::FEMTOSECONDS / u64::from(period);
    Some(PlatformTimer { counter: Counter::Hpet(window), name: "HPET", hertz, mask: 0xffff_ffff })
}

fn pm_timer() -> Option<PlatformTimer> {
    let (port, wide) = acpi::platform().pm_timer?;
    let mask = if wide { 0xffff_ffff } else { 0xff_ffff };
    Some(PlatformTimer { counter: Counter::PmTimer(port), name: "ACPI PM Timer", hertz: PM_TIMER_HERTZ, mask })
}

fn pit() -> Option<PlatformTimer> {
    pit::start();
    Some(PlatformTimer { counter: Counter::Pit, name: "PIT", hertz: PIT_HERTZ, mask: 0xffff })
}

/// Finds the timer that `clocksource=` asks for, else the best there is.
pub(crate) fn init(line: CommandLine<'_>, frames: &mut BootFrames) {
    type Find = fn(&mut BootFrames) -> Option<PlatformTimer>;
    const ALL: [(&str, Find); 3] = [("hpet", hpet), ("acpi", |_| pm_timer()), ("pit", |_| pit())];
    let asked = line.value("clocksource").and_then(|name| ALL.iter().find(|(known, _)| *known == name));
    for (name, find) in asked.into_iter().chain(&ALL) {
        if let Some(timer) = find(frames).filter(PlatformTimer::runs) {
            let khz = timer.hertz / 1000;
            log::info!("Platform timer is {}.{:03}MHz {}", khz / 1000, khz % 1000, timer.name);
            *TOTAL.lock() = Some(Widened::new(timer.read(), timer.mask));
            TIMER.call_once(|| timer);
            return;
        }
        if asked.is_some_and(|(wanted, _)| wanted == name) {
            log::warn!("clocksource={name}: there is no such timer here");
        }
    }
    log::error!("no platform timer");
}

/// The timer that was chosen.
#[must_use]
pub fn chosen() -> Option<&'static PlatformTimer> {
    TIMER.get()
}

/// Time since the start by the platform's timer, and what the TSC read then. It should be asked more than once a
/// [round](PlatformTimer::round); where that fails, `expected`, what another clock shows at a reading of the TSC, tells how
/// many rounds were missed.
pub fn sample(expected: impl Fn(u64) -> Nanos) -> (u64, Nanos) {
    let Some(timer) = TIMER.get() else { return (rdtsc(), Nanos::ZERO) };
    let hertz = u128::from(timer.hertz);
    // Read under the lock: two CPUs that swap their readings would see a whole round pass.
    let mut total = TOTAL.lock();
    let (raw, ticks) = tsc::pair(&|| timer.read());
    let expected = u64::try_from(u128::from(expected(ticks).0) * hertz / 1_000_000_000).unwrap_or(u64::MAX);
    let total = total.as_mut().map_or(0, |total| total.look(raw, expected));
    (ticks, Nanos(u64::try_from(u128::from(total) * 1_000_000_000 / hertz).unwrap_or(u64::MAX)))
}
