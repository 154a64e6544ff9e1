//! Disks with a file system on them: a guest's kernel, ramdisk and config, and a disk for it.

use crate::packages::{Fetched, output};
use crate::{devices, doctor, parts, workspace};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4.
    Ext4,
    /// FAT.
    Fat,
}

/// Size of the disk in MiB.
const SIZE: u32 = 64;
/// Files that make the free space of a FAT file system one of many pieces, and their bytes.
const FILLERS: usize = 24;
const FILLER: usize = 96 << 10;

/// Makes the disk and says where it lies.
pub fn disk(kind: Kind) -> Result<PathBuf> {
    doctor::ensure(&[doctor::Need::FileSystems])?;
    let base = workspace::path("target/guest");
    let tree = base.join(format!("tree-{}", kind.name()));
    std::fs::create_dir_all(tree.join("boot"))?;
    std::fs::create_dir_all(tree.join("images"))?;
    std::fs::copy(Fetched::CloudKernel.get()?, tree.join("boot/vmlinuz"))?;
    std::fs::copy(parts::resolve("ramdisk")?, tree.join("boot/initrd"))?;
    std::fs::write(tree.join("images/A disk with a long name.img"), devices::content())?;
    let root = format!("/disk/{}", kind.volume());
    let config = format!(
        "type = \"pv\"\nname = \"{}\"\nkernel = \"{root}/boot/vmlinuz\"\nramdisk = \"{root}/boot/initrd\"\nmemory = 192\n",
        kind.name()
    );
    std::fs::write(tree.join("guest.cfg"), config)?;
    let image = base.join(format!("disk-{}", kind.name()));
    // One of an earlier run.
    let _ = std::fs::remove_file(&image);
    match kind {
        Kind::Ext4 => {
            let mut command = Command::new("mke2fs");
            command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(["-q", "-t", "ext4", "-d"]);
            output(command.arg(&tree).arg(&image).arg(format!("{SIZE}m")))?;
        }
        Kind::Fat => fat(&tree, &image)?,
    }
    Ok(image)
}

fn fat(tree: &Path, image: &Path) -> Result<()> {
    let sectors = (SIZE * 2048).to_string();
    output(Command::new("mformat").args(["-C", "-T", &sectors, "-h", "64", "-s", "32", "-i"]).arg(image).arg("::"))?;
    let filler = tree.with_extension("filler");
    std::fs::write(&filler, vec![0x55; FILLER])?;
    for number in 0..FILLERS {
        output(Command::new("mcopy").arg("-i").arg(image).arg(&filler).arg(format!("::FILLER{number}")))?;
    }
    for number in (0..FILLERS).step_by(2) {
        output(Command::new("mdel").arg("-i").arg(image).arg(format!("::FILLER{number}")))?;
    }
    for name in ["images", "boot", "guest.cfg"] {
        output(Command::new("mcopy").args(["-s", "-i"]).arg(image).arg(tree.join(name)).arg("::"))
            .with_context(|| name.to_owned())?;
    }
    Ok(std::fs::remove_file(filler)?)
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Fat => "fat",
        }
    }

    /// Where dom0 finds it: cases put it in this place.
    fn volume(self) -> &'static str {
        match self {
            Self::Ext4 => "vda",
            Self::Fat => "vdb",
        }
    }
}
