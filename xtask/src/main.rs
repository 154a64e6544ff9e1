//! `cargo xtask`: every task of the project, one subcommand each. This file holds the command line; the work is in
//! the modules.
#![forbid(unsafe_code)]

mod bench;
mod boot;
mod build;
mod ci;
mod control;
mod cpio;
mod debian_root;
mod devices;
mod docs;
mod doctor;
mod dom0;
mod emulator;
mod file_systems;
mod fuzz;
mod iso;
mod kernel_modules;
mod lint;
mod packages;
mod parts;
mod ramdisk;
mod run;
mod say;
mod spoiled;
mod stress_ng;
mod suite;
mod symbols;
mod toolchain;
mod workspace;
mod xl;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Build, run, test and check xen-rs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Doctor(doctor::Doctor),
    Build(build::Build),
    Run(run::Run),
    Test(suite::Test),
    Iso(iso::Iso),
    Lint(lint::Lint),
    Ci(ci::Ci),
    Docs(docs::Docs),
    Fuzz(fuzz::Fuzz),
    Bench(bench::Bench),
    Boot(boot::Boot),
    XlTrace(xl::XlTrace),
}

fn main() -> ExitCode {
    let done: Result<ExitCode> = match Cli::parse().task {
        Task::Doctor(task) => task.run(),
        Task::Build(task) => task.run(),
        Task::Run(task) => task.run(),
        Task::Test(task) => task.run(),
        Task::Iso(task) => task.run(),
        Task::Lint(task) => task.run(),
        Task::Ci(task) => task.run(),
        Task::Docs(task) => task.run(),
        Task::Fuzz(task) => task.run(),
        Task::Bench(task) => task.run(),
        Task::Boot(task) => task.run(),
        Task::XlTrace(task) => task.run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
