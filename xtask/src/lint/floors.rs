//! The floors: which crate stands on which, and that imports only go down (docs/ARCHITECTURE.md).

use super::{Finding, finding};
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Every crate and its floor.
const FLOORS: [(&str, u8); 19] = [
    ("xen-abi", 0),
    ("xen-rs-logic", 1),
    ("ring-protocol", 1),
    ("xenstore", 1),
    ("file-places", 1),
    ("domain-image", 1),
    ("control-protocol", 1),
    ("xen-rs-machine", 2),
    ("guest-pv", 2),
    ("toolstack", 2),
    ("dom0-hal", 2),
    ("xen-rs", 3),
    ("dom0", 3),
    ("guests", 3),
    ("toolstack-cli", 3),
    ("boot-sector", TOP),
    ("exerciser", TOP),
    ("in-process", TOP),
    ("xtask", TOP),
];

/// A crate that stands on another of its own floor, and why not a floor above: dom0, on floor 3, stands on both.
const BESIDE: [(&str, &str); 1] = [("dom0-hal", "guest-pv")];

/// Tests and tools, which may see all.
const TOP: u8 = 4;

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor)
}

/// Checks the crates of the workspace by what `cargo metadata` says.
pub fn check(metadata: &Value) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for package in packages(metadata)? {
        let name = text(package, "name")?;
        let manifest = Path::new("Cargo.toml");
        let Some(own) = floor(name) else {
            findings.push(finding(manifest, 0, format!("{name} has no floor: add it to xtask/src/lint/floors.rs")));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // Tests of a crate may use its neighbours.
            if dependency["kind"] == "dev" {
                continue;
            }
            let on = text(dependency, "name")?;
            if let Some(other) = floor(on)
                && other >= own
                && !BESIDE.contains(&(name, on))
            {
                let rule = format!("{name} (floor {own}) imports {on} (floor {other}): imports go down a floor");
                findings.push(finding(manifest, 0, rule));
            }
        }
    }
    Ok(findings)
}

/// The root files of all libraries and programs.
pub fn roots(metadata: &Value, root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for package in packages(metadata)? {
        for target in package["targets"].as_array().into_iter().flatten() {
            let kinds = target["kind"].as_array().into_iter().flatten().filter_map(Value::as_str);
            if kinds.into_iter().any(|kind| matches!(kind, "lib" | "bin" | "proc-macro")) {
                let path = Path::new(text(target, "src_path")?);
                files.push(path.strip_prefix(root).unwrap_or(path).to_path_buf());
            }
        }
    }
    Ok(files)
}

fn packages(metadata: &Value) -> Result<&Vec<Value>> {
    metadata["packages"].as_array().context("cargo metadata names no packages")
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("cargo metadata has no {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(name: &str, on: &str, kind: Value) -> usize {
        let package = json!({"name": name, "dependencies": [{"name": on, "kind": kind}]});
        check(&json!({ "packages": [package] })).unwrap().len()
    }

    #[test]
    fn imports_go_down() {
        assert_eq!(rules("xen-rs", "xen-rs-machine", Value::Null), 0);
        assert_eq!(rules("xen-rs-logic", "xen-rs-machine", Value::Null), 1);
        assert_eq!(rules("ring-protocol", "xenstore", Value::Null), 1);
        assert_eq!(rules("xen-rs-logic", "xen-rs-machine", json!("dev")), 0);
        assert_eq!(rules("xen-rs-logic", "serde", Value::Null), 0);
        assert_eq!(rules("a-newcomer", "serde", Value::Null), 1);
    }
}
