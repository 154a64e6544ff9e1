//! What a test run shows: rows on the screen, and counts.

use super::emulated::Verdict;
use super::stalls::Stall;
use anyhow::Result;
use std::fmt;
use std::fmt::Write as _;
use std::ops::AddAssign;
use std::process::ExitCode;

/// How much of a failing row's log is shown.
const TAIL: usize = 30;

/// Passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that did not.
    pub failed: usize,
}

impl Tally {
    /// A run in which nothing passed is no success either.
    pub fn exit(self) -> ExitCode {
        if self.failed == 0 && self.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl FromIterator<bool> for Tally {
    fn from_iter<I: IntoIterator<Item = bool>>(results: I) -> Self {
        let mut tally = Self::default();
        for passed in results {
            if passed { tally.passed += 1 } else { tally.failed += 1 }
        }
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Prints a row as it ends; says whether it passed.
pub fn row(title: &str, verdict: &Result<Verdict>) -> bool {
    let passed = verdict.as_ref().is_ok_and(|verdict| verdict.passed);
    print(if passed { "ok" } else { "FAILED" }, title, verdict, "");
    passed
}

/// Prints a row that failed and runs again, and why.
pub fn postponed(title: &str, verdict: &Result<Verdict>, stall: Stall) {
    print("again", title, verdict, &format!(" ({stall})"));
}

fn print(word: &str, title: &str, verdict: &Result<Verdict>, why: &str) {
    let seconds = verdict.as_ref().map_or(0.0, |verdict| verdict.seconds);
    let mut text = format!("  {word:<7} {title:<60} {seconds:>5.1} s  {}{why}\n", note(verdict));
    if let Ok(verdict) = verdict
        && !verdict.passed
    {
        let tail = super::tail(&verdict.log, TAIL).unwrap_or_default();
        for line in tail.lines() {
            let _ = writeln!(text, "          | {line}");
        }
        let _ = writeln!(text, "          all of it: {}", verdict.log.display());
    }
    print!("{text}");
}

/// What was seen, or what is wrong.
fn note(verdict: &Result<Verdict>) -> String {
    match verdict {
        Ok(verdict) => verdict.note.clone(),
        Err(error) => format!("{error:#}"),
    }
}

/// A file name for a row's log.
pub fn file_name(title: &str) -> String {
    plain(title) + ".log"
}

/// A title with nothing in it that file names do not have.
pub fn plain(title: &str) -> String {
    title.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).take(150).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_plain() {
        let mut tally: Tally = [true, false, true].into_iter().collect();
        tally += Tally { passed: 1, failed: 0 };
        assert_eq!(tally.to_string(), "3 passed, 1 failed");
    }

    #[test]
    fn a_log_has_a_plain_name() {
        assert_eq!(file_name("xen-a b [2 CPU]"), "xen-a_b__2_CPU_.log");
    }
}
