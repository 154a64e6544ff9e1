//! The door map in README.md: every path in it must be there. The same for the guests that docs/XSA-CLASSES.md names.

use super::{Finding, finding};
use std::path::Path;

/// The heading under which the map stands.
const HEADING: &str = "## Where is what";

/// Checks the map.
pub fn check(readme: &str, root: &Path) -> Vec<Finding> {
    let file = Path::new("README.md");
    let doors = doors(readme);
    if doors.is_empty() {
        return vec![finding(file, 0, format!("no door map under {HEADING:?}"))];
    }
    let missing = doors.into_iter().filter(|(_, path)| !root.join(path).exists());
    missing.map(|(line, path)| finding(file, line, format!("the door map names {path}, which is not there"))).collect()
}

/// The guests that try a class of attack: what stands in backticks in the last column of each table.
pub fn check_guests(classes: &str, root: &Path) -> Vec<Finding> {
    let file = Path::new("docs/XSA-CLASSES.md");
    let mut findings = Vec::new();
    for (index, line) in classes.lines().enumerate().filter(|(_, line)| line.starts_with('|')) {
        let last = line.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap_or_default();
        for guest in last.split('`').skip(1).step_by(2) {
            let sources = root.join("guest-pv/guests/src");
            if !sources.join("bin").join(guest).with_extension("rs").exists() && !sources.join(guest).exists() {
                findings.push(finding(file, index + 1, format!("names the guest {guest}, which is not there")));
            }
        }
    }
    findings
}

/// The paths of the map with their lines: what stands in backticks in the rows of the table.
fn doors(readme: &str) -> Vec<(usize, &str)> {
    let mut inside = false;
    let mut doors = Vec::new();
    for (index, line) in readme.lines().enumerate() {
        if line.starts_with("## ") {
            inside = line == HEADING;
        }
        if inside && line.starts_with('|') {
            doors.extend(line.split('`').skip(1).step_by(2).map(|path| (index + 1, path)));
        }
    }
    doors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_stand_in_the_last_column() {
        let text = "`no`\n| a | `no` | `hello`, `gone` |\n";
        assert_eq!(check_guests(text, Path::new("/nonexistent")).len(), 2);
        assert!(check_guests("| a | `no` | none yet |\n", Path::new("/")).is_empty());
    }

    #[test]
    fn only_the_map_is_read() {
        let readme = "`no`\n## Where is what\ntext `no`\n| a | `b/c` -> `d` |\n## Next\n| `no` |\n";
        assert_eq!(doors(readme), [(4, "b/c"), (4, "d")]);
        assert_eq!(check(readme, Path::new("/nonexistent")).len(), 2);
        assert_eq!(check("", Path::new("/")).len(), 1);
    }
}
