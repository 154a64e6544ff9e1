//! Files on disks: `/disk/VOLUME/PATH`, as `/disk/vda1/boot/vmlinuz`. A file system only says where a file lies; its content is
//! read from there, or a guest gets it as a volume of that many pieces.

use crate::disk::{Volume, within};
use crate::drivers::Failure;
use crate::shell::Shell;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use file_places::{AHEAD, BLOCK, Blocks, Located, MOST, Stop, locate};
use xen_abi::errno::Errno;

/// Where the files are seen.
pub const ROOT: &str = "/disk/";
/// Sectors of volumes.
const SECTOR: u64 = 512;
/// Bytes that are read at once.
const STRIDE: u64 = 1 << 20;

/// Reads bytes of a volume, and lets others go on meanwhile.
fn read(shell: &mut (impl Shell + ?Sized), volume: &Volume, at: u64, len: u64) -> Result<Vec<u8>, Errno> {
    const PAUSE: u64 = 100_000;
    const LONGEST: u64 = 5_000_000;
    let (first, end) = (at / SECTOR, (at + len).div_ceil(SECTOR).min(volume.sectors()));
    let reading = shell.dom0().blk.disks.begin_read(volume, first, end.saturating_sub(first)).ok_or(Errno::EIO)?;
    let mut pause = PAUSE;
    loop {
        match shell.dom0().blk.disks.end_read(&reading) {
            Some(Ok(mut bytes)) => {
                bytes.drain(..usize::try_from(at % SECTOR).unwrap_or(0).min(bytes.len()));
                bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
                return Ok(bytes);
            }
            Some(Err(Failure::Timeout)) => return Err(Errno::ETIMEDOUT),
            Some(Err(_)) => return Err(Errno::EIO),
            None => {}
        }
        let soon = shell.now() + pause;
        if !shell.wait(soon) {
            return Err(Errno::EINTR);
        }
        pause = (pause * 2).min(LONGEST);
    }
}

/// Finds a file: the volume that it is on, where it lies there, and whether it may be written.
fn find(shell: &mut (impl Shell + ?Sized), path: &str) -> Result<(Volume, Located, bool), (Errno, &'static str)> {
    let none = (Errno::ENOENT, "no such file");
    let (name, path) = path.strip_prefix(ROOT).and_then(|rest| rest.split_once('/')).ok_or(none)?;
    let volume = shell.dom0().blk.disks.find(name).ok_or((Errno::ENOENT, "no such volume"))?;
    let mut blocks = Blocks::default();
    loop {
        let number = match locate(&blocks, path) {
            Ok((located, writable)) => return Ok((volume, located, writable)),
            Err(Stop::Missing(number)) if blocks.len() < MOST => number,
            Err(Stop::Missing(_)) => return Err((Errno::E2BIG, "its file system takes too long to look through")),
            Err(Stop::NotFound) => return Err(none),
            Err(Stop::WrongKind) => return Err((Errno::EISDIR, "not a regular file")),
            Err(Stop::Unsupported(why)) => return Err((Errno::EOPNOTSUPP, why)),
            Err(Stop::Broken) => return Err((Errno::EIO, "its file system contradicts itself")),
        };
        let at = number.checked_mul(BLOCK as u64).filter(|at| *at < volume.sectors() * SECTOR);
        let at = at.ok_or((Errno::EIO, "its file system is larger than its volume"))?;
        let len = AHEAD * BLOCK as u64;
        let bytes = read(shell, &volume, at, len).map_err(|errno| (errno, "the disk cannot be read"))?;
        blocks.insert(number, &bytes);
    }
}

/// A file's content.
pub fn content(shell: &mut (impl Shell + ?Sized), path: &str) -> Result<Vec<u8>, Errno> {
    let (volume, located, _) = find(shell, path).map_err(|(errno, _)| errno)?;
    let size = usize::try_from(located.size).map_err(|_| Errno::E2BIG)?;
    let mut content = Vec::new();
    content.try_reserve_exact(size).map_err(|_| Errno::ENOMEM)?;
    for piece in located.pieces {
        let Some(at) = piece.at else {
            content.resize(content.len() + usize::try_from(piece.len).unwrap_or(0), 0);
            continue;
        };
        let mut done = 0;
        while done < piece.len {
            let some = STRIDE.min(piece.len - done);
            let mut bytes = read(shell, &volume, at + done, some)?;
            if (bytes.len() as u64) < some {
                return Err(Errno::EIO);
            }
            content.append(&mut bytes);
            done += some;
        }
    }
    Ok(content)
}

/// Makes a volume of a file, under its path.
pub fn open_volume(shell: &mut (impl Shell + ?Sized), path: &str) -> Result<(), String> {
    let fail = |(_, why): (Errno, &str)| format!("{path}: {why}");
    let (volume, located, writable) = find(shell, path).map_err(fail)?;
    let geometry = shell.dom0().blk.disks.geometry(&volume).ok_or_else(|| format!("{path}: no such disk"))?;
    let grain = u64::from(geometry.sector_size);
    let mut pieces = vec![];
    for piece in &located.pieces {
        let at = piece.at.ok_or_else(|| format!("{path} has holes: where nothing was written there is no place"))?;
        // What is less than a sector at its end is not shown.
        let whole = pieces.iter().all(|(_, len): &(u64, u64)| len.is_multiple_of(grain));
        pieces.push((at, piece.len));
        if !whole || !at.is_multiple_of(grain) {
            return Err(format!("{path}: its pieces do not lie on whole sectors"));
        }
    }
    let inside = |&(at, len): &(u64, u64)| within(at / SECTOR, len / SECTOR, volume.sectors());
    if !pieces.iter().all(inside) {
        return Err(fail((Errno::EIO, "its file system is larger than its volume")));
    }
    let pieces: Vec<(u64, u64)> = pieces.iter().map(|(at, len)| (at / SECTOR, len / grain * grain / SECTOR)).collect();
    let disks = &mut shell.dom0().blk.disks;
    disks.add_file(path.to_string(), &volume, &pieces, !writable);
    Ok(())
}
