//! `cargo xtask bench domains`: what it costs to create, list and destroy domains, with our dom0's toolstack on both
//! hypervisors. The clock counts instructions, so a virtual millisecond is a million of them; waiting counts too.

use super::row::{self, Row, cell};
use super::{CPU, Options, record};
use crate::boot::Hypervisor;
use crate::doctor::{self, Need};
use crate::emulator::{self, Machine, Next, Payload};
use crate::say::Step;
use crate::{dom0, workspace};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// Stands before the name of a row in the output.
const MARK: &str = "row: ";
/// MiB for dom0, the hypervisor and one domain of 192.
const BASE_MEMORY: u32 = 1024;
/// MiB for each of many domains: 8 of its own, and what is kept about it.
const EACH: u32 = 9;

/// Rows by name.
type Figures = Vec<(String, f64)>;

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

fn tiny(name: &str) -> String {
    format!("create -p 'name=\"{name}\"' 'type=\"pv\"' 'kernel=\"/files/hello\"' 'memory=8'")
}

/// The script, in which each command of a row stands behind its name.
fn script(many: u32) -> String {
    let mut script = String::new();
    let row = |script: &mut String, name: &str, command: &str| {
        let _ = writeln!(script, "echo \"{MARK}{name}\"; time {command}");
    };
    // Free memory is scrubbed by idle CPUs, which get the time to: scrubbing is not what the rows are about.
    let rest = |script: &mut String| script.push_str("sleep 2\n");
    rest(&mut script);
    // The first domain pays for what is made once.
    row(&mut script, "create, the first domain of all", &tiny("first"));
    row(&mut script, "destroy, the first domain of all", "destroy first");
    rest(&mut script);
    row(&mut script, "create, tiny PV guest of 8 MiB, paused", &tiny("tiny"));
    row(&mut script, "destroy of the same", "destroy tiny");
    rest(&mut script);
    row(&mut script, "create, Debian cloud kernel, 192 MiB, cold", "create -p /files/debian.cfg");
    row(&mut script, "destroy of the same, 192 MiB", "destroy debian");
    rest(&mut script);
    row(&mut script, "create, Debian cloud kernel, 192 MiB, warm", "create -p /files/debian.cfg");
    row(&mut script, "destroy once more, 192 MiB", "destroy debian");
    for number in 1..many {
        let _ = writeln!(script, "{}", tiny(&format!("d{number}")));
    }
    let last = format!("d{many}");
    rest(&mut script);
    row(&mut script, &format!("create, the {many}th tiny guest"), &tiny(&last));
    row(&mut script, &format!("list with {many} domains"), "list");
    row(&mut script, &format!("destroy, one of {many}"), &format!("destroy {last}"));
    script
}

impl Domains {
    pub fn run(self) -> Result<ExitCode> {
        doctor::ensure(&[Need::Emulator, Need::Compiler])?;
        let (ours, line) = self.measure(Hypervisor::XenRs)?;
        let theirs = self.options.compare.then(|| self.measure(Hypervisor::Xen)).transpose()?;
        let mut rows: Vec<Row> = ours
            .iter()
            .map(|(operation, figure)| Row {
                operation: operation.clone(),
                unit: "M instructions".into(),
                xen_rs: Some(*figure),
                xen: theirs
                    .as_ref()
                    .and_then(|(all, _)| all.iter().find(|(name, _)| name == operation))
                    .map(|(_, n)| *n),
                goal: None,
            })
            .collect();
        row::set_goals(&mut rows, row::goals("domains")?)?;
        if let Some(path) = &self.options.json {
            row::write_json(path, &rows)?;
        }
        let table = table(&rows);
        print!("{table}");
        if self.options.compare && self.many == MANY {
            let facts = record::facts("cargo xtask bench domains --compare", &line);
            let head = "## Domains, millions of instructions\n\nOur dom0's toolstack on both, one vCPU per domain. Virtual \
                        milliseconds, so waiting counts. Idle CPUs have scrubbed the free memory before; destroying does not scrub.\n";
            record::write("domains", &format!("{head}\n{facts}\n{table}\n"))?;
        }
        let above = rows.iter().any(Row::above_xen);
        Ok(if above { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn measure(&self, hypervisor: Hypervisor) -> Result<(Figures, Vec<OsString>)> {
        let files = ["guest:hello".to_owned()];
        let modules = dom0::modules(&dom0::Files::Default { more: &files }, Some(&script(self.many)))?;
        let machine =
            Machine { cpu: CPU.into(), icount: true, mem: BASE_MEMORY + EACH * self.many, ..Machine::default() };
        let append = "console=com1 com1=115200,8n1 loglvl=error guest_loglvl=error noreboot dom0_mem=256M".to_owned();
        let payload = Payload { kernel: hypervisor.kernel()?, append, modules };
        let step = Step::begin(&format!("create and destroy on {}", hypervisor.name()));
        let mut text = String::new();
        emulator::watch(&machine, &payload, Duration::from_secs(self.options.timeout), |bytes| {
            text.push_str(&String::from_utf8_lossy(bytes).replace('\r', ""));
            if dom0::status_in(&text).is_some() { Next::Stop } else { Next::Watch }
        })?;
        step.done();
        let logs = workspace::path("target/test-logs");
        std::fs::create_dir_all(&logs)?;
        let log = logs.join(format!("bench-domains-{}.log", hypervisor.name()));
        std::fs::write(&log, &text).with_context(|| log.display().to_string())?;
        if dom0::status_in(&text) != Some(0) {
            bail!("the script did not end well on {}; see {}", hypervisor.name(), log.display());
        }
        Ok((figures(&text), machine.command_line(&payload)))
    }
}

/// The time that follows each row's name.
fn figures(text: &str) -> Figures {
    let mut figures = Vec::new();
    let mut name = None;
    for line in text.lines() {
        if let Some(row) = line.strip_prefix(MARK) {
            name = Some(row.trim().to_owned());
        } else if let Some(time) = line.strip_suffix(" ms").and_then(|time| time.trim().parse().ok())
            && let Some(name) = name.take()
        {
            figures.push((name, time));
        }
    }
    figures
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from("| operation | goal | xen-rs | Xen |\n|---|---:|---:|---:|\n");
    for row in rows {
        let _ = writeln!(text, "| {} | {} | {} | {} |", row.operation, cell(row.goal), cell(row.xen_rs), cell(row.xen));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_the_time_that_follows_it() {
        let text = "row: a\ncreating\n1.250 ms\n3.000 ms\nrow: b\n2.5 ms\n";
        assert_eq!(figures(text), [("a".to_owned(), 1.25), ("b".to_owned(), 2.5)]);
        assert_eq!(script(MANY).matches("\ncreate ").count(), MANY as usize - 1);
    }
}
