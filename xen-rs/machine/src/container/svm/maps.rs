//! Which MSRs and ports a guest reaches without an exit: one set of maps for all guests (APM vol. 2, 15.10 and 15.11).
//!
//! Every port exits. Of the MSRs those do not that `vmload` and `vmrun` exchange.

use crate::mem::layout::IMAGE_OFFSET;

#[repr(C, align(4096))]
struct Map<const N: usize>([u8; N]);

const IO_BYTES: usize = 0x3000;
const MSR_BYTES: usize = 0x2000;

static IO: Map<IO_BYTES> = Map([0xff; IO_BYTES]);
static MSR: Map<MSR_BYTES> = Map(msr_map());

/// SYSENTER's three; STAR, LSTAR, CSTAR, SFMASK, the bases of FS, GS, and the other GS.
const FREE: [u32; 10] =
    [0x174, 0x175, 0x176, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102];

const fn msr_map() -> [u8; MSR_BYTES] {
    let mut map = [0xff; MSR_BYTES];
    let mut i = 0;
    while i < FREE.len() {
        let number = FREE[i];
        // Two bits each, reads and writes; 0xc0000000 and above lie in the second 2 KiB.
        let (base, offset) = if number >= 0xc000_0000 { (0x800, number - 0xc000_0000) } else { (0, number) };
        map[base + offset as usize / 4] &= !(3 << (offset % 4 * 2));
        i += 1;
    }
    map
}

/// Physical address of the map of ports.
pub(super) fn io() -> u64 {
    (&raw const IO) as u64 - IMAGE_OFFSET
}

/// Physical address of the map of MSRs.
pub(super) fn msr() -> u64 {
    (&raw const MSR) as u64 - IMAGE_OFFSET
}
