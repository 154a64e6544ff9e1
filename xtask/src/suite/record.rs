//! The record of full runs: for each suite a file in docs/results/ that says of each of its rows how it ended, and at which commit.
//! A run of some of the rows renews those.

use super::report::Tally;
use crate::boot::Hypervisor;
use crate::packages::{Fetched, output};
use crate::workspace;
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

/// A row that was run: its title, whether it passed, and what was seen.
pub type Ended = (String, bool, String);

/// Rows by their titles: what was seen, and the commit.
type Lines = BTreeMap<String, (String, String)>;

const HEAD: &str = "| case | result | at |\n|---|---|---|\n";

/// Writes what became of rows to a suite's file, where all its rows stand in this order.
pub fn renew(suite: &str, on: Hypervisor, order: &[String], ended: &[Ended]) -> Result<()> {
    let file = workspace::path("docs/results").join(format!("{suite}-{}.md", on.name()));
    let mut lines = lines(&std::fs::read_to_string(&file).unwrap_or_default());
    let commit = workspace::commit();
    for (title, passed, note) in ended {
        let word = if *passed { "ok" } else { "FAILED" };
        let result = format!("{word} {note}").trim_end().replace('|', "\\|");
        lines.insert(title.clone(), (result, commit.clone()));
    }
    let mut text = format!("# Suite {suite} on {}, all rows\n\n", on.name());
    let _ = writeln!(text, "Written by `cargo xtask test --full`; not edited by hand.\n");
    let _ = writeln!(text, "- emulator: {}", first_line(&mut Command::new("qemu-system-x86_64")));
    if on == Hypervisor::Xen {
        let _ = writeln!(text, "- Xen: {}", Fetched::Xen.version().unwrap_or_default());
    }
    for kernel in [Fetched::CloudKernel, Fetched::GenericKernel, Fetched::Kernel686] {
        if let Some(version) = kernel.version().filter(|_| suite != "conformance") {
            let _ = writeln!(text, "- {}: {version}", kernel.name());
        }
    }
    let _ = write!(text, "\n{}", table(order, &lines));
    std::fs::create_dir_all(workspace::path("docs/results"))?;
    Ok(std::fs::write(file, text)?)
}

/// The lines of a file's table.
fn lines(text: &str) -> Lines {
    let table = text.split_once(HEAD).map_or("", |(_, table)| table);
    let cells = table.lines().filter_map(|line| {
        let (title, rest) = line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")?;
        let (result, commit) = rest.rsplit_once(" | ")?;
        Some((title.to_owned(), (result.to_owned(), commit.to_owned())))
    });
    cells.collect()
}

/// The table of all rows, and how many of them there are of which kind.
fn table(order: &[String], lines: &Lines) -> String {
    let mut text = HEAD.to_owned();
    let mut tally = Tally::default();
    for title in order {
        if let Some((result, commit)) = lines.get(title) {
            let _ = writeln!(text, "| {title} | {result} | {commit} |");
            tally += Tally::from_iter([result.starts_with("ok")]);
        } else {
            let _ = writeln!(text, "| {title} | not run | |");
        }
    }
    let _ = write!(text, "\n{tally}");
    let missing = order.len() - tally.passed - tally.failed;
    text + &if missing == 0 { "\n".to_owned() } else { format!(", {missing} not run\n") }
}

fn first_line(program: &mut Command) -> String {
    let text = output(program.arg("--version")).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_run_again_stays() {
        let order = ["one", "two", "three"].map(str::to_owned);
        let mut known = Lines::new();
        known.insert("one".into(), ("ok 5 claims".into(), "abc".into()));
        known.insert("two".into(), ("FAILED a \\| b".into(), "abc".into()));
        known.insert("gone".into(), ("ok".into(), "abc".into()));
        let text = table(&order, &known);
        assert!(text.ends_with("| three | not run | |\n\n1 passed, 1 failed, 1 not run\n"));
        let mut read = lines(&format!("# Suite\n\n{text}"));
        known.remove("gone");
        assert_eq!(read.len(), 2);
        assert_eq!(read, known);
        read.insert("three".into(), ("ok".into(), "def".into()));
        assert!(table(&order, &read).ends_with("| three | ok | def |\n\n2 passed, 1 failed\n"));
    }
}
