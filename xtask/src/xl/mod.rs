//! `cargo xtask xl-trace`: which hypercalls Debian's `xl` issues on Debian's Xen, kept as `tests/harness/reference/xl-hypercalls`.
//!
//! Stock Linux is dom0 with Debian's toolstack in its ramdisk; a probe of the kernel's own tracing prints what goes through
//! the privcmd device while a command of `xl` runs.

mod names;
pub mod ramdisk;

use crate::boot::Hypervisor;
use crate::doctor::{self, Need};
use crate::emulator::{self, Finder, Machine, Module, Next, Payload};
use crate::packages::Fetched;
use crate::workspace;
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// Where the list is kept.
const RECORD: &str = "tests/harness/reference/xl-hypercalls";
/// Memory of the machine and of its dom0, in MiB.
const MEMORY: (u32, u32) = (1536, 640);
/// What the ramdisk's script says before a step, before a call, and at the end.
const STEP: &str = "xl-step: ";
const CALL: &str = "xl-call: ";
const END: &str = "xl-trace end";

/// Record which hypercalls Debian's xl issues on Debian's Xen 4.17 (info, list, create, destroy).
///
/// The list has no numbers that differ from run to run: each operation of a command once, in the order of its first use.
#[derive(clap::Args)]
pub struct XlTrace {
    /// Which hypervisor; the list is written with xen alone
    #[arg(long, value_enum, value_name = "HYPERVISOR", default_value_t = Hypervisor::Xen)]
    hypervisor: Hypervisor,
    /// Deadline in seconds
    #[arg(long, value_name = "S", default_value_t = 300)]
    timeout: u64,
    /// Show all that the machine says
    #[arg(long)]
    verbose: bool,
}

impl XlTrace {
    pub fn run(self) -> Result<ExitCode> {
        doctor::ensure(&[Need::Emulator])?;
        let machine = Machine {
            mem: MEMORY.0,
            cpu: self.hypervisor.default_cpu(emulator::Emulator::Qemu).into(),
            ..Machine::default()
        };
        let dom0 = MEMORY.1;
        let payload = Payload {
            kernel: self.hypervisor.kernel()?,
            append: format!("{} dom0_mem={dom0}M,max:{dom0}M", self.hypervisor.base_options(&machine)),
            modules: vec![
                Module::new(Fetched::GenericKernel.get()?, "console=hvc0 loglevel=4 panic=1"),
                Module::new(ramdisk::tracing()?, ""),
            ],
        };
        let mut text = String::new();
        let mut end = Finder::new(END);
        emulator::watch(&machine, &payload, Duration::from_secs(self.timeout), |bytes| {
            text.push_str(&String::from_utf8_lossy(bytes).replace('\r', ""));
            if self.verbose {
                eprint!("{}", String::from_utf8_lossy(bytes));
            }
            if end.found(bytes) { Next::Stop } else { Next::Watch }
        })?;
        std::fs::write(workspace::path("target/xl-trace.log"), &text)?;
        if !text.contains(END) {
            bail!("the trace did not come to its end; all of it: target/xl-trace.log");
        }
        let list = normal(&text);
        print!("{list}");
        if self.hypervisor == Hypervisor::Xen {
            let kernel = Fetched::GenericKernel.version().unwrap_or_default();
            let xen = Fetched::Xen.version().unwrap_or_default();
            let head = format!(
                "# The hypercalls of Debian's xl, each once for a command, in the order of first use.\n\
                 # Written by `cargo xtask xl-trace`; not edited by hand.\n# {xen}\n# {kernel}\n"
            );
            std::fs::write(workspace::path(RECORD), head + &list)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The steps with their calls, each once.
fn normal(text: &str) -> String {
    let mut list = String::new();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        if let Some((_, step)) = line.split_once(STEP) {
            seen.clear();
            let _ = write!(list, "\n{step}\n");
        } else if let Some((_, call)) = line.split_once(CALL)
            && let Some(name) = names::of(call)
            && seen.insert(name.clone())
        {
            let _ = writeln!(list, "    {name}");
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_stands_once_in_a_step() {
        let text = "x\nxl-step: xl list, status 0\n\
                    [1] xl-call: ioctl=0x305000 call=35 a0=0x7f00 sub=6\nxl-call: ioctl=0x305000 call=35 a0=0x7f00 sub=6\n\
                    xl-step: b\nxl-call: ioctl=0x305000 call=17 a0=0x6 sub=0\n";
        assert_eq!(
            normal(text),
            "\nxl list, status 0\n    sysctl getdomaininfolist\n\nb\n    xen_version get_features\n"
        );
    }
}
