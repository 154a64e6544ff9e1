//! The console: the ring that `dmesg` reads, the input for dom0, the lines of other guests.

use alloc::vec::Vec;

use core::sync::atomic::{AtomicBool, Ordering};
use logic::lock::{Held, rank};
use machine::arch::x86_64::{ioapic, percpu, serial};
use xen_abi::{
    hypercall::{VIRQ_CON_RING, VIRQ_CONSOLE},
    ids::VcpuId,
};

use crate::{cpu_loop, debug_keys, domain, event, irq, sync::Lock};

/// Bytes of the ring: Xen's default for `conring_size`.
const RING: usize = 16 << 10;
/// Bytes of input kept for dom0.
const INPUT: usize = 128;
/// This many in a row take the input away from dom0 and give it back (Xen's `conswitch`, Ctrl-A).
const SWITCH: u8 = 1;
const SWITCH_COUNT: u8 = 3;

/// Target of log lines that come from guests.
pub const GUEST: &str = "guest";

struct Ring {
    first: [u8; RING],
    /// What took its place, when `conring_size` asks for more.
    grown: Vec<u8>,
    /// Position behind the newest byte; positions count on and on.
    end: u32,
    /// Bytes that have not been cleared or overwritten.
    length: u32,
}

static CONSOLE: Lock<Ring, { rank::LEAF }> = Lock::new(Ring { first: [0; RING], grown: Vec::new(), end: 0, length: 0 });

impl Ring {
    fn bytes(&mut self) -> &mut [u8] {
        if self.grown.is_empty() { &mut self.first } else { &mut self.grown }
    }

    fn put(&mut self, byte: u8) {
        let at = self.end as usize;
        let bytes = self.bytes();
        let size = bytes.len();
        if let Some(slot) = bytes.get_mut(at % size) {
            *slot = byte;
        }
        self.end = self.end.wrapping_add(1);
        self.length = (self.length + 1).min(logic::num::count(size));
    }

    fn get(&mut self, at: u32) -> u8 {
        let bytes = self.bytes();
        let size = bytes.len();
        bytes.get(at as usize % size).copied().unwrap_or(0)
    }
}

/// Makes the ring larger (`conring_size=`): to a power of two, as Xen does, and no more than 16 MiB.
pub fn grow(wanted: u64) {
    const MOST: u64 = 16 << 20;
    let size = usize::try_from(wanted.min(MOST)).unwrap_or(RING).next_power_of_two();
    let mut grown = Vec::new();
    if size <= RING {
        return;
    }
    if grown.try_reserve_exact(size).is_err() {
        log::warn!("conring_size: no memory for {} KiB", size >> 10);
        return;
    }
    grown.resize(size, 0);
    CONSOLE.lock_leaf(|ring| {
        let (end, length) = (ring.end, ring.length);
        for position in (0..length).map(|back| end.wrapping_sub(length - back)) {
            if let Some(slot) = grown.get_mut(position as usize % size) {
                *slot = ring.get(position);
            }
        }
        ring.grown = grown;
    });
    log::info!("Allocated console ring of {} KiB.", size >> 10);
}

struct Input {
    bytes: [u8; INPUT],
    start: usize,
    length: usize,
    switches: u8,
    /// The hypervisor has the input.
    taken: bool,
}

static KEYBOARD: Lock<Input, { rank::LEAF }> =
    Lock::new(Input { bytes: [0; INPUT], start: 0, length: 0, switches: 0, taken: false });

/// Whether what the control domain writes is kept, too (`console_to_ring`).
static FROM_CONTROL: AtomicBool = AtomicBool::new(false);
/// Something was kept that the control domain has not heard of.
static NEWS: AtomicBool = AtomicBool::new(false);

/// From now on all that is logged is kept.
pub fn start() {
    serial::set_tap(tap);
}

/// Keeps what the control domain writes, too.
pub fn keep_control() {
    FROM_CONTROL.store(true, Ordering::Relaxed);
}

/// The control domain writes to the console, as much as can be written now; how much that was.
pub fn write_control(text: &[u8]) -> usize {
    let sent = serial::write_now(text);
    if FROM_CONTROL.load(Ordering::Relaxed) {
        tap(text.get(..sent).unwrap_or_default());
    }
    sent
}

/// `VIRQ_CON_RING`: there is more to read, if there is.
pub fn tell_reader(held: &mut Held<'_, 0>) {
    if NEWS.load(Ordering::Relaxed) && NEWS.swap(false, Ordering::Relaxed) {
        event::raise_control_virq(VIRQ_CON_RING, held);
    }
}

/// From now on input reaches dom0, by the UART's interrupt.
pub fn start_input(held: &mut Held<'_, 0>) {
    /// The PC's line for the first serial port.
    const LINE: u8 = 4;
    if serial::base().is_none() {
        return;
    }
    let (gsi, signal) = ioapic::isa_line(LINE);
    if ioapic::route(gsi, irq::UART, signal, 0) {
        irq::keep(gsi, held);
        ioapic::unmask(gsi);
        serial::enable_receive_interrupt();
    } else {
        log::warn!("console: no interrupt for input");
    }
}

fn tap(text: &[u8]) {
    // The last words of a CPU that stopped in the middle of this must not hang here.
    let Some(mut ring) = CONSOLE.try_lock() else { return };
    text.iter().for_each(|byte| ring.put(*byte));
    drop(ring);
    // Whoever logs may hold any lock: it is told on the way back to a guest.
    NEWS.store(true, Ordering::Relaxed);
    cpu_loop::look_again(percpu::number());
}

/// Everything has left the machine when this returns: the UART is written to as fast as it takes text, and only the
/// characters in its own buffer are still on their way.
pub fn flush() {
    machine::arch::x86_64::tsc::delay_us(2000);
}

/// Position of the oldest byte in the ring.
#[must_use]
pub fn ring_start(_held: &mut Held<'_, 0>) -> u32 {
    CONSOLE.lock_leaf(|ring| ring.end.wrapping_sub(ring.length))
}

/// Copies from the ring at `position`, or from its oldest byte when that is gone. Returns where it began and how much.
pub fn ring_read(position: u32, into: &mut [u8], _held: &mut Held<'_, 0>) -> (u32, usize) {
    CONSOLE.lock_leaf(|ring| {
        let oldest = ring.end.wrapping_sub(ring.length);
        let from = if ring.end.wrapping_sub(position) > ring.length { oldest } else { position };
        let length = into.len().min(ring.end.wrapping_sub(from) as usize);
        for (at, slot) in (0..).zip(into.iter_mut().take(length)) {
            *slot = ring.get(from.wrapping_add(at));
        }
        (from, length)
    })
}

/// Empties the ring.
pub fn ring_clear(_held: &mut Held<'_, 0>) {
    CONSOLE.lock_leaf(|ring| ring.length = 0);
}

/// Takes what has arrived on the UART: dom0's input, unless it was switched to the hypervisor.
pub fn receive(held: &mut Held<'_, 0>) {
    let mut any = false;
    while let Some(byte) = serial::receive() {
        match KEYBOARD.lock_leaf(|input| input.take(byte)) {
            For::Nobody => {}
            For::Dom0 => any = true,
            For::Us => debug_keys::handle(byte, None, held),
        }
    }
    if any && let Some(control) = domain::hardware(held) {
        event::raise_virq(&control, VcpuId(0), VIRQ_CONSOLE, held);
    }
}

/// Whom input is for.
enum For {
    Nobody,
    Dom0,
    Us,
}

impl Input {
    /// A byte came.
    fn take(&mut self, byte: u8) -> For {
        if byte == SWITCH {
            self.switches += 1;
            if self.switches == SWITCH_COUNT {
                self.switches = 0;
                self.taken = !self.taken;
            }
            return For::Nobody;
        }
        let missed = core::mem::take(&mut self.switches);
        if self.taken {
            return For::Us;
        }
        // Fewer than it takes: they were meant for dom0.
        (0..missed).for_each(|_| self.push(SWITCH));
        self.push(byte);
        For::Dom0
    }

    fn push(&mut self, byte: u8) {
        if self.length < INPUT
            && let Some(slot) = self.bytes.get_mut((self.start + self.length) % INPUT)
        {
            *slot = byte;
            self.length += 1;
        }
    }
}

/// Takes input for dom0 out of the buffer; how much.
pub fn read_input(into: &mut [u8]) -> usize {
    KEYBOARD.lock_leaf(|input| {
        let length = into.len().min(input.length);
        for slot in into.iter_mut().take(length) {
            *slot = input.bytes.get(input.start % INPUT).copied().unwrap_or(0);
            input.start = (input.start + 1) % INPUT;
            input.length -= 1;
        }
        length
    })
}

/// The line that a guest is writing.
#[derive(Debug)]
pub struct GuestLine {
    text: [u8; Self::LENGTH],
    length: usize,
}

impl GuestLine {
    const LENGTH: usize = 200;

    /// An empty line.
    #[must_use]
    pub const fn new() -> Self {
        Self { text: [0; Self::LENGTH], length: 0 }
    }

    /// Adds text and hands out each line that is full or ends. What is no text is left out, as Xen does.
    pub fn add(&mut self, text: &[u8], mut line: impl FnMut(&str)) {
        for byte in text {
            let text = matches!(byte, b' '..=b'~' | b'\t');
            if text && let Some(slot) = self.text.get_mut(self.length) {
                *slot = *byte;
                self.length += 1;
            }
            if *byte == b'\n' || self.length == Self::LENGTH {
                let done = self.text.get(..self.length).and_then(|bytes| core::str::from_utf8(bytes).ok());
                line(done.unwrap_or_default());
                self.length = 0;
            }
        }
    }
}
