//! Which MSRs a guest reaches without an exit: one map for all guests (SDM vol. 3C, 25.6.9). Those that VM entries and exits
//! exchange, and those that are exchanged with the vCPU.

use crate::mem::layout::IMAGE_OFFSET;

#[repr(C, align(4096))]
struct Map([u8; 4096]);

static MAP: Map = Map(map());

/// SYSENTER's three; STAR, LSTAR, CSTAR, FMASK, the bases of FS, GS, and the other GS.
const FREE: [u32; 10] =
    [0x174, 0x175, 0x176, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102];

const fn map() -> [u8; 4096] {
    let mut map = [0xff; 4096];
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

/// Its physical address.
pub(super) fn address() -> u64 {
    (&raw const MAP) as u64 - IMAGE_OFFSET
}
