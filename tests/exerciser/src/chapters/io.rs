//! How fast a disk is, always direct.
//!
//! `exerciser io read|write PATH DEPTH MILLISECONDS`: 4 KiB at random places, so many under way (Linux's `io_submit`).
//! `exerciser io dd-read|dd-write PATH BYTES ROUNDS`: the calls of a `dd` with blocks of so many bytes, over the whole disk
//! so often.
//! `exerciser io write-again PATH BYTES ROUNDS`: the writes of such a `dd` alone: it asks `/dev/zero` for a block once, and the
//! kernel clears no memory in between. All print `io: N requests of N bytes in N ns`.
//!
//! Unsafe: the kernel reads and writes buffers that it was told of by their addresses.

#![allow(unsafe_code, reason = "foreign calls")]

use super::{io_log, sys};
use std::fs::{File, OpenOptions};
use std::io::{Error, Read, Result, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

/// Bytes of a request.
const SIZE: usize = 4096;
/// The most that are under way.
const MOST: usize = 128;
/// `IOCB_CMD_*` (Linux's `aio_abi.h`).
const READ: u16 = 0;
const WRITE: u16 = 1;

/// `struct iocb`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Control {
    data: u64,
    key: u32,
    flags: u32,
    operation: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    more_flags: u32,
    event_file: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

/// Memory for direct input and output.
#[repr(C, align(4096))]
pub struct Page(pub [u8; SIZE]);

/// The words after `io`.
pub fn run(words: &[String]) -> ExitCode {
    if let Some(code) = io_log::run(words) {
        return code;
    }
    let [way, path, first, second] = words else {
        eprintln!(
            "io: read|write PATH DEPTH MILLISECONDS, or dd-read|dd-write|write-again PATH BYTES ROUNDS, or log PATH flush|no-flush, or check PATH NUMBER"
        );
        return ExitCode::FAILURE;
    };
    let (first, second): (usize, u32) = (first.parse().unwrap_or(1), second.parse().unwrap_or(1));
    let (size, result) = match way.as_str() {
        "dd-read" => (first, copy(path, "/dev/null", first, second)),
        "dd-write" => (first, copy("/dev/zero", path, first, second)),
        "write-again" => (first, write_again(path, first, second)),
        way => (SIZE, measure(way, path, first, second.into())),
    };
    match result {
        Ok((requests, time)) => {
            println!("io: {requests} requests of {size} bytes in {time} ns");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("io: {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What `dd` does when it is told `if=`, `of=`, `bs=` and `direct` for the one that is a disk.
fn copy(from: &str, to: &str, size: usize, rounds: u32) -> Result<(u64, i128)> {
    let direct = |path: &str| if path.starts_with("/dev/xvd") { libc::O_DIRECT } else { 0 };
    let mut from = OpenOptions::new().read(true).custom_flags(direct(from)).open(from)?;
    let mut to = OpenOptions::new().write(true).custom_flags(direct(to)).open(to)?;
    let blocks = from.seek(SeekFrom::End(0))?.max(to.seek(SeekFrom::End(0))?) / size as u64;
    let mut memory = pages(size);
    let buffer = &mut bytes(&mut memory)[..size];
    let start = sys::monotonic();
    for _ in 0..rounds {
        from.rewind()?;
        to.rewind()?;
        for _ in 0..blocks {
            from.read_exact(buffer)?;
            to.write_all(buffer)?;
        }
    }
    Ok((u64::from(rounds) * blocks, sys::monotonic() - start))
}

/// The writes of a `dd`, always of the same memory.
fn write_again(path: &str, size: usize, rounds: u32) -> Result<(u64, i128)> {
    let mut disk = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
    let blocks = disk.seek(SeekFrom::End(0))? / size as u64;
    let mut memory = pages(size);
    let buffer = &bytes(&mut memory)[..size];
    let start = sys::monotonic();
    for _ in 0..rounds {
        disk.rewind()?;
        for _ in 0..blocks {
            disk.write_all(buffer)?;
        }
    }
    Ok((u64::from(rounds) * blocks, sys::monotonic() - start))
}

/// Memory for so many bytes.
fn pages(size: usize) -> Vec<Page> {
    (0..size.div_ceil(SIZE)).map(|_| Page([0; SIZE])).collect()
}

fn bytes(memory: &mut [Page]) -> &mut [u8] {
    let bytes = memory.len() * SIZE;
    // SAFETY: these are the bytes of the pages, which have no padding, and nothing else refers to them.
    unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<u8>(), bytes) }
}

fn measure(way: &str, path: &str, depth: usize, milliseconds: i128) -> Result<(u64, i128)> {
    let depth = depth.clamp(1, MOST);
    let operation = if way == "write" { WRITE } else { READ };
    let mut file = OpenOptions::new().read(true).write(operation == WRITE).custom_flags(libc::O_DIRECT).open(path)?;
    let places = file.seek(SeekFrom::End(0))? / SIZE as u64;
    let mut buffers: Vec<Page> = (0..depth).map(|_| Page([0x5a; SIZE])).collect();
    let mut context = 0u64;
    // SAFETY: the kernel writes one number.
    call(unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut context) })?;
    let mut controls = vec![Control::default(); depth];
    let mut chance = 0x9e37_79b9_7f4a_7c15;
    let start = sys::monotonic();
    let mut free: Vec<usize> = (0..depth).collect();
    let (mut done, mut under_way) = (0, 0);
    loop {
        let over = sys::monotonic() - start >= milliseconds * 1_000_000;
        if over && under_way == 0 {
            break;
        }
        let mut list = Vec::with_capacity(depth);
        for index in if over { Vec::new() } else { std::mem::take(&mut free) } {
            let place = random(&mut chance) % places.max(1);
            controls[index] = control(&file, operation, index, &mut buffers[index], place);
            list.push(&raw mut controls[index]);
        }
        if !list.is_empty() {
            under_way += list.len();
            // SAFETY: the list, what it names and the buffers live until the events have come.
            call(unsafe { libc::syscall(libc::SYS_io_submit, context, list.len(), list.as_ptr()) })?;
        }
        let mut events = [Event::default(); MOST];
        let none = std::ptr::null::<libc::timespec>();
        // SAFETY: the kernel writes as many events as there is room for.
        let count =
            call(unsafe { libc::syscall(libc::SYS_io_getevents, context, 1i64, depth, events.as_mut_ptr(), none) })?;
        for event in &events[..usize::try_from(count).unwrap_or(0)] {
            if usize::try_from(event.result) != Ok(SIZE) {
                return Err(Error::other(format!("a request gave {}", event.result)));
            }
            free.push(usize::try_from(event.data).unwrap_or(0));
            under_way -= 1;
            done += 1;
        }
    }
    Ok((done, sys::monotonic() - start))
}

fn control(file: &File, operation: u16, index: usize, buffer: &mut Page, place: u64) -> Control {
    Control {
        data: index as u64,
        operation,
        file: file.as_raw_fd().unsigned_abs(),
        buffer: buffer.0.as_mut_ptr() as u64,
        bytes: SIZE as u64,
        offset: i64::try_from(place * SIZE as u64).unwrap_or(0),
        ..Control::default()
    }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn call(result: i64) -> Result<i64> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}
