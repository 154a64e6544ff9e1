//! Where things lie in the source tree.

use crate::packages::output;
use crate::say::Step;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The root of the source tree.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A path below the root.
pub fn path(below: &str) -> PathBuf {
    root().join(below)
}

/// The commit that is tested or measured, with a mark where anything but the documents differs from it.
pub fn commit() -> String {
    let git = |words: &[&str]| output(Command::new("git").args(words).current_dir(root())).unwrap_or_default();
    let changed = git(&["status", "--porcelain", "--", ".", ":!docs", ":!*.md"]);
    let mark = if changed.trim().is_empty() { "" } else { "-dirty" };
    git(&["rev-parse", "--short=7", "HEAD"]).trim().to_owned() + mark
}

/// Where fetched files are kept between runs. Not below `target/`, so that `cargo clean` costs no download.
pub fn cache() -> PathBuf {
    path(".cache")
}

/// An ending for the name of a file that no other row has, in this run or in one beside it.
pub fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Removes files of a directory whose names begin so and that no run of the last hour has written.
pub fn forget_old(dir: &Path, prefix: &str) -> Result<()> {
    const AN_HOUR: Duration = Duration::from_secs(3600);
    for entry in std::fs::read_dir(dir)?.flatten() {
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|written| written.elapsed().ok());
        if entry.file_name().to_string_lossy().starts_with(prefix) && age.is_some_and(|age| age > AN_HOUR) {
            // Another run may have removed it just now.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// A directory of the cache, filled by `fill` unless it is there and `whole`. Nobody sees a half-filled one: it is filled
/// under another name.
pub fn cached(name: &str, whole: impl Fn(&Path) -> bool, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let path = cache().join(name);
    if path.is_dir() {
        if whole(&path) {
            return Ok(path);
        }
        std::fs::remove_dir_all(&path)?;
    }
    let step = Step::silent(&format!("fetch {name}"));
    let fresh = cache().join(format!("{name}-fresh-{}", std::process::id()));
    std::fs::create_dir_all(&fresh)?;
    let filled = fill(&fresh).and_then(|()| Ok(std::fs::rename(&fresh, &path)?));
    if filled.is_err() {
        std::fs::remove_dir_all(&fresh)?;
    }
    // Another run may have been first.
    filled.or_else(|error| if path.is_dir() { Ok(()) } else { Err(error) })?;
    step.done();
    Ok(path)
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
