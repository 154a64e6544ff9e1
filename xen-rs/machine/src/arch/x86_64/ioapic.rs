//! I/O APICs: lines of devices to vectors of CPUs (Intel 82093AA data sheet).
//!
//! Unsafe: registers of a device, in memory.

use super::acpi::{self, Override};
use super::lapic;
use super::percpu;
use crate::mailbox::Poll;
use crate::mem::boot_frames::BootFrames;
use crate::mem::hypervisor_map::Access;
use crate::mem::window::Window;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use spin::Once;
use spin::mutex::SpinMutex;

/// A line of an I/O APIC, by its global system interrupt number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gsi(pub u32);

/// How a device signals on its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Level triggered, else by edge.
    pub level: bool,
    /// Active low, else high.
    pub low: bool,
}

impl Signal {
    /// ISA: an edge, active high.
    pub const ISA: Self = Self { level: false, low: false };
    /// PCI: a level, active low.
    pub const PCI: Self = Self { level: true, low: true };
}

struct Chip {
    window: Window,
    first: u32,
    pins: u32,
}

/// The chips; the lock keeps the pair of registers together.
static CHIPS: Once<Vec<SpinMutex<Chip, Poll>>> = Once::new();
/// Line of each vector plus one, 0: none; bit 31: level triggered.
static LINES: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];
const LEVEL: u32 = 1 << 31;

const SELECT: u64 = 0;
const DATA: u64 = 0x10;
const PIN_MASKED: u32 = 1 << 16;
const PIN_LEVEL: u32 = 1 << 15;
const PIN_LOW: u32 = 1 << 13;

impl Chip {
    fn read(&self, register: u32) -> u32 {
        self.window.write32(SELECT, register);
        self.window.read32(DATA)
    }

    fn write(&self, register: u32, value: u32) {
        self.window.write32(SELECT, register);
        self.window.write32(DATA, value);
    }
}

/// Maps the chips and masks every line.
pub(crate) fn init(frames: &mut BootFrames) {
    let mut chips = Vec::new();
    for io_apic in &acpi::platform().io_apics {
        // SAFETY: boot; the firmware's address of an I/O APIC, whose only driver this is.
        let window = unsafe { Window::map(frames, io_apic.phys, 0x20, Access::Device) };
        let mut chip = Chip { window, first: io_apic.first_gsi, pins: 0 };
        chip.pins = (chip.read(1) >> 16 & 0xff) + 1;
        for pin in 0..chip.pins {
            chip.write(0x10 + pin * 2, PIN_MASKED);
        }
        log::info!("I/O APIC: lines {}-{}", chip.first, chip.first + chip.pins - 1);
        chips.push(SpinMutex::new(chip));
    }
    CHIPS.call_once(|| chips);
}

/// Runs with the chip of a line and the pin's first register.
fn with<R>(gsi: Gsi, f: impl FnOnce(&Chip, u32) -> R) -> Option<R> {
    CHIPS
        .get()?
        .iter()
        .find_map(|chip| {
            let chip = chip.lock();
            let pin = gsi.0.checked_sub(chip.first).filter(|pin| *pin < chip.pins)?;
            Some((chip, pin))
        })
        .map(|(chip, pin)| f(&chip, 0x10 + pin * 2))
}

/// How many lines there are: one more than the highest.
#[must_use]
pub fn lines() -> u32 {
    CHIPS
        .get()
        .into_iter()
        .flatten()
        .map(|chip| {
            let chip = chip.lock();
            chip.first + chip.pins
        })
        .max()
        .unwrap_or(0)
}

/// The line and the signal of an ISA interrupt.
#[must_use]
pub fn isa_line(isa: u8) -> (Gsi, Signal) {
    acpi::platform()
        .overrides
        .iter()
        .find(|o| o.isa == isa)
        .map_or((Gsi(u32::from(isa)), Signal::ISA), |Override { gsi, level, low, .. }| {
            (Gsi(*gsi), Signal { level: *level, low: *low })
        })
}

/// Leads a line to a vector of a CPU, masked. The vector must be one for devices. False when there is no such line.
#[must_use]
pub fn route(gsi: Gsi, vector: u8, signal: Signal, cpu: u32) -> bool {
    if !lapic::DEVICES.contains(&vector) || !crate::mailbox::online().has(cpu) {
        return false;
    }
    let mode = if signal.level { PIN_LEVEL } else { 0 } | if signal.low { PIN_LOW } else { 0 };
    let apic_id = percpu::of(cpu).apic_id.load(Ordering::Relaxed);
    let done = with(gsi, |chip, pin| {
        chip.write(pin, PIN_MASKED);
        chip.write(pin + 1, apic_id << 24);
        chip.write(pin, PIN_MASKED | mode | u32::from(vector));
    });
    if let (Some(()), Some(line)) = (done, LINES.get(usize::from(vector))) {
        let level = if signal.level { LEVEL } else { 0 };
        line.store((gsi.0 + 1) | level, Ordering::Release);
    }
    done.is_some()
}

/// Stops a line from interrupting.
pub fn mask(gsi: Gsi) {
    with(gsi, |chip, pin| chip.write(pin, chip.read(pin) | PIN_MASKED));
}

/// Lets a line interrupt again.
pub fn unmask(gsi: Gsi) {
    with(gsi, |chip, pin| chip.write(pin, chip.read(pin) & !PIN_MASKED));
}

/// Leads a line to another CPU from now on: one write, since the vector is the same everywhere.
pub fn retarget(gsi: Gsi, cpu: u32) {
    if crate::mailbox::online().has(cpu) {
        let apic_id = percpu::of(cpu).apic_id.load(Ordering::Relaxed);
        with(gsi, |chip, pin| chip.write(pin + 1, apic_id << 24));
    }
}

/// The first line and the number of lines of the chip at a physical address.
#[must_use]
pub fn lines_at(phys: u64) -> Option<(Gsi, u32)> {
    let first = acpi::platform().io_apics.iter().find(|io_apic| io_apic.phys == phys)?.first_gsi;
    CHIPS.get()?.iter().find_map(|chip| {
        let chip = chip.lock();
        (chip.first == first).then_some((Gsi(first), chip.pins))
    })
}

/// Reads a register of the chip at a physical address, as it is.
#[must_use]
pub fn read_register(phys: u64, register: u8) -> Option<u32> {
    let first = lines_at(phys)?.0;
    with(first, |chip, _| chip.read(register.into()))
}

/// Which line a vector belongs to, as [`route`] said.
#[must_use]
pub fn line_of(vector: u8) -> Option<Gsi> {
    let line = LINES.get(usize::from(vector))?.load(Ordering::Acquire) & !LEVEL;
    line.checked_sub(1).map(Gsi)
}

/// An interrupt was taken: a level-triggered line stays masked until whoever handles it calls [`unmask`], since the
/// device may go on asserting it.
pub(crate) fn taken(vector: u8) {
    let line = LINES.get(usize::from(vector)).map_or(0, |line| line.load(Ordering::Acquire));
    if line & LEVEL != 0 {
        mask(Gsi((line & !LEVEL) - 1));
    }
}
