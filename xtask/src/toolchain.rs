//! Which compiler builds the bare-metal code, and with which settings.
//!
//! In this order: a rustc that has the target installed; Debian's `rustc-web` with its library sources; else a message
//! that names the one command to run. The reasons are in docs/BUILDING.md.

use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// The target of everything that runs without an operating system.
pub const TARGET: &str = "x86_64-unknown-none";

/// Of the settings in `.cargo/config.toml` the one that compilers have had for the shortest time.
const NEWEST_SETTING: &str = "jump-tables=no";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
const DEBIAN_LINKER: &str = "ld.lld";

/// A compiler that can build for [`TARGET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The rustc on the path has the target installed.
    Installed,
    /// Debian's rustc with `-Zbuild-std`.
    Debian,
}

impl Toolchain {
    /// The compiler to use here, or what to do to have one.
    pub fn choose() -> Result<Self> {
        if has_core("rustc") {
            return Ok(Self::Installed);
        }
        if debian_is_there() {
            return Ok(Self::Debian);
        }
        bail!(
            "no compiler for {TARGET} here; run `rustup target add {TARGET}` \
             (on Debian 12 `cargo xtask doctor --fix` installs one too)"
        )
    }

    /// `cargo SUBCOMMAND` set up for the target, with its own target directory.
    pub fn cargo(self, subcommand: &str) -> Command {
        let mut cargo = if self == Self::Debian && subcommand == "clippy" && Path::new(DEBIAN_CLIPPY).exists() {
            let mut clippy = Command::new(DEBIAN_CLIPPY);
            clippy.arg("clippy");
            clippy
        } else {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.arg(subcommand);
            cargo
        };
        let target_dir = if subcommand == "clippy" { "target/none-clippy" } else { "target/none" };
        cargo.args(["--target", TARGET, "--target-dir", target_dir]);
        if self == Self::Debian {
            cargo
                .env("RUSTC", DEBIAN_RUSTC)
                // Cargo asks for this before it accepts -Zbuild-std; no crate here uses an unstable feature.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_X86_64_UNKNOWN_NONE_LINKER", DEBIAN_LINKER)
                .args(["-Zbuild-std=core,alloc,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"]);
        }
        cargo.current_dir(crate::workspace::root());
        cargo
    }

    /// One line for `doctor` and logs.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Installed => "rustc with the bare-metal target",
            Self::Debian => "Debian's rustc-web, building core itself",
        }
    }
}

/// Whether `rustc` holds a compiled `core` for the target.
fn has_core(rustc: &str) -> bool {
    let Ok(output) = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output() else {
        return false;
    };
    let dir = String::from_utf8_lossy(&output.stdout);
    let Ok(entries) = std::fs::read_dir(dir.trim()) else {
        return false;
    };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

/// Whether Debian's compiler, its library sources and a linker are installed, and the compiler is new enough (the
/// first `rustc-web` of Debian 12 is not).
fn debian_is_there() -> bool {
    let Ok(output) = Command::new(DEBIAN_RUSTC).args(["-C", NEWEST_SETTING, "--print", "sysroot"]).output() else {
        return false;
    };
    if !output.status.success() {
        return false;
    }
    let sysroot = String::from_utf8_lossy(&output.stdout);
    let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    sources.exists() && on_path(DEBIAN_LINKER)
}

/// Whether a program of that name is on the path.
pub fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
