//! Instructions that are chosen at boot by what the CPU has: three bytes of nop in the image become `clac` or `stac`.
//!
//! Unsafe: the code of the image is changed, once, at boot.

use super::cpu::{Features, has};

/// One place: distance from this field to the instruction, and what it becomes.
#[repr(C)]
struct Place {
    instruction: i32,
    kind: u32,
}

unsafe extern "C" {
    static __alt_table_start: Place;
    static __alt_table_end: Place;
}

/// Rewrites the places.
///
/// # Safety
/// Boot, one CPU, while the image is writable.
pub unsafe fn apply() {
    if !has(Features::SMAP) {
        return;
    }
    let mut at = &raw const __alt_table_start;
    let end = &raw const __alt_table_end;
    while at < end {
        // SAFETY: an entry between the linker's symbols.
        let (place, address) = unsafe { (&*at, at as u64) };
        let bytes: [u8; 3] = match place.kind {
            1 => [0x0f, 0x01, 0xca], // clac
            2 => [0x0f, 0x01, 0xcb], // stac
            other => panic!("unknown alternative {other}"),
        };
        let target = address.wrapping_add_signed(i64::from(place.instruction)) as *mut [u8; 3];
        // SAFETY: three bytes of nop in the text, which the caller keeps writable; nobody executes them now.
        unsafe { target.write_volatile(bytes) };
        // SAFETY: stays within the table or one past it.
        at = unsafe { at.add(1) };
    }
}
