//! `cargo xtask bench`: what operations cost, in executed instructions, on xen-rs and on Xen side by side. The same
//! guest binary measures both, with a TSC that counts instructions; so the figures are exact and repeat.

mod boot;
mod domains;
mod io;
mod micro;
pub mod plugin;
mod record;
mod row;

use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;

/// The guest that measures.
pub const GUEST: &str = "bench";

/// Without x2APIC: the emulator cannot count instructions with it. Without SMAP: see `Hypervisor::default_cpu`.
const CPU: &str = "max,-smap,-x2apic";

/// Measure xen-rs, beside Xen and beside the goals.
#[derive(clap::Args)]
pub struct Bench {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(clap::Subcommand)]
enum Subject {
    Micro(micro::Micro),
    Boot(boot::Boot),
    Domains(domains::Domains),
    Io(io::Io),
}

/// The options of every subject.
#[derive(clap::Args)]
struct Options {
    /// Measure Xen too, in the same command, and write the table to docs/BENCHMARKS.md
    #[arg(long)]
    compare: bool,
    /// Write rows of {operation, unit, xen_rs, xen, goal} to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Deadline for each machine, in seconds
    #[arg(long, value_name = "S", default_value_t = 240)]
    timeout: u64,
}

impl Bench {
    pub fn run(self) -> Result<ExitCode> {
        match self.subject {
            Subject::Micro(subject) => subject.run(),
            Subject::Boot(subject) => subject.run(),
            Subject::Domains(subject) => subject.run(),
            Subject::Io(subject) => subject.run(),
        }
    }
}
