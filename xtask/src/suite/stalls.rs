//! Whether the machine that the tests run on stood still for a while, or was somebody else's.
//!
//! An emulated machine's clock goes on by the host's. Where the host gives it no time, deadlines inside it pass with nothing
//! done: a driver's, a script's, the row's own. A row that fails in such a time says nothing of the hypervisor, so it runs once
//! more when the others are done and the machine is quiet; what comes of that counts, and the report names the reason.
//!
//! There are two signs. A thread that sleeps wakes up much later than it asked for, and the kernel counts time that the
//! machine's own hypervisor gave to others (the eighth number of `cpu` in `/proc/stat`, proc(5)).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the watching thread sleeps.
const NAP: Duration = Duration::from_millis(50);
/// A wake-up that comes so much too late is no matter of load.
const LATE: Duration = Duration::from_millis(300);
/// Stolen time is looked at over so long.
const WINDOW: Duration = Duration::from_secs(1);
/// So many percent of it are no matter of load.
const STOLEN: u64 = 30;
/// A machine that did not stand still for so long is quiet.
const QUIET: Duration = Duration::from_secs(20);
/// Nobody waits longer for that.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the machine did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// It stood still.
    Still(Duration),
    /// Others had so many percent of its time for a second.
    Stolen(u64),
}

impl fmt::Display for Stall {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Still(time) => write!(to, "this machine stood still for {:.1} s", time.as_secs_f32()),
            Self::Stolen(percent) => write!(to, "others had {percent}% of this machine"),
        }
    }
}

/// Watches the machine until it is dropped.
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    /// What was seen, and when it ended.
    seen: Mutex<Vec<(Instant, Stall)>>,
}

impl Watch {
    /// Begins to watch.
    pub fn begin() -> Self {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.watch()
        });
        Self { shared, thread: Some(thread) }
    }

    /// The last stall that ended after a moment.
    pub fn since(&self, moment: Instant) -> Option<Stall> {
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.last().filter(|(at, _)| *at > moment).map(|(_, stall)| *stall)
    }

    /// Waits until the machine is quiet, but not for ever.
    pub fn wait_until_quiet(&self) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE
            && Instant::now().checked_sub(QUIET).is_none_or(|from| self.since(from).is_some())
        {
            std::thread::sleep(NAP);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say at its end.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn watch(&self) {
        let mut meter = Meter::default();
        let mut before = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(NAP);
            let now = Instant::now();
            if let Some(stall) = meter.look(now - before, cpu_times) {
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).push((now, stall));
            }
            before = now;
        }
    }
}

/// Tells stalls from load.
#[derive(Default)]
struct Meter {
    /// What has passed of the window.
    passed: Duration,
    /// Stolen and all time when it began.
    times: Option<(u64, u64)>,
}

impl Meter {
    /// Looks after a nap that took so long.
    fn look(&mut self, nap: Duration, times: impl FnOnce() -> Option<(u64, u64)>) -> Option<Stall> {
        self.passed += nap;
        let mut stall = None;
        if self.passed >= WINDOW {
            self.passed = Duration::ZERO;
            let now = times();
            if let (Some((stolen, all)), Some((stolen_before, all_before))) = (now, self.times) {
                let percent = (stolen - stolen_before.min(stolen)) * 100 / (all - all_before.min(all)).max(1);
                stall = (percent >= STOLEN).then_some(Stall::Stolen(percent));
            }
            self.times = now;
        }
        let late = nap.saturating_sub(NAP);
        if late >= LATE { Some(Stall::Still(late)) } else { stall }
    }
}

/// Stolen and all time of all CPUs, in ticks.
fn cpu_times() -> Option<(u64, u64)> {
    read_times(&std::fs::read_to_string("/proc/stat").ok()?)
}

fn read_times(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // Behind these come guests' times, which are in the first two already.
    let times: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    Some((*times.get(7)?, times.iter().sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_load_is_no_stall() {
        let mut meter = Meter::default();
        for second in 0..10 {
            for _ in 0..20 {
                // A fifth of two CPUs is stolen all the time, and each nap takes longer than it should.
                assert_eq!(meter.look(NAP + Duration::from_millis(100), || Some((second * 40, second * 200))), None);
            }
        }
    }

    #[test]
    fn a_machine_that_stands_still_is_seen() {
        let mut meter = Meter::default();
        assert_eq!(meter.look(NAP, || None), None);
        let stall = meter.look(NAP + Duration::from_millis(1200), || None).unwrap();
        assert_eq!(stall.to_string(), "this machine stood still for 1.2 s");
    }

    #[test]
    fn a_machine_that_others_have_is_seen() {
        let mut meter = Meter::default();
        let mut second = |times| (0..20).find_map(|_| meter.look(NAP, || Some(times)));
        assert_eq!(second((1000, 9000)), None, "what was before nobody knows");
        assert_eq!(second((1080, 9200)), Some(Stall::Stolen(40)));
        assert_eq!(second((1090, 9400)), None);
    }

    #[test]
    fn the_kernels_numbers_are_read() {
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(read_times(stat), Some((8, 36)));
        assert_eq!(read_times("cpu  1 2 3\n"), None);
    }

    #[test]
    fn stalls_count_from_a_moment_on() {
        let watch = Watch::begin();
        let moment = Instant::now();
        watch.shared.seen.lock().unwrap().push((moment + NAP, Stall::Stolen(50)));
        assert_eq!(watch.since(moment), Some(Stall::Stolen(50)));
        assert_eq!(watch.since(moment + NAP), None);
    }
}
