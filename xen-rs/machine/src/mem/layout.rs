//! The hypervisor's address space: L4 slots 256-271, the hole that PV guests leave for it (`HYPERVISOR_VIRT_START` and
//! `HYPERVISOR_VIRT_END` of Xen header `arch-x86/xen-x86_64.h`). All other slots belong to the guest.
//!
//! ```text
//! slot 256       ffff8000_00000000   machine-to-phys table, read-only for guests
//! slots 257-260                      unused
//! slot 261       ffff8280_00000000   machine-to-phys table, writable alias (256 GiB)
//!                ffff82c0_00000000   device memory, ACPI tables and other windows (64 GiB)
//!                ffff82d0_00000000   per-CPU regions (1 GiB)
//!                ffff82d0_40000000   the hypervisor image (1 GiB)
//!                ffff82e0_00000000   frame table (128 GiB)
//! slots 262-271  ffff8300_00000000   direct map of all RAM (5 TiB)
//! ```

/// Bytes of one page.
pub const PAGE_SIZE: u64 = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// First address of the hypervisor's hole.
pub const HYPERVISOR_START: u64 = 0xffff_8000_0000_0000;
/// First address behind the hypervisor's hole.
pub const HYPERVISOR_END: u64 = 0xffff_8800_0000_0000;
/// First L4 slot of the hypervisor.
pub const FIRST_L4_SLOT: usize = 256;
/// First L4 slot behind the hypervisor's.
pub const END_L4_SLOT: usize = 272;

/// The machine-to-phys table as guests see it: one `u64` per frame, read-only.
pub const M2P_GUEST: u64 = 0xffff_8000_0000_0000;
/// End of the address space set aside for [`M2P_GUEST`].
pub const M2P_GUEST_END: u64 = 0xffff_8040_0000_0000;
/// The machine-to-phys table as the hypervisor writes it.
pub const M2P: u64 = 0xffff_8280_0000_0000;
/// Windows on device memory and firmware tables.
pub const DEVICE_WINDOWS: u64 = 0xffff_82c0_0000_0000;
/// End of the windows.
pub const DEVICE_WINDOWS_END: u64 = 0xffff_82d0_0000_0000;
/// Per-CPU regions: within 2 GiB of the image, so that the entry stubs can jump to it.
pub const PER_CPU: u64 = 0xffff_82d0_0000_0000;
/// End of the per-CPU regions.
pub const PER_CPU_END: u64 = IMAGE;
/// The hypervisor image.
pub const IMAGE: u64 = 0xffff_82d0_4000_0000;
/// Physical address where a loader puts [`IMAGE`].
pub const IMAGE_PHYS: u64 = 0x20_0000;
/// What to take from an address in the image to have its load address.
pub const IMAGE_OFFSET: u64 = IMAGE - IMAGE_PHYS;
/// The frame table, one fixed-size record per frame.
pub const FRAME_TABLE: u64 = 0xffff_82e0_0000_0000;
/// End of the frame table's address space.
pub const FRAME_TABLE_END: u64 = 0xffff_8300_0000_0000;
/// Bytes of one record of the frame table.
pub const FRAME_RECORD: u64 = 32;
/// The direct map: physical address 0 is here.
pub const DIRECT_MAP: u64 = 0xffff_8300_0000_0000;
/// How much physical memory the direct map can reach; what lies above is ignored.
pub const DIRECT_MAP_SIZE: u64 = HYPERVISOR_END - DIRECT_MAP;

/// Whether an address can be used by a guest: canonical and outside the hypervisor's hole.
#[must_use]
pub const fn is_guest_address(va: u64) -> bool {
    // Below the canonical hole, or at the hypervisor's end and above: everything between is either ours or not canonical.
    va < 0x0000_8000_0000_0000 || va >= HYPERVISOR_END
}

/// Whether an address is canonical with 48 bits (LA57 is never switched on).
#[must_use]
pub const fn is_canonical(va: u64) -> bool {
    (va.cast_signed() >> 47).wrapping_add(1).cast_unsigned() <= 1
}

const _: () = {
    assert!((DIRECT_MAP >> 39) & 511 == 262);
    assert!((IMAGE >> 39) & 511 == 261);
    assert!(DIRECT_MAP_SIZE == 5 << 40);
};
