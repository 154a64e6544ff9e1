//! `cargo xtask bench micro`: instructions and dear events per hypercall and trap of a PV guest, or per exit of a PVH guest,
//! which our dom0 creates.

use super::plugin::{self, DEAR, Dear, Plugin};
use super::row::{self, Row, cell, figure};
use super::{CPU, GUEST, Options, record};
use crate::boot::Hypervisor;
use crate::doctor::{self, Need};
use crate::emulator::{self, Emulator, Machine, Module, Next, Payload, bochs};
use crate::say::Step;
use crate::suite::{Mode, module};
use crate::{build, dom0, workspace};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What stands before each figure: `bench: NAME = N of OPERATIONS`.
const MARK: &str = "bench: ";
/// What Bochs's debugger says at a mark, and the code segment of both hypervisors as it writes it down.
const MARKED: &str = "Magic breakpoint";
const IN_HYPERVISOR: &str = " e008:";
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
    /// What emulates the machine; Bochs has Intel's containers, QEMU AMD's
    #[arg(long, value_enum, default_value_t = Emulator::Qemu)]
    emulator: Emulator,
}

/// What is other from mode to mode.
struct Subject {
    /// Its section in docs/BENCHMARKS.md.
    name: &'static str,
    /// Its goals in tests/harness/goals.toml.
    goals: &'static str,
    command: &'static str,
    head: &'static str,
    cpu: &'static str,
}

const PV: Subject = Subject {
    name: "micro",
    goals: "micro",
    command: "cargo xtask bench micro --compare",
    head: "## PV, instructions per operation\n\nMean of 10,000 rounds, loop cost subtracted, the guest's side included. Dear \
           events are counted in the hypervisor alone, by the plugin `xtask/plugin/dear.c`.\n",
    cpu: CPU,
};

const PVH: Subject = Subject {
    name: "micro-pvh",
    goals: "micro-pvh",
    command: "cargo xtask bench micro --mode pvh --compare",
    head: "## PVH in AMD-V, instructions per operation\n\nThe same guest, created by our dom0 on both. Hypercalls include the \
           guest's stub of two instructions. This emulator's CPU does not say how long an instruction is that exits: Xen \
           decodes it in software, in every row but the one of the port, which is the fair one. Exits of a running guest \
           that have nothing to do with the row (timers, dom0's turns) are in the counts.\n",
    cpu: PVH_CPU,
};

const PVH_BY_VTX: Subject = Subject {
    name: "micro-pvh-vtx",
    goals: "micro-pvh",
    command: "cargo xtask bench micro --mode pvh --emulator bochs --compare",
    head: "## PVH in VT-x, instructions per operation\n\nThe same guest in Bochs, whose TSC counts instructions too. What is dear \
           is counted in the hypervisor, from one VM entry to the next, in the first instructions of each row as Bochs's \
           debugger writes them down: the median. `vmread` and `vmwrite` are the accesses to the VMCS.\n",
    cpu: bochs::DEFAULT_CPU,
};

/// Fewer VM entries than this are not the row's own.
const ROUNDS: usize = 5;

/// How many instructions of each row are written down: some rounds on Xen, many on xen-rs.
const TRACED: u32 = 60_000;

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
        doctor::ensure(&[self.emulator.need(), Need::Compiler, Need::Layout])?;
        build::expect_guests([GUEST.to_owned()].into());
        let (ours, line) = self.measure(Hypervisor::XenRs)?;
        let theirs = if self.options.compare { self.measure(Hypervisor::Xen)?.0 } else { Vec::new() };
        let operations = operations(&ours, &theirs, self.subject()?.goals)?;
        let all: Vec<&Row> =
            operations.iter().flat_map(|one| std::iter::once(&one.instructions).chain(&one.dear)).collect();
        if let Some(path) = &self.options.json {
            row::write_json(path, &all.iter().map(|&row| row.clone()).collect::<Vec<_>>())?;
        }
        let table = table(&operations);
        let faults = faults(&operations);
        print!("{table}\n{faults}");
        if self.options.compare {
            let Subject { name, command, head, .. } = self.subject()?;
            let facts = match self.emulator {
                Emulator::Qemu => record::facts(command, &line),
                Emulator::Bochs => {
                    let machine = format!("one CPU, {}", bochs::DEFAULT_CPU);
                    record::facts_in(&self.greeting()?, command, &[machine.into()])
                }
            };
            record::write(name, &format!("{head}\n{facts}\n{table}\n{faults}"))?;
        }
        let bad = all.iter().any(|row| row.above_xen());
        Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn subject(&self) -> Result<&'static Subject> {
        match (self.mode, self.emulator) {
            (Mode::Pv, Emulator::Qemu) => Ok(&PV),
            (Mode::Pvh, Emulator::Qemu) => Ok(&PVH),
            (Mode::Pvh, Emulator::Bochs) => Ok(&PVH_BY_VTX),
            (Mode::Pv, Emulator::Bochs) => bail!("a PV guest is measured in QEMU; --emulator bochs is for --mode pvh"),
        }
    }

    /// What Bochs's debugger begins with: its name and version.
    fn greeting(&self) -> Result<String> {
        let text = String::from_utf8_lossy(&std::fs::read(self.file(Hypervisor::XenRs, "dear")?)?).into_owned();
        Ok(text.lines().find(|line| line.contains("Emulator")).unwrap_or(bochs::PROGRAM).trim().to_owned())
    }

    /// What a machine leaves: its log, or its counts.
    fn file(&self, hypervisor: Hypervisor, kind: &str) -> Result<PathBuf> {
        let logs = workspace::path("target/test-logs");
        std::fs::create_dir_all(&logs)?;
        Ok(logs.join(format!("bench-{}-{}.{kind}", self.subject()?.name, hypervisor.name())))
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
        let subject = self.subject()?;
        let (log, counts) = (self.file(hypervisor, "log")?, self.file(hypervisor, "dear")?);
        let usual = Machine { cpu: subject.cpu.into(), emulator: self.emulator, ..Machine::default() };
        let machine = match self.emulator {
            Emulator::Qemu => Machine { icount: true, extra: Plugin::Dear.get()?.arguments(&counts, ""), ..usual },
            Emulator::Bochs => {
                let ignore_bad_msrs = hypervisor == Hypervisor::Xen;
                Machine { ignore_bad_msrs, trace: Some((counts.clone(), TRACED)), ..usual }
            }
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
        let dear = std::fs::read(&counts).with_context(|| counts.display().to_string())?;
        let dear = String::from_utf8_lossy(&dear);
        let figures = match self.emulator {
            Emulator::Qemu => {
                let counts: Vec<Counts> = plugin::rows(&dear).into_iter().map(|counts| (counts, None)).collect();
                figures(&text, &counts)?
            }
            Emulator::Bochs => figures(&text, &traced(&dear))?,
        };
        Ok((figures, machine.command_line(&payload)))
    }
}

/// Counts of [`DEAR`] for each row, and by how many they are to be divided, if not by the row's operations.
type Counts = (Dear, Option<u64>);

/// Dear events of the hypervisor in what Bochs's debugger wrote down: the marks alternately begin and end a row.
fn traced(text: &str) -> Vec<Counts> {
    let mut sections = text.split(MARKED).skip(1);
    let mut rows = Vec::new();
    while let Some(section) = sections.next() {
        rows.push(rounds(section));
        sections.next();
    }
    rows
}

/// What a usual round executes, from one entry of a guest to the next: the median of each, which no interrupt and no turn of
/// another domain changes.
fn rounds(section: &str) -> Counts {
    let (mut rounds, mut since_entry, mut entered) = (Vec::new(), Dear::default(), false);
    let instructions = section.lines().filter_map(|line| {
        let (place, instruction) = line.strip_prefix("(0).[")?.split_once("ctxt): ")?;
        place.contains(IN_HYPERVISOR).then(|| instruction.split(';').next().unwrap_or_default().trim())
    });
    for instruction in instructions {
        if let Some(kind) = dear(instruction)
            && let Some(count) = since_entry.get_mut(kind)
        {
            *count += 1;
        }
        if instruction.starts_with("vmresume") || instruction.starts_with("vmlaunch") {
            let round = core::mem::take(&mut since_entry);
            if core::mem::replace(&mut entered, true) {
                rounds.push(round);
            }
        }
    }
    if rounds.len() < ROUNDS {
        return (Dear::default(), Some(1));
    }
    let median = |kind: usize| {
        let mut counts: Vec<u64> = rounds.iter().filter_map(|round| round.get(kind).copied()).collect();
        counts.sort_unstable();
        counts.get(counts.len() / 2).copied().unwrap_or(0)
    };
    (core::array::from_fn(median), Some(1))
}

/// Which of [`DEAR`] an instruction is. IPIs are writes of an MSR, or to memory, here.
fn dear(instruction: &str) -> Option<usize> {
    let (name, operands) = instruction.split_once(' ').unwrap_or((instruction, ""));
    let to_memory = operands.split(',').any(|operand| operand.contains('['));
    match name {
        "mov" if operands.starts_with("cr3") => Some(2),
        "mov" if operands.starts_with("cr") => Some(0),
        "wrmsr" => Some(1),
        "invlpg" | "invpcid" | "invept" | "invvpid" => Some(2),
        "lock" => Some(4),
        "xchg" if to_memory => Some(4),
        "vmresume" | "vmlaunch" => Some(5),
        "in" | "out" => Some(6),
        "vmread" | "vmwrite" => Some(7),
        _ => None,
    }
}

/// The figures among a guest's output, with the plugin's counts, which come in the same order.
fn figures(text: &str, dear: &[Counts]) -> Result<Vec<Figure>> {
    let marked = text.lines().filter_map(|line| line.split_once(MARK)).filter_map(|(_, rest)| rest.split_once(" = "));
    let mut figures = Vec::new();
    for (name, rest) in marked {
        let (instructions, operations) = rest.split_once(" of ").with_context(|| format!("{name}: {rest}"))?;
        let (instructions, operations): (f64, f64) = (instructions.trim().parse()?, operations.trim().parse()?);
        let Some((counts, divisor)) = dear.get(figures.len()) else { bail!("{name}: nothing was counted in this row") };
        let float = |count: u64| u32::try_from(count).map_or(f64::INFINITY, f64::from);
        let dear = counts.map(|count| float(count) / divisor.map_or(operations, float));
        figures.push(Figure { operation: name.trim().to_owned(), instructions, dear });
    }
    if figures.len() != dear.len() {
        bail!("{} rows of the guest, {} of what counts", figures.len(), dear.len());
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
        let found = figures(text, &[([0, 0, 50, 0, 200, 0, 0, 0], None)]).unwrap();
        assert_eq!(found[0].operation, "null");
        assert_eq!(found[0].dear, [0.0, 0.0, 0.5, 0.0, 2.0, 0.0, 0.0, 0.0]);
        assert!(figures(text, &[]).is_err());
        assert!(figures(text, &[([0; 8], None), ([0; 8], None)]).is_err());
    }

    #[test]
    fn whole_rounds_are_counted_in_a_trace() {
        let line =
            |place: &str, instruction: &str| format!("(0).[17] [0x0000002] {place} (unk. ctxt): {instruction} ; 90\n");
        let ours = |instruction: &str| line("e008:ffff82d040001b12", instruction);
        let round = [
            line("0008:ffff880000100110", "vmcall"),
            ours("xchg qword ptr ss:[rsp], rax"),
            ours("xchg rcx, rax"),
            ours("vmread rax, rcx"),
            ours("lock add dword ptr ds:[rdi], 0x00000001"),
            ours("vmresume"),
        ]
        .concat();
        let rounds = round.repeat(ROUNDS + 1);
        let text = format!("x\n(0) {MARKED}\n{rounds}(0) {MARKED}\n{rounds}(0) {MARKED}\n{round}");
        assert_eq!(traced(&text), [([0, 0, 0, 0, 2, 1, 0, 1], Some(1)), ([0; 8], Some(1))]);
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
