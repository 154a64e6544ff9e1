//! System time where the TSC cannot be the clock of the whole machine: each CPU has a clock of its own, read by its TSC
//! and bent towards the platform's timer again and again. Two CPUs may then differ by a little, which guests learn from
//! the missing stable bit.

use core::sync::atomic::{AtomicU64, Ordering};

use logic::time::{Follower, Nanos, Scale, SystemClock};
use machine::arch::x86_64::{percpu, platform_timer, tsc};

use super::GUESS;
use crate::sync::Once;

const MAX_CPUS: usize = 64;

/// A CPU's clock. Only that CPU reads and writes it, so nothing need be written at one go.
struct Cell {
    ticks: AtomicU64,
    time: AtomicU64,
    mul: AtomicU64,
    shift: AtomicU64,
}

static CELLS: [Cell; MAX_CPUS] = [const {
    Cell { ticks: AtomicU64::new(0), time: AtomicU64::new(0), mul: AtomicU64::new(0), shift: AtomicU64::new(0) }
}; MAX_CPUS];
/// The last look at the platform's timer, by CPU.
static SEEN: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// How far apart looks are; set when this is how time is kept.
static PERIOD: Once<Nanos> = Once::new();

/// From now on time is kept so.
pub(super) fn start() {
    // More than twice a round, and as often as corrections need.
    let round =
        platform_timer::chosen().map_or(Follower::PERIOD, machine::arch::x86_64::platform_timer::PlatformTimer::round);
    PERIOD.call_once(|| Nanos(round.0 / 3).min(Follower::PERIOD));
}

fn own() -> usize {
    percpu::number() as usize % MAX_CPUS
}

/// This CPU's clock.
#[cold]
#[inline(never)]
pub(super) fn clock() -> Option<SystemClock> {
    PERIOD.get()?;
    let cell = &CELLS[own()];
    let scale = Scale {
        mul: u32::try_from(cell.mul.load(Ordering::Relaxed)).unwrap_or(0),
        shift: cell.shift.load(Ordering::Relaxed).to_le_bytes()[0].cast_signed(),
    };
    if scale.mul == 0 {
        // The first time on this CPU.
        let (ticks, master) = platform_timer::sample(|_| Nanos::ZERO);
        let follower = Follower::new(ticks, master, measured());
        return Some(keep(&follower));
    }
    let (ticks, time) = (cell.ticks.load(Ordering::Relaxed), Nanos(cell.time.load(Ordering::Relaxed)));
    Some(SystemClock { ticks, time, scale })
}

/// The TSC's rate as it was at boot.
fn measured() -> Scale {
    Scale::from_hertz(tsc::hertz()).unwrap_or(GUESS)
}

fn keep(follower: &Follower) -> SystemClock {
    let (own, clock) = (own(), follower.clock());
    CELLS[own].ticks.store(clock.ticks, Ordering::Relaxed);
    CELLS[own].time.store(clock.time.0, Ordering::Relaxed);
    CELLS[own].mul.store(clock.scale.mul.into(), Ordering::Relaxed);
    CELLS[own].shift.store(u8::from_le_bytes(clock.scale.shift.to_le_bytes()).into(), Ordering::Relaxed);
    SEEN[own].store(follower.seen().0, Ordering::Relaxed);
    clock
}

/// When this CPU's clock is to be looked after.
pub(super) fn next_look() -> Option<Nanos> {
    let period = PERIOD.get()?;
    Some(clock()?.time.after(*period))
}

/// Looks at the platform's timer.
pub(super) fn look() {
    let Some(clock) = clock() else { return };
    let mut follower = Follower::resume(clock, Nanos(SEEN[own()].load(Ordering::Relaxed)));
    let (ticks, master) = platform_timer::sample(|ticks| follower.expected(ticks, measured()));
    follower.look(ticks, master);
    keep(&follower);
}
