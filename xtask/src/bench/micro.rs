//! `cargo xtask bench micro`: instructions and dear events per hypercall and trap of a PV guest, or per exit of a PVH guest,
//! which our dom0 creates.

use super::plugin::{self, DEAR, Dear, Plugin};
use super::row::{self, Row, cell, figure};
use super::{CPU, GUEST, Options, record};
use crate::boot::Hypervisor;
use crate::doctor::{self, Need};
use crate::emulator::{self, Machine, Module, Next, Payload};
use crate::say::Step;
use crate::suite::{Mode, module};
use crate::{build, dom0, workspace};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// What stands before each figure: `bench: NAME = N of OPERATIONS`.
const MARK: &str = "bench: ";
/// The last line.
const END: &str = "bench: end";

/// Count instructions and dear events of hypercalls and traps.
///
/// Fails when a row is above Xen's figure, or when xen-rs needs more dear events than Xen.
#[derive(clap::Args)]
pub struct Micro {
    #[command(flatten)]
    options: Options,
    /// What the guest runs in
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::Pv)]
    mode: Mode,
}

/// What is other from mode to mode.
struct Subject {
    /// Its section in docs/BENCHMARKS.md, and its goals.
    name: &'static str,
    command: &'static str,
    head: &'static str,
    cpu: &'static str,
}

const PV: Subject = Subject {
    name: "micro",
    command: "cargo xtask bench micro --compare",
    head: "## PV, instructions per operation\n\nMean of 10,000 rounds, loop cost subtracted, the guest's side included. Dear \
           events are counted in the hypervisor alone, by the plugin `xtask/plugin/dear.c`.\n",
    cpu: CPU,
};

const PVH: Subject = Subject {
    name: "micro-pvh",
    command: "cargo xtask bench micro --mode pvh --compare",
    head: "## PVH in AMD-V, instructions per operation\n\nThe same guest, created by our dom0 on both. Hypercalls include the \
           guest's stub of two instructions. This emulator's CPU does not say how long an instruction is that exits: Xen \
           decodes it in software, in every row but the one of the port, which is the fair one. Exits of a running guest \
           that have nothing to do with the row (timers, dom0's turns) are in the counts.\n",
    cpu: PVH_CPU,
};

/// Without SMEP: see `Case::in_container`.
const PVH_CPU: &str = "max,-smap,-smep,-x2apic";

/// A figure as the guest and the plugin report it.
#[derive(Clone, Debug, PartialEq)]
struct Figure {
    operation: String,
    instructions: f64,
    dear: [f64; DEAR.len()],
}

/// An operation on both hypervisors: its instructions, then what was dear.
struct Operation {
    instructions: Row,
    dear: Vec<Row>,
}

impl Micro {
    pub fn run(self) -> Result<ExitCode> {
        doctor::ensure(&[Need::Emulator, Need::Compiler, Need::Layout])?;
        build::expect_guests([GUEST.to_owned()].into());
        let (ours, line) = self.measure(Hypervisor::XenRs)?;
        let theirs = if self.options.compare { self.measure(Hypervisor::Xen)?.0 } else { Vec::new() };
        let operations = operations(&ours, &theirs, self.subject().name)?;
        let all: Vec<&Row> =
            operations.iter().flat_map(|one| std::iter::once(&one.instructions).chain(&one.dear)).collect();
        if let Some(path) = &self.options.json {
            row::write_json(path, &all.iter().map(|&row| row.clone()).collect::<Vec<_>>())?;
        }
        let table = table(&operations);
        let faults = faults(&operations);
        print!("{table}\n{faults}");
        if self.options.compare {
            let Subject { name, command, head, .. } = self.subject();
            let facts = record::facts(command, &line);
            record::write(name, &format!("{head}\n{facts}\n{table}\n{faults}"))?;
        }
        let bad = all.iter().any(|row| row.above_xen());
        Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    const fn subject(&self) -> &'static Subject {
        match self.mode {
            Mode::Pv => &PV,
            Mode::Pvh => &PVH,
        }
    }

    /// The guest as the first domain, or as one that our dom0 creates.
    fn modules(&self) -> Result<Vec<Module>> {
        let guest = format!("guest:{GUEST}");
        if self.mode == Mode::Pv {
            return Ok(vec![module(&guest)?]);
        }
        let script = format!(
            "create -q name=\"{GUEST}\" kernel=\"/files/{GUEST}\" type=\"pvh\" tsc_mode=\"native\" memory=64\n\
             console --until \"{END}\" --timeout 3600 {GUEST}"
        );
        dom0::modules(&dom0::Files::Default { more: &[guest] }, Some(&script))
    }

    fn measure(&self, hypervisor: Hypervisor) -> Result<(Vec<Figure>, Vec<OsString>)> {
        let logs = workspace::path("target/test-logs");
        std::fs::create_dir_all(&logs)?;
        let (log, counts) = (
            logs.join(format!("bench-{}-{}.log", self.subject().name, hypervisor.name())),
            logs.join(format!("bench-{}-{}.dear", self.subject().name, hypervisor.name())),
        );
        let machine = Machine {
            cpu: self.subject().cpu.into(),
            icount: true,
            extra: Plugin::Dear.get()?.arguments(&counts, ""),
            ..Machine::default()
        };
        let payload = Payload {
            kernel: hypervisor.kernel()?,
            append: hypervisor.base_options(&machine),
            modules: self.modules()?,
        };
        let step = Step::begin(&format!("measure on {}", hypervisor.name()));
        let mut text = String::new();
        emulator::watch(&machine, &payload, Duration::from_secs(self.options.timeout), |bytes| {
            text.push_str(&String::from_utf8_lossy(bytes).replace('\r', ""));
            if text.contains(END) { Next::Stop } else { Next::Watch }
        })?;
        step.done();
        std::fs::write(&log, &text).with_context(|| log.display().to_string())?;
        if !text.contains(END) {
            bail!("the guest did not end on {}; see {}", hypervisor.name(), log.display());
        }
        let dear = std::fs::read_to_string(&counts).with_context(|| counts.display().to_string())?;
        Ok((figures(&text, &plugin::rows(&dear))?, machine.command_line(&payload)))
    }
}

/// The figures among a guest's output, with the plugin's counts, which come in the same order.
fn figures(text: &str, dear: &[Dear]) -> Result<Vec<Figure>> {
    let marked = text.lines().filter_map(|line| line.split_once(MARK)).filter_map(|(_, rest)| rest.split_once(" = "));
    let mut figures = Vec::new();
    for (name, rest) in marked {
        let (instructions, operations) = rest.split_once(" of ").with_context(|| format!("{name}: {rest}"))?;
        let (instructions, operations): (f64, f64) = (instructions.trim().parse()?, operations.trim().parse()?);
        let Some(counts) = dear.get(figures.len()) else { bail!("{name}: the plugin has counted no such row") };
        let dear = counts.map(|count| u32::try_from(count).map_or(f64::INFINITY, f64::from) / operations);
        figures.push(Figure { operation: name.trim().to_owned(), instructions, dear });
    }
    if figures.len() != dear.len() {
        bail!("{} rows of the guest, {} of the plugin", figures.len(), dear.len());
    }
    Ok(figures)
}

/// Puts both hypervisors' figures together.
fn operations(ours: &[Figure], theirs: &[Figure], subject: &str) -> Result<Vec<Operation>> {
    let mut instructions = Vec::new();
    let mut dear = Vec::new();
    for figure in ours {
        let other = theirs.iter().find(|other| other.operation == figure.operation);
        let row = |unit: &str, xen_rs, xen| Row {
            operation: figure.operation.clone(),
            unit: unit.into(),
            xen_rs: Some(xen_rs),
            xen,
            goal: None,
        };
        instructions.push(row("instructions", figure.instructions, other.map(|other| other.instructions)));
        let each = DEAR.iter().zip(figure.dear).enumerate();
        dear.push(each.map(|(at, (unit, n))| row(unit, n, other.and_then(|o| o.dear.get(at).copied()))).collect());
    }
    row::set_goals(&mut instructions, row::goals(subject)?)?;
    if let Some(row) = instructions.iter().find(|row| row.goal.is_none()) {
        bail!("tests/harness/goals.toml: {:?} has no goal", row.operation);
    }
    Ok(instructions.into_iter().zip(dear).map(|(instructions, dear)| Operation { instructions, dear }).collect())
}

/// Dear events in a cell: those that there are.
fn events(dear: &[Row], of: fn(&Row) -> Option<f64>) -> String {
    let some =
        dear.iter().filter_map(|row| of(row).filter(|&n| n >= 0.005).map(|n| format!("{} {}", figure(n), row.unit)));
    let text = some.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "-".into() } else { text }
}

fn table(operations: &[Operation]) -> String {
    let mut text = String::from(
        "| operation | goal | xen-rs | Xen | ratio | dear on xen-rs | dear on Xen |\n|---|---:|---:|---:|---:|---|---|\n",
    );
    for Operation { instructions: row, dear } in operations {
        let ratio = row.xen_rs.zip(row.xen).map_or("-".into(), |(ours, theirs)| format!("{:.2}", ours / theirs));
        let cells = [cell(row.goal), cell(row.xen_rs), cell(row.xen), ratio].join(" | ");
        let (ours, theirs) = (events(dear, |row| row.xen_rs), events(dear, |row| row.xen));
        let _ = writeln!(text, "| {} | {cells} | {ours} | {theirs} |", row.operation);
    }
    text
}

/// What is not as it should be, as lists.
fn faults(operations: &[Operation]) -> String {
    let mut text = String::new();
    let mut list = |title: &str, rows: Vec<&Row>| {
        let _ = writeln!(text, "{title}: {}\n", if rows.is_empty() { "none".into() } else { rows.len().to_string() });
        for row in &rows {
            let _ = writeln!(text, "- {}", row.line());
        }
        if !rows.is_empty() {
            text.push('\n');
        }
    };
    let instructions = || operations.iter().map(|one| &one.instructions);
    list("Above Xen", instructions().filter(|row| row.above_xen()).collect());
    let dear = operations.iter().flat_map(|one| &one.dear);
    list("More dear events than Xen", dear.filter(|row| row.above_xen()).collect());
    list("Above the goal", instructions().filter(|row| row.above_goal()).collect());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_counts_come_in_the_same_order() {
        let text = "(XEN) x\nbench: null = 110.40 of 100\nnoise\nbench: end\n";
        let found = figures(text, &[[0, 0, 50, 0, 200, 0, 0, 0]]).unwrap();
        assert_eq!(found[0].operation, "null");
        assert_eq!(found[0].dear, [0.0, 0.0, 0.5, 0.0, 2.0, 0.0, 0.0, 0.0]);
        assert!(figures(text, &[]).is_err());
        assert!(figures(text, &[[0; 8], [0; 8]]).is_err());
    }

    #[test]
    fn a_row_says_what_is_dear() {
        let row = |unit: &str, xen_rs: f64, xen: f64, goal: Option<f64>| Row {
            operation: "null".into(),
            unit: unit.into(),
            xen_rs: Some(xen_rs),
            xen: Some(xen),
            goal,
        };
        let one = Operation {
            instructions: row("instructions", 110.4, 276.0, Some(100.0)),
            dear: vec![row("TLB flushes", 0.0, 0.0, None), row("locked operations", 2.0, 1.0, None)],
        };
        let table = table(std::slice::from_ref(&one));
        assert!(table.ends_with("| null | 100 | 110 | 276 | 0.40 | 2 locked operations | 1 locked operations |\n"));
        let faults = faults(&[one]);
        assert!(faults.contains("Above Xen: none"), "{faults}");
        assert!(faults.contains("More dear events than Xen: 1\n\n- null (locked operations): xen-rs 2, Xen 1\n"));
        assert!(faults.contains("- null (instructions): xen-rs 110, Xen 276, goal 100\n"));
    }
}
