//! The table of instructions of the hypervisor's own that may fault, as the linker has put it together.
//!
//! Unsafe: the table lies between two of the linker's symbols, and is put in order once, at boot.

use core::ptr::slice_from_raw_parts_mut;

use logic::exception_table::{self, Fixup};

unsafe extern "C" {
    static mut __ex_table_start: Fixup;
    static __ex_table_end: Fixup;
}

fn table() -> *mut [Fixup] {
    let (start, end) = (&raw mut __ex_table_start, &raw const __ex_table_end);
    slice_from_raw_parts_mut(start, (end as usize - start as usize) / size_of::<Fixup>())
}

/// Puts the table in order.
///
/// # Safety
/// Boot, one CPU, once, before anything faults and while the image is writable.
pub(super) unsafe fn settle() {
    // SAFETY: the linker's table, which nobody else reads or writes now, says the caller.
    exception_table::settle(unsafe { &mut *table() });
}

/// Where to go on after a fault at `rip`, if the fault was to be expected there.
pub(super) fn find(rip: u64) -> Option<u64> {
    let table = table();
    // SAFETY: the linker's table, which nobody writes after boot.
    exception_table::find(unsafe { &*table }, table as *const Fixup as u64, rip)
}
