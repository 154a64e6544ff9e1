//! The report: the Test Anything Protocol on standard output.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

/// A report under way.
pub struct Tap {
    count: usize,
    failed: usize,
    chapter: &'static str,
    began: Instant,
    quiet: bool,
}

impl Tap {
    pub fn begin() -> Self {
        let tap = Self::silent();
        let tap = Self { quiet: false, ..tap };
        tap.line("TAP version 13");
        tap
    }

    /// One that nobody reads.
    pub fn silent() -> Self {
        Self { count: 0, failed: 0, chapter: "exerciser", began: Instant::now(), quiet: true }
    }

    /// What follows is of this chapter.
    pub fn chapter(&mut self, name: &'static str) {
        self.chapter = name;
        let seconds = self.began.elapsed().as_secs_f32();
        self.note(&format!("chapter {name}, {seconds:.2} s"));
    }

    pub fn claim(&mut self, holds: bool, what: &str) {
        self.count += 1;
        self.failed += usize::from(!holds);
        let not = if holds { "" } else { "not " };
        self.line(&format!("{not}ok {} - {}: {what}", self.count, self.chapter));
    }

    /// Two numbers that should be the same; both are told when they are not.
    pub fn same<T: PartialEq + std::fmt::Debug>(&mut self, is: &T, wanted: &T, what: &str) {
        let holds = is == wanted;
        if holds {
            self.claim(true, what);
        } else {
            self.claim(false, &format!("{what} (it is {is:?}, not {wanted:?})"));
        }
    }

    pub fn skip(&mut self, what: &str, why: &str) {
        self.count += 1;
        self.line(&format!("ok {} - {}: {what} # SKIP {why}", self.count, self.chapter));
    }

    pub fn note(&self, text: &str) {
        self.line(&format!("# {text}"));
    }

    /// One write for a line, so that nothing comes between its parts.
    fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        let mut out = std::io::stdout().lock();
        // A console that is gone has no reader to tell.
        let _ = out.write_all(format!("{text}\n").as_bytes());
        let _ = out.flush();
    }

    /// The plan comes last.
    pub fn end(self) -> ExitCode {
        self.line(&format!("1..{}", self.count));
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
