//! What the user sees while a task runs: one line per step, on stderr, so that stdout stays a guest's or a report's.

use std::time::Instant;

/// A step that takes a while. Says what begins; [`Step::done`] says how long it took.
pub struct Step {
    began: Instant,
}

impl Step {
    /// Announces `what`.
    pub fn begin(what: &str) -> Self {
        eprintln!("==> {what}");
        Self { began: Instant::now() }
    }

    /// Reports the end, but only of steps long enough to wonder about.
    pub fn done(self) {
        let seconds = self.began.elapsed().as_secs_f32();
        if seconds >= 1.0 {
            eprintln!("    {seconds:.1} s");
        }
    }
}
