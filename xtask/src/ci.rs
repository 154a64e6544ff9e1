//! `cargo xtask ci`: what CI runs, in one command: the lints, then all tests.

use crate::build;
use crate::doctor;
use crate::lint::Lint;
use crate::suite::Test;
use anyhow::Result;
use std::process::ExitCode;

/// Run the lints and all tests, as CI does.
///
/// The last line is `N passed, N failed`; the lints count as one.
#[derive(clap::Args)]
pub struct Ci {}

impl Ci {
    pub fn run(self) -> Result<ExitCode> {
        doctor::ensure(&doctor::ALL)?;
        let (clean, mut tally) =
            build::meanwhile(|| anyhow::Ok((Lint::everything().clean()?, Test::everything().tally()?)))?;
        tally += std::iter::once(clean).collect();
        if !clean {
            println!("\n  FAILED  lint (see above, or `cargo xtask lint`)");
        }
        println!("\n{tally}");
        Ok(tally.exit())
    }
}
