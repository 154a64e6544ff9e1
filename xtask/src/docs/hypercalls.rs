//! docs/HYPERCALLS.md: printed by a program that is built with the hypervisor's own tables.

use crate::packages::output;
use crate::workspace;
use anyhow::{Context, Result};
use std::process::Command;

/// The document.
pub fn render() -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut run = Command::new(cargo);
    run.args(["run", "--quiet", "-p", "xen-rs-logic", "--example", "hypercalls"]).current_dir(workspace::root());
    output(&mut run).context("the tables of xen-rs/logic/src/access/table")
}
