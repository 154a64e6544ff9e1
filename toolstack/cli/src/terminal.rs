//! The user's terminal while a guest has it: every key goes through, nothing is echoed here. Done by stty(1), so that
//! no unsafe code is needed for it.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// The terminal in raw mode; dropped, it is as it was.
pub struct Raw {
    before: String,
}

impl Raw {
    /// Switches to raw mode.
    ///
    /// # Errors
    /// stty cannot be run, or standard input is no terminal.
    pub fn begin() -> Result<Self> {
        let before = stty(&["-g"])?.trim().to_owned();
        stty(&["raw", "-echo"])?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing better can be done if this fails than what the user would do: `reset`.
        let _ = stty(&[&self.before]);
    }
}

fn stty(arguments: &[&str]) -> Result<String> {
    let output = Command::new("stty").args(arguments).stdin(Stdio::inherit()).output().context("cannot start stty")?;
    if !output.status.success() {
        bail!("stty: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
