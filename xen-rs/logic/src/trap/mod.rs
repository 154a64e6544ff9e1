//! Traps of a PV guest: which gate takes an event, what the frame on its kernel stack looks like, how the `iret`
//! hypercall undoes it, and which descriptors a guest may own.
//!
//! Everything here is a pure function of register values; the binary copies the words and switches the tables.

pub mod debug;
pub mod descriptor;
pub mod frame;
pub mod gate;
pub mod iret;

pub use crate::regs::rflags;

/// Exception vectors that the hypervisor treats by name (SDM vol. 3A, 6.3.1).
pub mod vector {
    /// #DB
    pub const DEBUG: u8 = 1;
    /// NMI
    pub const NMI: u8 = 2;
    /// #BP
    pub const BREAKPOINT: u8 = 3;
    /// #OF
    pub const OVERFLOW: u8 = 4;
    /// #UD
    pub const INVALID_OPCODE: u8 = 6;
    /// #NM
    pub const DEVICE_NOT_AVAILABLE: u8 = 7;
    /// #DF
    pub const DOUBLE_FAULT: u8 = 8;
    /// #TS
    pub const INVALID_TSS: u8 = 10;
    /// #NP
    pub const SEGMENT_NOT_PRESENT: u8 = 11;
    /// #SS
    pub const STACK_FAULT: u8 = 12;
    /// #GP
    pub const GENERAL_PROTECTION: u8 = 13;
    /// #PF
    pub const PAGE_FAULT: u8 = 14;
    /// #AC
    pub const ALIGNMENT_CHECK: u8 = 17;
    /// #MC
    pub const MACHINE_CHECK: u8 = 18;
    /// The vector of the 32-bit Linux system call.
    pub const INT80: u8 = 0x80;

    /// Whether the CPU pushes an error code for an exception (SDM vol. 3A, table 6-1).
    #[must_use]
    pub const fn has_error_code(vector: u8) -> bool {
        matches!(vector, 8 | 10..=14 | 17 | 21)
    }
}

/// The selectors that the hypervisor's part of the GDT gives a 64-bit guest (`FLAT_RING3_*` in
/// Xen's public header `arch-x86/xen-x86_64.h`).
pub mod selector {
    /// 64-bit code, for the kernel and its user mode alike: both run in ring 3.
    pub const FLAT_CODE64: u64 = 0xe033;
    /// Data and stack.
    pub const FLAT_DATA: u64 = 0xe02b;
    /// 32-bit code for user programs.
    pub const FLAT_CODE32: u64 = 0xe023;
    /// First GDT entry that a guest does not own.
    pub const FIRST_RESERVED_ENTRY: u16 = 14 * 512;
}

/// Whether an address is canonical with 48-bit virtual addresses.
#[must_use]
pub const fn is_canonical(va: u64) -> bool {
    let top = va >> 47;
    top == 0 || top == 0x1_ffff
}

/// The hole that belongs to the hypervisor in every guest's address space (`HYPERVISOR_VIRT_START/END`).
#[must_use]
pub const fn is_hypervisor_address(va: u64) -> bool {
    va >= 0xffff_8000_0000_0000 && va < 0xffff_8800_0000_0000
}

/// Whether a guest may own data at the address: canonical, and not in the hypervisor's hole.
#[must_use]
pub const fn is_guest_address(va: u64) -> bool {
    is_canonical(va) && !is_hypervisor_address(va)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hole_is_not_the_guests() {
        assert!(is_guest_address(0xffff_7fff_ffff_ffff_u64 & 0x7fff_ffff_ffff));
        assert!(!is_guest_address(0xffff_8000_0000_0000));
        assert!(!is_guest_address(0xffff_87ff_ffff_ffff));
        assert!(is_guest_address(0xffff_8800_0000_0000));
        assert!(!is_guest_address(0x8000_0000_0000));
    }
}
