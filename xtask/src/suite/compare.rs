//! `cargo xtask test conformance --compare`: every guest on xen-rs and on Xen, and what the two runs say differently.
//!
//! Compared are claims (held, failed, skipped) and values. A guest says a value by `# value NAME=VALUE`, or several by
//! `# values NAME: CASE=VALUE CASE=VALUE`, which are called `NAME.CASE`. Differences on purpose are listed with their
//! reasons in `tests/harness/differences.toml`; an entry that no longer applies is an error.

use crate::workspace;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The file of [`Documented`] differences.
const FILE: &str = "tests/harness/differences.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    difference: Vec<Documented>,
}

/// A difference on purpose.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Documented {
    /// The guest that sees it.
    guest: String,
    /// The claim's text or the value's name; `*` stands for any text.
    what: String,
    /// What xen-rs says there [default: anything].
    #[serde(rename = "xen-rs")]
    here: Option<String>,
    /// Why.
    reason: String,
    #[serde(skip)]
    applies: AtomicBool,
}

/// What a guest said: claims and values by name.
pub type Said = BTreeMap<String, String>;

/// One thing that the two runs say differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub what: String,
    pub here: String,
    pub there: String,
    /// Why, if that is written down.
    pub reason: Option<String>,
}

/// Reads a guest's output.
pub fn said(text: &str) -> Said {
    let mut said = Said::new();
    let mut say = |name: String, value: &str| {
        // A guest may claim the same of several things.
        let again = (2..).map(|n| format!("{name} ({n})"));
        if let Some(free) = std::iter::once(name.clone()).chain(again).find(|name| !said.contains_key(name)) {
            said.insert(free, value.to_owned());
        }
    };
    for line in text.lines() {
        let line = super::tap::strip_prefix_of_xen(line.trim());
        if let Some((name, value)) = line.strip_prefix("# value ").and_then(|rest| rest.split_once('=')) {
            say(name.trim().to_owned(), value.trim());
        } else if let Some((name, cases)) = line.strip_prefix("# values ").and_then(|rest| rest.split_once(':')) {
            for (case, value) in cases.split_whitespace().filter_map(|case| case.split_once('=')) {
                say(format!("{}.{case}", name.trim()), value);
            }
        } else if let Some((word, claim)) = claim(line) {
            let (claim, skipped) = claim.split_once("# SKIP").map_or((claim, false), |(claim, _)| (claim, true));
            say(claim.trim().to_owned(), if skipped { "skipped" } else { word });
        }
    }
    said
}

/// `ok` or `not ok`, and the claim without its number.
fn claim(line: &str) -> Option<(&'static str, &str)> {
    let (word, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => ("not ok", rest),
        None => ("ok", line.strip_prefix("ok ")?),
    };
    Some((word, rest.split_once(" - ").map_or(rest, |(_, claim)| claim)))
}

/// The documented differences, and what was found.
pub struct Comparison {
    documented: Vec<Documented>,
    found: Mutex<BTreeMap<String, Vec<Difference>>>,
}

impl Comparison {
    pub fn begin() -> Result<Self> {
        let path = workspace::path(FILE);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let file: File = toml::from_str(&text).with_context(|| FILE)?;
        Ok(Self { documented: file.difference, found: Mutex::default() })
    }

    /// Compares two runs of a guest; the number of differences, and of those without a reason.
    pub fn add(&self, row: &str, guest: &str, here: &Said, there: &Said) -> (usize, usize) {
        let mut differences = Vec::new();
        let names: std::collections::BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        for name in names {
            let of = |said: &Said| said.get(name).cloned().unwrap_or_else(|| "(not said)".into());
            let (here, there) = (of(here), of(there));
            if here != there {
                let documented = self.documented.iter().find(|documented| {
                    documented.guest == guest
                        && matches(&documented.what, name)
                        && documented.here.as_ref().is_none_or(|said| *said == here)
                });
                let reason = documented.map(|documented| {
                    documented.applies.store(true, Ordering::Relaxed);
                    documented.reason.clone()
                });
                differences.push(Difference { what: name.clone(), here, there, reason });
            }
        }
        let unexplained = differences.iter().filter(|difference| difference.reason.is_none()).count();
        let counts = (differences.len(), unexplained);
        if !differences.is_empty() {
            self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(row.to_owned(), differences);
        }
        counts
    }

    /// The table of differences; after it those on purpose, and the entries of the list that no longer apply to any
    /// of `guests`. Whether all is as it should be.
    pub fn report(&self, guests: &[&str]) -> (String, bool) {
        let found = self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let all = || found.iter().flat_map(|(row, differences)| differences.iter().map(move |one| (row, one)));
        let mut text = String::new();
        let unexplained: Vec<_> = all().filter(|(_, one)| one.reason.is_none()).collect();
        let _ = writeln!(text, "\ndifferences from Xen: {}", unexplained.len());
        if !unexplained.is_empty() {
            text.push_str("\n| guest | claim or value | xen-rs | Xen |\n|---|---|---|---|\n");
        }
        for (row, one) in &unexplained {
            let _ = writeln!(text, "| {row} | {} | {} | {} |", one.what, one.here, one.there);
        }
        let _ = writeln!(text, "\ndifferences on purpose: {}", all().count() - unexplained.len());
        let mut reasons: BTreeMap<(&str, &str), Vec<&Difference>> = BTreeMap::new();
        for (row, one) in all() {
            if let Some(reason) = &one.reason {
                reasons.entry((row.as_str(), reason.as_str())).or_default().push(one);
            }
        }
        for ((row, reason), ones) in reasons {
            let _ = writeln!(text, "  {row}: {reason}");
            for one in ones {
                let _ = writeln!(text, "      {}: {}, on Xen {}", one.what, one.here, one.there);
            }
        }
        let stale: Vec<&Documented> = self
            .documented
            .iter()
            .filter(|one| guests.contains(&one.guest.as_str()) && !one.applies.load(Ordering::Relaxed))
            .collect();
        for one in &stale {
            let _ = writeln!(text, "{FILE}: {} {:?} is no difference any more", one.guest, one.what);
        }
        (text, unexplained.is_empty() && stale.is_empty())
    }
}

/// Whether a name is meant by a pattern, in which each `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| matches(rest, &name[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(list: &str) -> Comparison {
        let file: File = toml::from_str(list).unwrap();
        Comparison { documented: file.difference, found: Mutex::default() }
    }

    #[test]
    fn claims_and_values() {
        let text = "TAP version 13\nok 1 - a\nnot ok 2 - b\n# value leaf 1=2 3\n(d3) # values op.1: null=EFAULT zero=0\n\
                    ok 3 - a # SKIP no CPU\n# note=1\n1..3\n";
        let said = said(text);
        let of = |name: &str| said.get(name).map(String::as_str);
        assert_eq!(said.len(), 6);
        assert_eq!((of("a"), of("b"), of("a (2)")), (Some("ok"), Some("not ok"), Some("skipped")));
        assert_eq!((of("leaf 1"), of("op.1.null")), (Some("2 3"), Some("EFAULT")));
    }

    #[test]
    fn a_difference_needs_a_reason_and_a_reason_a_difference() {
        let list = "[[difference]]\nguest = \"g\"\nwhat = \"x*\"\nreason = \"so\"\n\
                    [[difference]]\nguest = \"g\"\nwhat = \"z\"\nreason = \"no more\"\n";
        let comparison = comparison(list);
        let (here, there) = (said("# value x1=1\n# value y=1\n"), said("# value x1=2\n# value y=1\nok 1 - c\n"));
        assert_eq!(comparison.add("g", "g", &here, &there), (2, 1));
        let (text, good) = comparison.report(&["g"]);
        assert!(!good);
        assert!(text.contains("| g | c | (not said) | ok |"), "{text}");
        assert!(text.contains("g: so") && text.contains("\"z\" is no difference any more"), "{text}");
        assert!(comparison.report(&[]).0.contains("differences on purpose: 1"));
    }

    #[test]
    fn stars_stand_for_any_text() {
        assert!(matches("a*c*", "abxc") && matches("*", "") && matches("a", "a"));
        assert!(!matches("a*c", "ab") && !matches("a", "ab"));
    }

    #[test]
    fn the_list_of_the_tree_can_be_read() {
        Comparison::begin().unwrap();
    }
}
