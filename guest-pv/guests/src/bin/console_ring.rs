//! The ring that keeps what the hypervisor logs: `XEN_SYSCTL_readconsole`, and `VIRQ_CON_RING`, which says that there is more.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // The hypervisor is told where to read and to write.

use guest_pv::alloc::{vec, vec::Vec};
use guest_pv::call::sysctl;
use guest_pv::tap::Tap;
use guest_pv::{events, time};
use guests::{address_of, call};
use xen_abi::console::CONSOLEIO_WRITE;
use xen_abi::hypercall::{HYPERVISOR_CONSOLE_IO, VIRQ_CON_RING};
use xen_abi::ids::Port;
use xen_abi::sysctl::*;

guest_pv::test!(run);

/// A second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

fn run(tap: &mut Tap) {
    let port = events::bind_virq(VIRQ_CON_RING).expect("nobody has bound it");
    settle(port);
    let (start, _) = read(0, true, false);
    let (end, none) = read(start, true, false);
    tap.ok(none.is_empty() && end == start, "what was read is not read again");
    press(b'h');
    tap.ok(comes(port), "a debug key that answers is news");
    let (after, text) = read(end, true, false);
    tap.ok(text.len() > 100, "its answer is read");
    tap.is(after.wrapping_sub(end) as usize, text.len(), "from where the last reading ended");
    let (again, same) = read(end, true, false);
    tap.ok((again, &same) == (after, &text), "reading takes nothing away");
    let (_, all) = read(0, false, false);
    tap.ok(all.len() > text.len() && all.ends_with(&text), "who does not say from where reads from the oldest on");

    settle(port);
    let mut line = *b"# written by the control domain\n";
    let written = call(HYPERVISOR_CONSOLE_IO, [CONSOLEIO_WRITE.into(), line.len() as u64, address_of(&mut line)]);
    tap.is(written, Ok(0), "the control domain writes");
    tap.ok(!comes(port), "which is no news");
    tap.ok(read(after, true, false).1.is_empty(), "and is not kept");

    press(b'h');
    tap.ok(comes(port), "more news");
    tap.ok(!read(0, false, true).1.is_empty(), "read, and cleared");
    tap.ok(read(0, false, false).1.is_empty(), "there is nothing left");
}

/// Takes what is pending, until nothing comes.
fn settle(port: Port) {
    while comes(port) {}
}

/// Whether the event comes; it is taken.
fn comes(port: Port) -> bool {
    let deadline = time::now() + SECOND / 4;
    while time::now() < deadline {
        if events::is_pending(port) {
            events::clear(port);
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

fn press(key: u8) {
    let mut keys = [key];
    let mut arg = DebugKeys { keys: address_of(&mut keys), nr_keys: 1, ..Default::default() };
    // SAFETY: one key, as it says.
    unsafe { sysctl::payload(XEN_SYSCTL_DEBUG_KEYS, &mut arg) }.expect("the control domain presses keys");
}

/// Reads from `index` on, or from the oldest on; where the next reading goes on, and the text.
fn read(index: u32, incremental: bool, clear: bool) -> (u32, Vec<u8>) {
    let mut text = vec![0u8; 64 << 10];
    let mut arg = ReadConsole {
        clear: clear.into(),
        incremental: incremental.into(),
        index,
        buffer: address_of(text.as_mut_slice()),
        count: u32::try_from(text.len()).unwrap_or(0),
        ..Default::default()
    };
    // SAFETY: the buffer is as long as it says.
    unsafe { sysctl::payload(XEN_SYSCTL_READCONSOLE, &mut arg) }.expect("the control domain reads");
    text.truncate(arg.count as usize);
    (arg.index, text)
}
