//! What the toolstack's commands say and which status they end with, beside Debian's `xl` on Debian's Xen.
//!
//! A list of commands is a file of `tests/harness`, `xl-commands.toml` or `xl-running.toml`. A row boots Debian's kernel and
//! toolstack and runs them; what they said on Xen is kept in `tests/harness/reference` under the list's name. Another row asks
//! our dom0 for the same and compares.

pub mod record;
mod shape;

use super::asked::Host;
use super::emulated::{Reference, Row};
use crate::control::{self, Drain};
use crate::dom0;
use crate::emulator::{Machine, Payload};
use crate::workspace;
use anyhow::{Context, Result, ensure};
use record::Answer;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The list of a case that names none.
pub const USUAL: &str = "xl-commands";
/// The guest that the commands are about.
const GUEST: &str = "debian";

/// The file that lists the commands.
fn list(name: &str) -> PathBuf {
    workspace::path("tests/harness").join(format!("{name}.toml"))
}

/// The file that has what xl said to them.
fn record_of(name: &str) -> PathBuf {
    workspace::path("tests/harness/reference").join(name)
}

/// Whose commands a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Toolstack {
    /// dom0's shell.
    Ours,
    /// Debian's.
    Xl,
}

/// How much of what a command says is compared. Its status always is, and whether it complained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compare {
    /// All lines: words, columns and where numbers stand; not which numbers.
    Whole,
    /// What stands before the colons, line by line.
    Keys,
    /// The first line.
    First,
    /// All keys of its JSON, wherever they stand; ours may have more.
    Json,
    /// None of it.
    Status,
}

/// Commands that are compared alike, or a wait.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(default)]
    run: Vec<String>,
    compare: Option<Compare>,
    /// Wait for this text on the guest's console, after the commands.
    wait: Option<String>,
    /// Wait until there is no guest any more, after the commands.
    #[serde(default)]
    gone: bool,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Commands {
    group: Vec<Group>,
    /// Why ours answers a command differently, by the command.
    #[serde(default)]
    differs: BTreeMap<String, String>,
}

/// One step of both.
enum Step<'a> {
    Run(&'a str, Compare),
    Wait(&'a str),
    Gone,
}

impl Commands {
    fn read(name: &str) -> Result<Self> {
        let path = list(name);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.group.iter().flat_map(|group| {
            let how = group.compare.unwrap_or(Compare::Whole);
            let run = group.run.iter().map(move |command| Step::Run(command, how));
            run.chain(group.wait.as_deref().map(Step::Wait)).chain(group.gone.then_some(Step::Gone))
        })
    }
}

/// The script that runs all of it with Debian's toolstack, whose guests' consoles are in `/tmp/guest-NAME.log`.
pub fn script(list: &str) -> Result<String> {
    let mut script = String::from(record::RUN);
    for step in Commands::read(list)?.steps() {
        let _ = match step {
            Step::Run(command, how) => {
                // A line is all that is looked at of some, and the serial line is slow.
                let lines = if matches!(how, Compare::First | Compare::Status) { "1" } else { "9999" };
                // xl starts another program for that, which knows what xl does not hand on.
                let program = if command.starts_with("top ") { "xen" } else { "xl " };
                writeln!(script, "lines={lines}\nrun {} {program}{command}", record::quoted(command))
            }
            Step::Wait(text) => writeln!(script, "wait_for {}", record::quoted(text)),
            Step::Gone => writeln!(script, "wait_until_gone"),
        };
    }
    Ok(script)
}

/// The config that the commands name, and the kernel and ramdisk in it.
pub fn config() -> String {
    dom0::config(GUEST, "vmlinuz-cloud", "initrd")
}

/// Judges a run of Debian's toolstack by the record, or makes it the record.
pub fn judge(row: &Row, text: &str, log: &Path) -> Result<(bool, String)> {
    let answers = record::said(text);
    let commands = Commands::read(&row.case.list)?;
    let path = record_of(&row.case.list);
    if row.reference == Reference::Store {
        record::store(&path, &answers)?;
        return Ok((true, format!("{} answers recorded", answers.len())));
    }
    compare(&commands, &path, &BTreeMap::new(), &answers, log)
}

/// Asks our dom0, and compares.
pub fn run(row: &Row, machine: &Machine, payload: &Payload, log: &Path) -> Result<(bool, String)> {
    let deadline = Instant::now() + Duration::from_secs(row.case.timeout);
    let commands = Commands::read(&row.case.list)?;
    let (running, _input, hub) = control::start_with(machine, payload, |line| line)?;
    let _console = Drain::begin(running, std::fs::File::options().append(true).create(true).open(log)?);
    let host = Host { hub: &hub, deadline };
    let mut answers = Vec::new();
    for step in commands.steps() {
        match step {
            Step::Run(command, _) => answers.push((command.to_owned(), ours(&host, command)?)),
            Step::Wait(text) => wait(&host, text)?,
            Step::Gone => {
                while host.apart(&format!("domid {GUEST}"))?.0 == 0 {
                    host.well("sleep 1")?;
                }
            }
        }
    }
    compare(&commands, &record_of(&row.case.list), &commands.differs, &answers, log)
}

/// Waits for a text of the guest's. It may be about to be made anew, so that the name is another domain's, or nobody's, by turns.
fn wait(host: &Host<'_>, text: &str) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(120);
    while host.apart(&format!("console --until '{text}' --timeout 5 {GUEST}"))?.0 != 0 {
        ensure!(Instant::now() < until, "the guest did not say {text:?}");
        host.well("sleep 1")?;
    }
    Ok(())
}

fn ours(host: &Host<'_>, command: &str) -> Result<Answer> {
    match host.apart(command) {
        Ok((status, out, err)) => Ok(Answer::new(status, &out, &err)),
        // What the command names on the host is not there: that xrs says itself, and fails.
        Err(error) if is_missing(&error) => Ok(Answer::new(1, "", &format!("xrs: {error:#}\n"))),
        Err(error) => Err(error),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::NotFound)
}

/// What differs from the record without a reason, or has a reason and does not differ. All answers, and those that differ, are
/// kept beside the log.
fn compare(
    commands: &Commands,
    record: &Path,
    reasons: &BTreeMap<String, String>,
    answers: &[(String, Answer)],
    log: &Path,
) -> Result<(bool, String)> {
    record::store(&log.with_extension("answers"), answers)?;
    let recorded = record::load(record)?;
    let (mut report, mut wrong, mut index) = (String::new(), Vec::new(), 0);
    for step in commands.steps() {
        let Step::Run(command, how) = step else { continue };
        let (asked, answer) = answers.get(index).with_context(|| format!("{command:?} was not run"))?;
        let (known, there) = recorded.get(index).with_context(|| format!("{command:?} is not on record"))?;
        ensure!(asked == command && known == command, "{command:?}: the record has {known:?}, the run {asked:?}");
        index += 1;
        let difference = shape::difference(how, there, answer);
        match (&difference, reasons.get(command)) {
            (None, None) | (Some(_), Some(_)) => {}
            (None, Some(_)) => wrong.push(format!("{command:?} differs no more")),
            (Some(difference), None) => {
                let _ = writeln!(report, "\n{command}: {difference}\n--- xl\n{there}--- here\n{answer}");
                wrong.push(format!("{command:?}: {difference}"));
            }
        }
    }
    for command in reasons.keys() {
        ensure!(recorded.iter().any(|(known, _)| known == command), "{command:?} has a reason and is not run");
    }
    let path = log.with_extension("differences");
    std::fs::write(&path, report)?;
    Ok(match wrong.first() {
        None => (true, format!("{index} commands as xl, {} differ with a reason", reasons.len())),
        Some(first) => (false, format!("{} differ ({}); first: {first}", wrong.len(), path.display())),
    })
}

/// dom0 is asked for all of it.
pub fn modules(more: &[String]) -> Result<Vec<crate::emulator::Module>> {
    dom0::modules_to_be_asked(&dom0::Files::Default { more }, Some(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_has_what_its_list_has() {
        for list in [USUAL, "xl-running"] {
            let commands = Commands::read(list).unwrap();
            let recorded = record::load(&record_of(list)).unwrap();
            let listed: Vec<&str> = commands
                .steps()
                .filter_map(|step| match step {
                    Step::Run(command, _) => Some(command),
                    Step::Wait(_) | Step::Gone => None,
                })
                .collect();
            let known: Vec<&str> = recorded.iter().map(|(command, _)| command.as_str()).collect();
            assert_eq!(listed, known, "{list}");
        }
    }
}
