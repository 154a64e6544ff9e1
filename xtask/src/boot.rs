//! `cargo xtask boot`: the developer's way to boot anything and to see its serial port.

use crate::doctor::{self, Need};
use crate::emulator::{self, Emulator, End, Finder, Loader, Machine, Next, Payload, bochs};
use crate::suite::module;
use crate::{parts, symbols};
use anyhow::{Result, bail};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Which hypervisor is booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Hypervisor {
    /// Ours.
    #[value(name = "xen-rs")]
    XenRs,
    /// Debian's Xen 4.17.
    Xen,
}

impl Hypervisor {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::XenRs => "xen-rs",
            Self::Xen => "xen",
        }
    }

    /// The CPU model that it runs on unless another is asked for. With SMAP, Xen's copy to a PV guest's stack faults
    /// in QEMU 7.2.
    pub fn default_cpu(self, emulator: Emulator) -> &'static str {
        match (emulator, self) {
            (Emulator::Bochs, _) => bochs::DEFAULT_CPU,
            (Emulator::Qemu, Self::XenRs) => "max",
            (Emulator::Qemu, Self::Xen) => "max,-smap",
        }
    }

    /// The same where guests run that somebody else has built. Under Xen in QEMU 7.2 their vector registers do not outlive a
    /// switch where there is XSAVE, and programs end at random; with FXSAVE all is well.
    pub fn cpu_for_stock_guests(self, emulator: Emulator) -> &'static str {
        match (emulator, self) {
            (Emulator::Qemu, Self::Xen) => "max,-smap,-xsave",
            _ => self.default_cpu(emulator),
        }
    }

    /// Options that every run of it gets: a serial console that says everything, and for dom0 256 MiB or half of a
    /// smaller machine. An option given later wins.
    pub fn base_options(self, machine: &Machine) -> String {
        let dom0 = (machine.mem / 2).min(256);
        // Xen's IPIs to a cluster of x2APICs are refused by Bochs.
        let x2apic = match (self, machine.emulator) {
            (Self::Xen, Emulator::Bochs) => " x2apic_phys=1",
            _ => "",
        };
        format!("console=com1 com1=115200,8n1 loglvl=all guest_loglvl=all noreboot dom0_mem={dom0}M{x2apic}")
    }

    /// The multiboot ELF, built or fetched when it is not there.
    pub fn kernel(self) -> Result<PathBuf> {
        match self {
            Self::XenRs => parts::resolve("xen-rs"),
            Self::Xen => parts::resolve("xen"),
        }
    }
}

/// The options that choose a machine; `run` and `boot` share them.
#[derive(clap::Args)]
pub struct MachineOptions {
    /// What emulates the machine
    #[arg(long, value_enum, default_value_t = Emulator::Qemu)]
    pub emulator: Emulator,
    /// Number of physical CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub smp: u32,
    /// Memory of the machine
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub mem: u32,
    /// CPU model of the emulator [default: max in QEMU, corei7_skylake_x in Bochs]
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// Chipset
    #[arg(long, value_name = "NAME", default_value = "pc", value_parser = ["pc", "q35"])]
    pub machine: String,
    /// Let the TSC count executed instructions (one CPU only)
    #[arg(long)]
    pub icount: bool,
    /// One more argument for the emulator (repeat as needed)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub emulator_arg: Vec<String>,
    /// Show the emulator's command line
    #[arg(long)]
    pub verbose: bool,
}

impl MachineOptions {
    /// The machine they describe.
    pub fn machine(&self, hypervisor: Hypervisor) -> Machine {
        Machine {
            emulator: self.emulator,
            loader: Loader::Multiboot1,
            smp: self.smp,
            mem: self.mem,
            cpu: self.cpu.clone().unwrap_or_else(|| hypervisor.default_cpu(self.emulator).into()),
            chipset: self.machine.clone(),
            icount: self.icount,
            control: None,
            ignore_bad_msrs: hypervisor == Hypervisor::Xen,
            trace: None,
            monitor: None,
            extra: self.emulator_arg.clone(),
        }
    }
}

/// Boot a kernel and modules of your choice and print the serial port (for development).
///
/// Ends when the machine switches itself off (status 0), when TEXT appears (0), or at the deadline or when
/// nothing more can happen (1).
#[derive(clap::Args)]
pub struct Boot {
    /// Multiboot ELF to boot instead of a hypervisor that is built or fetched
    #[arg(long, value_name = "ELF")]
    kernel: Option<PathBuf>,
    /// Which hypervisor
    #[arg(long, value_enum, default_value_t = Hypervisor::XenRs)]
    hypervisor: Hypervisor,
    /// A module and its command line, in order: dom0 kernel, its ramdisk, more. PART is dom0, guest:NAME,
    /// kernel:cloud, kernel:generic, ramdisk, or a path
    #[arg(long, value_name = "PART ARGS")]
    module: Vec<String>,
    /// More options for the hypervisor
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    append: String,
    #[command(flatten)]
    machine: MachineOptions,
    /// Deadline in seconds
    #[arg(long, value_name = "S", default_value_t = 30)]
    timeout: u64,
    /// End as soon as this appears on the serial port
    #[arg(long, value_name = "TEXT")]
    until: Option<String>,
}

impl Boot {
    pub fn run(self) -> Result<ExitCode> {
        let kernel = match &self.kernel {
            Some(kernel) => kernel.clone(),
            None => self.hypervisor.kernel()?,
        };
        doctor::ensure(&[Need::Compiler, self.machine.emulator.need()])?;
        let machine = self.machine.machine(self.hypervisor);
        let append = format!("{} {}", self.hypervisor.base_options(&machine), self.append);
        let payload = Payload {
            kernel,
            append: append.trim().to_owned(),
            modules: self.module.iter().map(|text| module(text)).collect::<Result<_>>()?,
        };
        emulator::must_exist(&payload.kernel)?;
        if self.machine.verbose {
            eprintln!("    {}", emulator::shell_line(&machine.command_line(&payload)));
        }
        let limit = Duration::from_secs(self.timeout);
        let mut stdout = std::io::stdout();
        let mut finder = Finder::new(self.until.as_deref().unwrap_or_default());
        let mut text = Vec::new();
        let end = emulator::watch(&machine, &payload, limit, |bytes| {
            text.extend_from_slice(bytes);
            // A closed stdout must not end the run before its own time.
            let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
            if finder.found(bytes) { Next::Stop } else { Next::Watch }
        })?;
        println!();
        for name in symbols::names(&String::from_utf8_lossy(&text), &payload) {
            eprintln!("    {name}");
        }
        match (end, &self.until) {
            (End::Found, _) | (End::Off, None) => Ok(ExitCode::SUCCESS),
            (End::Gone, None) => bail!("the machine stopped"),
            (End::Off | End::Gone, Some(text)) => bail!("the machine stopped before {text:?} appeared"),
            (End::Deadline, Some(text)) => {
                bail!("{text:?} did not appear within {} s", self.timeout)
            }
            (End::Deadline, None) => bail!("deadline of {} s passed", self.timeout),
        }
    }
}
