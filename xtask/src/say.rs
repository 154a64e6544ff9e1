//! What the user sees while a task runs: one line per step, on stderr, so that stdout stays a guest's or a report's.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A step that takes a while. Says what begins; [`Step::done`] says how long it took.
pub struct Step {
    began: Instant,
    clock: Option<Clock>,
}

/// Counts the seconds on the user's terminal.
struct Clock {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Step {
    /// Announces `what`, which shows its own progress or is short.
    pub fn begin(what: &str) -> Self {
        eprintln!("==> {what}");
        Self { began: Instant::now(), clock: None }
    }

    /// Announces `what`, which is silent for long: the seconds are counted on a terminal.
    pub fn silent(what: &str) -> Self {
        let mut step = Self::begin(what);
        if !std::io::stderr().is_terminal() {
            return step;
        }
        let (stop, began) = (Arc::new(AtomicBool::new(false)), step.began);
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                eprint!("\r    {} s ", began.elapsed().as_secs());
                thread::park_timeout(Duration::from_secs(1));
            }
            eprint!("\r              \r");
        });
        step.clock = Some(Clock { stop, thread });
        step
    }

    /// Reports the end, but only of steps long enough to wonder about.
    pub fn done(mut self) {
        self.stop();
        let seconds = self.began.elapsed().as_secs_f32();
        if seconds >= 1.0 {
            eprintln!("    {seconds:.1} s");
        }
    }

    fn stop(&mut self) {
        if let Some(clock) = self.clock.take() {
            clock.stop.store(true, Ordering::Relaxed);
            clock.thread.thread().unpark();
            // It only prints; if it failed, there is nothing to undo.
            let _ = clock.thread.join();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.stop();
    }
}
