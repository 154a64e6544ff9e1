//! Software that others built, as any user gets it: stock kernels, Xen and busybox, fetched as Debian packages into
//! `.cache/` and unpacked there. Nothing of it is installed.

use crate::doctor;
use crate::say::Step;
use crate::toolchain::on_path;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Something that is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Debian's kernel for virtual machines (lz4 payload, no dom0 support).
    CloudKernel,
    /// Debian's ordinary kernel (xz payload).
    GenericKernel,
    /// Debian's Xen 4.17, the ELF inside its gzip file.
    Xen,
    /// Debian's 32-bit kernel (xz payload).
    Kernel686,
    /// A statically linked busybox.
    Busybox,
    /// The same of 32-bit code.
    Busybox686,
}

/// Debian's name for what a package is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit code.
    Amd64,
    /// 32-bit code.
    I386,
}

impl Architecture {
    /// One of apt's programs. The machine need not know of 32-bit packages: their lists are kept in `.cache/`.
    fn apt(self, program: &str) -> Command {
        let mut command = Command::new(program);
        if self == Self::I386 {
            let kept = workspace::cache().join("apt-i386").display().to_string();
            for option in [
                "APT::Architecture=i386".to_owned(),
                "APT::Architectures=i386".to_owned(),
                format!("Dir::State::lists={kept}/lists"),
                format!("Dir::Cache={kept}"),
            ] {
                command.args(["-o", &option]);
            }
        }
        command
    }

    fn renew_lists(self) -> Result<()> {
        match self {
            Self::Amd64 => doctor::renew_lists(),
            Self::I386 => {
                std::fs::create_dir_all(workspace::cache().join("apt-i386/lists/partial"))?;
                // A mirror may lack some of the lists: what counts is whether the package is found.
                let _ = output(self.apt("apt-get").args(["-qq", "update"]));
                Ok(())
            }
        }
    }

    /// Tries with the package lists that there are. They may be old or missing: they are renewed when the first try says so.
    fn with_lists<T>(self, f: impl Fn() -> Result<T>) -> Result<T> {
        f().or_else(|error| match self.renew_lists() {
            Ok(()) => f(),
            Err(_) => Err(error),
        })
    }
}

impl Fetched {
    /// The file's name below `.cache/`.
    pub fn name(self) -> &'static str {
        match self {
            Self::CloudKernel => "vmlinuz-cloud",
            Self::GenericKernel => "vmlinuz-generic",
            Self::Xen => "xen-4.17",
            Self::Kernel686 => "vmlinuz-686",
            Self::Busybox => "busybox",
            Self::Busybox686 => "busybox-686",
        }
    }

    /// The package that holds it, or that depends on the one which does.
    pub fn package(self) -> &'static str {
        match self {
            Self::CloudKernel => "linux-image-cloud-amd64",
            Self::GenericKernel => "linux-image-amd64",
            Self::Xen => "xen-hypervisor-4.17-amd64",
            Self::Kernel686 => "linux-image-686-pae",
            Self::Busybox | Self::Busybox686 => "busybox-static",
        }
    }

    /// What that package is built for.
    pub fn architecture(self) -> Architecture {
        match self {
            Self::Kernel686 | Self::Busybox686 => Architecture::I386,
            Self::CloudKernel | Self::GenericKernel | Self::Xen | Self::Busybox => Architecture::Amd64,
        }
    }

    /// Where in the package it lies; the start of a path, unique there.
    fn member(self) -> &'static str {
        match self {
            Self::CloudKernel | Self::GenericKernel | Self::Kernel686 => "./boot/vmlinuz-",
            Self::Xen => "./boot/xen-4.17-amd64.gz",
            Self::Busybox | Self::Busybox686 => "./bin/busybox",
        }
    }

    /// Where it lies once fetched.
    pub fn path(self) -> PathBuf {
        workspace::cache().join(self.name())
    }

    /// Whether it is there already.
    pub fn is_there(self) -> bool {
        self.path().is_file()
    }

    /// Its path, fetching it first when it is missing.
    pub fn get(self) -> Result<PathBuf> {
        if !self.is_there() {
            let step = Step::silent(&format!("fetch {} ({})", self.name(), self.package()));
            self.fetch().with_context(|| {
                format!(
                    "cannot fetch Debian 12's package {}; where apt is missing, put the file from it at {}",
                    self.package(),
                    self.path().display()
                )
            })?;
            step.done();
        }
        Ok(self.path())
    }

    fn fetch(self) -> Result<()> {
        for program in ["apt-get", "apt-cache", "dpkg-deb", "tar"] {
            if !on_path(program) {
                bail!("{program} is not here");
            }
        }
        // A directory of this process's own: several may fetch at once, and the last rename wins.
        let dir = workspace::cache().join(format!("fetch-{}-{}", self.name(), std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let fetched = self.architecture().with_lists(|| self.fetch_in(&dir));
        std::fs::remove_dir_all(&dir)?;
        fetched
    }

    fn fetch_in(self, dir: &Path) -> Result<()> {
        let package = real_package(self.architecture(), self.package())?;
        output(self.architecture().apt("apt-get").args(["-qq", "download", &package]).current_dir(dir))?;
        let archive = only_file(dir, "deb")?;
        let listing =
            output(Command::new("sh").args(["-c", "dpkg-deb --fsys-tarfile \"$1\" | tar -t", "sh"]).arg(&archive))?;
        let member =
            member_of(&listing, self.member()).with_context(|| format!("{package} has no {}", self.member()))?;
        let unpack = match self {
            Self::Xen => "dpkg-deb --fsys-tarfile \"$1\" | tar -xO \"$2\" | gzip -dc > file",
            _ => "dpkg-deb --fsys-tarfile \"$1\" | tar -xO \"$2\" > file",
        };
        output(Command::new("sh").args(["-c", unpack, "sh"]).arg(&archive).arg(member).current_dir(dir))?;
        let file = dir.join("file");
        if std::fs::metadata(&file)?.len() == 0 {
            bail!("{package} came out empty");
        }
        let version = archive.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        std::fs::write(workspace::cache().join(format!("{}.version", self.name())), version + "\n")?;
        Ok(std::fs::rename(file, self.path())?)
    }

    /// The package and version it came from, when known.
    pub fn version(self) -> Option<String> {
        let text = std::fs::read_to_string(workspace::cache().join(format!("{}.version", self.name()))).ok()?;
        Some(text.trim().replace("%3a", ":"))
    }
}

/// Downloads a package, unpacks what is below `member` (a directory in it) and runs `f` on that; all is removed then.
pub fn with_unpacked<T>(
    architecture: Architecture,
    package: &str,
    member: &str,
    f: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let dir = workspace::cache().join(format!("fetch-{package}-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result =
        unpack(architecture, package, member, &dir).and_then(|()| f(&dir.join(member.trim_start_matches("./"))));
    std::fs::remove_dir_all(&dir)?;
    result
}

fn unpack(architecture: Architecture, package: &str, member: &str, dir: &Path) -> Result<()> {
    architecture.with_lists(|| {
        let package = real_package(architecture, package)?;
        output(architecture.apt("apt-get").args(["-qq", "download", &package]).current_dir(dir))
    })?;
    let unpack = "dpkg-deb --fsys-tarfile \"$1\" | tar -x \"$2\"";
    output(Command::new("sh").args(["-c", unpack, "sh"]).arg(only_file(dir, "deb")?).arg(member).current_dir(dir))?;
    Ok(())
}

/// The package that a Debian kernel metapackage stands for; another one stands for itself.
fn real_package(architecture: Architecture, meta: &str) -> Result<String> {
    if !meta.starts_with("linux-image-") {
        return Ok(meta.to_owned());
    }
    let listing = output(architecture.apt("apt-cache").args(["depends", "--important", meta]))?;
    kernel_dependency(&listing, meta).with_context(|| format!("{meta} names no kernel; `apt-get update` may help"))
}

/// The kernel package among what `apt-cache depends` prints.
fn kernel_dependency(listing: &str, meta: &str) -> Option<String> {
    listing
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-") && *name != meta)
        .map(str::to_owned)
}

/// The first path of a listing that begins with `start` and is no directory.
fn member_of<'a>(listing: &'a str, start: &str) -> Option<&'a str> {
    listing.lines().find(|path| path.starts_with(start) && !path.ends_with('/'))
}

/// The one file with that extension.
fn only_file(dir: &Path, extension: &str) -> Result<PathBuf> {
    std::fs::read_dir(dir)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|found| found == extension))
        .with_context(|| format!("nothing was downloaded to {}", dir.display()))
}

/// Runs a command for its output; on failure its complaint is the error.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metapackage_names_its_kernel() {
        let listing = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-1-cloud-amd64\n";
        let kernel = kernel_dependency(listing, "linux-image-cloud-amd64");
        assert_eq!(kernel.as_deref(), Some("linux-image-6.1.0-1-cloud-amd64"));
        assert_eq!(kernel_dependency("x\n  Depends: y\n", "x"), None);
    }

    #[test]
    fn a_member_is_a_file() {
        let listing = "./boot/\n./boot/System.map-6\n./boot/vmlinuz-6\n";
        assert_eq!(member_of(listing, "./boot/vmlinuz-"), Some("./boot/vmlinuz-6"));
        assert_eq!(member_of(listing, "./lib"), None);
    }
}
