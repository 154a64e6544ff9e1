//! The suite `models`: all interleavings of a few CPUs by loom, and a short run of each fuzz target. It takes minutes, so
//! it runs when it is named and with `--full`.

use super::report::Tally;
use crate::fuzz;
use crate::say::Step;
use crate::workspace;
use anyhow::{Context, Result};
use std::process::{Command, Stdio};

/// Seconds for each fuzz target: long enough to run all seeds and what was found before.
const SECONDS: u32 = 5;
/// The packages with loom models.
const LOOM: [&str; 2] = ["xen-rs-logic", "ring-protocol"];
/// The deadline of the loom models, in seconds.
const DEADLINE: &str = "1200";

/// Runs it.
pub fn run() -> Result<Tally> {
    println!("\nsuite models");
    let mut tally = loom()?;
    let targets = fuzz::targets()?;
    fuzz::build(&targets)?;
    for target in targets {
        let tail = fuzz::smoke(&target, SECONDS)?;
        println!("  {}      fuzz {target}", if tail.is_none() { "ok" } else { "FAILED" });
        tail.iter().flat_map(|tail| tail.lines()).for_each(|line| println!("          | {line}"));
        tally += std::iter::once(tail.is_none()).collect();
    }
    Ok(tally)
}

/// Whether the models still compile, without running them.
pub fn check() -> Command {
    let mut check = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    check.args(["check", "--quiet", "--lib", "--profile", "test", "--target-dir", "target/loom"]);
    check.args(LOOM.iter().flat_map(|package| ["-p", package]));
    check.env("RUSTFLAGS", "--cfg loom").current_dir(workspace::root());
    check
}

/// The models of page words, event delivery, grant pins, switching, locks with shootdown, and rings of requests.
fn loom() -> Result<Tally> {
    let step = Step::begin("loom models");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new("timeout")
        .arg(DEADLINE)
        .args([cargo.as_os_str(), "test".as_ref()])
        .args(LOOM.iter().flat_map(|package| ["-p", package]))
        .args(["--release", "--lib", "--target-dir", "target/loom", "loom"])
        .env("RUSTFLAGS", "--cfg loom")
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    step.done();
    let text = String::from_utf8_lossy(&output.stdout);
    let counts: Vec<Tally> = text.lines().filter_map(super::host::closing_line).collect();
    let mut tally = Tally::default();
    counts.iter().for_each(|counts| tally += *counts);
    if counts.len() != LOOM.len() || counts.iter().any(|counts| counts.passed == 0) {
        tally.failed += 1;
    }
    if !output.status.success() || tally.failed > 0 {
        text.lines().for_each(|line| println!("          | {line}"));
    } else {
        println!("  ok      {} loom models", tally.passed);
    }
    Ok(tally)
}
