//! `cargo xtask bench boot`: what the way costs from the hypervisor's first instruction to dom0's first, and on to the
//! point where dom0's toolstack takes commands.

use super::plugin::{self, Plugin};
use super::row::{self, Row, cell};
use super::{CPU, Options, record};
use crate::boot::Hypervisor;
use crate::doctor::{self, Need};
use crate::emulator::{self, Finder, Machine, Next, Payload};
use crate::say::Step;
use crate::{dom0, workspace};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// The rows: a name, where it begins, where it ends.
const ROWS: [(&str, &str, &str); 3] = [
    ("hypervisor's first instruction to dom0's first", "entry", "guest"),
    ("dom0's first instruction to toolstack ready", "guest", "ready"),
    ("hypervisor's first instruction to toolstack ready", "entry", "ready"),
];

/// Count the instructions from the hypervisor's first to dom0's first, and to its toolstack's prompt.
#[derive(clap::Args)]
pub struct Boot {
    #[command(flatten)]
    options: Options,
}

impl Boot {
    pub fn run(self) -> Result<ExitCode> {
        doctor::ensure(&[Need::Emulator, Need::Compiler, Need::Layout])?;
        let (ours, line) = self.measure(Hypervisor::XenRs)?;
        let theirs = self.options.compare.then(|| self.measure(Hypervisor::Xen)).transpose()?;
        let span = |text: &str, from: &str, to: &str| -> Result<f64> {
            let at = |name: &str| plugin::at(text, name).with_context(|| format!("the run did not come to {name}"));
            // Thousands fit; the figure is shown in millions.
            let thousands = at(to)?.saturating_sub(at(from)?) / 1000;
            Ok(f64::from(u32::try_from(thousands)?) / 1000.0)
        };
        let mut rows = Vec::new();
        for (operation, from, to) in ROWS {
            rows.push(Row {
                operation: operation.into(),
                unit: "M instructions".into(),
                xen_rs: Some(span(&ours, from, to)?),
                xen: theirs.as_ref().map(|(theirs, _)| span(theirs, from, to)).transpose()?,
                goal: None,
            });
        }
        row::set_goals(&mut rows, row::goals("boot")?)?;
        if let Some(path) = &self.options.json {
            row::write_json(path, &rows)?;
        }
        let table = table(&rows);
        print!("{table}");
        if self.options.compare {
            let facts = record::facts("cargo xtask bench boot --compare", &line);
            let head = "## Boot, millions of instructions\n\nOur dom0 on both. What is counted is executed, so waiting for \
                        a device by `hlt` is free and polling it is not.\n";
            record::write("boot", &format!("{head}\n{facts}\n{table}\n"))?;
        }
        let above = rows.iter().any(Row::above_xen);
        Ok(if above { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Boots to the prompt; the places that the plugin has seen.
    fn measure(&self, hypervisor: Hypervisor) -> Result<(String, Vec<OsString>)> {
        let counts = workspace::path("target/test-logs").join(format!("bench-boot-{}.counts", hypervisor.name()));
        std::fs::create_dir_all(workspace::path("target/test-logs"))?;
        let kernel = hypervisor.kernel()?;
        let modules = dom0::modules(&dom0::Files::Default { more: &[] }, None)?;
        let first = modules.first().context("dom0 is a module")?;
        let places = format!(",entry={:x},guest={:x}", multiboot_entry(&kernel)?, elf_entry(&first.path)?);
        let mut machine = Machine { cpu: CPU.into(), icount: true, ..Machine::default() };
        machine.extra = Plugin::Dear.get()?.arguments(&counts, &places);
        // Without the hypervisor's messages: a UART's speed is no cost of ours nor of Xen's.
        let append = "console=com1 com1=115200,8n1 loglvl=error guest_loglvl=error noreboot dom0_mem=256M".to_owned();
        let payload = Payload { kernel, append, modules };
        let step = Step::begin(&format!("boot {}", hypervisor.name()));
        let mut prompt = Finder::new(dom0::PROMPT);
        let mut text = Vec::new();
        emulator::watch(&machine, &payload, Duration::from_secs(self.options.timeout), |bytes| {
            text.extend_from_slice(bytes);
            if prompt.found(bytes) { Next::Stop } else { Next::Watch }
        })?;
        step.done();
        let log = workspace::path("target/test-logs").join(format!("bench-boot-{}.log", hypervisor.name()));
        std::fs::write(&log, text).with_context(|| log.display().to_string())?;
        let places = std::fs::read_to_string(&counts).with_context(|| counts.display().to_string())?;
        Ok((places, machine.command_line(&payload)))
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from("| from, to | goal | xen-rs | Xen |\n|---|---:|---:|---:|\n");
    for row in rows {
        let _ = writeln!(text, "| {} | {} | {} | {} |", row.operation, cell(row.goal), cell(row.xen_rs), cell(row.xen));
    }
    text
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The entry point in an ELF header; the field begins at the same place in both classes.
fn elf_entry(path: &Path) -> Result<u64> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let wide = bytes.get(4) == Some(&2);
    let entry = if wide { u64_at(&bytes, 24) } else { u32_at(&bytes, 24).map(u64::from) };
    entry.with_context(|| format!("{} is no ELF file", path.display()))
}

/// Where a multiboot loader enters: the header's address if it gives one, else the ELF entry point.
fn multiboot_entry(path: &Path) -> Result<u64> {
    const MAGIC: u32 = 0x1bad_b002;
    const HAS_ADDRESSES: u32 = 1 << 16;
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let header = (0..8192usize).step_by(4).find(|&at| {
        let word = |index: usize| u32_at(&bytes, at + 4 * index).unwrap_or(0);
        word(0) == MAGIC && word(0).wrapping_add(word(1)).wrapping_add(word(2)) == 0
    });
    let header = header.with_context(|| format!("{} has no multiboot header", path.display()))?;
    match u32_at(&bytes, header + 4) {
        Some(flags) if flags & HAS_ADDRESSES != 0 => Ok(u32_at(&bytes, header + 28).context("a short header")?.into()),
        _ => elf_entry(path),
    }
}
