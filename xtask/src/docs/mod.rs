//! `cargo xtask docs`: the documents that are made from the code. `lint` fails when one of them is out of date.

mod hypercalls;
mod locks;
pub mod unsafe_map;

use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// Write the documents that are made from the code: docs/HYPERCALLS.md, UNSAFE.md and LOCKS.md.
#[derive(clap::Args)]
pub struct Docs {
    /// Write nothing; fail when a document is out of date
    #[arg(long)]
    check: bool,
}

/// A document, and what makes its text.
type Made = (&'static str, fn() -> Result<String>);

/// All of them.
const ALL: [Made; 3] = [
    ("docs/HYPERCALLS.md", hypercalls::render),
    ("docs/UNSAFE.md", unsafe_map::render),
    ("docs/LOCKS.md", locks::render),
];

impl Docs {
    pub fn run(self) -> Result<ExitCode> {
        if self.check {
            let stale = stale()?;
            for file in &stale {
                eprintln!("{file} is out of date: run `cargo xtask docs`");
            }
            return Ok(if stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        for (file, text) in outdated()? {
            fs::write(workspace::path(file), text).context(file)?;
            println!("{file}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The documents that are out of date.
pub fn stale() -> Result<Vec<&'static str>> {
    Ok(outdated()?.into_iter().map(|(file, _)| file).collect())
}

fn outdated() -> Result<Vec<(&'static str, String)>> {
    let mut outdated = Vec::new();
    for (file, render) in ALL {
        let text = render()?;
        if fs::read_to_string(workspace::path(file)).unwrap_or_default() != text {
            outdated.push((file, text));
        }
    }
    Ok(outdated)
}

/// The text of a source file, by its path below the root.
fn source(file: &Path) -> Result<String> {
    fs::read_to_string(workspace::root().join(file)).with_context(|| file.display().to_string())
}
