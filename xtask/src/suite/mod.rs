//! `cargo xtask test`: the suites, in the order in which they are worth knowing about. What the cases are stands in
//! `tests/harness/*.toml`; what each suite is for stands in tests/README.md.

pub mod as_xl;
mod asked;
mod case;
mod clock;
mod compare;
mod cores;
mod emulated;
mod host;
mod hostile;
mod mixed;
pub mod models;
mod power_cut;
mod record;
mod report;
mod stalls;
mod stretches;
mod tap;
mod warnings;

use crate::boot::Hypervisor;
use crate::doctor::{self, Need};
use crate::emulator::Emulator;
use crate::{build, workspace};
use anyhow::{Context, Result, bail};
use case::{Case, SuiteFile};
pub use emulated::module;
use emulated::{Judge, Reference, Row, Verdict};
use report::Tally;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The suites that run in the emulator.
pub const EMULATED: [&str; 5] = ["boot", "conformance", "kernel", "toolstack", "hostile"];

/// Programs among the guests that are no tests by themselves.
const NO_TESTS: [&str; 4] = [crate::bench::GUEST, "bad_disk", "hostile", "neighbour"];

/// What conformance guests run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// The hypervisor's first domain, paravirtualized.
    Pv,
    /// A hardware container.
    Pvh,
}

/// Run the tests: everything that CI runs, or the suites that are named.
///
/// The last line is always `N passed, N failed`. Each case's serial output is kept in target/test-logs/.
#[derive(clap::Args)]
pub struct Test {
    /// host, boot, conformance, kernel, toolstack, hostile, models [default: all; models only with --full]
    #[arg(value_name = "SUITE", value_parser = ["host", "boot", "conformance", "kernel", "toolstack", "hostile", "models"])]
    suites: Vec<String>,
    /// Every combination of every matrix, and the long cases; records the results in docs/results/
    #[arg(long)]
    full: bool,
    /// What one runs while changing things: each case on one machine, without the slow ones
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The hypervisor the emulated suites run on
    #[arg(long, value_enum, value_name = "HYPERVISOR", default_value_t = Hypervisor::XenRs)]
    on: Hypervisor,
    /// What emulates the machines
    #[arg(long, value_enum, default_value_t = Emulator::Qemu)]
    emulator: Emulator,
    /// Run the conformance guests on xen-rs and on Xen and print what they say differently
    #[arg(long)]
    compare: bool,
    /// What the conformance guests run in: as the hypervisor's first domain, or in hardware containers that dom0 makes
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::Pv)]
    mode: Mode,
    /// Only cases whose title contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    case: String,
    /// Record what kernels warn of on Xen (with --on xen), for the cases that compare it
    #[arg(long)]
    record: bool,
    /// Count how long the hypervisor goes without taking an interrupt; rows fail where that is more than N instructions
    #[arg(long, value_name = "N")]
    stretches: Option<u64>,
    /// How many emulators run side by side [default: the number of CPUs, at most 4]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

impl Test {
    /// The test that `ci` runs.
    pub fn everything() -> Self {
        Self {
            suites: Vec::new(),
            full: false,
            quick: false,
            on: Hypervisor::XenRs,
            emulator: Emulator::Qemu,
            compare: false,
            mode: Mode::Pv,
            case: String::new(),
            record: false,
            stretches: None,
            jobs: None,
        }
    }

    pub fn run(self) -> Result<ExitCode> {
        let tally = if self.suites.is_empty() && self.case.is_empty() && self.on == Hypervisor::XenRs {
            doctor::ensure(&[Need::Compiler])?;
            build::meanwhile(|| self.tally())?
        } else {
            self.tally()?
        };
        println!("{tally}");
        Ok(tally.exit())
    }

    /// Runs what was asked for and counts, leaving the last line to the caller.
    pub fn tally(&self) -> Result<Tally> {
        if self.record && self.on != Hypervisor::Xen {
            bail!("--record needs --on xen: the record says how kernels behave there");
        }
        if self.mode == Mode::Pvh && self.suites != ["conformance"] {
            bail!("--mode is for the suite conformance: the other suites say in their cases what guests run in");
        }
        if self.compare {
            if self.suites != ["conformance"] || self.on != Hypervisor::XenRs {
                bail!("--compare is for the suite conformance, and runs it on both hypervisors");
            }
            return self.compared();
        }
        let mut tally = Tally::default();
        if self.wants("host") && self.on == Hypervisor::XenRs && self.case.is_empty() {
            doctor::ensure(&[Need::Layout])?;
            tally += host::run()?;
        }
        let asked = self.full || !self.suites.is_empty();
        if asked && self.wants("models") && self.on == Hypervisor::XenRs && self.case.is_empty() {
            tally += models::run()?;
        }
        for suite in EMULATED {
            if self.wants(suite) {
                tally += self.emulated(suite)?;
            }
        }
        Ok(tally)
    }

    fn wants(&self, suite: &str) -> bool {
        self.suites.is_empty() || self.suites.iter().any(|wanted| wanted == suite)
    }

    fn emulated(&self, suite: &'static str) -> Result<Tally> {
        let file = case::read(&file_of(suite))?;
        let rows = self.rows(suite, file)?;
        if rows.is_empty() {
            return Ok(Tally::default());
        }
        build::expect_guests(rows.iter().flat_map(|row| row.case.guests()).collect());
        let emulators = rows.iter().map(|row| row.shape.emulator.need());
        let cds = rows.iter().filter(|row| row.case.loader.is_cd()).map(|_| Need::Iso);
        doctor::ensure(&emulators.chain(cds).chain([Need::Compiler]).collect::<Vec<_>>())?;
        let logs = workspace::path("target/test-logs").join(suite);
        println!("\nsuite {suite} on {}", self.on.name());
        let watch = stalls::Watch::begin();
        let again = Mutex::new(Vec::new());
        let mut results = self.in_parallel(&rows, |row| {
            let began = Instant::now();
            let log = log_of(&logs, row)?;
            let mut verdict = row.run(log);
            if let Ok(first) = &mut verdict
                && !first.passed
                && let Some(stall) = watch.since(began)
            {
                let kept = first.log.with_extension("first.log");
                std::fs::rename(std::mem::replace(&mut first.log, kept.clone()), kept)?;
                report::postponed(&row.title(), &verdict, stall);
                again.lock().unwrap_or_else(PoisonError::into_inner).push((row.clone(), stall));
                return Ok(None);
            }
            Ok(Some(ended(row, &verdict)))
        })?;
        for (row, stall) in again.into_inner().unwrap_or_else(PoisonError::into_inner) {
            watch.wait_until_quiet();
            let mut verdict = row.run(log_of(&logs, &row)?);
            if let Ok(second) = &mut verdict {
                second.note = format!("{} (again: {stall})", second.note).trim_start().to_owned();
            }
            results.push(Some(ended(&row, &verdict)));
        }
        let results: Vec<_> = results.into_iter().flatten().collect();
        let tally = results.iter().map(|(passed, _)| *passed).collect();
        if self.full && self.stretches.is_none() {
            // What could not be built or started says nothing of the row.
            let ended: Vec<_> = results.into_iter().filter_map(|(_, ended)| ended).collect();
            record::renew(suite, self.on, &self.all_titles(suite)?, &ended)?;
        }
        Ok(tally)
    }

    /// The titles of all rows that a suite has.
    fn all_titles(&self, suite: &'static str) -> Result<Vec<String>> {
        let all = Self { full: true, on: self.on, ..Self::everything() };
        Ok(all.rows(suite, case::read(&file_of(suite))?)?.iter().map(Row::title).collect())
    }

    /// The conformance guests on both hypervisors, and what they say differently.
    fn compared(&self) -> Result<Tally> {
        let comparison = compare::Comparison::begin()?;
        let mut rows = self.rows("conformance", case::read(&file_of("conformance"))?)?;
        // What holds for one of the two only has nothing to be compared with. The rows of the everyday tests that run in
        // the other emulator are about its machine, not about the ABI.
        rows.retain(|row| row.case.holds_on(Hypervisor::Xen) && row.shape.emulator == self.emulator);
        let emulators = rows.iter().map(|row| row.shape.emulator.need());
        doctor::ensure(&emulators.chain([Need::Compiler]).collect::<Vec<_>>())?;
        let logs = workspace::path("target/test-logs/compare");
        println!("\nsuite conformance on xen-rs and xen");
        let results = self.in_parallel(&rows, |row| {
            let mut said = Vec::new();
            let mut passed = true;
            for hypervisor in [Hypervisor::XenRs, Hypervisor::Xen] {
                let mut row = Row { hypervisor, ..row.clone() };
                let emulator = row.shape.emulator;
                // The same CPU for both: one that Xen can be run on.
                row.shape.cpu.get_or_insert_with(|| Hypervisor::Xen.default_cpu(emulator).into());
                let log = log_of(&logs, &row)?;
                let verdict = row.run(log.clone());
                if !verdict.as_ref().is_ok_and(|verdict| verdict.passed) {
                    passed = report::row(&format!("{} on {}", row.title(), hypervisor.name()), &verdict);
                }
                let text = if verdict.is_ok() { std::fs::read(&log)? } else { Vec::new() };
                said.push(compare::said(&String::from_utf8_lossy(&text)));
            }
            let [here, there] = &said[..] else { bail!("two hypervisors") };
            let (differences, unexplained) = comparison.add(&row.title(), guest_of(row), here, there);
            passed &= unexplained == 0;
            let word = if passed { "ok" } else { "FAILED" };
            println!(
                "  {word:<7} {:<60} {} compared, {differences} differ, {unexplained} without a reason",
                row.title(),
                here.len()
            );
            Ok(passed)
        })?;
        let mut guests: Vec<&str> = rows.iter().map(guest_of).collect();
        guests.dedup();
        let (text, good) = comparison.report(&guests);
        println!("{text}");
        let mut tally: Tally = results.into_iter().collect();
        tally.failed += usize::from(!good && tally.failed == 0);
        Ok(tally)
    }

    /// Does something with every row, several at a time. What a row cannot be built from fails that row; the others
    /// still run.
    fn in_parallel<T: Send>(&self, rows: &[Row], each: impl Fn(&Row) -> Result<T> + Sync) -> Result<Vec<T>> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.jobs.unwrap_or(cpus.min(4)).clamp(1, rows.len().max(1));
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = each(row);
                        results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                    }
                });
            }
        });
        results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
    }

    /// The rows of a suite: its cases on their machines.
    fn rows(&self, suite: &'static str, file: SuiteFile) -> Result<Vec<Row>> {
        let judge = match suite {
            "conformance" => Judge::Tap,
            "hostile" => Judge::Hostile,
            _ => Judge::Text,
        };
        let cases = match judge {
            Judge::Tap if self.mode == Mode::Pvh => {
                let models: &[String] = if self.full { &file.pvh_models } else { &[] };
                file.pvh.iter().map(|guest| file.in_container(guest, self.on, models)).collect()
            }
            Judge::Tap => {
                let (list, models): (&[String], &[String]) = if self.compare {
                    (&[], &[])
                } else if self.full {
                    (&file.pvh, &file.pvh_models)
                } else {
                    (&file.pvh_always, &[])
                };
                let in_containers: Vec<Case> =
                    list.iter().map(|guest| file.in_container(guest, self.on, models)).collect();
                let mut cases = guests(file.case)?;
                cases.extend(in_containers);
                cases
            }
            Judge::Hostile => file.case.into_iter().flat_map(hostile::expand).collect(),
            Judge::Text => file.case.into_iter().map(mixed::expand).collect(),
        };
        let reference = match self.on {
            Hypervisor::Xen if self.record => Reference::Store,
            Hypervisor::XenRs if self.full => Reference::Live,
            _ => Reference::Record,
        };
        let mut rows = Vec::new();
        for mut case in cases {
            if !case.holds_on(self.on) || (case.full && !self.full) || (case.slow && self.quick) {
                continue;
            }
            case.reject.get_or_insert_with(|| file.reject.clone());
            if self.full && judge == Judge::Tap {
                case.bochs.get_or_insert_with(|| vec![1]);
            }
            let mut shapes = match self.emulator {
                Emulator::Qemu => case.shapes(self.full),
                Emulator::Bochs => case.shapes_in_bochs(self.full),
            };
            if self.quick {
                shapes.truncate(1);
            }
            let one_of_many = shapes.len() > 1;
            for shape in shapes {
                // Everyday rows in Bochs are about our way to bring up its machine, or about Intel's containers.
                let contained = judge == Judge::Tap && case.script.is_some();
                let asked = self.emulator == Emulator::Bochs;
                if self.on == Hypervisor::Xen && shape.emulator == Emulator::Bochs && !contained && !asked {
                    continue;
                }
                // The plugin counts in QEMU alone.
                let stretches = self.stretches.filter(|_| shape.emulator == Emulator::Qemu);
                let case = case.clone();
                rows.push(Row { case, shape, one_of_many, judge, hypervisor: self.on, reference, stretches });
            }
        }
        rows.retain(|row| row.title().contains(&self.case));
        Ok(rows)
    }
}

/// Reports what came of a row: whether it passed, and what the record of full runs says of it.
fn ended(row: &Row, verdict: &Result<Verdict>) -> (bool, Option<record::Ended>) {
    let passed = report::row(&row.title(), verdict);
    (passed, verdict.as_ref().ok().map(|verdict| (row.title(), passed, verdict.note.clone())))
}

/// Where a row's output is kept.
fn log_of(logs: &Path, row: &Row) -> Result<PathBuf> {
    std::fs::create_dir_all(logs)?;
    Ok(logs.join(report::file_name(&format!("{}-{}", row.hypervisor.name(), row.title()))))
}

/// The guest of a conformance row.
fn guest_of(row: &Row) -> &str {
    row.case.name.split(' ').next().unwrap_or_default()
}

/// The file that holds a suite's cases.
pub fn file_of(suite: &str) -> PathBuf {
    workspace::path("tests/harness").join(format!("{suite}.toml"))
}

/// One case for each conformance guest there is. A case in the file may give its guest another machine or deadline;
/// a file's case that names no guest is a mistake.
fn guests(mut written: Vec<Case>) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for guest in workspace::binaries("guests")? {
        if NO_TESTS.contains(&guest.as_str()) {
            continue;
        }
        let matching = |case: &Case| case.name == guest || case.name.starts_with(&format!("{guest} "));
        let (mut own, rest): (Vec<Case>, Vec<Case>) = written.into_iter().partition(matching);
        written = rest;
        if own.is_empty() {
            own.push(Case::named(&guest));
        }
        for case in &mut own {
            if case.modules.is_empty() {
                case.modules.push(format!("guest:{guest}"));
            }
        }
        cases.append(&mut own);
    }
    if let Some(case) = written.first() {
        bail!("tests/harness/conformance.toml: {:?} names no guest", case.name);
    }
    Ok(cases)
}

/// The last lines of a log, for a row that failed.
fn tail(log: &Path, lines: usize) -> Result<String> {
    let text = std::fs::read(log).with_context(|| log.display().to_string())?;
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    Ok(all.get(from..).unwrap_or_default().join("\n"))
}
