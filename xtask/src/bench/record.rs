//! docs/BENCHMARKS.md: a section for each subject, each written anew by the command that measures it.

use crate::packages::{Fetched, output};
use crate::workspace;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::process::Command;

const HEAD: &str = "# Benchmarks\n\n\
    What operations cost on xen-rs, beside Debian's Xen 4.17 under the same emulator and beside the goals in\n\
    `tests/harness/goals.toml`. Each section is written by the command that it names and not edited by hand. The unit\n\
    is the executed instruction (`-icount shift=0`: one TSC tick each), so figures are exact and the same everywhere.\n";

/// Replaces a subject's section, or appends it.
pub fn write(subject: &str, section: &str) -> Result<()> {
    let path = workspace::path("docs/BENCHMARKS.md");
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(&path, replaced(&old, subject, section)).with_context(|| path.display().to_string())
}

fn replaced(old: &str, subject: &str, section: &str) -> String {
    let (begin, end) = (format!("<!-- begin {subject} -->\n"), format!("<!-- end {subject} -->\n"));
    let section = format!("{begin}{section}{end}");
    let old = if old.is_empty() { HEAD } else { old };
    let parts = old.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    match parts {
        Some((before, after)) => format!("{before}{section}{after}"),
        None => format!("{old}\n{section}"),
    }
}

/// The machine and the software that were measured, as a list.
pub fn facts(command: &str, line: &[OsString]) -> String {
    let emulator = output(Command::new("qemu-system-x86_64").arg("--version")).unwrap_or_default();
    facts_in(emulator.lines().next().unwrap_or_default(), command, line)
}

/// The same in an emulator that is not QEMU.
pub fn facts_in(emulator: &str, command: &str, line: &[OsString]) -> String {
    let root = format!("{}/", workspace::root().display());
    let line = crate::emulator::shell_line(line).replace(&root, "");
    format!(
        "- command: `{command}`\n- xen-rs: {}\n- Xen: {}\n- emulator: {emulator}\n- machine: `{line}`\n",
        workspace::commit(),
        Fetched::Xen.version().unwrap_or_default().trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_where_it_stands() {
        let first = replaced("", "a", "1st\n");
        let both = replaced(&first, "b", "two\n");
        let third = replaced(&both, "a", "three\n");
        assert!(third.starts_with("# Benchmarks"));
        assert!(!third.contains("1st"));
        assert!(third.find("three").unwrap() < third.find("two").unwrap());
    }
}
