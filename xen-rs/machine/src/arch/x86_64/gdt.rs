//! Segments: the hypervisor's part of every descriptor table, and the task state segment.
//!
//! Guests own entries 0-7167 of the table they run on; ours follow (`FIRST_RESERVED_GDT_ENTRY` of Xen header
//! `arch-x86/xen.h`).

/// Descriptors from index 7168 on, with the selectors that the ABI promises.
pub const RESERVED: [u64; 8] = [
    0,
    0x00af_9b00_0000_ffff, // 0xe008 code, 64 bits, ring 0
    0x00cf_9300_0000_ffff, // 0xe010 data, ring 0
    0,
    0x00cf_fb00_0000_ffff, // 0xe023 code, 32 bits, ring 3
    0x00cf_f300_0000_ffff, // 0xe02b data, ring 3
    0x00af_fb00_0000_ffff, // 0xe033 code, 64 bits, ring 3
    0,
];

/// Index of the TSS descriptor (two entries) among the reserved ones.
pub const TSS_INDEX: usize = 8;
/// Selector of the TSS.
pub const TSS_SELECTOR: u16 = 0xe000 + (TSS_INDEX as u16) * 8;
/// Index of the LDT descriptor (two entries) among the reserved ones.
pub const LDT_INDEX: usize = 10;
/// Selector of the LDT.
pub const LDT_SELECTOR: u16 = 0xe000 + (LDT_INDEX as u16) * 8;

/// The task state segment (SDM vol. 3A, 8.7): stack pointers for entries to ring 0.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub struct Tss {
    reserved0: u32,
    /// Stack for ring 0.
    pub rsp0: u64,
    rsp1: u64,
    rsp2: u64,
    reserved1: u64,
    /// Stacks for vectors with an IST number, from 1.
    pub ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    /// Behind the limit: no port is open to ring 3.
    pub io_map_base: u16,
}

const _: () = assert!(size_of::<Tss>() == 104);
