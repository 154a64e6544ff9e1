//! Copies between the hypervisor and the address space of the guest that runs on this CPU.
//!
//! The only code that touches a guest's virtual addresses. An address that the guest may not use, or that faults, ends
//! the copy with [`Fault`]; nothing is ever dereferenced as a Rust reference. SMAP is opened for the copy alone.

use super::layout::is_guest_address;

/// An address that could not be accessed: what had been copied before it stays copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// Whether all of `len` bytes at `va` lie where a guest may have memory.
///
/// The hypervisor's part of the address space is one hole, so both ends and the length suffice.
#[inline]
const fn is_guest_range(va: u64, len: u64) -> bool {
    if len == 0 {
        return true;
    }
    let Some(last) = va.checked_add(len - 1) else { return false };
    // The hole is larger than any copy, so a range with both ends outside has no part in it unless it spans it whole.
    is_guest_address(va) && is_guest_address(last) && len <= MOST
}

/// Longest copy in one go; every caller is far below.
const MOST: u64 = 1 << 30;

/// Copies from the guest.
#[inline]
pub fn copy_in(va: u64, into: &mut [u8]) -> Result<(), Fault> {
    if !is_guest_range(va, into.len() as u64) {
        return Err(Fault);
    }
    // SAFETY: the source is the guest's, checked by the range and by the exception table; the target is ours.
    unsafe { copy(into.as_mut_ptr(), va as *const u8, into.len()) }
}

/// Copies to the guest.
#[inline]
pub fn copy_out(va: u64, from: &[u8]) -> Result<(), Fault> {
    if !is_guest_range(va, from.len() as u64) {
        return Err(Fault);
    }
    // SAFETY: the target is the guest's, checked by the range and by the exception table; the source is ours.
    unsafe { copy(va as *mut u8, from.as_ptr(), from.len()) }
}

/// Copies `len` bytes, quadwords first, with faults caught.
///
/// # Safety
/// The side that is not the guest's must be valid for `len` bytes; the guest's side must not reach into the hypervisor.
#[cfg(target_os = "none")]
#[inline]
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> Result<(), Fault> {
    let left: usize;
    // SAFETY: `rep movs` touches the two ranges alone; a fault at either instruction goes on behind it with the counter
    // as it was, and `left` tells. AC is set for the copy alone (three-byte no-ops where there is no SMAP).
    unsafe {
        core::arch::asm!(
            "771: .byte 0x0f, 0x1f, 0x00",
            "772: rep movsq",
            "mov {left}, rcx",
            "mov ecx, {tail:e}",
            "test {left}, {left}",
            "jnz 774f",
            "773: rep movsb",
            "mov {left}, rcx",
            "774: .byte 0x0f, 0x1f, 0x00",
            ".pushsection .ex_table, \"a\"",
            ".long 772b - ., 775f - .",
            ".long 773b - ., 775f - .",
            ".popsection",
            ".pushsection .alt_table, \"a\"",
            ".long 771b - ., 2",
            ".long 774b - ., 1",
            ".popsection",
            ".subsection 1",
            "775: mov {left}, 1",
            "jmp 774b",
            ".previous",
            inout("rcx") len / 8 => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            tail = in(reg) len % 8,
            left = out(reg) left,
            options(nostack),
        );
    }
    if left == 0 { Ok(()) } else { Err(Fault) }
}

/// On the host there is no guest.
///
/// # Safety
/// None.
#[cfg(not(target_os = "none"))]
unsafe fn copy(_to: *mut u8, _from: *const u8, _len: usize) -> Result<(), Fault> {
    Err(Fault)
}

#[cfg(test)]
mod tests {
    use super::is_guest_range;
    use crate::mem::layout::HYPERVISOR_END;

    #[test]
    fn ranges_stay_out_of_the_hypervisor() {
        assert!(is_guest_range(0, 8) && is_guest_range(0x7fff_ffff_fff8, 8) && is_guest_range(HYPERVISOR_END, 1));
        assert!(is_guest_range(u64::MAX - 7, 8));
        assert!(!is_guest_range(0x7fff_ffff_fff9, 8));
        assert!(!is_guest_range(HYPERVISOR_END - 1, 1) && !is_guest_range(HYPERVISOR_END - 8, 16));
        assert!(!is_guest_range(u64::MAX - 7, 9));
        assert!(!is_guest_range(0x7fff_ffff_f000, 1 << 48));
    }
}
