//! `cargo xtask lint`: formatting, clippy on the host and on bare metal, and the house rules that no tool knows.

mod dispatch;
mod doors;
mod floors;
mod rules;
pub mod source;

use crate::docs;
use crate::doctor::{self, Need};
use crate::fuzz;
use crate::say::Step;
use crate::suite::models;
use crate::toolchain::Toolchain;
use crate::workspace;
use anyhow::{Context, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Check formatting, clippy, and the rules of the house.
#[derive(clap::Args)]
pub struct Lint {
    /// Only the rules of the house: no formatting, no clippy
    #[arg(long)]
    quick: bool,
}

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// File, relative to the root.
    pub file: PathBuf,
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// Which rule, in words.
    pub rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}:{}: {}", self.file.display(), self.line, self.rule)
    }
}

/// The packages whose bare-metal code clippy sees; libraries come along with them.
const BARE_METAL: [&str; 3] = ["xen-rs", "dom0", "guests"];

impl Lint {
    /// The lint that `ci` runs.
    pub fn everything() -> Self {
        Self { quick: false }
    }

    pub fn run(self) -> Result<ExitCode> {
        Ok(if self.clean()? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Whether all is well; says what is not.
    pub fn clean(&self) -> Result<bool> {
        let step = Step::begin("rules of the house");
        let findings = house()?;
        for finding in &findings {
            eprintln!("{finding}");
        }
        step.done();
        let mut clean = findings.is_empty();
        if self.quick {
            return Ok(clean);
        }
        doctor::ensure(&[Need::Compiler, Need::Clippy])?;
        let cargo = || Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        clean &= passes("cargo fmt --check", cargo().args(["fmt", "--all", "--check"]))?;
        clean &= passes(
            "clippy on the host",
            cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        )?;
        clean &= passes("fuzz targets", &mut fuzz::check())?;
        clean &= passes("loom models", &mut models::check())?;
        let toolchain = Toolchain::choose()?;
        for package in BARE_METAL {
            clean &= passes(
                &format!("clippy on bare metal: {package}"),
                toolchain.cargo("clippy").args(["--quiet", "-p", package, "--", "-D", "warnings"]),
            )?;
        }
        Ok(clean)
    }
}

fn passes(what: &str, command: &mut Command) -> Result<bool> {
    let step = Step::begin(what);
    let status = command.current_dir(workspace::root()).status().with_context(|| format!("cannot start {what}"))?;
    step.done();
    if !status.success() {
        eprintln!("    FAILED: {what}");
    }
    Ok(status.success())
}

/// All findings of the house rules.
fn house() -> Result<Vec<Finding>> {
    let root = workspace::root();
    let metadata = workspace::metadata()?;
    let mut findings = floors::check(&metadata)?;
    let readme = std::fs::read_to_string(root.join("README.md")).context("README.md")?;
    findings.extend(doors::check(&readme, &root));
    let classes = std::fs::read_to_string(root.join("docs/XSA-CLASSES.md")).context("docs/XSA-CLASSES.md")?;
    findings.extend(doors::check_guests(&classes, &root));
    for file in workspace::sources()? {
        let text = std::fs::read_to_string(root.join(&file)).with_context(|| file.display().to_string())?;
        findings.extend(rules::check(&file, &text));
    }
    for file in floors::roots(&metadata, &root)? {
        let text = std::fs::read_to_string(root.join(&file)).with_context(|| file.display().to_string())?;
        findings.extend(rules::check_root(&file, &text));
    }
    let text = |file: &str| std::fs::read_to_string(root.join(file)).with_context(|| file.to_owned());
    findings.extend(dispatch::check(&text(dispatch::TABLE)?, &text(dispatch::DISPATCHER)?));
    for file in docs::stale()? {
        findings.push(finding(Path::new(file), 0, "is out of date: run `cargo xtask docs`"));
    }
    findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Ok(findings)
}

/// A finding, made short.
fn finding(file: &Path, line: usize, rule: impl Into<String>) -> Finding {
    Finding { file: file.into(), line, rule: rule.into() }
}
