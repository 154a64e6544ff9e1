//! A log on a disk that must outlive a power cut.
//!
//! `exerciser io log PATH flush|no-flush` writes records with growing numbers, some at a time, flushes the disk and then
//! tells the number of the last one; beside it other blocks are written all the time. It goes on until the disk is full.
//! `exerciser io check PATH NUMBER` looks whether all records up to that one are there.
//!
//! Each record is on its own 64 KiB of the disk, in its first half: with QEMU's qcow2 these are clusters of their own, whose
//! places the emulator keeps in memory until it is told to flush.

use super::io::Page;
use std::fs::{File, OpenOptions};
use std::io::{Error, Result, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;
use std::sync::Arc;

/// Bytes of the disk from one record to the next.
const STRIDE: u64 = 64 << 10;
/// Records that are written before a flush, at most.
const BATCH: u64 = 5;

/// The words after `io`, if they are for this.
pub fn run(words: &[String]) -> Option<ExitCode> {
    let (path, result) = match words {
        [way, path, how] if way == "log" => (path, log(path, how == "flush")),
        [way, path, last] if way == "check" => (path, check(path, last.parse().unwrap_or(u64::MAX))),
        _ => return None,
    };
    if let Err(error) = &result {
        println!("log: {path}: {error}");
    }
    Some(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Records on half of the disk.
fn open(path: &str) -> Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)?;
    let bytes = file.seek(SeekFrom::End(0))?;
    Ok((file, bytes / STRIDE / 2))
}

fn record(page: &mut Page, number: u64) {
    for (place, part) in (1..).zip(page.0.chunks_exact_mut(8)) {
        part.copy_from_slice(&number.wrapping_mul(place).rotate_left(17).wrapping_add(place).to_le_bytes());
    }
}

fn log(path: &str, flush: bool) -> Result<()> {
    let (file, records) = open(path)?;
    let file = Arc::new(file);
    let others = file.clone();
    std::thread::spawn(move || {
        let mut page = Box::new(Page([0x5a; 4096]));
        for round in 0u64.. {
            page.0[..8].copy_from_slice(&round.to_le_bytes());
            let place = records + round.wrapping_mul(0x9e37_79b9) % records;
            // The end of the disk, or of the machine, is seen by the one that writes records.
            let _ = others.write_all_at(&page.0, place * STRIDE);
        }
    });
    let mut page = Box::new(Page([0; 4096]));
    let mut number = 0;
    while number < records {
        let batch = (1 + number % BATCH).min(records - number);
        for next in number..number + batch {
            record(&mut page, next);
            file.write_all_at(&page.0, next * STRIDE)?;
        }
        number += batch;
        if flush {
            file.sync_data()?;
        }
        println!("log: {path} {number} are there");
        std::io::stdout().flush()?;
    }
    println!("log: {path} is full");
    Ok(())
}

fn check(path: &str, count: u64) -> Result<()> {
    let (file, records) = open(path)?;
    if count > records {
        return Err(Error::other(format!("it has room for {records} records only")));
    }
    let (mut there, mut wanted) = (Box::new(Page([0; 4096])), Box::new(Page([0; 4096])));
    let mut whole = |number: u64| -> Result<bool> {
        file.read_exact_at(&mut there.0, number * STRIDE)?;
        record(&mut wanted, number);
        Ok(there.0 == wanted.0)
    };
    let mut lost = Vec::new();
    for number in 0..count {
        if !whole(number)? {
            lost.push(number);
        }
    }
    let mut more = 0;
    while count + more < records && whole(count + more)? {
        more += 1;
    }
    match lost.as_slice() {
        [] => println!("log: {path} has all {count}, and {more} more"),
        [first, ..] => println!("log: {path} LOST {} of {count}, the first is {first}", lost.len()),
    }
    if lost.is_empty() { Ok(()) } else { Err(Error::other("not all are there")) }
}
