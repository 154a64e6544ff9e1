//! A row in which the power fails: the emulator is killed in the middle, and another machine with the same disks is started,
//! which is told how far the first one's guest had come.
//!
//! The disks are qcow2 files. QEMU keeps in memory where their clusters lie until the guest flushes, so what was written to a
//! fresh cluster and not flushed is lost with it, as in a disk's own cache.

use super::case::{Case, Cut};
use super::emulated::Row;
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::Path;

/// What the guest says of a disk when records were written and flushed: `log: PATH NUMBER are there`.
const SAID: (&str, &str) = ("log: ", " are there");
/// Stands in the second script for what the first machine's guest said last.
const SO_FAR: &str = "{so-far}";

/// Runs both machines; whether the row passed, and a note.
pub fn run(row: &Row, cut: &Cut, log: &Path) -> Result<(bool, String)> {
    let first = Row { case: Case { expect: vec![cut.at.clone()], around: None, ..row.case.clone() }, ..row.clone() };
    let before = log.with_extension("before.log");
    let (text, ..) = first.boot(&first.payload()?, &before)?;
    let so_far = last(&text);
    if !text.contains(&cut.at) || so_far.is_empty() {
        return Ok((false, format!("the power was not cut; see {}", before.display())));
    }
    let words: Vec<String> = so_far.iter().map(|(disk, number)| format!("{disk}:{number}")).collect();
    let script = cut.then.replace(SO_FAR, &words.join(","));
    let second = Row { case: Case { script: Some(script), cut: None, ..row.case.clone() }, ..row.clone() };
    let (passed, note) = second.watch(&second.payload()?, log)?;
    Ok((passed, if passed { format!("flushed: {}", words.join(" ")) } else { note }))
}

/// The last number of each disk. A line that was cut off says nothing.
fn last(text: &str) -> BTreeMap<&str, u64> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| said(line.trim_end())).collect()
}

fn said(line: &str) -> Option<(&str, u64)> {
    let (_, rest) = line.split_once(SAID.0)?;
    let (disk, number) = rest.strip_suffix(SAID.1)?.split_once(' ')?;
    Some((disk, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_lines_count() {
        let text =
            "log: /dev/xvda 3 are there\nlog: /dev/xvdb 7 are there\nlog: /dev/xvda 5 are there\nlog: /dev/xvdb 1";
        assert_eq!(last(text), BTreeMap::from([("/dev/xvda", 5), ("/dev/xvdb", 7)]));
    }
}
