//! `cargo xtask test --stretches N`: how long the hypervisor goes without taking an interrupt, as `xtask/plugin/stretch.c`
//! counts it: instructions from one moment at which it could to the next. Whatever a guest asks, that is bounded.

use crate::bench::plugin::Plugin;
use crate::emulator::{Machine, Payload};
use crate::symbols;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the operator asks for by a key, or what ends the machine, takes as long as it takes; so does the serial line, which
/// has to take what is printed of a guest that crashes.
const ASKED_FOR: [&str; 4] = ["audit", "debug_key", "panic", "serial"];

/// Where a row's stretches are written.
fn file(log: &Path) -> PathBuf {
    log.with_extension("stretches")
}

/// Has a machine count.
pub fn count(machine: &mut Machine, log: &Path, limit: u64) -> Result<()> {
    machine.extra.extend(Plugin::Stretch.get()?.arguments(&file(log), &format!(",limit={limit}")));
    Ok(())
}

/// The longest stretch, where it is above the limit, with the functions it was seen in.
pub fn longest(log: &Path, payload: &Payload) -> Result<Option<String>> {
    let path = file(log);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut all: Vec<(u64, Vec<&str>)> = text.lines().filter_map(stretch).collect();
    all.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    for (length, places) in all {
        let names = names(&places, payload);
        if !names.iter().any(|name| ASKED_FOR.iter().any(|asked| name.contains(asked))) {
            return Ok(Some(format!("{length} instructions without an interrupt, in {}", names.join(", "))));
        }
    }
    Ok(None)
}

/// A line of the plugin's: the length, and places.
fn stretch(line: &str) -> Option<(u64, Vec<&str>)> {
    let (length, places) = line.strip_prefix("stretch ")?.split_once(' ')?;
    Some((length.parse().ok()?, places.split(' ').collect()))
}

/// The functions of places, the most frequent first.
fn names(places: &[&str], payload: &Payload) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for place in places {
        for line in symbols::names(&format!("[<{place}>]"), payload) {
            // `0xADDRESS: FUNCTION at FILE:LINE`, and what it was inlined into on lines of its own.
            let name = line.split_once(": ").map_or(line.as_str(), |(_, rest)| rest);
            let name = name.trim_start_matches(" (inlined by) ").split(" at ").next().unwrap_or(name);
            *counts.entry(name.trim().to_owned()).or_default() += 1;
        }
    }
    let mut names: Vec<(String, usize)> = counts.into_iter().collect();
    names.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    names.into_iter().take(12).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        assert_eq!(stretch("stretch 51234 ffff82d040001234 ff"), Some((51234, vec!["ffff82d040001234", "ff"])));
        assert_eq!(stretch("stretch x y"), None);
        assert_eq!(stretch("row 1 2"), None);
    }
}
