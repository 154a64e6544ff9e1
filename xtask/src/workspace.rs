//! Where things lie in the source tree.

use crate::packages::output;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the source tree.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A path below the root.
pub fn path(below: &str) -> PathBuf {
    root().join(below)
}

/// Where fetched files are kept between runs. Not below `target/`, so that `cargo clean` costs no download.
pub fn cache() -> PathBuf {
    path(".cache")
}

/// What `cargo metadata` says about the workspace.
pub fn metadata() -> Result<serde_json::Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let text = output(
        Command::new(cargo).args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(root()),
    )?;
    Ok(serde_json::from_str(&text)?)
}

/// The names of a package's programs.
pub fn binaries(package: &str) -> Result<Vec<String>> {
    let metadata = metadata()?;
    let packages = metadata.get("packages").and_then(|packages| packages.as_array()).context("no packages")?;
    let found = packages.iter().find(|found| found.get("name").is_some_and(|name| name == package));
    let targets = found.and_then(|found| found.get("targets")?.as_array()).context("no such package")?;
    let programs = targets
        .iter()
        .filter(|target| target["kind"].as_array().is_some_and(|kind| kind.iter().any(|kind| kind == "bin")));
    Ok(programs.filter_map(|program| program["name"].as_str().map(str::to_owned)).collect())
}

/// All Rust files that git knows, relative to the root; new ones too.
pub fn sources() -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "--", "*.rs"]).current_dir(root());
    let mut files: Vec<PathBuf> = output(&mut git)?.lines().map(PathBuf::from).collect();
    // A file that was removed but not yet committed is still listed.
    files.retain(|file| root().join(file).is_file());
    Ok(files)
}
