//! `cargo xtask bench io`: what a stock guest gets of a disk that lies in its control domain's memory: our dom0 on xen-rs
//! beside Debian's Linux dom0 (xl, xen-blkback, brd) on Debian's Xen. The clock counts instructions.

use super::plugin::{self, Plugin, Split};
use super::row::{self, Row, cell};
use super::{CPU, Options, record};
use crate::boot::Hypervisor;
use crate::doctor::{self, Need};
use crate::emulator::{self, Machine, Module, Next, Payload};
use crate::packages::Fetched;
use crate::say::Step;
use crate::{dom0, parts, workspace, xl};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// What the guest says before and after a measurement, and at the end; what dom0 says before it makes the guest.
const BEGIN: &str = "io: begin ";
const FINISH: &str = "io: end ";
const END: &str = "io: the end";
const READY: &str = "io: dom0 is ready";
/// The measurement of nothing at all: what the rests around the others cost.
const REST: &str = "rest";
/// MiB of the disk.
const DISK: usize = 24;
/// MiB of the machine, and of a Linux dom0, which unpacks its ramdisk and holds the disk.
const MEMORY: (u32, u32) = (1536, 832);
/// The guest's kernel command line.
const EXTRA: &str = "console=hvc0 test=io";
/// How the names of those begin whose rate is in bytes.
const DD: &str = "dd ";
/// Units, in which more is better.
const BYTES: &str = "MB/s";
const REQUESTS: &str = "requests/s";
/// The unit in which less is.
const INSTRUCTIONS: &str = "instructions per request";
/// Who executes them, in the plugin's order.
const WHO: [&str; 3] = ["hypervisor", "dom0", "guest"];

/// Measure a stock guest's disk: throughput, requests per second, and who executes how much for a request.
#[derive(clap::Args)]
pub struct Io {
    #[command(flatten)]
    options: Options,
}

/// One measurement as the guest and the plugin tell it.
#[derive(Clone, Debug, PartialEq)]
struct Phase {
    name: String,
    /// Per second: MB for a `dd`, else requests.
    rate: f64,
    requests: f64,
    split: Split,
}

impl Io {
    pub fn run(self) -> Result<ExitCode> {
        doctor::ensure(&[Need::Emulator, Need::Compiler, Need::Layout])?;
        let (ours, line) = self.measure(Hypervisor::XenRs)?;
        let theirs = if self.options.compare { self.measure(Hypervisor::Xen)?.0 } else { Vec::new() };
        let mut rows = rows(&ours, &theirs);
        row::set_goals(&mut rows, row::goals("io")?)?;
        if let Some(path) = &self.options.json {
            row::write_json(path, &rows)?;
        }
        let table = table(&rows);
        print!("{table}");
        if self.options.compare {
            let facts = record::facts("cargo xtask bench io --compare", &line);
            let head = "## Disks\n\nA guest with Debian's cloud kernel, one CPU, and a disk in its control domain's memory: our \
                        dom0 on xen-rs, Debian's Linux with xen-blkback and brd on Xen. Rates are in virtual time, a second of \
                        which is 10^9 instructions; goals of rates are lower bounds. The plugin `xtask/plugin/split.c` counts \
                        who executes how much.\n";
            record::write("io", &format!("{head}\n{facts}\n{table}\n"))?;
        }
        Ok(if rows.iter().any(behind_xen) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn measure(&self, hypervisor: Hypervisor) -> Result<(Vec<Phase>, Vec<OsString>)> {
        let logs = workspace::path("target/test-logs");
        std::fs::create_dir_all(&logs)?;
        let counts = logs.join(format!("bench-io-{}.split", hypervisor.name()));
        let machine = Machine {
            cpu: CPU.into(),
            icount: true,
            mem: MEMORY.0,
            extra: Plugin::Split.get()?.arguments(&counts, ""),
            ..Machine::default()
        };
        let base = "console=com1 com1=115200,8n1 loglvl=error guest_loglvl=error noreboot";
        let (memory, modules) = match hypervisor {
            Hypervisor::XenRs => ("dom0_mem=256M".to_owned(), modules()?),
            Hypervisor::Xen => (format!("dom0_mem={0}M,max:{0}M dom0_max_vcpus=1", MEMORY.1), linux()?),
        };
        let payload = Payload { kernel: hypervisor.kernel()?, append: format!("{base} {memory}"), modules };
        let step = Step::begin(&format!("a disk on {}", hypervisor.name()));
        let mut seen = Seen::default();
        let mut failed = None;
        emulator::watch(&machine, &payload, Duration::from_secs(self.options.timeout), |bytes| {
            if let Err(error) = seen.more(bytes, &counts) {
                failed = Some(error);
            }
            if failed.is_some() || seen.text.contains(END) { Next::Stop } else { Next::Watch }
        })?;
        step.done();
        let log = logs.join(format!("bench-io-{}.log", hypervisor.name()));
        std::fs::write(&log, &seen.text).with_context(|| log.display().to_string())?;
        if let Some(error) = failed {
            return Err(error);
        }
        if !seen.text.contains(END) {
            bail!("the guest did not come to its end on {}; see {}", hypervisor.name(), log.display());
        }
        Ok((phases(&seen.text, &seen.marks)?, machine.command_line(&payload)))
    }
}

/// Our dom0 with a script that makes the guest.
fn modules() -> Result<Vec<Module>> {
    let script = format!(
        "ramdisk {DISK}\necho \"{READY}\"\n\
         create /files/debian.cfg memory=128 'ramdisk=\"/files/initrd-exerciser\"' 'disk=[\"phy:/dev/ram0,xvda,w\"]' 'extra=\"{EXTRA}\"'\n\
         console --until \"{END}\" --timeout 600 debian\n"
    );
    dom0::modules(&dom0::Files::Default { more: &["ramdisk:exerciser".to_owned()] }, Some(&script))
}

/// Debian's dom0 with xl.
fn linux() -> Result<Vec<Module>> {
    let ramdisk = xl::ramdisk::measuring(DISK, &parts::resolve("ramdisk:exerciser")?, EXTRA)?;
    let line = "console=hvc0 loglevel=4 panic=1";
    Ok(vec![Module::new(Fetched::GenericKernel.get()?, line), Module::new(ramdisk, "")])
}

/// What the machine has said, and what the plugin had counted at each line that says where we are.
#[derive(Default)]
struct Seen {
    text: String,
    /// Bytes of the text whose lines were looked at.
    read: usize,
    marks: Vec<(String, Split)>,
}

impl Seen {
    fn more(&mut self, bytes: &[u8], counts: &Path) -> Result<()> {
        self.text.push_str(&String::from_utf8_lossy(bytes).replace('\r', ""));
        while let Some((line, rest)) = self.text[self.read..].split_once('\n') {
            let line = line.trim().to_owned();
            self.read = self.text.len() - rest.len();
            if line.starts_with(READY) {
                plugin::guests_begin(counts)?;
            }
            if line.starts_with(BEGIN) || line.starts_with(FINISH) {
                self.marks.push((line, plugin::split(counts)?));
            }
        }
        Ok(())
    }
}

/// The measurements, less what their rests cost.
fn phases(text: &str, marks: &[(String, Split)]) -> Result<Vec<Phase>> {
    let count = |mark: &str| marks.iter().find(|(line, _)| line == mark).map(|(_, split)| *split);
    let spent = |name: &str| -> Option<Split> {
        let (from, to) = (count(&format!("{BEGIN}{name}"))?, count(&format!("{FINISH}{name}"))?);
        Some(std::array::from_fn(|at| to[at].saturating_sub(from[at])))
    };
    let rest = spent(REST).context("the rest was not measured")?;
    let mut phases = Vec::new();
    for name in marks.iter().filter_map(|(line, _)| line.strip_prefix(BEGIN)).filter(|name| *name != REST) {
        let body = text.split_once(&format!("{BEGIN}{name}\n")).and_then(|(_, after)| after.split_once(FINISH));
        let (body, _) = body.with_context(|| format!("{name} has no end"))?;
        let (requests, bytes, seconds) = said(body).with_context(|| format!("{name}: it says {body:?}"))?;
        let split = spent(name).with_context(|| format!("{name} has no end"))?;
        let split = std::array::from_fn(|at| split[at].saturating_sub(rest[at]));
        let done = if name.starts_with(DD) { requests * bytes / 1e6 } else { requests };
        phases.push(Phase { name: name.to_owned(), rate: done / seconds, requests, split });
    }
    Ok(phases)
}

/// What was done: requests, bytes of each, seconds.
fn said(body: &str) -> Option<(f64, f64, f64)> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let line = body.lines().find_map(|line| line.strip_prefix("io: "))?;
    let (requests, rest) = line.split_once(" requests of ")?;
    let (bytes, rest) = rest.split_once(" bytes in ")?;
    Some((number(requests)?, number(bytes)?, number(rest.strip_suffix(" ns")?)? / 1e9))
}

fn rows(ours: &[Phase], theirs: &[Phase]) -> Vec<Row> {
    let mut rows = Vec::new();
    for phase in ours {
        let other = theirs.iter().find(|other| other.name == phase.name);
        rows.push(Row {
            operation: phase.name.clone(),
            unit: if phase.name.starts_with(DD) { BYTES } else { REQUESTS }.into(),
            xen_rs: Some(phase.rate),
            xen: other.map(|other| other.rate),
            goal: None,
        });
        #[allow(clippy::cast_precision_loss, reason = "counts below 2^50")]
        let each = |phase: &Phase, at: usize| phase.split[at] as f64 / phase.requests;
        rows.extend(WHO.iter().enumerate().map(|(at, who)| Row {
            operation: format!("{}: {who}", phase.name),
            unit: INSTRUCTIONS.into(),
            xen_rs: Some(each(phase, at)),
            xen: other.map(|other| each(other, at)),
            goal: None,
        }));
    }
    rows
}

/// Whether a rate is below Xen's. Who does the work is not judged by itself.
fn behind_xen(row: &Row) -> bool {
    row.unit != INSTRUCTIONS && matches!((row.xen_rs, row.xen), (Some(ours), Some(theirs)) if ours < theirs)
}

/// A line for each measurement: its rate, then who executes how much for one request.
fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| measurement | unit | goal | xen-rs | Xen | per request on xen-rs: hypervisor + dom0 + guest | on Xen |\n\
         |---|---|---:|---:|---:|---:|---:|\n",
    );
    let parts = |group: &[Row], of: fn(&Row) -> Option<f64>| {
        let parts: Vec<String> = group.iter().map(|row| cell(of(row).map(f64::round))).collect();
        parts.join(" + ")
    };
    for group in rows.chunks(1 + WHO.len()) {
        let Some((row, split)) = group.split_first() else { continue };
        let cells = [cell(row.goal), cell(row.xen_rs.map(f64::round)), cell(row.xen.map(f64::round))].join(" | ");
        let (ours, theirs) = (parts(split, |row| row.xen_rs), parts(split, |row| row.xen));
        let _ = writeln!(text, "| {} | {} | {cells} | {ours} | {theirs} |", row.operation, row.unit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_exerciser_says() {
        assert_eq!(said("x\nio: 300 requests of 512 bytes in 2000000000 ns\n"), Some((300.0, 512.0, 2.0)));
        assert_eq!(said("io: /dev/xvda: no such file\n"), None);
    }

    #[test]
    fn a_phase_is_what_it_cost_without_the_rests() {
        let text =
            "io: begin rest\nio: end rest\nio: begin a\nio: 10 requests of 4096 bytes in 1000000000 ns\nio: end a\n";
        let marks = [("io: begin rest", 0), ("io: end rest", 5), ("io: begin a", 10), ("io: end a", 115)];
        let marks: Vec<_> = marks.iter().map(|(line, n)| ((*line).to_owned(), [*n; 3])).collect();
        let phases = phases(text, &marks).unwrap();
        assert_eq!(phases, [Phase { name: "a".into(), rate: 10.0, requests: 10.0, split: [100; 3] }]);
        let rows = rows(&phases, &[]);
        assert_eq!(rows[1].xen_rs, Some(10.0));
        assert!(table(&rows).ends_with("| a | requests/s | - | 10 | - | 10 + 10 + 10 | - + - + - |\n"));
    }
}
