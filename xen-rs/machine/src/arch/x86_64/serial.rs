//! The console on the first serial port (a 16550), and the backend of the `log` crate on top of it.
//!
//! Lines begin with `(XEN) ` as tools that read a Xen console expect. What is written goes to the serial port and to the
//! tap that the hypervisor above may install (its console ring).
//!
//! Unsafe: I/O instructions; statics that are written once, before there is a second CPU.

use super::port::{inb, outb};
use crate::command_line::CommandLine;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicUsize, Ordering};
use log::{LevelFilter, Log, Metadata, Record};
use spin::mutex::SpinMutex;

/// I/O base of COM1, where a PC has it.
const COM1: u16 = 0x3f8;
/// Line status register: transmitter holding register empty.
const LSR_THR_EMPTY: u8 = 1 << 5;
/// Line status register: a byte has arrived.
const LSR_DATA_READY: u8 = 1;
/// What a 16550's transmit FIFO holds.
const FIFO_BYTES: u8 = 16;

/// Port of the UART in use, 0: none.
static BASE: AtomicU16 = AtomicU16::new(0);
/// Polls before a transmitter that does not empty counts as stuck: more than 16 characters take at 9600 baud.
const PATIENCE: u32 = 100_000;
/// Polls in a row of [`write_now`] that found no room.
static REFUSALS: AtomicU32 = AtomicU32::new(0);
/// The transmitter has not emptied for that long.
static STUCK: AtomicBool = AtomicBool::new(false);
/// The machine is stopping: nobody waits for the end of another CPU's line.
static PANICKING: AtomicBool = AtomicBool::new(false);
/// The tap's function pointer, 0: none.
static TAP: AtomicUsize = AtomicUsize::new(0);
/// Keeps lines of different CPUs apart.
static LINE: SpinMutex<(), crate::mailbox::Poll> = SpinMutex::new(());

/// Settings from `com1=BAUD[/CLOCK],DPS[,BASE[,IRQ]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    base: u16,
    divisor: u16,
    line_control: u8,
}

impl Settings {
    const DEFAULT: Self = Self { base: COM1, divisor: 1, line_control: 0x03 };

    fn parse(text: &str) -> Self {
        let mut settings = Self::DEFAULT;
        let mut fields = text.split(',');
        if let Some(baud) = fields.next().and_then(|f| f.split('/').next()) {
            // "auto" keeps what the firmware chose; for us 115200 is as good.
            if let Ok(baud) = baud.parse::<u32>() {
                settings.divisor = u16::try_from(115_200 / baud.max(2)).unwrap_or(1).max(1);
            }
        }
        if let [bits, parity, stop] = fields.next().unwrap_or("").as_bytes() {
            let bits = bits.saturating_sub(b'5') & 3;
            let parity = match parity {
                b'o' => 0x08,
                b'e' => 0x18,
                b'm' => 0x28,
                b's' => 0x38,
                _ => 0,
            };
            settings.line_control = bits | parity | if *stop == b'2' { 4 } else { 0 };
        }
        if let Some(base) = fields.next().and_then(|f| f.strip_prefix("0x")) {
            settings.base = u16::from_str_radix(base, 16).unwrap_or(COM1);
        }
        settings
    }
}

/// Switches the console on as `console=` and `com1=` say. Without `console=` the port is used as well: there is no other.
pub fn init(line: CommandLine<'_>) {
    let wanted = line
        .value("console")
        .is_none_or(|list| list.split(',').any(|name| matches!(name, "com1" | "com1H" | "com1L" | "")));
    if wanted {
        let settings = line.value("com1").map_or(Settings::DEFAULT, Settings::parse);
        let base = settings.base;
        let [low, high] = settings.divisor.to_le_bytes();
        // SAFETY: the registers of a 16550 (its data sheet, table of registers); no DMA, no interrupt enabled.
        unsafe {
            outb(base + 1, 0);
            outb(base + 3, settings.line_control | 0x80);
            outb(base, low);
            outb(base + 1, high);
            outb(base + 3, settings.line_control);
            outb(base + 2, 0x07);
            outb(base + 4, 0x0b);
            // A port that is not there reads as ones.
            if inb(base + 5) != 0xff {
                BASE.store(base, Ordering::Relaxed);
            }
        }
    }
    let level = match line.value("loglvl").map(|v| v.split('/').next().unwrap_or(v)) {
        Some("all" | "debug") => LevelFilter::Trace,
        Some("none") => LevelFilter::Off,
        Some("error") => LevelFilter::Error,
        Some("warning") => LevelFilter::Warn,
        _ => LevelFilter::Info,
    };
    log::set_max_level(level);
    // Fails only when there is a logger already.
    let _ = log::set_logger(&Console);
}

/// Port of the console's UART, if there is one.
#[must_use]
pub fn base() -> Option<u16> {
    Some(BASE.load(Ordering::Relaxed)).filter(|base| *base != 0)
}

/// Installs a function that is shown every byte that is logged, in order, on the CPU that writes it. It must not
/// log.
pub fn set_tap(tap: fn(&[u8])) {
    TAP.store(tap as usize, Ordering::Release);
}

fn tap(bytes: &[u8]) {
    let tap = TAP.load(Ordering::Acquire);
    if tap != 0 {
        // SAFETY: only `set_tap` stores here, and it stores a `fn(&[u8])`.
        let tap = unsafe { core::mem::transmute::<usize, fn(&[u8])>(tap) };
        tap(bytes);
    }
}

/// How many bytes the transmitter takes at this moment.
fn room_now(base: u16) -> u8 {
    // SAFETY: reading the line status register of our UART clears error bits only.
    if unsafe { inb(base + 5) } & LSR_THR_EMPTY != 0 { FIFO_BYTES } else { 0 }
}

/// Waits for room in the transmitter and returns how many bytes fit, 0 when it does not empty. A transmitter that has
/// kept everybody waiting once is not waited for again until it has emptied.
fn room(base: u16) -> u8 {
    let patience = if STUCK.load(Ordering::Relaxed) { 1 } else { PATIENCE };
    for _ in 0..patience {
        let room = room_now(base);
        if room != 0 {
            STUCK.store(false, Ordering::Relaxed);
            return room;
        }
        <crate::mailbox::Poll as spin::RelaxStrategy>::relax();
    }
    STUCK.store(true, Ordering::Relaxed);
    0
}

/// Sends bytes, a newline as carriage return and newline, as long as `room` finds some. How many were sent.
fn send(bytes: &[u8], room: fn(u16) -> u8) -> usize {
    let Some(base) = base() else { return bytes.len() };
    let mut left = 0;
    for (sent, &byte) in bytes.iter().enumerate() {
        let needed = if byte == b'\n' { 2 } else { 1 };
        if left < needed {
            left = room(base);
            if left < needed {
                return sent;
            }
        }
        left -= needed;
        // SAFETY: the transmit register of our UART, which has room for two bytes.
        unsafe {
            if byte == b'\n' {
                outb(base, b'\r');
            }
            outb(base, byte);
        }
    }
    bytes.len()
}

/// Lets the UART interrupt when a byte arrives (once its line is routed).
pub fn enable_receive_interrupt() {
    if let Some(base) = base() {
        // SAFETY: the interrupt enable register of our UART; OUT2 in the modem control register lets the line through.
        unsafe { outb(base + 1, 1) };
    }
}

/// Takes a byte that has arrived on the console.
#[must_use]
pub fn receive() -> Option<u8> {
    let base = base()?;
    // SAFETY: the status and the receive register of our UART.
    unsafe { (inb(base + 5) & LSR_DATA_READY != 0).then(|| inb(base)) }
}

/// Writes bytes as they are, as many as the transmitter takes without waiting: the control domain's console output. How
/// many that were; to one that is stuck all of them, and they are lost.
#[must_use]
pub fn write_now(bytes: &[u8]) -> usize {
    let _line = LINE.lock();
    let mut sent = send(bytes, room_now);
    if sent != 0 {
        REFUSALS.store(0, Ordering::Relaxed);
        STUCK.store(false, Ordering::Relaxed);
    } else if REFUSALS.fetch_add(1, Ordering::Relaxed) >= PATIENCE {
        STUCK.store(true, Ordering::Relaxed);
        sent = bytes.len();
    }
    sent
}

/// Collects formatted text so that it leaves in few pieces.
struct Buffer {
    bytes: [u8; 256],
    used: usize,
}

impl Buffer {
    const fn new() -> Self {
        Self { bytes: [0; 256], used: 0 }
    }

    fn flush(&mut self) {
        if let Some(bytes) = self.bytes.get(..self.used) {
            tap(bytes);
            send(bytes, room);
        }
        self.used = 0;
    }

    fn push(&mut self, byte: u8) {
        if self.used == self.bytes.len() {
            self.flush();
        }
        if let Some(place) = self.bytes.get_mut(self.used) {
            *place = byte;
            self.used += 1;
        }
    }
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

/// Text to the console, even while another CPU is in the middle of a line: for the last words of the machine only.
pub fn write_panic(arguments: fmt::Arguments<'_>) {
    PANICKING.store(true, Ordering::Relaxed);
    let mut buffer = Buffer::new();
    let _ = buffer.write_fmt(arguments);
    buffer.flush();
}

/// One piece of text to the console, without prefix or newline.
pub fn write_text(arguments: fmt::Arguments<'_>) {
    let _line = (!PANICKING.load(Ordering::Relaxed)).then(|| LINE.lock());
    let mut buffer = Buffer::new();
    let _ = buffer.write_fmt(arguments);
    buffer.flush();
}

struct Console;

impl Log for Console {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.metadata().level() <= log::max_level() {
            write_text(format_args!("(XEN) {}\n", record.args()));
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn com1_option() {
        assert_eq!(Settings::parse("115200,8n1"), Settings::DEFAULT);
        assert_eq!(
            Settings::parse("38400/1843200,7e2,0x2f8,3"),
            Settings { base: 0x2f8, divisor: 3, line_control: 0x02 | 0x18 | 0x04 }
        );
        assert_eq!(Settings::parse("nonsense"), Settings::DEFAULT);
    }
}
