//! The PVH note, the way from 32-bit code without paging to Rust, and the stub by which hypercalls are made (Xen's
//! `docs/misc/pvh.pandoc`).
//!
//! Unsafe: the first instructions, and a processor's tables and MSRs.

#[cfg(target_os = "none")]
mod metal {
    use crate::mem::DIRECT_MAP;
    use crate::pvh::stacks;
    use core::arch::{asm, global_asm};
    use xen_abi::hvm::{VCPU_HVM_MODE_64B, VcpuHvmContext, VcpuHvmX86_64};
    use xen_abi::ids::Mfn;
    use zerocopy::IntoBytes;

    /// CR0.PE, MP, ET, WP, PG.
    const CR0: u64 = 0x8001_0013;
    /// CR4.PAE, OSFXSR, OSXMMEXCPT.
    const CR4: u64 = 0x620;
    /// EFER.SCE, LME, LMA, NXE.
    const EFER: u64 = 0xd01;
    /// What of EFER is to be set before paging is on.
    const EFER_BEFORE: u64 = 0x901;
    /// Segments of the GDT: 64-bit code, and data right behind it, as `syscall` wants them.
    const CODE: u64 = 8;

    global_asm!(
        ".pushsection .note.Xen, \"a\", @note",
        ".balign 4",
        ".long 4, 8, 18", // PHYS32_ENTRY
        ".asciz \"Xen\"",
        ".quad guest_pvh_entry - {virt}",
        ".popsection",
        // ebx holds the address of the start info. The builder cleared .bss.
        ".pushsection .text.entry, \"ax\", @progbits",
        ".code32",
        ".globl guest_pvh_entry",
        "guest_pvh_entry:",
        "cli",
        "cld",
        "mov esi, ebx",
        // The first 4 GiB in pages of 2 MiB.
        "mov edi, offset guest_pvh_l2 - {virt}",
        "mov eax, 0x83", // present, writable, large
        "mov ecx, 2048",
        "2: mov [edi], eax",
        "add eax, 0x200000",
        "add edi, 8",
        "dec ecx",
        "jnz 2b",
        "mov edi, offset guest_pvh_l3 - {virt}",
        "mov eax, offset guest_pvh_l2 - {virt}",
        "or eax, 3",
        "mov ecx, 4",
        "3: mov [edi], eax",
        "add eax, 4096",
        "add edi, 8",
        "dec ecx",
        "jnz 3b",
        // Once where they are, as long as this code runs there, and once where the direct map is.
        "mov edi, offset guest_pvh_l4 - {virt}",
        "mov eax, offset guest_pvh_l3 - {virt}",
        "or eax, 3",
        "mov [edi], eax",
        "mov [edi + {slot} * 8], eax",
        "mov eax, {cr4}",
        "mov cr4, eax",
        "mov cr3, edi",
        "mov ecx, 0xc0000080",
        "rdmsr",
        "or eax, {efer}",
        "wrmsr",
        "mov eax, {cr0}",
        "mov cr0, eax",
        "mov eax, offset guest_pvh_gdt_low - {virt}",
        "lgdt [eax]",
        ".byte 0xea", // a far jump
        ".long guest_pvh_long - {virt}",
        ".word {code}",
        ".code64",
        "guest_pvh_long:",
        "mov eax, {code} + 8",
        "mov ds, eax",
        "mov es, eax",
        "mov ss, eax",
        "movabs rax, offset guest_pvh_high",
        "jmp rax",
        "guest_pvh_high:",
        "lea rsp, [rip + guest_pv_stack_top]",
        "xor ebp, ebp",
        "mov edi, esi",
        "call {start}",
        "ud2",
        // Where `syscall` leads: rcx holds the address to go back to, and the flags are as they were.
        ".balign 16",
        ".globl guest_pvh_hypercall",
        "guest_pvh_hypercall:",
        "vmmcall",
        "jmp rcx",
        ".popsection",
        ".pushsection .rodata.gdt, \"a\", @progbits",
        ".balign 8",
        "guest_pvh_gdt:",
        ".quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
        "guest_pvh_gdt_low:",
        ".word 23",
        ".long guest_pvh_gdt - {virt}",
        ".popsection",
        ".pushsection .bss.pvh, \"aw\", @nobits",
        ".balign 4096",
        ".globl guest_pvh_l4",
        "guest_pvh_l4: .skip 4096",
        "guest_pvh_l3: .skip 4096",
        "guest_pvh_l2: .skip 16384",
        ".globl guest_pvh_shared",
        "guest_pvh_shared: .skip 4096",
        ".popsection",
        virt = const DIRECT_MAP,
        slot = const DIRECT_MAP >> 39 & 511,
        cr0 = const CR0,
        cr4 = const CR4,
        efer = const EFER_BEFORE,
        code = const CODE,
        start = sym crate::entry::start_pvh,
    );

    unsafe extern "C" {
        static guest_pvh_l4: u8;
        static guest_pvh_shared: u8;
        static __image_end: u8;
        fn guest_pvh_hypercall();
    }

    fn physical(symbol: *const u8) -> u64 {
        symbol as u64 - DIRECT_MAP
    }

    /// The root of the page tables.
    pub fn root() -> Mfn {
        Mfn(physical(&raw const guest_pvh_l4) >> 12)
    }

    /// Physical address of the page that the shared info page takes the place of.
    pub fn shared_page() -> u64 {
        physical(&raw const guest_pvh_shared)
    }

    /// The end of the image.
    pub fn image_end() -> u64 {
        physical(&raw const __image_end)
    }

    fn wrmsr(msr: u32, value: u64) {
        let (low, high) = (value as u32, (value >> 32) as u32);
        // SAFETY: the callers set registers that say where `syscall` leads.
        unsafe { asm!("wrmsr", in("ecx") msr, in("eax") low, in("edx") high, options(nostack, preserves_flags)) };
    }

    /// Sets up the processor that runs this: its segments, and where `syscall` leads.
    pub fn init_cpu() {
        const STAR: u32 = 0xc000_0081;
        const LSTAR: u32 = 0xc000_0082;
        const SYSCALL_MASK: u32 = 0xc000_0084;
        let name = core::arch::x86_64::__cpuid(0).ebx;
        if name == u32::from_le_bytes(*b"Genu") {
            // `vmcall` is 0f 01 c1, `vmmcall` 0f 01 d9.
            // SAFETY: the text is writable in these page tables, and no other processor makes hypercalls before the first has
            // come here.
            unsafe { (guest_pvh_hypercall as *mut u8).add(2).write_volatile(0xc1) };
        }
        stacks::load();
        // SAFETY: the table holds the segments that are in use, at the same places as the entry code's.
        unsafe {
            asm!("push {code}", "lea {tmp}, [rip + 2f]", "push {tmp}", "retfq", "2:",
                "mov {tmp:e}, {code} + 8", "mov ss, {tmp:e}", "mov ds, {tmp:e}", "mov es, {tmp:e}",
                tmp = out(reg) _, code = const CODE);
        }
        wrmsr(STAR, CODE << 32);
        wrmsr(LSTAR, guest_pvh_hypercall as *const () as u64);
        wrmsr(SYSCALL_MASK, 0);
        super::super::traps::load();
    }

    /// The state of another vCPU that starts at `rip` on a stack of its own, on the same page tables.
    pub fn vcpu_context(rip: u64, rsp: u64) -> VcpuHvmContext {
        let cr3 = root().0 << 12;
        let regs = VcpuHvmX86_64 { rip, rsp, rflags: 2, cr0: CR0, cr3, cr4: CR4, efer: EFER, ..Default::default() };
        let mut context = VcpuHvmContext { mode: VCPU_HVM_MODE_64B, ..Default::default() };
        for (to, from) in context.cpu_regs.as_mut_bytes().iter_mut().zip(regs.as_bytes()) {
            *to = *from;
        }
        context
    }
}

#[cfg(not(target_os = "none"))]
mod metal {
    use xen_abi::hvm::VcpuHvmContext;
    use xen_abi::ids::Mfn;

    pub fn root() -> Mfn {
        Mfn(0)
    }
    pub fn shared_page() -> u64 {
        0
    }
    pub fn image_end() -> u64 {
        0
    }
    pub fn init_cpu() {}
    pub fn vcpu_context(_rip: u64, _rsp: u64) -> VcpuHvmContext {
        VcpuHvmContext::default()
    }
}

pub use metal::*;
