//! Which MSRs a guest reaches without an exit: two maps for all guests (SDM vol. 3C, 25.6.9). Those that VM entries and exits
//! exchange, and those that are exchanged with the vCPU; and in the second map those of an x2APIC that the hardware answers
//! out of the vCPU's own page.

use crate::mem::layout::IMAGE_OFFSET;

#[repr(C, align(4096))]
struct Map([u8; 4096]);

static MAP: Map = Map(map());
/// Only for a vCPU with all of `virtual_apic::CONTROLS`: without one of them the CPU's own APIC would answer.
static WITH_APIC: Map = Map(with_apic());

/// SYSENTER's three; STAR, LSTAR, CSTAR, FMASK, the bases of FS, GS, and the other GS.
const FREE: [u32; 10] =
    [0x174, 0x175, 0x176, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102];

/// EFER, which entries and exits exchange too, is read freely; what is written to it is looked at.
const EFER: usize = 0xc000_0080;

const fn map() -> [u8; 4096] {
    let mut map = [0xff; 4096];
    map[0x400 + (EFER - 0xc000_0000) / 8] &= !(1 << (EFER % 8));
    let mut i = 0;
    while i < FREE.len() {
        let number = FREE[i];
        // Reads of low and high numbers, then writes of both, 1 KiB each.
        let (base, offset) = if number >= 0xc000_0000 { (0x400, number - 0xc000_0000) } else { (0, number) };
        let at = base + offset as usize / 8;
        map[at] &= !(1 << (offset % 8));
        map[at + 0x800] &= !(1 << (offset % 8));
        i += 1;
    }
    map
}

/// Registers of an x2APIC that can be read, each by its offset in the page divided by 16, but for the current count: that is the
/// time, which no page knows. Those that there are not are faults, and exit.
const READ: [u8; 40] = [
    0x02, 0x03, 0x08, 0x0a, 0x0d, 0x0f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c,
    0x1d, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x30, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37,
    0x38, 0x3e,
];
/// Those whose writes the hardware carries out: the task priority, EOI, interrupts to oneself.
const WRITTEN: [u8; 3] = [0x08, 0x0b, 0x3f];
const X2APIC: usize = 0x800;
const WRITES: usize = 0x800;

const fn with_apic() -> [u8; 4096] {
    let mut map = map();
    let mut i = 0;
    while i < READ.len() {
        let number = X2APIC + READ[i] as usize;
        map[number / 8] &= !(1 << (number % 8));
        i += 1;
    }
    i = 0;
    while i < WRITTEN.len() {
        let number = X2APIC + WRITTEN[i] as usize;
        map[WRITES + number / 8] &= !(1 << (number % 8));
        i += 1;
    }
    map
}

/// The usual one's physical address.
pub(super) fn address() -> u64 {
    (&raw const MAP) as u64 - IMAGE_OFFSET
}

/// The physical address of the one for a vCPU whose interrupts the hardware serves.
pub(super) fn address_with_apic() -> u64 {
    (&raw const WITH_APIC) as u64 - IMAGE_OFFSET
}
