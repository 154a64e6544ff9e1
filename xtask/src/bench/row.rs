//! A measured figure beside Xen's and beside its goal, and how many of them are written down.

use crate::workspace;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was done.
    pub operation: String,
    /// What was counted, per operation.
    pub unit: String,
    /// On xen-rs.
    pub xen_rs: Option<f64>,
    /// On Xen.
    pub xen: Option<f64>,
    /// At most this on xen-rs.
    pub goal: Option<f64>,
}

/// Differences below these, in events and in instructions per operation, are interrupts that fell into one run and not into the
/// other.
const NOISE: f64 = 0.01;
const NOISE_IN_INSTRUCTIONS: f64 = 0.5;

impl Row {
    /// Whether xen-rs costs more than Xen.
    pub fn above_xen(&self) -> bool {
        let noise = if self.unit == "instructions" { NOISE_IN_INSTRUCTIONS } else { NOISE };
        matches!((self.xen_rs, self.xen), (Some(ours), Some(theirs)) if ours > theirs + noise)
    }

    /// Whether xen-rs costs more than it should.
    pub fn above_goal(&self) -> bool {
        matches!((self.xen_rs, self.goal), (Some(ours), Some(goal)) if ours.round() > goal)
    }

    /// A line that names the row and its figures.
    pub fn line(&self) -> String {
        let named = |name: &str, n: Option<f64>| n.map(|n| format!(", {name} {}", figure(n))).unwrap_or_default();
        let (ours, theirs, goal) = (self.xen_rs, self.xen, self.goal);
        let figures = [named("xen-rs", ours), named("Xen", theirs), named("goal", goal)].concat();
        format!("{} ({}): {}", self.operation, self.unit, figures.trim_start_matches(", "))
    }
}

/// A figure with as many digits as it deserves.
pub fn figure(n: f64) -> String {
    if n >= 100.0 || n.fract().abs() < 0.005 { format!("{n:.0}") } else { format!("{n:.2}") }
}

/// A cell of a table.
pub fn cell(n: Option<f64>) -> String {
    n.map_or_else(|| "-".to_owned(), figure)
}

/// The goals of a subject.
pub fn goals(subject: &str) -> Result<BTreeMap<String, f64>> {
    let path = workspace::path("tests/harness/goals.toml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut all: BTreeMap<String, BTreeMap<String, f64>> = toml::from_str(&text)?;
    all.remove(subject).with_context(|| format!("tests/harness/goals.toml has no [{subject}]"))
}

/// Gives each row its goal. A goal without a row is an error: the row may be lost.
pub fn set_goals(rows: &mut [Row], mut goals: BTreeMap<String, f64>) -> Result<()> {
    for row in rows {
        row.goal = goals.remove(&row.operation);
    }
    if let Some((name, _)) = goals.first_key_value() {
        bail!("tests/harness/goals.toml: there is no row {name:?}");
    }
    Ok(())
}

/// Writes rows for other programs.
pub fn write_json(path: &Path, rows: &[Row]) -> Result<()> {
    let text = serde_json::to_string_pretty(rows)? + "\n";
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: f64, theirs: f64, goal: f64) -> Row {
        Row {
            operation: "a".into(),
            unit: "instructions".into(),
            xen_rs: Some(ours),
            xen: Some(theirs),
            goal: Some(goal),
        }
    }

    #[test]
    fn what_is_above() {
        assert!(row(2.0, 1.0, 1.0).above_xen());
        assert!(!row(1.0014, 1.0, 1.0).above_xen());
        assert!(Row { unit: "VM exits".into(), ..row(1.1, 1.0, 1.0) }.above_xen());
        assert!(row(111.0, 200.0, 110.0).above_goal());
        assert!(!row(110.4, 200.0, 110.0).above_goal());
        assert!(!Row { xen: None, ..row(2.0, 1.0, 3.0) }.above_xen());
        assert_eq!(row(1.5, 300.4, 2.0).line(), "a (instructions): xen-rs 1.50, Xen 300, goal 2");
    }

    #[test]
    fn goals_and_rows_belong_together() {
        let mut rows = [row(1.0, 1.0, 9.0)];
        set_goals(&mut rows, [("a".to_owned(), 5.0)].into()).unwrap();
        assert_eq!(rows[0].goal, Some(5.0));
        assert!(set_goals(&mut rows, [("b".to_owned(), 5.0)].into()).is_err());
        assert!(goals("micro").unwrap().len() > 20);
    }
}
