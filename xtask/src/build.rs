//! `cargo xtask build`: the bare-metal programs. Each package is built by a cargo of its own, since cargo unifies the
//! features of what it builds together.

use crate::say::Step;
use crate::symbols;
use crate::toolchain::{TARGET, Toolchain};
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Mutex;

/// What is built when nothing is named.
const ALL: [&str; 3] = ["xen-rs", "dom0", "guests"];

/// Build the hypervisor, dom0 and the conformance guests for bare metal.
///
/// The programs end up in target/none/x86_64-unknown-none/release/.
#[derive(clap::Args)]
pub struct Build {
    /// Packages to build [default: xen-rs dom0 guests]
    #[arg(value_name = "PKG")]
    packages: Vec<String>,
}

impl Build {
    pub fn run(self) -> Result<ExitCode> {
        let packages: Vec<&str> =
            if self.packages.is_empty() { ALL.to_vec() } else { self.packages.iter().map(String::as_str).collect() };
        for package in packages {
            build(package)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Builds one package.
pub fn build(package: &str) -> Result<()> {
    build_programs(package, &[])
}

/// Builds some programs of a package, or all.
fn build_programs(package: &str, programs: &[String]) -> Result<()> {
    let toolchain = Toolchain::choose()?;
    let step = Step::begin(&format!("build {package} ({})", toolchain.describe()));
    let mut cargo = toolchain.cargo("build");
    // On a terminal cargo's own progress shows; a log has no use for it.
    if !std::io::stderr().is_terminal() {
        cargo.arg("--quiet");
    }
    let programs = programs.iter().flat_map(|program| ["--bin", program]);
    let status = cargo.args(["--release", "-p", package]).args(programs).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("building {package} failed");
    }
    if package == "xen-rs" {
        symbols::embed(&program(package))?;
    }
    step.done();
    Ok(())
}

/// The conformance guests that are all that is needed, and whether they are built. Nothing, when more than a few are.
static FEW: Mutex<(Vec<String>, bool)> = Mutex::new((Vec::new(), false));

/// Says which conformance guests will be needed: a few are built by themselves.
pub fn expect_guests(names: BTreeSet<String>) {
    const A_FEW: usize = 30;
    let few = if names.len() <= A_FEW { names.into_iter().collect() } else { Vec::new() };
    *FEW.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = (few, false);
}

/// Builds a conformance guest, with all others unless few are needed.
pub fn guest_once(name: &str) -> Result<()> {
    let mut few = FEW.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !few.0.iter().any(|expected| expected == name) {
        return build_once("guests");
    }
    if !few.1 {
        build_programs("guests", &few.0)?;
        few.1 = true;
    }
    Ok(())
}

/// Builds a package unless this process has done so already.
pub fn build_once(package: &str) -> Result<()> {
    static BUILT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !built.contains(package) {
        build(package)?;
        built.insert(package.to_owned());
    }
    Ok(())
}

/// Does a task while another thread builds what the emulated suites will ask for: linking keeps only one CPU busy. What
/// cannot be built has said so, and fails the rows that need it.
pub fn meanwhile<T>(task: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        scope.spawn(|| ["guests", "dom0", "xen-rs", "boot-sector"].into_iter().try_for_each(build_once));
        task()
    })
}

/// Builds the program that Linux guests run, linked with all it needs, and says where it lies.
pub fn exerciser() -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let step = Step::begin("build exerciser (a static program for Linux)");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--quiet",
        "--release",
        "-p",
        "exerciser",
        "--target",
        TARGET,
        "--target-dir",
        "target/linux",
    ]);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols").current_dir(workspace::root());
    if !cargo.status().context("cannot start cargo")?.success() {
        bail!("building exerciser failed");
    }
    step.done();
    Ok(workspace::path("target/linux").join(TARGET).join("release/exerciser"))
}

/// Where the program `name` lies once built.
pub fn program(name: &str) -> PathBuf {
    workspace::path("target/none").join(TARGET).join("release").join(name)
}
