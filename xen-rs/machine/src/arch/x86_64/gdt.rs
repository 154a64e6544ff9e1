//! Segments: the hypervisor's part of every descriptor table, and the task state segment.
//!
//! Guests own entries 0-7167 of the table they run on; ours follow (`FIRST_RESERVED_GDT_ENTRY` of Xen header
//! `arch-x86/xen.h`).
//!
//! Unsafe: segment registers are loaded.

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

/// Pages of the table that belong to the guest (`FIRST_RESERVED_GDT_PAGE`).
pub const GUEST_PAGES: usize = 14;
/// Type of an available 64-bit TSS.
pub const TYPE_TSS: u64 = 9;
/// Type of an LDT.
pub const TYPE_LDT: u64 = 2;

/// A system descriptor of 16 bytes (SDM vol. 3A, 3.5 and figure 8-4).
#[must_use]
pub const fn system_descriptor(base: u64, limit: u64, kind: u64) -> [u64; 2] {
    let low = (limit & 0xffff)
        | ((base & 0xff_ffff) << 16)
        | (kind << 40)
        | (1 << 47)
        | ((limit >> 16 & 0xf) << 48)
        | ((base >> 24 & 0xff) << 56);
    [low, base >> 32]
}

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

/// GDTR, for the table in this CPU's region.
#[cfg(target_os = "none")]
fn table() -> super::idt::Descriptor {
    super::idt::Descriptor { limit: 0xe000 + 12 * 8 - 1, base: super::percpu::region() + super::percpu::GDT_WINDOW }
}

/// Loads GDTR anew.
#[cfg(target_os = "none")]
pub(super) fn load_table() {
    let table = table();
    // SAFETY: the table that is loaded already, with its own limit.
    unsafe { core::arch::asm!("lgdt [{}]", in(reg) &raw const table, options(nostack, preserves_flags)) };
}

/// Loads the tables in this CPU's region: GDT, TSS, no LDT.
///
/// # Safety
/// On the stack of the region, which `percpu::create` made.
#[cfg(target_os = "none")]
pub(super) unsafe fn load() {
    let descriptor = table();
    // SAFETY: the table holds the present selectors with the same meaning, and the TSS is this CPU's own.
    unsafe {
        core::arch::asm!(
            "lgdt [{table}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ss, {data:e}",
            "lldt {null:x}",
            "mov ds, {null:e}",
            "mov es, {null:e}",
            "mov fs, {null:e}",
            "mov gs, {null:e}",
            "ltr {tss:x}",
            table = in(reg) &raw const descriptor,
            code = in(reg) u64::from(logic::regs::selector::HYPERVISOR_CS),
            scratch = out(reg) _,
            data = in(reg) u32::from(logic::regs::selector::HYPERVISOR_DS),
            null = in(reg) 0u32,
            tss = in(reg) TSS_SELECTOR,
            options(preserves_flags)
        );
    }
}
