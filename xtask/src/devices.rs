//! Devices that a test puts into the emulated machine, and the disk that they show.

mod qcow2;
mod table;

use crate::file_systems::{self, Kind};
use crate::{debian_root, workspace};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The names that cases use.
pub const NAMES: [&str; 9] =
    ["virtio-blk", "virtio-blk-4k", "ahci", "nvme", "virtio-net", "e1000e", "files-ext4", "files-fat", "debian"];

/// Bytes of the disk, of one that is kept, and of a large one.
const DISK: usize = 4 << 20;
const KEPT_SIZE: u64 = 256 << 20;
const LARGE_SIZE: u64 = 64 << 20;

/// What a disk may have behind its name and a colon. What is written to one that is kept is there on the next machine,
/// and for whoever looks at it on the host; a large one is empty at first; one with a partition table has two
/// partitions. A virtio disk may have several queues (an NVMe disk has). One that is pulled lies in a slot of its own,
/// which QEMU's monitor empties as the firmware's code would: on `pc` by `o /w 0xae08 MASK`; on `q35` it lies behind a
/// port of its own, `o /w 0xcd0 BUS` and `o /w 0xcc8 1`, where the buses of such ports count from 0.
const FAULTS: &str = "faults";
const NO_FLUSH: &str = "no-flush";
const PULLED: &str = "pulled";
const PULLED_PCIE: &str = "pulled-pcie";
const KEPT: &str = "kept";
const DEBIAN_KEPT: &str = "debian:kept";
const LARGE: &str = "large";
const QUEUES: &str = "queues";
const GPT: &str = "gpt";
const MBR: &str = "mbr";

/// What fails on a disk with faults: sectors of 512 bytes, read always, written always, written once.
const FAILURES: [&str; 3] = ["iotype=read,sector=2048", "iotype=write,sector=4096", "iotype=write,sector=6144,once=on"];
/// What fails on a disk that cannot be flushed.
const FLUSH: [&str; 1] = ["iotype=flush"];

/// The emulator's arguments for a device. What is written to a disk is gone when the machine is.
pub fn arguments(name: &str) -> Result<Vec<String>> {
    let (name, how) = name.split_once(':').unwrap_or((name, ""));
    match name {
        "virtio-blk" => disk("disk0", 10, how, |place| vec![format!("virtio-blk-pci,drive=disk0{place}")]),
        "virtio-blk-4k" => disk("disk4k", 13, how, |place| {
            vec![format!("virtio-blk-pci,drive=disk4k,logical_block_size=4096,physical_block_size=4096{place}")]
        }),
        "nvme" => disk("disk2", 12, how, |place| vec![format!("nvme,id=nvme2,drive=disk2,serial=xen-rs{place}")]),
        "ahci" => disk("disk1", 11, how, |place| {
            vec![format!("ich9-ahci,id=ahci1{place}"), "ide-hd,drive=disk1,bus=ahci1.0".to_owned()]
        }),
        "files-ext4" => files("disk5", file_systems::disk(Kind::Ext4)?),
        "files-fat" => files("disk6", file_systems::disk(Kind::Fat)?),
        "debian" if how == KEPT => Ok(file("disk7", &kept("disk7"), "off")),
        "debian" => files("disk7", debian_root::disk()?),
        "virtio-net" => Ok(network("net0", "virtio-net-pci")),
        "e1000e" => Ok(network("net1", "e1000e")),
        other => bail!("no device {other}, only {}", NAMES.join(", ")),
    }
}

/// A disk with a file system.
fn files(id: &str, path: PathBuf) -> Result<Vec<String>> {
    Ok(file(id, &path, "on"))
}

/// A disk that is a file of the host's, or a snapshot of it.
fn file(id: &str, path: &Path, snapshot: &str) -> Vec<String> {
    let path = path.display().to_string().replace(',', ",,");
    let drive = format!("if=none,id={id},format=raw,snapshot={snapshot},file={path}");
    ["-drive", &drive, "-device", &format!("virtio-blk-pci,drive={id}")].map(str::to_owned).into()
}

/// A disk and its devices, which are given their place.
fn disk(id: &str, slot: u8, how: &str, devices: impl Fn(&str) -> Vec<String>) -> Result<Vec<String>> {
    let quoted = |path: PathBuf| path.display().to_string().replace(',', ",,");
    let failing = |failures: &[&str]| -> Result<String> {
        let mut drive = format!(
            "format=raw,file.driver=blkdebug,file.image.driver=file,file.image.locking=off,file.image.filename={}",
            quoted(scratch(id)?)
        );
        for (number, failure) in failures.iter().enumerate() {
            for setting in ["event=none"].into_iter().chain(failure.split(',')) {
                drive.push_str(&format!(",file.inject-error.{number}.{setting}"));
            }
        }
        Ok(drive)
    };
    let whole = || -> Result<String> { Ok(format!("format=raw,snapshot=on,file={}", quoted(shared()?))) };
    let nowhere = String::new();
    let (drive, place) = match how {
        FAULTS => (failing(&FAILURES)?, nowhere),
        NO_FLUSH => (failing(&FLUSH)?, nowhere),
        PULLED => (whole()?, format!(",addr={slot}")),
        PULLED_PCIE => (whole()?, format!(",bus=port{slot}")),
        KEPT => (format!("format=qcow2,file={}", quoted(kept(id))), nowhere),
        LARGE => (format!("format=raw,snapshot=on,file={}", quoted(large()?)), nowhere),
        QUEUES => (whole()?, ",num-queues=4".to_owned()),
        GPT => (format!("format=raw,snapshot=on,file={}", quoted(parted(how, table::Kind::Gpt)?)), nowhere),
        MBR => (format!("format=raw,snapshot=on,file={}", quoted(parted(how, table::Kind::Mbr)?)), nowhere),
        "" => (whole()?, nowhere),
        other => {
            let all = [FAULTS, NO_FLUSH, PULLED, PULLED_PCIE, KEPT, LARGE, QUEUES, GPT, MBR];
            bail!("no disk is {other}, only {}", all.join(", "))
        }
    };
    let mut words = vec!["-drive".to_owned(), format!("if=none,id={id},{drive}")];
    if how == PULLED_PCIE {
        words.extend(["-device".to_owned(), format!("pcie-root-port,id=port{slot},chassis={slot},addr={slot}")]);
    }
    words.extend(devices(&place).into_iter().flat_map(|device| ["-device".to_owned(), device]));
    Ok(words)
}

/// A network card on a network of its own, whose gateway 10.0.2.2 answers.
fn network(id: &str, device: &str) -> Vec<String> {
    ["-netdev", &format!("user,id={id}"), "-device", &format!("{device},netdev={id},romfile=")]
        .map(str::to_owned)
        .into()
}

/// A disk of one machine's own: what fails cannot lie below a snapshot, and others may run at the same time.
fn scratch(id: &str) -> Result<PathBuf> {
    let dir = workspace::path("target/guest");
    std::fs::create_dir_all(&dir)?;
    workspace::forget_old(&dir, "scratch-")?;
    let path = dir.join(format!("scratch-{id}-{}", workspace::unique()));
    std::fs::write(&path, content())?;
    Ok(path)
}

/// A disk with partitions.
fn parted(name: &str, kind: table::Kind) -> Result<PathBuf> {
    let path = workspace::path("target/guest").join(format!("disk-{name}"));
    made(path, || table::disk(kind))
}

/// A file that machines only read; made when it is missing, by one of those who may make it at the same time.
fn made(path: PathBuf, content: impl FnOnce() -> Vec<u8>) -> Result<PathBuf> {
    if !path.is_file() {
        std::fs::create_dir_all(workspace::path("target/guest"))?;
        let fresh = path.with_extension(workspace::unique());
        std::fs::write(&fresh, content())?;
        std::fs::rename(fresh, &path)?;
    }
    Ok(path)
}

/// Where a disk lies that is kept.
fn kept(id: &str) -> PathBuf {
    workspace::path("target/guest").join(format!("kept-{id}"))
}

/// Empties a disk that is kept; one with a file system is as it was made.
pub fn renew(name: &str) -> Result<()> {
    if name == DEBIAN_KEPT {
        std::fs::create_dir_all(workspace::path("target/guest"))?;
        std::fs::copy(debian_root::disk()?, kept("disk7"))?;
        return Ok(());
    }
    let id = match name.split_once(':') {
        Some(("virtio-blk", KEPT)) => "disk0",
        Some(("virtio-blk-4k", KEPT)) => "disk4k",
        Some(("ahci", KEPT)) => "disk1",
        Some(("nvme", KEPT)) => "disk2",
        _ => return Ok(()),
    };
    std::fs::create_dir_all(workspace::path("target/guest"))?;
    Ok(std::fs::write(kept(id), qcow2::empty(KEPT_SIZE))?)
}

/// What is wrong with the file system of a disk that is kept, once the machine has ended: what e2fsck says on the host.
pub fn fault(name: &str) -> Result<Option<String>> {
    if name != DEBIAN_KEPT {
        return Ok(None);
    }
    let mut check = Command::new("e2fsck");
    check.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").env("LC_ALL", "C").args(["-f", "-n"]).arg(kept("disk7"));
    let said = check.output().context("cannot start e2fsck")?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    // One whose journal is to be replayed is not clean, though nothing else may be wrong.
    let clean = said.status.success() && text.contains("Pass 5") && !text.to_lowercase().contains("journal");
    Ok((!clean).then(|| format!("e2fsck on the host: {}: {}", said.status, text.trim())))
}

/// A disk full of zeros.
fn large() -> Result<PathBuf> {
    let path = workspace::path("target/guest").join("disk-large");
    std::fs::create_dir_all(workspace::path("target/guest"))?;
    std::fs::File::options().write(true).create(true).truncate(false).open(&path)?.set_len(LARGE_SIZE)?;
    Ok(path)
}

/// The disk of all others: 32-bit numbers that count up.
fn shared() -> Result<PathBuf> {
    made(workspace::path("target/guest").join("disk"), content)
}

/// What the disks hold.
pub fn content() -> Vec<u8> {
    (0..).flat_map(u32::to_le_bytes).take(DISK).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_has_arguments() {
        // Those with files are made anew each time.
        for name in NAMES.into_iter().filter(|name| !name.starts_with("files") && *name != "debian") {
            assert!(!arguments(name).unwrap().is_empty());
        }
        assert!(arguments("nvme:kept").unwrap().concat().contains("format=qcow2"));
        assert!(arguments("floppy").is_err());
        assert!(arguments("nvme:pulled").unwrap().concat().ends_with("addr=12"));
        let behind = arguments("nvme:pulled-pcie").unwrap().concat();
        assert!(behind.contains("pcie-root-port,id=port12") && behind.ends_with("bus=port12"));
        assert!(arguments("nvme:purple").is_err());
        assert_eq!(content().len(), DISK);
    }
}
