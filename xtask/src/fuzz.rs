//! `cargo xtask fuzz`: runs the targets of `tests/fuzz` with libFuzzer.
//!
//! The instrumentation is a pass of the compiler's own LLVM, so the ordinary stable toolchain does. What a target finds
//! worth keeping goes to `target/fuzz/corpus`; the seeds in `tests/fuzz/seeds` are only read. An input that fails is
//! written to `target/fuzz/artifacts/TARGET`; `cargo xtask fuzz TARGET --input FILE` runs it again.

use crate::say::Step;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Where the targets are.
const HERE: &str = "tests/fuzz";
/// The host, named so that build scripts are not instrumented.
const HOST: &str = "x86_64-unknown-linux-gnu";
/// Coverage of edges, and of what is compared with what.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Run fuzz targets on the host.
#[derive(clap::Args)]
pub struct Fuzz {
    /// Targets; all when none is named
    target: Vec<String>,
    /// How long each runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Run one input of one target instead
    #[arg(long, value_name = "FILE", conflicts_with = "seconds")]
    input: Option<PathBuf>,
    /// List the targets
    #[arg(long)]
    list: bool,
}

impl Fuzz {
    pub fn run(self) -> Result<ExitCode> {
        let all = targets()?;
        if self.list {
            all.iter().for_each(|target| println!("{target}"));
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(unknown) = self.target.iter().find(|name| !all.contains(name)) {
            bail!("no target {unknown}; there are: {}", all.join(", "));
        }
        let chosen = if self.target.is_empty() { all } else { self.target };
        build(&chosen)?;
        if let Some(input) = &self.input {
            let [target] = &chosen[..] else { bail!("name the target of the input") };
            let status = Command::new(program(target)).arg(input).status()?;
            return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let mut failed = Vec::new();
        for target in chosen {
            let step = Step::begin(&format!("{target}, {} s", self.seconds));
            let log = smoke(&target, self.seconds)?;
            step.done();
            if let Some(log) = log {
                eprintln!("{log}");
                failed.push(target);
            }
        }
        if !failed.is_empty() {
            eprintln!("FAILED: {}", failed.join(", "));
        }
        Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The names of the targets.
pub fn targets() -> Result<Vec<String>> {
    let dir = workspace::path(HERE).join("fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if let (Some("rs"), Some(name)) = (path.extension().and_then(|e| e.to_str()), path.file_stem()) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// A look at all targets by clippy, without libFuzzer.
pub fn check() -> Command {
    let mut check = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    check.args(["clippy", "--quiet", "--manifest-path"]).arg(workspace::path(HERE).join("Cargo.toml"));
    check.arg("--target-dir").arg(output()).args(["--", "-D", "warnings"]);
    // Nothing is linked, so its build script need not compile it.
    check.env("CUSTOM_LIBFUZZER_PATH", output().join("libfuzzer.a"));
    check
}

/// Builds targets.
pub fn build(targets: &[String]) -> Result<()> {
    let step = Step::begin("build fuzz targets");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--release", "--target", HOST, "--target-dir"]).arg(output());
    build.env("RUSTFLAGS", FLAGS).current_dir(workspace::path(HERE));
    for target in targets {
        build.args(["--bin", target]);
    }
    let status = build.status().context("cargo build")?;
    step.done();
    if status.success() { Ok(()) } else { bail!("the fuzz targets do not build") }
}

/// Runs a target for some seconds; the end of its output if it failed.
pub fn smoke(target: &str, seconds: u32) -> Result<Option<String>> {
    let corpus = output().join("corpus").join(target);
    let artifacts = output().join("artifacts").join(target);
    std::fs::create_dir_all(&corpus)?;
    std::fs::create_dir_all(&artifacts)?;
    let seeds = workspace::path(HERE).join("seeds").join(target);
    let mut run = Command::new(program(target));
    run.arg(&corpus);
    if seeds.is_dir() {
        run.arg(seeds);
    }
    run.arg(format!("-artifact_prefix={}/", artifacts.display()));
    run.arg(format!("-max_total_time={seconds}"));
    run.args(["-timeout=10", "-rss_limit_mb=1024", "-max_len=4096", "-print_final_stats=1"]);
    let output = run.stdin(Stdio::null()).output().with_context(|| format!("cannot start {target}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<&str> = text.lines().rev().take(40).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Ok((!output.status.success()).then(|| tail.join("\n")))
}

fn output() -> PathBuf {
    workspace::path("target/fuzz")
}

fn program(target: &str) -> PathBuf {
    output().join(HOST).join("release").join(Path::new(target))
}
