//! The APIC's timer: counting down once or again and again, or until the TSC has a value (SDM vol. 3A, 11.5.4).

use super::Clock;
use crate::time::Nanos;

/// A tick of the undivided clock: Xen's guests have a bus of 100 MHz.
const TICK: u64 = 10;
/// A periodic timer goes off no more often than this, whatever the guest asks for: it costs the host an interrupt each time.
const LEAST_PERIOD: u64 = 50_000;

/// What the timer does, by bits 18:17 of its entry in the local vector table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Counts down to 0 and stops.
    #[default]
    Once,
    /// Begins anew at 0.
    Periodic,
    /// Goes off when the TSC reaches a value.
    TscDeadline,
    /// Not a mode: nothing happens.
    Reserved,
}

impl Mode {
    pub const fn of(entry: u32) -> Self {
        match entry >> 17 & 3 {
            0 => Self::Once,
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::Reserved,
        }
    }
}

/// A countdown that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// When it was at `from`.
    since: Nanos,
    from: u32,
    /// When it goes off.
    next: Nanos,
}

/// The timer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timer {
    mode: Mode,
    /// The divide register.
    divide: u32,
    initial: u32,
    run: Option<Run>,
    /// The TSC's value, 0 for none, and when it is reached.
    tsc: Option<(u64, Nanos)>,
}

impl Timer {
    /// Nanoseconds per count.
    const fn tick(&self) -> u64 {
        // Bits 3, 1 and 0: 0b111 divides by 1, 0b000 by 2, and so on.
        let power = ((self.divide & 3 | self.divide >> 1 & 4) + 1) & 7;
        TICK << power
    }

    fn start(&mut self, from: u32, now: Nanos) {
        let span = Nanos(u64::from(from) * self.tick());
        self.run = (from > 0).then(|| Run { since: now, from, next: now.after(span) });
    }

    /// The entry's mode bits were written. A change between counting and the TSC stops it.
    pub fn set_mode(&mut self, mode: Mode) {
        if (self.mode == Mode::TscDeadline) != (mode == Mode::TscDeadline) {
            (self.run, self.tsc) = (None, None);
        }
        self.mode = mode;
    }

    pub const fn initial(&self) -> u32 {
        self.initial
    }

    pub fn set_initial(&mut self, count: u32, clock: &impl Clock) {
        if self.mode == Mode::TscDeadline {
            return;
        }
        self.initial = count;
        self.start(count, clock.now());
    }

    pub const fn divide(&self) -> u32 {
        self.divide
    }

    /// What is left runs on at the new speed.
    pub fn set_divide(&mut self, divide: u32, clock: &impl Clock) {
        let now = clock.now();
        let left = self.current(now);
        self.divide = divide & 0b1011;
        if self.run.is_some() {
            // What is at its very end goes off with the next count.
            self.start(left.max(1), now);
        }
    }

    /// The current count.
    pub fn current(&self, now: Nanos) -> u32 {
        let Some(run) = self.run else { return 0 };
        let gone = now.0.saturating_sub(run.since.0) / self.tick();
        match u32::try_from(gone) {
            Ok(gone) if gone < run.from => run.from - gone,
            _ => 0,
        }
    }

    /// IA32_TSC_DEADLINE.
    pub fn tsc_deadline(&self) -> u64 {
        self.tsc.map_or(0, |(ticks, _)| ticks)
    }

    /// Sets it; 0 stops the timer. In another mode nothing happens.
    pub fn set_tsc_deadline(&mut self, ticks: u64, clock: &impl Clock) {
        if self.mode == Mode::TscDeadline {
            self.tsc = (ticks != 0).then(|| (ticks, clock.when_tsc_is(ticks)));
        }
    }

    pub fn deadline(&self) -> Option<Nanos> {
        match self.mode {
            Mode::TscDeadline => self.tsc.map(|(_, when)| when),
            Mode::Once | Mode::Periodic => self.run.map(|run| run.next),
            Mode::Reserved => None,
        }
    }

    /// Whether it went off. However many periods have passed, that is one interrupt: the guest was not there for the others.
    pub fn expire(&mut self, now: Nanos) -> bool {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return false;
        }
        self.tsc = None;
        self.run = match self.run {
            Some(run) if self.mode == Mode::Periodic && self.initial > 0 => {
                let period = (u64::from(self.initial) * self.tick()).max(LEAST_PERIOD);
                let late = now.0 - run.next.0;
                let since = Nanos(run.next.0 + late / period * period);
                Some(Run { since, from: self.initial, next: since.after(Nanos(period)) })
            }
            _ => None,
        };
        true
    }
}
