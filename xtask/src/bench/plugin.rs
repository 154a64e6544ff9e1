//! The plugins that count what the emulator executes, `xtask/plugin`, compiled when they are needed.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// What is dear on hardware although it is one instruction here, in the order of the plugin's columns.
pub const DEAR: [&str; 8] = [
    "CR writes",
    "MSR writes",
    "TLB flushes",
    "IPIs",
    "locked operations",
    "VM exits",
    "I/O ports",
    "VMLOAD, VMSAVE, VMREAD, VMWRITE",
];

/// Counts of [`DEAR`].
pub type Dear = [u64; 8];

/// A plugin.
#[derive(Clone, Copy)]
pub enum Plugin {
    /// Dear events and places.
    Dear,
    /// Who executes how much.
    Split,
    /// Long stretches without interrupts.
    Stretch,
}

/// A plugin, ready to be loaded.
pub struct Ready(PathBuf);

impl Plugin {
    /// Compiles it unless that was done before.
    pub fn get(self) -> Result<Ready> {
        let name = match self {
            Plugin::Dear => "dear",
            Plugin::Split => "split",
            Plugin::Stretch => "stretch",
        };
        let source = workspace::path(&format!("xtask/plugin/{name}.c"));
        let plugin = workspace::path(&format!("target/plugin/{name}.so"));
        let changed = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
        // Rows that run side by side need the same one.
        let _one = COMPILING.lock();
        if changed(&plugin).is_none() || changed(&plugin) < changed(&source) {
            std::fs::create_dir_all(workspace::path("target/plugin"))?;
            let mut cc = Command::new("cc");
            cc.args(["-O2", "-Wall", "-shared", "-fPIC", "-o"]).arg(&plugin).arg(&source);
            if !cc.status().context("cannot start cc")?.success() {
                bail!("compiling {} failed", source.display());
            }
        }
        Ok(Ready(plugin))
    }
}

static COMPILING: Mutex<()> = Mutex::new(());

impl Ready {
    /// The emulator's arguments that load it; it writes to `out`.
    pub fn arguments(&self, out: &Path, more: &str) -> Vec<String> {
        vec!["-plugin".into(), format!("{},out={}{more}", self.0.display(), out.display())]
    }
}

/// Instructions by who executes them: hypervisor, control domain, guests.
pub type Split = [u64; 3];

/// What [`Plugin::Split`] has counted so far, in the file that it writes.
pub fn split(file: &Path) -> Result<Split> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    let number = |at: usize| {
        let bytes = bytes.get(at * 8..).and_then(|rest| rest.first_chunk());
        bytes.map(|bytes| u64::from_ne_bytes(*bytes)).context("the plugin has written too little")
    };
    Ok([number(1)?, number(2)?, number(3)?])
}

/// Tells [`Plugin::Split`] that what comes now may be a guest's.
pub fn guests_begin(file: &Path) -> Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).open(file)?;
    Ok(file.write_all(&1u64.to_ne_bytes())?)
}

/// The counts between marks, in order.
pub fn rows(text: &str) -> Vec<Dear> {
    let numbers = |line: &str| {
        let numbers: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
        Dear::try_from(numbers).ok()
    };
    text.lines().filter_map(|line| line.strip_prefix("row ")).filter_map(numbers).collect()
}

/// How many instructions had been executed at the place of that name.
pub fn at(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("at ")?.strip_prefix(name)?.strip_prefix(' '))?;
    line.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_plugin_writes() {
        let text = "at entry 0\nrow 0 1 2 3 4 5 6 7\nrow 1 2\nat guest 77\n";
        assert_eq!(rows(text), [[0, 1, 2, 3, 4, 5, 6, 7]]);
        assert_eq!(at(text, "guest"), Some(77));
        assert_eq!(at(text, "ready"), None);
    }
}
