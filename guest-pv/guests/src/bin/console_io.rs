//! `console_io`: writing to the hypervisor's console and reading from it, as the control domain, and as another.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::alloc::vec::Vec;
use guest_pv::tap::Tap;
use guests::domain::{Call, DATA, End, HOLE, Tiny};
use guests::{Cliff, address_of, call, make_read_only, make_writable, page};
use xen_abi::Errno;
use xen_abi::console::{CONSOLEIO_READ, CONSOLEIO_WRITE};
use xen_abi::hypercall::HYPERVISOR_CONSOLE_IO;

guest_pv::test!(run);

const WRITE: u64 = CONSOLEIO_WRITE as u64;
const READ: u64 = CONSOLEIO_READ as u64;
const FAULT: Result<u64, Errno> = Err(Errno::EFAULT);
/// Addresses that no buffer can have: nothing mapped, the hypervisor's, its read-only part, not canonical, the last.
const BAD: [u64; 5] = [0x1000, 0xffff_8300_0000_0000, 0xffff_8280_0000_0000, 1 << 47, u64::MAX - 3];

fn console(command: u64, count: u64, buffer: u64) -> Result<u64, Errno> {
    call(HYPERVISOR_CONSOLE_IO, [command, count, buffer])
}

fn run(tap: &mut Tap) {
    commands(tap);
    writing(tap);
    reading(tap);
    another_domain(tap);
}

fn commands(tap: &mut Tap) {
    for command in [2u64, 3, 99, u64::from(u32::MAX)] {
        tap.is(console(command, 1, 0), Err(Errno::ENOSYS), "a command that does not exist");
    }
    let mut text = *b"# a line\n";
    let at = address_of(&mut text);
    tap.is(console(1 << 32 | WRITE, 1 << 32 | 9, at), Ok(0), "command and count are 32 bits");
}

fn writing(tap: &mut Tap) {
    tap.is(console(WRITE, 0, 0), Ok(0), "no text");
    for address in BAD {
        tap.is(console(WRITE, 0, address), Ok(0), "no text, wherever it is");
        tap.is(console(WRITE, 8, address), FAULT, "text that is nowhere");
    }
    let mut cliff = Cliff::new();
    cliff.page.bytes_mut().fill(b'.');
    cliff.page.bytes_mut()[..2].copy_from_slice(b"# ");
    cliff.page.bytes_mut()[4095] = b'\n';
    tap.is(console(WRITE, 4096, cliff.page.address()), Ok(0), "a page of text before one that is not there");
    cliff.page.bytes_mut()[4000..].fill(b'\n');
    tap.is(console(WRITE, 97, cliff.edge() - 96), FAULT, "text that ends behind it");
    tap.is(console(WRITE, 1, cliff.edge()), FAULT, "or begins there");
    tap.is(console(WRITE, u64::from(u32::MAX), cliff.edge() - 96), FAULT, "the longest text ends there too");
    make_read_only(&cliff.page);
    tap.is(console(WRITE, 1, cliff.edge() - 1), Ok(0), "text may be read-only");
    make_writable(&cliff.page).expect("own memory may be writable");
    drop(cliff);
    let mut long = Vec::new();
    for _ in 0..160 {
        long.extend_from_slice(b"# a text of many lines, which is written in several steps\n");
    }
    tap.is(guest_pv::call::console_io::write(&long), Ok(()), "nine thousand bytes");
    let mut odd = *b"# zero \0 and \xff\xfe are bytes\n";
    tap.is(console(WRITE, odd.len() as u64, address_of(&mut odd)), Ok(0), "any bytes are text");
}

fn reading(tap: &mut Tap) {
    let mut buffer = [0x55u8; 64];
    let at = address_of(&mut buffer);
    tap.is(console(READ, 64, at), Ok(0), "nothing was typed");
    tap.is(buffer, [0x55; 64], "and nothing is written");
    tap.is(console(READ, 0, at), Ok(0), "no room");
    tap.is(console(READ, 0x7fff_ffff, at), Ok(0), "the most room");
    for count in [0x8000_0000u64, 0xffff_ffff] {
        tap.is(console(READ, count, at), Err(Errno::E2BIG), "more could not be told from an error");
    }
    for address in BAD {
        tap.is(console(READ, 8, address), Ok(0), "a bad buffer is not touched when there is nothing");
    }
    let target = page();
    make_read_only(&target);
    tap.is(console(READ, 8, target.address()), Ok(0), "nor one that is read-only");
    make_writable(&target).expect("own memory may be writable");
}

fn another_domain(tap: &mut Tap) {
    let tiny = Tiny::caller();
    let make = |command: u64, count: u64, buffer: u64| -> Call {
        [HYPERVISOR_CONSOLE_IO.into(), command, count, buffer, 0, 0, 0]
    };
    let mut calls = [
        make(READ, 8, DATA),
        make(READ, 1 << 31, DATA),
        make(READ, 8, HOLE),
        make(2, 0, 0),
        make(u64::from(u32::MAX), 0, 0),
        make(WRITE, 0, 0),
        make(WRITE, 4, HOLE),
    ];
    tap.is(tiny.make(&mut calls, &[]), End::Shutdown(0), "another domain tries");
    for (call, what) in calls.iter().zip(["to read", "too much", "to a bad buffer", "a command", "the last command"]) {
        tap.is(call[6].cast_signed(), -1, what);
    }
    // A hypervisor that shows everything takes text; the released Xen does not.
    let [nothing, nowhere] = [calls[5][6].cast_signed(), calls[6][6].cast_signed()];
    tap.ok(matches!((nothing, nowhere), (-1, -1) | (0, -14)), "what it writes is refused, or shown with its number");
}
