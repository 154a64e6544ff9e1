//! `cargo xtask doctor`: what the project needs from the machine, what of it is missing, and how to get it. `run` and
//! `test` ask here before they begin, so that a newcomer need not.

use crate::emulator::bochs;
use crate::packages::output;
use crate::say::Step;
use crate::toolchain::{Toolchain, on_path};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::{Command, ExitCode};

/// Show what is here and what is missing, and how to get it.
#[derive(clap::Args)]
pub struct Doctor {
    /// Install what is missing (Debian 12 with root or sudo)
    #[arg(long)]
    fix: bool,
}

/// Something the project needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A compiler for bare metal.
    Compiler,
    /// Clippy for bare metal.
    Clippy,
    /// The emulator.
    Emulator,
    /// The other emulator.
    Bochs,
    /// What makes a CD that boots.
    Iso,
    /// What makes disks with file systems.
    FileSystems,
    /// What makes a root file system of Debian's packages.
    Debian,
    /// The headers of Xen and a C compiler, for the test that compares layouts.
    Layout,
    /// What unpacks Debian's packages.
    Unpacker,
}

/// Everything.
pub const ALL: [Need; 9] = [
    Need::Compiler,
    Need::Clippy,
    Need::Emulator,
    Need::Bochs,
    Need::Iso,
    Need::FileSystems,
    Need::Debian,
    Need::Layout,
    Need::Unpacker,
];

impl Need {
    fn what(self) -> &'static str {
        match self {
            Self::Compiler => "a compiler for x86_64-unknown-none",
            Self::Clippy => "clippy for x86_64-unknown-none",
            Self::Emulator => "the emulator (QEMU, 7.2 or later)",
            Self::Bochs => "the emulator of Intel's processors (Bochs 2.7)",
            Self::Iso => "GRUB and what makes bootable images (grub-mkrescue)",
            Self::FileSystems => "what makes disks with ext4 and FAT (mke2fs, mtools)",
            Self::Debian => "what makes a root file system of Debian (debootstrap)",
            Self::Layout => "Xen's public headers and a C compiler",
            Self::Unpacker => "tools that unpack Debian's packages",
        }
    }

    fn is_there(self) -> bool {
        match self {
            Self::Compiler => Toolchain::choose().is_ok(),
            Self::Clippy => match Toolchain::choose() {
                Ok(Toolchain::Debian) => Path::new("/usr/bin/cargo-clippy").exists(),
                Ok(Toolchain::Installed) => on_path("cargo-clippy"),
                Err(_) => false,
            },
            Self::Emulator => on_path("qemu-system-x86_64"),
            Self::Bochs => on_path(bochs::PROGRAM) && bochs::FIRMWARE.iter().all(|file| Path::new(file).exists()),
            Self::Iso => {
                ["grub-mkrescue", "xorriso", "mformat"].into_iter().all(on_path)
                    && Path::new("/usr/lib/grub/i386-pc/multiboot2.mod").exists()
            }
            Self::FileSystems => {
                let made = ["/usr/sbin/mke2fs", "/sbin/mke2fs"].iter().any(|file| Path::new(file).exists());
                made && ["mformat", "mcopy", "mdel"].into_iter().all(on_path)
            }
            Self::Debian => Path::new("/usr/sbin/debootstrap").exists() && on_path("unshare"),
            Self::Layout => {
                ["/usr/include/xen/xen.h", "/usr/include/stdio.h"].iter().all(|file| Path::new(file).exists())
                    && on_path("cc")
            }
            Self::Unpacker => ["apt-get", "dpkg-deb", "tar", "gzip"].into_iter().all(on_path),
        }
    }

    /// Debian 12's packages for it.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Compiler => &["rustc-web", "rust-web-src", "lld"],
            Self::Clippy => &["rust-web-clippy"],
            Self::Emulator => &["qemu-system-x86"],
            Self::Bochs => &["bochs", "bochs-term", "bochsbios", "vgabios"],
            Self::Iso => &["grub-common", "grub-pc-bin", "xorriso", "mtools"],
            Self::FileSystems => &["e2fsprogs", "mtools"],
            Self::Debian => &["debootstrap", "util-linux"],
            Self::Layout => &["libxen-dev", "gcc", "libc6-dev"],
            Self::Unpacker => &["tar", "gzip"],
        }
    }

    /// How anyone else gets it.
    fn elsewhere(self) -> &'static str {
        match self {
            Self::Compiler => "rustup target add x86_64-unknown-none",
            Self::Clippy => "rustup component add clippy",
            Self::Emulator => "your system's package of qemu-system-x86_64",
            Self::Bochs => "your system's package of bochs, with its debugger, and its firmware in /usr/share",
            Self::Iso => "your system's packages of GRUB for BIOS machines, xorriso and mtools",
            Self::FileSystems => "your system's packages of e2fsprogs and mtools",
            Self::Debian => "your system's packages of debootstrap and util-linux",
            Self::Layout => "your system's packages of Xen's headers (/usr/include/xen) and of a C compiler",
            Self::Unpacker => "apt and dpkg; or put kernels and busybox into .cache/ by hand",
        }
    }
}

impl Doctor {
    pub fn run(self) -> Result<ExitCode> {
        if self.fix {
            ensure(&ALL)?;
        }
        let mut missing = 0;
        for need in ALL {
            if need.is_there() {
                println!("  ok       {}", need.what());
            } else {
                missing += 1;
                println!("  MISSING  {}", need.what());
                println!("           {}", advice(need));
            }
        }
        if let Ok(toolchain) = Toolchain::choose() {
            println!("\nbare-metal code is built by {}", toolchain.describe());
        }
        Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn advice(need: Need) -> String {
    if is_debian_12() {
        format!("apt-get install {}   (or: cargo xtask doctor --fix)", need.packages().join(" "))
    } else {
        need.elsewhere().to_owned()
    }
}

/// Makes sure that these are there: installs what is missing where that is possible, else says what to do.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| !need.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if is_debian_12() && can_be_root() {
        let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages()).copied().collect();
        install(&packages)?;
    }
    let still: Vec<String> = missing
        .into_iter()
        .filter(|need| !need.is_there())
        .map(|need| format!("\n  {}: {}", need.what(), advice(need)))
        .collect();
    if still.is_empty() { Ok(()) } else { bail!("something is missing here:{}", still.concat()) }
}

fn install(packages: &[&str]) -> Result<()> {
    let step = Step::silent(&format!("apt-get install {}", packages.join(" ")));
    let arguments = ["install", "-y", "-qq", "--no-install-recommends"];
    // Lists that came with the machine may name versions that are too old, or that are gone.
    renew_lists()?;
    output(as_root("apt-get").args(arguments).args(packages))?;
    step.done();
    Ok(())
}

/// Fetches apt's package lists anew.
pub fn renew_lists() -> Result<()> {
    output(as_root("apt-get").args(["update", "-qq"])).map(drop)
}

/// A command run as root. Debian's packages must not stop to ask.
fn as_root(program: &str) -> Command {
    let mut command = if is_root() {
        Command::new("env")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "env"]);
        sudo
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", program]);
    command
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

fn can_be_root() -> bool {
    is_root() || output(Command::new("sudo").args(["-n", "true"])).is_ok()
}

/// Whether this is Debian 12, whose package names are the ones above.
pub fn is_debian_12() -> bool {
    std::fs::read_to_string("/etc/os-release").is_ok_and(|text| is_bookworm(&text))
}

fn is_bookworm(os_release: &str) -> bool {
    let has = |line: &str| os_release.lines().any(|found| found.replace('"', "") == line);
    has("ID=debian") && has("VERSION_ID=12")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debian_12_has_these_package_names() {
        assert!(is_bookworm("ID=debian\nVERSION_ID=\"12\"\n"));
        assert!(!is_bookworm("ID=debian\nVERSION_ID=\"13\"\n"));
        assert!(!is_bookworm("ID=ubuntu\nVERSION_ID=\"12\"\n"));
    }
}
