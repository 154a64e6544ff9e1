//! What a guest kernel warns about, compared between hypervisors: a kernel on xen-rs may warn only of what it warns of
//! on Xen. The guest's ramdisk prints the warnings of its kernel log when its command line has `report=warnings`.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// What stands before each warning on the console.
const MARK: &str = "guest-warning: ";

/// What stands after the last one.
pub const END: &str = "guest-warnings end";

/// What a kernel says when the machine that the emulator runs on held it up for some timer ticks: now and then, on Xen as
/// here.
const OF_THE_HOST: [&str; 1] = ["hrtimer: interrupt took # ns"];

/// Warnings with all numbers taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings(BTreeSet<String>);

impl Warnings {
    /// Collects them from what a guest printed.
    pub fn read(text: &str) -> Self {
        let marked = text.lines().filter_map(|line| line.split_once(MARK));
        let warnings = marked.map(|(_, warning)| normal(warning));
        Self(warnings.filter(|warning| !OF_THE_HOST.contains(&warning.as_str())).collect())
    }

    /// Reads a record.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{} (see tests/README.md)", path.display()))?;
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Ok(Self(lines.map(str::to_owned).collect()))
    }

    /// Writes a record.
    pub fn store(&self, path: &Path, kernel: &str) -> Result<()> {
        let mut text = String::from("# What the kernel warns of on Xen, numbers taken out.\n");
        let _ = writeln!(text, "# Written by `cargo xtask test --on xen --record`; not edited by hand.");
        let _ = writeln!(text, "# {kernel}");
        for warning in &self.0 {
            let _ = writeln!(text, "{warning}");
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// Those that the other does not have.
    pub fn beyond<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        self.0.difference(&other.0).map(String::as_str).collect()
    }

    /// How many kinds there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Takes out what differs between two runs: the raw level and time in front, each run of digits, and who had an
/// interrupt first (`... vs. NAME`): numbers are given out in order, and the 2-level event channels need one more.
fn normal(warning: &str) -> String {
    let stamped = warning.starts_with('<');
    let text = warning.split_once("] ").filter(|_| stamped).map_or(warning, |(_, text)| text);
    let text = text.split_once(" vs. ").map_or(text, |(before, _)| before);
    let mut normal = String::new();
    let word = |c: char| c.is_ascii_alphanumeric();
    for part in text.trim().split_inclusive(|c| !word(c)) {
        let (token, rest) = part.split_at(part.trim_end_matches(|c| !word(c)).len());
        let hex = token.strip_prefix("0x").unwrap_or(token);
        let number =
            !hex.is_empty() && hex.chars().all(|c| c.is_ascii_hexdigit()) && hex.chars().any(|c| c.is_ascii_digit());
        normal.push_str(if number { "#" } else { token });
        normal.push_str(rest);
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_count() {
        assert_eq!(normal("<4>[    1.234567] ACPI: bad 0xdeadbeef00, 12 of cpu3"), "ACPI: bad #, # of cpu3");
        assert_eq!(normal("cafe 0cafe"), "cafe #");
        assert_eq!(normal("mismatch irq 1. 80 (a) vs. 2cc00 (b1)"), "mismatch irq #. # (a)");
    }

    #[test]
    fn only_new_warnings_are_told() {
        let here = Warnings::read("[1.0] guest-warning: <4>[ 1.0] a 1\nx\nguest-warning: <3>[ 2.0] b\n");
        let there = Warnings::read("guest-warning: <4>[ 9.0] a 77\nguest-warning: <4>[ 1.0] c\n");
        assert_eq!(here.beyond(&there), ["b"]);
        assert_eq!(there.beyond(&here), ["c"]);
        assert_eq!(here.len(), 2);
    }

    #[test]
    fn what_the_host_is_to_blame_for_does_not_count() {
        let late = "guest-warning: <4>[   12.345678] hrtimer: interrupt took 12373558 ns\n";
        assert_eq!(Warnings::read(late).len(), 0);
    }

    #[test]
    fn a_record_comes_back() {
        let path = std::env::temp_dir().join(format!("xen-rs-warnings-{}", std::process::id()));
        let warnings = Warnings::read("guest-warning: <4>[ 1.0] a 1\n");
        warnings.store(&path, "kernel").unwrap();
        assert_eq!(Warnings::load(&path).unwrap(), warnings);
        std::fs::remove_file(path).unwrap();
    }
}
