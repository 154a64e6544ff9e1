//! A walk through the page tables of a guest in a container, by its own registers (SDM vol. 3A, chapter 4).
//!
//! Nothing is remembered: the guest may change its tables at any moment, and finds what it has then. Flags are not set in
//! the entries: the CPU does that for the guest's own accesses.

use xen_abi::ids::Gfn;

const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The registers that say how addresses are translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Paging {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
}

/// The guest-physical address behind a linear one, for the guest's kernel; `None`: it may not be accessed like that. `read`
/// gives the eight bytes at a guest-physical address that is a multiple of eight, if there is memory.
#[inline]
pub fn walk(paging: &Paging, linear: u64, writes: bool, mut read: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
    let needs = PRESENT | if writes && paging.cr0 & CR0_WP != 0 { WRITE } else { 0 };
    if paging.cr0 & CR0_PG == 0 {
        return u32::try_from(linear).ok().map(u64::from);
    }
    if paging.cr4 & CR4_PAE == 0 {
        return walk_two_levels(paging, linear, needs, read);
    }
    let long = paging.efer & EFER_LMA != 0;
    let (levels, mut table) = match (long, paging.cr4 & CR4_LA57 != 0) {
        (true, true) => (5, paging.cr3 & ADDRESS),
        (true, false) => (4, paging.cr3 & ADDRESS),
        // The four entries of the top table lie anywhere below 4 GiB.
        (false, _) => (3, paging.cr3 & 0xffff_ffe0),
    };
    let sign = 64 - (12 + 9 * levels);
    let canonical = ((linear << sign).cast_signed() >> sign).cast_unsigned();
    if if long { canonical != linear } else { linear >> 32 != 0 } {
        return None;
    }
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let index = linear >> shift & 511;
        let entry = read(table + index * 8)?;
        // The top entries of three levels hold no rights.
        let needed = if !long && level == 2 { PRESENT } else { needs };
        if entry & needed != needed {
            return None;
        }
        if level == 0 || (entry & LARGE != 0 && matches!(level, 1 | 2) && (long || level == 1)) {
            let offset = (1u64 << shift) - 1;
            return Some((entry & ADDRESS & !offset) | (linear & offset));
        }
        table = entry & ADDRESS;
    }
    None
}

/// Tables of 32-bit entries.
#[cold]
fn walk_two_levels(paging: &Paging, linear: u64, needs: u64, mut read: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
    let linear = u64::from(u32::try_from(linear).ok()?);
    let mut half = |table: u64, index: u64| {
        let at = table + index * 4;
        read(at & !7).map(|both| both >> (at % 8 * 8) & 0xffff_ffff)
    };
    let entry = half(paging.cr3 & 0xffff_f000, linear >> 22)?;
    if entry & needs != needs {
        return None;
    }
    if entry & LARGE != 0 && paging.cr4 & CR4_PSE != 0 {
        // Bits 20:13 are address bits 39:32 (SDM vol. 3A, table 4-4).
        return Some((entry & 0xffc0_0000) | (entry >> 13 & 0xff) << 32 | (linear & 0x3f_ffff));
    }
    let entry = half(entry & 0xffff_f000, linear >> 12 & 1023)?;
    (entry & needs == needs).then_some((entry & 0xffff_f000) | (linear & 0xfff))
}

/// The frame of a guest-physical address.
#[inline(always)]
#[must_use]
pub const fn frame_of(address: u64) -> Gfn {
    Gfn(address >> 12)
}

#[cfg(all(test, not(loom)))]
mod unit {
    use super::*;
    use std::collections::HashMap;
    use std::vec::Vec;

    const LONG: Paging = Paging { cr0: CR0_PG | CR0_WP | 1, cr3: 0x1000, cr4: CR4_PAE, efer: EFER_LMA };

    fn memory(entries: &[(u64, u64)]) -> impl FnMut(u64) -> Option<u64> {
        let map: HashMap<u64, u64> = entries.iter().copied().collect();
        move |at| map.get(&at).copied().or((at < 0x10_0000).then_some(0))
    }

    #[test]
    fn four_levels() {
        let tables = [(0x1008, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003), (0x4018, 0x7001), (0x3008, 0x40_0083)];
        let at = |linear, writes| walk(&LONG, linear, writes, memory(&tables));
        assert_eq!(at(0x80_0000_3abc, false), Some(0x7abc));
        assert_eq!(at(0x80_0000_3abc, true), None);
        assert_eq!(at(0x80_0020_0123, true), Some(0x40_0123));
        assert_eq!(at(0x80_0000_4000, false), None);
        assert_eq!(at(0x8000_0000_0000, false), None);
    }

    #[test]
    fn without_write_protection_the_kernel_writes() {
        let tables = [(0x1000, 0x2001), (0x2000, 0x3001), (0x3000, 0x4001), (0x4000, 0x7001)];
        let paging = Paging { cr0: CR0_PG | 1, ..LONG };
        assert_eq!(walk(&paging, 5, true, memory(&tables)), Some(0x7005));
        assert_eq!(walk(&LONG, 5, true, memory(&tables)), None);
    }

    #[test]
    fn no_paging_and_two_levels() {
        assert_eq!(walk(&Paging::default(), 0xffff_f123, true, |_| None), Some(0xffff_f123));
        assert_eq!(walk(&Paging::default(), 1 << 32, false, |_| None), None);
        let paging = Paging { cr0: CR0_PG | 1, cr3: 0x1000, cr4: CR4_PSE, efer: 0 };
        // Two entries in each eight bytes.
        let tables = [(0x1000, 0x2003 << 32 | 0x0080_0083), (0x2008, 0x5003)];
        let at = |linear| walk(&paging, linear, false, memory(&tables));
        assert_eq!(at(0x1234), Some(0x80_1234));
        assert_eq!(at(0x40_2678), Some(0x5678));
    }

    #[test]
    fn tables_that_lead_in_circles_end() {
        let same: Vec<(u64, u64)> = (0..512).map(|i| (0x1000 + i * 8, 0x1003)).collect();
        assert!(walk(&LONG, 0x1234_5678, true, memory(&same)).is_some());
        assert_eq!(walk(&LONG, 0, false, |_| None), None);
    }
}
