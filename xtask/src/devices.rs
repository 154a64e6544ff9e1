//! Devices that a test puts into the emulated machine, and the disk that they show.

use crate::workspace;
use anyhow::{Result, bail};
use std::path::PathBuf;

/// The names that cases use.
pub const NAMES: [&str; 6] = ["virtio-blk", "virtio-blk-4k", "ahci", "nvme", "virtio-net", "e1000e"];

/// Bytes of the disk.
const DISK: usize = 4 << 20;

/// The emulator's arguments for a device. What is written to a disk is gone when the machine is.
pub fn arguments(name: &str) -> Result<Vec<String>> {
    let disk = || -> Result<String> { Ok(disk()?.display().to_string().replace(',', ",,")) };
    let words = match name {
        "virtio-blk" => vec![
            "-drive".to_owned(),
            format!("if=none,id=disk0,format=raw,snapshot=on,file={}", disk()?),
            "-device".to_owned(),
            "virtio-blk-pci,drive=disk0".to_owned(),
        ],
        "virtio-blk-4k" => vec![
            "-drive".to_owned(),
            format!("if=none,id=disk4k,format=raw,snapshot=on,file={}", disk()?),
            "-device".to_owned(),
            "virtio-blk-pci,drive=disk4k,logical_block_size=4096,physical_block_size=4096".to_owned(),
        ],
        "nvme" => vec![
            "-drive".to_owned(),
            format!("if=none,id=disk2,format=raw,snapshot=on,file={}", disk()?),
            "-device".to_owned(),
            "nvme,drive=disk2,serial=xen-rs".to_owned(),
        ],
        "ahci" => vec![
            "-drive".to_owned(),
            format!("if=none,id=disk1,format=raw,snapshot=on,file={}", disk()?),
            "-device".to_owned(),
            "ich9-ahci,id=ahci1".to_owned(),
            "-device".to_owned(),
            "ide-hd,drive=disk1,bus=ahci1.0".to_owned(),
        ],
        "virtio-net" => network("net0", "virtio-net-pci"),
        "e1000e" => network("net1", "e1000e"),
        other => bail!("no device {other}, only {}", NAMES.join(", ")),
    };
    Ok(words)
}

/// A network card on a network of its own, whose gateway 10.0.2.2 answers.
fn network(id: &str, device: &str) -> Vec<String> {
    ["-netdev", &format!("user,id={id}"), "-device", &format!("{device},netdev={id},romfile=")]
        .map(str::to_owned)
        .into()
}

/// The disk: 32-bit numbers that count up.
fn disk() -> Result<PathBuf> {
    let path = workspace::path("target/guest").join("disk");
    if !path.is_file() {
        std::fs::create_dir_all(workspace::path("target/guest"))?;
        let fresh = path.with_extension(std::process::id().to_string());
        std::fs::write(&fresh, content())?;
        std::fs::rename(fresh, &path)?;
    }
    Ok(path)
}

fn content() -> Vec<u8> {
    (0..).flat_map(u32::to_le_bytes).take(DISK).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_has_arguments() {
        for name in NAMES {
            assert!(!arguments(name).unwrap().is_empty());
        }
        assert!(arguments("floppy").is_err());
        assert_eq!(content().len(), DISK);
    }
}
