//! Text in and out: the hypervisor's console in the initial domain, the ring page in any other.
//!
//! Unsafe: the ring page of the console is shared with its backend.

use crate::call::{self, console_io};
use crate::events;
use crate::mem::{self, PAGE_BYTES, SharedBytes};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, Ordering};
use spin::Once;
use xen_abi::errno::Errno;
use xen_abi::hypercall::VIRQ_CONSOLE;
use xen_abi::ids::Port;
use xen_abi::io::console::interface;

/// The ring page and its port, in a domain that has them.
static RING: Once<(SharedBytes, Port)> = Once::new();
/// The port of `VIRQ_CONSOLE` once bound.
static VIRQ: AtomicU32 = AtomicU32::new(0);

/// Finds the ring page.
pub(crate) fn init(boot: &crate::boot::Boot) {
    if let Some(pfn) = mem::m2p(boot.console_mfn).filter(|_| boot.console_mfn.0 != 0) {
        // SAFETY: the builder reserved the page for this, and the direct map never loses it.
        let page = unsafe { SharedBytes::new(mem::address(pfn) as *mut u8, PAGE_BYTES) };
        RING.call_once(|| (page, boot.console_evtchn));
    }
}

/// Writes bytes to the console.
pub fn write_bytes(bytes: &[u8]) {
    match RING.get() {
        Some((page, port)) => write_ring(page, *port, bytes),
        None if bytes.is_empty() => {}
        // There is no place to report a console that does not work.
        None => drop(console_io::write(bytes)),
    }
}

fn write_ring(page: &SharedBytes, port: Port, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let cons = page.load_u32(interface::OUT_CONS);
        let prod = page.load_u32(interface::OUT_PROD);
        let room = interface::OUT_SIZE.saturating_sub(prod.wrapping_sub(cons) as usize);
        if room == 0 {
            // Whoever reads the console runs on this CPU too, perhaps.
            let _ = call::event_channel::send(port);
            let _ = call::sched::yield_cpu();
            continue;
        }
        let at = prod as usize % interface::OUT_SIZE;
        let count = bytes.len().min(room).min(interface::OUT_SIZE - at);
        page.write(interface::OUT + at, &bytes[..count]);
        page.store_u32(interface::OUT_PROD, prod.wrapping_add(count as u32));
        bytes = &bytes[count..];
    }
    let _ = call::event_channel::send(port);
}

/// Reads what has been typed, without waiting; returns the number of bytes.
pub fn read(buffer: &mut [u8]) -> usize {
    let Some((page, port)) = RING.get() else {
        return console_io::read(buffer).unwrap_or(0);
    };
    let prod = page.load_u32(interface::IN_PROD);
    let cons = page.load_u32(interface::IN_CONS);
    let count = (prod.wrapping_sub(cons) as usize).min(interface::IN_SIZE).min(buffer.len());
    for (index, byte) in buffer[..count].iter_mut().enumerate() {
        let at = (cons as usize + index) % interface::IN_SIZE;
        *byte = page.u8_at(interface::IN + at).load(Ordering::Relaxed);
    }
    if count > 0 {
        page.store_u32(interface::IN_CONS, cons.wrapping_add(count as u32));
        let _ = call::event_channel::send(*port);
    }
    count
}

/// The port that becomes pending when there is something to [`read`].
///
/// # Errors
/// Those of binding `VIRQ_CONSOLE`.
pub fn input_port() -> Result<Port, Errno> {
    if let Some((_, port)) = RING.get() {
        events::unmask(*port);
        return Ok(*port);
    }
    let bound = VIRQ.load(Ordering::Relaxed);
    if bound != 0 {
        return Ok(Port(bound));
    }
    let port = events::bind_virq(VIRQ_CONSOLE)?;
    VIRQ.store(port.0, Ordering::Relaxed);
    Ok(port)
}

/// Collects what one `print!` writes, so that a line is one hypercall and not one per formatted piece.
struct Line {
    bytes: [u8; 256],
    used: usize,
}

impl Line {
    fn flush(&mut self) {
        write_bytes(&self.bytes[..self.used]);
        self.used = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.used == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.used] = byte;
            self.used += 1;
        }
        Ok(())
    }
}

/// The work of `print!`.
#[doc(hidden)]
pub fn print(args: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 256], used: 0 };
    let _ = line.write_fmt(args);
    line.flush();
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::console::print(format_args!($($arg)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::console::print(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($arg)*))) };
}
