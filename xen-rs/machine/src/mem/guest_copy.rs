//! Copies between the hypervisor and a guest's memory, by the guest's addresses and the tables that are loaded.
//!
//! A guest's address may be wrong in every way, and another of its CPUs may change the memory or its mapping at any
//! moment: so nothing here is a reference, a fault ends the copy (exception table), and what was read is a copy that does
//! not change any more. SMAP is lifted for the length of the copy only.
//!
//! Unsafe: instructions that may fault on a guest's address, with an exception table.

use super::layout::HYPERVISOR_END;
use super::{guest_words, pv_pte, tlb};
use crate::container;
use arrayvec::ArrayVec;
use core::arch::asm;
use core::mem::MaybeUninit;
use logic::page::entry::bit;
use xen_abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Whether all of a range of addresses is the guest's. The machine-to-phys table, which a guest can read, is not: Xen takes
/// no arguments from there.
#[inline(always)]
#[must_use]
pub const fn is_guest_range(va: u64, length: u64) -> bool {
    const LOWER_END: u64 = 0x0000_8000_0000_0000;
    if va < LOWER_END { length <= LOWER_END - va } else { va >= HYPERVISOR_END && length <= va.wrapping_neg() }
}

/// [`is_guest_range`] for what is usually short: one comparison.
///
/// What begins in the last bytes of the address space and runs over its end goes on at its beginning, which is the guest's,
/// too. So the allowed addresses are one interval, from the end of the hypervisor's part on.
#[inline(always)]
pub(super) const fn is_guest_piece(va: u64, length: u64) -> bool {
    const INTERVAL: u64 = 0x0000_8000_0000_0000u64.wrapping_sub(HYPERVISOR_END);
    if length > 4096 {
        return is_guest_range(va, length);
    }
    va.wrapping_sub(HYPERVISOR_END) <= INTERVAL - length
}

/// Copies until something faults; how many bytes were not copied. The word that faulted is not, even if some of its bytes can be
/// ([`copy_bytes`]).
///
/// # Safety
/// One side is a range of a guest, the other is the caller's own memory.
#[cfg(target_os = "none")]
#[inline(always)]
pub(crate) unsafe fn copy(to: u64, from: u64, length: usize) -> usize {
    let left: u64;
    // SAFETY: faults are caught by the exception table with all registers as they were; the caller vouches for the rest.
    // Three bytes of nop become stac and clac where the CPU has SMAP.
    unsafe {
        asm!(
            "770: .byte 0x0f, 0x1f, 0x00",
            "2: rep movsq",
            "mov rcx, {tail}",
            "3: rep movsb",
            "4:",
            "771: .byte 0x0f, 0x1f, 0x00",
            ".pushsection .text.fixup, \"ax\"",
            "5: lea rcx, [rcx * 8 + {tail}]",
            "jmp 4b",
            ".popsection",
            ".pushsection .ex_table, \"a\"",
            ".long 2b - ., 5b - .",
            ".long 3b - ., 4b - .",
            ".popsection",
            ".pushsection .alt_table, \"a\"",
            ".long 770b - ., 2",
            ".long 771b - ., 1",
            ".popsection",
            inout("rdi") to => _, inout("rsi") from => _,
            inout("rcx") length as u64 / 8 => left,
            tail = in(reg) length as u64 % 8,
            options(nostack)
        );
    }
    left as usize
}

/// [`copy`] of a multiple of 8 bytes.
///
/// # Safety
/// As [`copy`].
#[cfg(target_os = "none")]
#[inline(always)]
unsafe fn copy_words(to: u64, from: u64, length: usize) -> usize {
    let left: u64;
    // SAFETY: as in `copy`.
    unsafe {
        asm!(
            "770: .byte 0x0f, 0x1f, 0x00",
            "2: rep movsq",
            "4:",
            "771: .byte 0x0f, 0x1f, 0x00",
            ".pushsection .text.fixup, \"ax\"",
            "5: shl rcx, 3",
            "jmp 4b",
            ".popsection",
            ".pushsection .ex_table, \"a\"",
            ".long 2b - ., 5b - .",
            ".popsection",
            ".pushsection .alt_table, \"a\"",
            ".long 770b - ., 2",
            ".long 771b - ., 1",
            ".popsection",
            inout("rdi") to => _, inout("rsi") from => _,
            inout("rcx") length as u64 / 8 => left,
            options(nostack)
        );
    }
    left as usize
}

/// [`copy`] to the very byte that faults.
///
/// # Safety
/// As [`copy`].
#[cfg(target_os = "none")]
#[cold]
unsafe fn copy_bytes(to: u64, from: u64, length: usize) -> usize {
    let left: u64;
    // SAFETY: as in `copy`.
    unsafe {
        asm!(
            "770: .byte 0x0f, 0x1f, 0x00",
            "3: rep movsb",
            "4:",
            "771: .byte 0x0f, 0x1f, 0x00",
            ".pushsection .ex_table, \"a\"",
            ".long 3b - ., 4b - .",
            ".popsection",
            ".pushsection .alt_table, \"a\"",
            ".long 770b - ., 2",
            ".long 771b - ., 1",
            ".popsection",
            inout("rdi") to => _, inout("rsi") from => _,
            inout("rcx") length as u64 => left,
            options(nostack)
        );
    }
    left as usize
}

/// A copy of one word: all or nothing; how many bytes were not copied.
///
/// # Safety
/// As [`copy`]; `$length` is the size of the word.
macro_rules! copy_word {
    ($name:ident, $length:literal, $register:literal) => {
        #[cfg(target_os = "none")]
        #[inline(always)]
        unsafe fn $name(to: u64, from: u64) -> usize {
            let left: u64;
            // SAFETY: as in `copy`.
            unsafe {
                asm!(
                    "770: .byte 0x0f, 0x1f, 0x00",
                    concat!("2: mov {word:", $register, "}, [{from}]"),
                    concat!("3: mov [{to}], {word:", $register, "}"),
                    "xor {left:e}, {left:e}",
                    "4:",
                    "771: .byte 0x0f, 0x1f, 0x00",
                    ".pushsection .ex_table, \"a\"",
                    ".long 2b - ., 4b - .",
                    ".long 3b - ., 4b - .",
                    ".popsection",
                    ".pushsection .alt_table, \"a\"",
                    ".long 770b - ., 2",
                    ".long 771b - ., 1",
                    ".popsection",
                    to = in(reg) to, from = in(reg) from, word = out(reg) _,
                    left = inout(reg) $length as u64 => left,
                    options(nostack)
                );
            }
            left as usize
        }
    };
}

copy_word!(copy2, 2, "x");
copy_word!(copy4, 4, "e");
copy_word!(copy8, 8, "r");

/// A copy that tries again where the fault was only a stale translation.
///
/// # Safety
/// As [`copy`].
#[inline(always)]
unsafe fn copy_retrying(to: u64, from: u64, length: usize, guest: u64, write: bool) -> usize {
    // The length is a constant nearly everywhere, so that this choice costs nothing.
    // SAFETY: the caller's promise.
    let left = unsafe {
        match length {
            2 => copy2(to, from),
            4 => copy4(to, from),
            8 => copy8(to, from),
            16 | 24 | 32 | 40 | 48 | 56 | 64 => copy_words(to, from, length),
            _ => copy(to, from, length),
        }
    };
    // SAFETY: the caller's promise.
    if left == 0 { 0 } else { unsafe { copy_rest(to, from, length, left, guest, write) } }
}

/// # Safety
/// As [`copy`].
#[cold]
#[inline(never)]
unsafe fn copy_rest(to: u64, from: u64, length: usize, mut left: usize, guest: u64, write: bool) -> usize {
    let own = if write { from } else { to };
    // SAFETY: the caller's promise.
    if let Some(left) = unsafe { container::memory::copy(guest, own, length, write) } {
        return left;
    }
    // SAFETY: the rest of the same ranges.
    left = unsafe { bytes_from((to, from), length, left) };
    // A guest may give itself rights without flushing: the CPU's old translation faults once.
    for _ in 0..2 + length / 4096 {
        if left == 0 {
            break;
        }
        let done = (length - left) as u64;
        let needs = bit::USER | if write { bit::RW } else { 0 };
        // A guest's range may go over the end of the address space.
        let at = guest.wrapping_add(done);
        match pv_pte::walk_with_rights(at) {
            Some((_, rights)) if rights & needs == needs => tlb::flush_page_here(at),
            _ => break,
        }
        // SAFETY: the rest of the same ranges.
        left = unsafe { bytes_from((to, from), length, left) };
    }
    left
}

/// Copies the last `left` bytes of `length`.
///
/// # Safety
/// As [`copy`].
unsafe fn bytes_from((to, from): (u64, u64), length: usize, left: usize) -> usize {
    let done = (length - left) as u64;
    // SAFETY: the caller's promise.
    unsafe { copy_bytes(to.wrapping_add(done), from.wrapping_add(done), left) }
}

/// An address that could not be accessed: what had been copied before it stays copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// Copies from a guest.
#[inline(always)]
pub fn copy_in(from: u64, to: &mut [u8]) -> Result<(), Fault> {
    if copy_in_up_to(from, to) == 0 { Ok(()) } else { Err(Fault) }
}

/// Copies from a guest; how many bytes at the end were not copied (they keep their content).
#[inline(always)]
#[must_use]
pub fn copy_in_up_to(from: u64, to: &mut [u8]) -> usize {
    if !is_guest_piece(from, to.len() as u64) {
        return to.len();
    }
    // SAFETY: the guest's range into the caller's slice; any bytes are valid.
    unsafe { copy_retrying(to.as_mut_ptr() as u64, from, to.len(), from, false) }
}

/// Copies to a guest.
#[inline(always)]
pub fn copy_out(to: u64, from: &[u8]) -> Result<(), Fault> {
    if copy_out_up_to(to, from) == 0 { Ok(()) } else { Err(Fault) }
}

/// Copies to a guest; how many bytes at the end were not copied.
#[inline(always)]
#[must_use]
pub fn copy_out_up_to(to: u64, from: &[u8]) -> usize {
    if !is_guest_piece(to, from.len() as u64) {
        return from.len();
    }
    // SAFETY: the caller's slice into the guest's range.
    unsafe { copy_retrying(to, from.as_ptr() as u64, from.len(), to, true) }
}

/// Reads a value from a guest.
#[inline(always)]
pub fn read<T: FromBytes>(from: u64) -> Result<T, Errno> {
    // What is asked for most has a few words: they go through registers.
    match size_of::<T>() {
        24 => value_of(from, guest_words::read_3_at_once),
        32 => value_of(from, guest_words::read_4_at_once),
        40 => value_of(from, guest_words::read_5_at_once),
        _ => read_by_copy(from),
    }
}

/// The value that some words of a guest are.
#[inline(always)]
fn value_of<T: FromBytes, const N: usize>(from: u64, read: fn(u64) -> Option<[u64; N]>) -> Result<T, Errno> {
    if size_of::<T>() != size_of::<[u64; N]>() {
        return Err(Errno::EFAULT);
    }
    let words = match read(from) {
        Some(words) => words,
        None => read_slowly(from)?,
    };
    // SAFETY: any bytes are a `T`, and there are as many.
    Ok(unsafe { core::mem::transmute_copy(&words) })
}

/// [`value_of`] where it did not go at once: a guest in a container needs no other fault to be found.
#[cold]
fn read_slowly<const N: usize>(from: u64) -> Result<[u64; N], Errno> {
    let mut words = [0u64; N];
    let length = size_of_val(&words);
    // SAFETY: the words are here, and any bytes are words.
    match unsafe { in_container(from, words.as_mut_ptr() as u64, length, false) } {
        Some(true) => Ok(words),
        Some(false) => Err(Errno::EFAULT),
        None => read_by_copy(from),
    }
}

/// A copy for a guest in a container, all or nothing; `None`: no such guest is loaded.
///
/// # Safety
/// `own` is memory of the caller's, of that length, which may be written if the guest's is read.
unsafe fn in_container(guest: u64, own: u64, length: usize, writes: bool) -> Option<bool> {
    if !is_guest_piece(guest, length as u64) {
        return Some(false);
    }
    // SAFETY: the caller's promise.
    unsafe { container::memory::copy(guest, own, length, writes) }.map(|left| left == 0)
}

/// [`write`] of what could not be written at once: a guest in a container needs no other fault to be found.
#[cold]
#[inline(never)]
pub(super) fn write_slowly<T: IntoBytes + Immutable>(to: u64, value: &T) -> Result<(), Errno> {
    let bytes = value.as_bytes();
    // SAFETY: the caller's bytes, which are read.
    match unsafe { in_container(to, bytes.as_ptr() as u64, bytes.len(), true) } {
        Some(true) => Ok(()),
        Some(false) => Err(Errno::EFAULT),
        None => write(to, value),
    }
}

/// [`read`] of any length, which tries again where a fault was only due to a stale translation.
#[inline(always)]
fn read_by_copy<T: FromBytes>(from: u64) -> Result<T, Errno> {
    if !is_guest_piece(from, size_of::<T>() as u64) {
        return Err(Errno::EFAULT);
    }
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the guest's range into `value`.
    let left = unsafe { copy_retrying(value.as_mut_ptr() as u64, from, size_of::<T>(), from, false) };
    if left != 0 {
        return Err(Errno::EFAULT);
    }
    // SAFETY: every byte was written, and any bytes are a `T`.
    Ok(unsafe { value.assume_init() })
}

/// Reads values that follow each other from a guest, in place of what `into` holds: `count`, or as many as it has room
/// for, or as many as can be read.
#[inline(always)]
pub fn read_some<T: FromBytes, const N: usize>(into: &mut ArrayVec<T, N>, from: u64, count: u32) {
    into.clear();
    let wanted = N.min(count as usize);
    let bytes = wanted * size_of::<T>();
    if is_guest_range(from, bytes as u64) {
        // SAFETY: the guest's range into the array, which has room for `N` values.
        let left = unsafe { copy_retrying(into.as_mut_ptr() as u64, from, bytes, from, false) };
        let whole = if left == 0 { wanted } else { (bytes - left) / size_of::<T>() };
        // SAFETY: that many values were written whole, and any bytes are a `T`.
        unsafe { into.set_len(whole) };
    }
}

/// Writes a value to a guest.
#[inline(always)]
pub fn write<T: IntoBytes + Immutable>(to: u64, value: &T) -> Result<(), Errno> {
    copy_out(to, value.as_bytes()).map_err(|Fault| Errno::EFAULT)
}

/// Zeroes a range of a guest; how many bytes at the end were not.
#[must_use]
pub fn clear(to: u64, length: usize) -> usize {
    const ZEROES: [u8; 256] = [0; 256];
    let mut done = 0;
    while done < length {
        let piece = (length - done).min(ZEROES.len());
        let left = copy_out_up_to(to.wrapping_add(done as u64), ZEROES.get(..piece).unwrap_or(&[]));
        if left != 0 {
            return length - done - (piece - left);
        }
        done += piece;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_out_of_the_hypervisor() {
        assert!(is_guest_range(0, 8) && is_guest_range(0x7fff_ffff_fff8, 8) && is_guest_range(HYPERVISOR_END, 1));
        assert!(is_guest_range(u64::MAX - 7, 8));
        assert!(!is_guest_range(0x7fff_ffff_fff9, 8));
        assert!(!is_guest_range(HYPERVISOR_END - 1, 1) && !is_guest_range(HYPERVISOR_END - 8, 16));
        assert!(!is_guest_range(u64::MAX - 7, 9));
        assert!(!is_guest_range(0x7fff_ffff_f000, 1 << 48));
        assert!(is_guest_range(HYPERVISOR_START, 8) && !is_guest_range(M2P_END - 4, 8));
    }
}
