//! `cargo xtask bench`: what operations cost, in executed instructions, on xen-rs and on Xen side by side. The same guest
//! binary measures both, with a TSC that counts instructions; so the figures are exact and repeat.

use crate::boot::Hypervisor;
use crate::doctor::{self, Need};
use crate::emulator::{self, Machine, Next, Payload};
use crate::packages::Fetched;
use crate::suite::module;
use crate::{say::Step, workspace};
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// The guest that measures.
pub const GUEST: &str = "bench";

/// What stands before each figure: `bench: NAME = N`.
const MARK: &str = "bench: ";
/// The last line.
const END: &str = "bench: end";
/// Without x2APIC: the emulator cannot count instructions with it.
const CPU: &str = "max,-smap,-x2apic";

/// Count the instructions of hypercalls and traps on xen-rs and on Xen.
#[derive(clap::Args)]
pub struct Bench {
    /// Only one of the two
    #[arg(long, value_enum, value_name = "HYPERVISOR")]
    on: Option<Hypervisor>,
    /// Write the table to docs/results/bench.md
    #[arg(long)]
    record: bool,
    /// Deadline for each of the two, in seconds
    #[arg(long, value_name = "S", default_value_t = 120)]
    timeout: u64,
}

impl Bench {
    pub fn run(self) -> Result<ExitCode> {
        doctor::ensure(&[Need::Emulator, Need::Compiler])?;
        let hypervisors = self.on.map_or(vec![Hypervisor::XenRs, Hypervisor::Xen], |one| vec![one]);
        let mut columns = Vec::new();
        for hypervisor in hypervisors {
            columns.push((hypervisor.name(), self.measure(hypervisor)?));
        }
        let table = table(&columns);
        print!("{table}");
        if self.record {
            let dir = workspace::path("docs/results");
            std::fs::create_dir_all(&dir)?;
            let text = format!(
                "# Instructions per operation\n\nWritten by `cargo xtask bench --record`; not edited by hand. The guest's \
                 side is included. {}\n\n{table}",
                Fetched::Xen.version().unwrap_or_default()
            );
            std::fs::write(dir.join("bench.md"), text)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn measure(&self, hypervisor: Hypervisor) -> Result<Vec<(String, f64)>> {
        let machine = Machine { cpu: CPU.into(), icount: true, ..Machine::default() };
        let payload = Payload {
            kernel: hypervisor.kernel()?,
            append: hypervisor.base_options(&machine),
            modules: vec![module(&format!("guest:{GUEST}"))?],
        };
        let step = Step::begin(&format!("measure on {}", hypervisor.name()));
        let mut text = String::new();
        emulator::watch(&machine, &payload, Duration::from_secs(self.timeout), |bytes| {
            text.push_str(&String::from_utf8_lossy(bytes).replace('\r', ""));
            if text.contains(END) { Next::Stop } else { Next::Watch }
        })?;
        step.done();
        let logs = workspace::path("target/test-logs");
        std::fs::create_dir_all(&logs)?;
        let log = logs.join(format!("bench-{}.log", hypervisor.name()));
        std::fs::write(&log, &text).with_context(|| log.display().to_string())?;
        if !text.contains(END) {
            bail!("the guest did not end on {}; see {}", hypervisor.name(), log.display());
        }
        Ok(figures(&text))
    }
}

/// The figures among a guest's output.
fn figures(text: &str) -> Vec<(String, f64)> {
    let marked = text.lines().filter_map(|line| line.split_once(MARK)).map(|(_, rest)| rest);
    marked
        .filter_map(|line| line.split_once(" = "))
        .filter_map(|(name, number)| Some((name.trim().to_owned(), number.trim().parse().ok()?)))
        .collect()
}

/// A table with a column for each hypervisor, and their ratio when there are two.
fn table(columns: &[(&str, Vec<(String, f64)>)]) -> String {
    let mut text = String::from("| operation |");
    for (name, _) in columns {
        let _ = write!(text, " {name} |");
    }
    text.push_str(if columns.len() == 2 { " ratio |\n" } else { "\n" });
    text.push_str("|---|");
    text.push_str(&"---:|".repeat(columns.len() + usize::from(columns.len() == 2)));
    text.push('\n');
    let Some((_, first)) = columns.first() else { return text };
    for (operation, _) in first {
        let of = |figures: &[(String, f64)]| figures.iter().find(|(name, _)| name == operation).map(|(_, n)| *n);
        let figures: Vec<Option<f64>> = columns.iter().map(|(_, figures)| of(figures)).collect();
        let _ = write!(text, "| {operation} |");
        for figure in &figures {
            let _ = match figure {
                Some(figure) => write!(text, " {figure:.0} |"),
                None => write!(text, " - |"),
            };
        }
        if let [Some(ours), Some(theirs)] = figures[..] {
            let _ = write!(text, " {:.2} |", ours / theirs);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_columns_and_their_ratio() {
        let ours = figures("(XEN) x\nbench: null = 110.4\nnoise\nbench: end\n");
        assert_eq!(ours, [("null".to_owned(), 110.4)]);
        let theirs = figures("bench: null = 276\n");
        let table = table(&[("xen-rs", ours), ("xen", theirs)]);
        assert_eq!(table, "| operation | xen-rs | xen | ratio |\n|---|---:|---:|---:|\n| null | 110 | 276 | 0.40 |\n");
    }
}
