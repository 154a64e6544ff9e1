//! The suite `host`: `cargo test --workspace`, counted by cargo's own closing lines.
//!
//! Documentation tests that must not compile name the error by which they do not (`compile_fail,E0382`). A stable rustdoc
//! takes any error for it, so one that fails for a name that has changed would pass; it runs by [`RUSTDOC`], which has it
//! compare the number.

use super::report::Tally;
use crate::say::Step;
use crate::workspace;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The whole suite's deadline in seconds; a test that hangs must not hang CI.
const DEADLINE: &str = "1200";

/// A rustdoc that compares the numbers of errors. (No crate here uses an unstable feature: what is compiled stays the same.)
const RUSTDOC: &str = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n";

/// Runs it. Cargo's closing lines are shown as they come, all of the output when something failed.
pub fn run() -> Result<Tally> {
    println!("\nsuite host");
    let step = Step::begin("cargo test --workspace");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new("timeout")
        .arg(DEADLINE)
        .arg(cargo)
        .args(["test", "--workspace", "--no-fail-fast"])
        .env("RUSTDOC", rustdoc()?)
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no stdout")?;
    let logs = workspace::path("target/test-logs");
    std::fs::create_dir_all(&logs)?;
    let mut log = std::fs::File::create(logs.join("host.log"))?;
    let mut tally = Tally::default();
    let mut all = String::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        writeln!(log, "{line}")?;
        if let Some(counts) = closing_line(&line) {
            tally += counts;
            if counts != Tally::default() {
                println!("  {line}");
            }
        }
        all.push_str(&line);
        all.push('\n');
    }
    let status = child.wait()?;
    step.done();
    if !status.success() {
        for line in failures(&all) {
            println!("          | {line}");
        }
        // Cargo may fail without a failing test: a crate that does not build, or the deadline.
        if tally.failed == 0 {
            println!("  FAILED  cargo test ended with {status}");
            tally.failed = 1;
        }
    }
    Ok(tally)
}

fn rustdoc() -> Result<PathBuf> {
    let path = workspace::path("target/rustdoc");
    if std::fs::read_to_string(&path).ok().as_deref() != Some(RUSTDOC) {
        std::fs::create_dir_all(workspace::path("target"))?;
        std::fs::write(&path, RUSTDOC).with_context(|| path.display().to_string())?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(path)
}

/// Counts from `test result: ok. 3 passed; 0 failed; ...`.
pub fn closing_line(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut tally = Tally::default();
    for part in counts.split("; ") {
        match part.split_once(' ') {
            Some((count, "passed")) => tally.passed = count.parse().ok()?,
            Some((count, "failed")) => tally.failed = count.parse().ok()?,
            _ => {}
        }
    }
    Some(tally)
}

/// What cargo says about failures: from each `failures:` to the next closing line.
fn failures(all: &str) -> Vec<&str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in all.lines() {
        inside = (inside || line == "failures:") && closing_line(line).is_none();
        if inside {
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_closing_line_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(closing_line(line), Some(Tally { passed: 12, failed: 3 }));
        assert_eq!(closing_line("test a ... ok"), None);
    }

    #[test]
    fn a_wrong_error_is_no_right_error() {
        let dir = std::env::temp_dir().join(format!("xen-rs-rustdoc-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let test = |code: &str| {
            let file = dir.join("a.rs");
            std::fs::write(&file, format!("//! ```compile_fail,{code}\n//! let a: u8 = \"\";\n//! ```\n")).unwrap();
            let mut rustdoc = Command::new(rustdoc().unwrap());
            let rustdoc = rustdoc.args(["--test", "--edition", "2024"]).arg(&file).current_dir(&dir);
            rustdoc.output().unwrap().status.success()
        };
        assert!(test("E0308"));
        assert!(!test("E0382"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_failures_are_shown_again() {
        let all =
            "test a ... ok\nfailures:\n\n---- b ----\ntest result: FAILED. 1 passed; 1 failed; x\ntest c ... ok\n";
        assert_eq!(failures(all), ["failures:", "", "---- b ----"]);
    }
}
