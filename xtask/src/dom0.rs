//! What our dom0 is booted with, and what it says back: the contract between host and dom0.
//!
//! Module 1 is dom0 with its command line, module 2 an archive (newc) that reaches it as its ramdisk, on xen-rs and on
//! Xen alike. The archive's files are dom0's `/files`; a file `.exec` in it is a script for the shell, and when it has
//! run dom0 prints [`STATUS`] and a number, and powers off.

use crate::cpio::Archive;
use crate::emulator::Module;
use crate::packages::Fetched;
use crate::say::Step;
use crate::{parts, workspace};
use anyhow::Result;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The file that holds a script.
const EXEC: &str = ".exec";

/// What stands before the status in dom0's last line.
pub const STATUS: &str = "xen-rs: exec finished with status ";

/// The shell's prompt.
pub const PROMPT: &str = "dom0# ";

/// The files that dom0 gets.
pub enum Files<'a> {
    /// The default guest, and more by part names.
    Default {
        /// Part names.
        more: &'a [String],
    },
    /// All of a directory.
    Directory(&'a Path),
}

/// The modules of a machine with our dom0, which runs the script as soon as it is up.
pub fn modules(files: &Files<'_>, script: Option<&str>) -> Result<Vec<Module>> {
    pack(files, script, script)
}

/// The modules of a machine with our dom0, which is then asked to run the script.
pub fn modules_to_be_asked(files: &Files<'_>, script: Option<&str>) -> Result<Vec<Module>> {
    pack(files, script, None)
}

fn pack(files: &Files<'_>, needed_by: Option<&str>, script: Option<&str>) -> Result<Vec<Module>> {
    let mut archive = Archive::default();
    match files {
        Files::Default { more } => {
            default_guest(&mut archive, needed_by)?;
            for part in *more {
                let path = parts::resolve(part)?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                archive.file(&name, &std::fs::read(&path)?)?;
            }
        }
        Files::Directory(dir) => archive.tree(dir)?,
    }
    if let Some(script) = script {
        archive.file(EXEC, script.as_bytes())?;
    }
    let archive = archive.finish()?;
    Ok(vec![Module::new(parts::resolve("dom0")?, ""), Module::new(keep(&archive)?, "")])
}

/// The default guest: its kernels, its ramdisk and a config for each kernel. The generic kernel is large, so it comes
/// along only when the script asks for it or, without a script, when it was fetched before; the 32-bit kernel and a ramdisk
/// of its own come along when the script asks.
fn default_guest(archive: &mut Archive, script: Option<&str>) -> Result<()> {
    let generic = script.map_or(Fetched::GenericKernel.is_there(), |script| script.contains("generic"));
    archive.file("initrd", &std::fs::read(parts::resolve("ramdisk")?)?)?;
    archive.file("debian.cfg", config("debian", "vmlinuz-cloud", "initrd").as_bytes())?;
    archive.file("vmlinuz-cloud", &std::fs::read(parts::resolve("kernel:cloud")?)?)?;
    if script.is_some_and(|script| script.contains("debian-686")) {
        archive.file("debian-686.cfg", config("debian-686", "vmlinuz-686", "initrd-686").as_bytes())?;
        archive.file("vmlinuz-686", &std::fs::read(parts::resolve("kernel:686")?)?)?;
        archive.file("initrd-686", &std::fs::read(parts::resolve("ramdisk:686")?)?)?;
    }
    if generic {
        archive.file("debian-generic.cfg", config("debian-generic", "vmlinuz-generic", "initrd").as_bytes())?;
        archive.file("vmlinuz-generic", &std::fs::read(parts::resolve("kernel:generic")?)?)?;
    }
    Ok(())
}

/// The config of a stock guest with dom0's files.
pub fn config(name: &str, kernel: &str, ramdisk: &str) -> String {
    format!(
        "# Debian's stock kernel as a PV guest, with a busybox ramdisk.\n\
         type    = \"pv\"\n\
         name    = \"{name}\"\n\
         kernel  = \"/files/{kernel}\"\n\
         ramdisk = \"/files/{ramdisk}\"\n\
         extra   = \"console=hvc0\"\n\
         memory  = 192\n\
         vcpus   = 1\n"
    )
}

/// Writes an archive under a name made from its content: rows that need the same one share it, and several may run
/// at once.
fn keep(bytes: &[u8]) -> Result<PathBuf> {
    // Rows that run side by side may want the same one.
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let dir = workspace::path("target/guest");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("files-{:016x}", hasher.finish()));
    if !path.exists() {
        Step::begin(&format!("pack dom0's files ({} MiB)", bytes.len().div_ceil(1 << 20))).done();
        workspace::forget_old(&dir, "files-")?;
        let fresh = dir.join(format!("files-{:016x}-{}", hasher.finish(), std::process::id()));
        std::fs::write(&fresh, bytes)?;
        std::fs::rename(fresh, &path)?;
    }
    Ok(path)
}

/// The status that dom0 reported, once its line is whole.
pub fn status_in(text: &str) -> Option<i32> {
    let (_, after) = text.rsplit_once(STATUS)?;
    let (number, _) = after.split_once('\n')?;
    number.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_counts_when_its_line_is_whole() {
        assert_eq!(status_in("x\nxen-rs: exec finished with status 1"), None);
        assert_eq!(status_in("x\nxen-rs: exec finished with status 12\r\n"), Some(12));
        assert_eq!(status_in("nothing\n"), None);
    }
}
