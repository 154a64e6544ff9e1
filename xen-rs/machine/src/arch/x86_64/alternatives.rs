//! Instructions that are chosen at boot by what the CPU has and needs: three bytes of nop in the image become `clac` or
//! `stac`, and instructions of five bytes and more become jumps to longer ways round.
//!
//! Unsafe: the code of the image is changed, once, at boot.

use super::cpu::{Features, has};
use logic::speculation::Plan;

/// One place: distance from this field to the instruction, and what it becomes.
#[repr(C)]
struct Place {
    instruction: i32,
    kind: u32,
}

/// One place that can become a jump: distances from each field to the instruction, and to where it leads.
#[repr(C)]
struct Jump {
    instruction: i32,
    target: i32,
    kind: u32,
}

/// Kinds of [`Jump`]: the way out by VERW; the call of an upcall by way of a filled return stack; the way from a container
/// where the emulator may have lost an interrupt, by the APIC's mode; the call of an upcall, and the way from a container, by
/// way of IBPB.
pub(super) const JUMP_VERW: u32 = 1;
pub(super) const CALL_RSB: u32 = 2;
pub(crate) const JUMP_EMULATED: u32 = 3;
pub(crate) const JUMP_EMULATED_X2APIC: u32 = 4;
pub(super) const CALL_IBPB: u32 = 5;
pub(crate) const JUMP_IBPB: u32 = 6;

unsafe extern "C" {
    static __alt_table_start: Place;
    static __alt_table_end: Place;
    static __alt_jumps_start: Jump;
    static __alt_jumps_end: Jump;
}

/// Rewrites the places.
///
/// # Safety
/// Boot, one CPU, while the image is writable.
pub unsafe fn apply(plan: &Plan) {
    // SAFETY: the caller's promise.
    unsafe {
        apply_jumps(plan);
        if has(Features::SMAP) {
            apply_smap();
        }
    }
}

/// # Safety
/// As for [`apply`].
unsafe fn apply_jumps(plan: &Plan) {
    let mut at = &raw const __alt_jumps_start;
    let end = &raw const __alt_jumps_end;
    while at < end {
        // SAFETY: an entry between the linker's symbols.
        let (jump, address) = unsafe { (&*at, at as u64) };
        let opcode = match jump.kind {
            JUMP_VERW if plan.verw => Some(0xe9),
            CALL_RSB if plan.rsb && !plan.ibpb_entry => Some(0xe8),
            CALL_IBPB if plan.ibpb_entry => Some(0xe8),
            JUMP_IBPB if plan.ibpb_entry_containers => Some(0xe9),
            JUMP_EMULATED if has(Features::EMULATED) && !has(Features::X2APIC) => Some(0xe9),
            JUMP_EMULATED_X2APIC if has(Features::EMULATED | Features::X2APIC) => Some(0xe9),
            _ => None,
        };
        if let Some(opcode) = opcode {
            let from = address.wrapping_add_signed(i64::from(jump.instruction));
            let to = (address + 4).wrapping_add_signed(i64::from(jump.target));
            let [a, b, c, d] = (to.wrapping_sub(from + 5) as u32).to_le_bytes();
            // SAFETY: an instruction of five bytes or more, of which nothing is executed now, nor ever again behind the
            // jump; the caller keeps it writable.
            unsafe { (from as *mut [u8; 5]).write_volatile([opcode, a, b, c, d]) };
        }
        // SAFETY: stays within the table or one past it.
        at = unsafe { at.add(1) };
    }
}

/// # Safety
/// As for [`apply`].
unsafe fn apply_smap() {
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
