//! `cargo xtask bench domains`: what it costs to create, list and destroy domains. Our dom0's toolstack on xen-rs is
//! measured beside Debian's `xl` in a Linux dom0 on Debian's Xen, and beside our dom0's toolstack on that Xen. The clock
//! counts instructions, so a virtual millisecond is a million of them; waiting counts too.

mod report;
mod scripts;
mod xl;

use super::row::{self, Row, cell, figure};
use super::{Options, record};
use crate::boot::Hypervisor;
use crate::doctor::{self, Need};
use crate::emulator::{self, Machine, Module, Next, Payload};
use crate::say::Step;
use crate::workspace;
use anyhow::{Context, Result, bail};
use report::{Figure, Figures};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// Time creating, listing and destroying domains.
#[derive(clap::Args)]
pub struct Domains {
    #[command(flatten)]
    options: Options,
    /// How many domains there are when they are listed; 1000 need 10 GiB. What is recorded in docs/ is of 120
    #[arg(long, value_name = "N", default_value_t = MANY, value_parser = clap::value_parser!(u32).range(2..=2000))]
    many: u32,
}

const MANY: u32 = 120;

/// A machine with a control domain that works through a script and then says its end.
struct Stage {
    /// Of its log.
    name: &'static str,
    /// MiB.
    mem: u32,
    cpu: &'static str,
    append: String,
    modules: Vec<Module>,
    ended: fn(&str) -> Option<bool>,
}

impl Domains {
    pub fn run(self) -> Result<ExitCode> {
        doctor::ensure(&[Need::Emulator, Need::Compiler])?;
        let (ours, line) = self.measure(Hypervisor::XenRs, scripts::stages(self.many)?)?;
        let (mut xl, mut on_xen) = (Figures::default(), Figures::default());
        if self.options.compare {
            on_xen = self.measure(Hypervisor::Xen, scripts::stages(self.many)?)?.0;
            on_xen.forget(scripts::CLEAN);
            xl = self.measure(Hypervisor::Xen, xl::stages(self.many)?)?.0;
        }
        let mut rows: Vec<Row> = ours
            .iter()
            .map(|(operation, figure)| Row {
                operation: operation.clone(),
                unit: figure.unit().into(),
                xen_rs: Some(figure.number()),
                xen: xl.get(operation).map(Figure::number),
                goal: None,
            })
            .collect();
        row::set_goals(&mut rows, row::goals("domains")?)?;
        if let Some(path) = &self.options.json {
            row::write_json(path, &rows)?;
        }
        let table = table(&rows, &on_xen);
        print!("{table}");
        if self.options.compare && self.many == MANY {
            let facts = record::facts("cargo xtask bench domains --compare", &line);
            record::write("domains", &format!("{HEAD}\n{facts}\n{table}\n"))?;
        }
        let above = rows.iter().any(|row| is_behind(row, row.xen));
        Ok(if above { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// What the machines say, and how the first of them was started.
    fn measure(&self, hypervisor: Hypervisor, stages: Vec<Stage>) -> Result<(Figures, Vec<OsString>)> {
        let (mut figures, mut line) = (Figures::default(), None);
        for stage in stages {
            let machine = Machine { cpu: stage.cpu.into(), icount: true, mem: stage.mem, ..Machine::default() };
            let append =
                format!("console=com1 com1=115200,8n1 loglvl=error guest_loglvl=error noreboot {}", stage.append);
            let payload = Payload { kernel: hypervisor.kernel()?, append, modules: stage.modules };
            let step = Step::begin(&format!("{} on {}", stage.name, hypervisor.name()));
            let mut text = String::new();
            emulator::watch(&machine, &payload, Duration::from_secs(self.options.timeout), |bytes| {
                text.push_str(&String::from_utf8_lossy(bytes).replace('\r', ""));
                if (stage.ended)(&text).is_some() { Next::Stop } else { Next::Watch }
            })?;
            step.done();
            let logs = workspace::path("target/test-logs");
            std::fs::create_dir_all(&logs)?;
            let name = format!("bench-domains-{}-{}.log", hypervisor.name(), stage.name.replace([' ', ','], "-"));
            let log = logs.join(name);
            std::fs::write(&log, &text).with_context(|| log.display().to_string())?;
            if (stage.ended)(&text) != Some(true) {
                bail!("{} did not end well on {}; see {}", stage.name, hypervisor.name(), log.display());
            }
            figures.add(&text);
            line.get_or_insert_with(|| machine.command_line(&payload));
        }
        Ok((figures, line.unwrap_or_default()))
    }
}

const HEAD: &str = "## Domains\n\nOur dom0's toolstack on xen-rs beside Debian's `xl` on Xen, with a Linux dom0, and beside our dom0's toolstack on \
    that Xen. One vCPU per domain. Virtual milliseconds, so waiting counts. Free memory was scrubbed by idle CPUs before, but \
    where the row says otherwise; destroying does not scrub. Rows in \"domains\" have a lower bound as their goal.\n";

/// Whether a figure is on the wrong side of another. Of domains, more is better.
fn is_behind(row: &Row, of: Option<f64>) -> bool {
    match (row.xen_rs, of) {
        (Some(ours), Some(theirs)) if row.unit == report::DOMAINS => ours < theirs,
        _ => Row { xen: of, ..row.clone() }.above_xen(),
    }
}

fn table(rows: &[Row], on_xen: &Figures) -> String {
    let mut text = String::from(
        "| operation | unit | goal | xen-rs | xl on Xen | our toolstack on Xen |\n|---|---|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let cells =
            [row.goal, row.xen_rs, row.xen, on_xen.get(&row.operation).map(Figure::number)].map(cell).join(" | ");
        let _ = writeln!(text, "| {} | {} | {cells} |", row.operation, row.unit);
    }
    let missed: Vec<String> = rows
        .iter()
        .filter(|row| is_behind(row, row.goal))
        .map(|row| {
            format!("- {}: {}, goal {}\n", row.operation, cell(row.xen_rs), row.goal.map_or_else(String::new, figure))
        })
        .collect();
    let _ = write!(
        text,
        "\nShort of the goal: {}\n\n{}",
        if missed.is_empty() { "none".into() } else { missed.len().to_string() },
        missed.concat()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_domains_are_better_and_more_instructions_worse() {
        let row = |unit: &str| Row {
            operation: "a".into(),
            unit: unit.into(),
            xen_rs: Some(5.0),
            xen: Some(4.0),
            goal: Some(6.0),
        };
        assert!(is_behind(&row(report::DOMAINS), Some(6.0)) && !is_behind(&row(report::DOMAINS), Some(4.0)));
        assert!(is_behind(&row(report::MILLIONS), Some(4.0)) && !is_behind(&row(report::MILLIONS), Some(6.0)));
        assert!(
            table(&[row(report::DOMAINS)], &Figures::default()).contains("Short of the goal: 1\n\n- a: 5, goal 6\n")
        );
    }
}
