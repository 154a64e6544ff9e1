//! From the boot loader to Rust: the entry in 32-bit mode, first page tables, what the loader tells us.
//!
//! Three kinds of loader are served by one image: multiboot 1 (GNU specification 0.6.96) and 2 (2.0), which leave a magic
//! number in EAX, and PVH (`arch-x86/hvm/start_info.h`), which has an entry of its own. All leave the physical address
//! of their information in EBX.
//!
//! Unsafe: the first instructions, and what the boot loader left in memory.

mod physical;

use super::percpu::{self, REGION};
use super::{
    acpi, alternatives, bios, cpu, exception_table, fpu, idt, ioapic, lapic, pic, platform_timer, power, serial, smp,
    speculation, tsc,
};
use crate::boot_info::{BootInfo, MemoryKind};
use crate::command_line::CommandLine;
use crate::container;
use crate::mem::boot_frames::BootFrames;
use crate::mem::layout::{IMAGE_OFFSET, PAGE_SIZE};
use core::arch::global_asm;
use logic::boot::{command_line, loader};
use physical::Physical;

/// How much physical memory the first page tables map (at its own address and in the direct map).
pub const EARLY_MAPPED: u64 = 4 << 30;

global_asm!(
    r#"
    .set VIRT, {image_offset}

    .pushsection .boot.header, "ax"
    .balign 4
multiboot_header:
    // Flags: modules on pages, memory information, and the load addresses given here.
    .long 0x1badb002, 0x00010003, -(0x1badb002 + 0x00010003)
    .long multiboot_header - VIRT
    .long __load_start - VIRT
    .long __load_end - VIRT
    .long __bss_end - VIRT
    .long start32 - VIRT

    .balign 8
multiboot2_header:
    .long 0xe85250d6, 0, multiboot2_end - multiboot2_header
    .long -(0xe85250d6 + (multiboot2_end - multiboot2_header))
    // The information must have a command line, modules and a memory map (tag 1).
    .balign 8
    .word 1, 0
    .long 20, 1, 3, 6
    // The entry (tag 3), and modules on pages (tag 6).
    .balign 8
    .word 3, 0
    .long 12, start32 - VIRT
    .balign 8
    .word 6, 0
    .long 8
    .balign 8
    .word 0, 0
    .long 8
multiboot2_end:
    .popsection

    // XEN_ELFNOTE_PHYS32_ENTRY (elfnote.h).
    .pushsection .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad pvh32 - VIRT
    .popsection

    .pushsection .boot.text, "ax"
    .code32
pvh32:
    movl ${pvh_magic}, %eax
    .globl start32
start32:
    cli
    cld
    movl $(boot_region - VIRT + {region} - 0x1000), %esp
    movl %eax, %ebp
    movl %ebx, %esi

    // Long mode and 2 MiB pages are all that is assumed here.
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb no_long_mode
    movl $0x80000001, %eax
    cpuid
    testl $(1 << 29), %edx
    jz no_long_mode
    movl %edx, %edi

    // Four GiB of identity, shared with the direct map's first slot.
    movl $0x83, %eax
    movl $(boot_l2_low - VIRT), %ebx
    movl $2048, %ecx
1:  movl %eax, (%ebx)
    addl $0x200000, %eax
    addl $8, %ebx
    decl %ecx
    jnz 1b
    movl $(boot_l2_low - VIRT + 3), %eax
    movl %eax, boot_l3_low - VIRT
    addl $0x1000, %eax
    movl %eax, boot_l3_low - VIRT + 8
    addl $0x1000, %eax
    movl %eax, boot_l3_low - VIRT + 16
    addl $0x1000, %eax
    movl %eax, boot_l3_low - VIRT + 24
    movl $(boot_l3_low - VIRT + 3), boot_l4 - VIRT
    movl $(boot_l3_low - VIRT + 3), boot_l4 - VIRT + 262 * 8
    // 32 MiB of image.
    movl $(boot_l3_image - VIRT + 3), boot_l4 - VIRT + 261 * 8
    movl $(boot_l2_image - VIRT + 3), boot_l3_image - VIRT + 321 * 8
    movl $0x200083, %eax
    movl $(boot_l2_image - VIRT), %ebx
    movl $16, %ecx
1:  movl %eax, (%ebx)
    addl $0x200000, %eax
    addl $8, %ebx
    decl %ecx
    jnz 1b

    // PAE; NXE where there is NX; long mode; paging with write protection.
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $(boot_l4 - VIRT), %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    testl $(1 << 20), %edi
    jz 1f
    orl $0x800, %eax
1:  wrmsr
    movl %cr0, %eax
    andl $~0x6000000c, %eax
    orl $0x80010003, %eax
    movl %eax, %cr0
    lgdt boot_gdt_low - VIRT
    ljmp $0xe008, $(start64_low - VIRT)

no_long_mode:
    movl $(no_long_mode_text - VIRT), %esi
    movw $0x3f8, %dx
1:  lodsb
    testb %al, %al
    jz 2f
    outb %al, %dx
    jmp 1b
2:  hlt
    jmp 2b
no_long_mode_text:
    .asciz "(XEN) this CPU has no 64-bit mode\r\n"

    .code64
start64_low:
    movabsq $start64, %rax
    jmpq *%rax
start64:
    lgdt boot_gdt_high(%rip)
    movl $0xe010, %eax
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    leaq boot_region(%rip), %rsp
    addq ${region} - 0x1000, %rsp
    movl %ebp, %edi
    // esi still holds the information's address.
    movl %esi, %esi
    xorl %ebp, %ebp
    pushq $0
    call boot_main
    ud2

    // Index 7168 + i, so the base lies that far below.
    .balign 8
boot_gdt_low:
    .word 0xe000 + 63
    .quad boot_gdt - VIRT - 0xe000
boot_gdt_high:
    .word 0xe000 + 63
    .quad boot_gdt - 0xe000
    .balign 8
boot_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0, 0, 0, 0, 0
    .popsection

    .pushsection .bss.boot_tables, "aw", @nobits
    .balign 4096
boot_l4:       .skip 4096
boot_l3_low:   .skip 4096
boot_l2_low:   .skip 16384
boot_l3_image: .skip 4096
boot_l2_image: .skip 4096
    .popsection
    "#,
    image_offset = const IMAGE_OFFSET,
    region = const REGION,
    pvh_magic = const loader::PVH_MAGIC,
    options(att_syntax)
);

unsafe extern "C" {
    static __load_start: u8;
    static __bss_end: u8;
}

/// Physical addresses of the hypervisor image, BSS included.
#[must_use]
pub fn image_phys() -> core::ops::Range<u64> {
    (&raw const __load_start) as u64 - IMAGE_OFFSET..(&raw const __bss_end) as u64 - IMAGE_OFFSET
}

/// What boot leaves for the hypervisor above.
static mut HANDOVER: Option<(BootInfo, BootFrames)> = None;

/// Hands out what the loader said and the free memory, once.
#[doc(hidden)]
pub fn take_handover() -> (BootInfo, BootFrames) {
    // SAFETY: called by the boot processor alone, which also filled it.
    match unsafe { (&raw mut HANDOVER).replace(None) } {
        Some(handover) => handover,
        None => panic!("the boot information was taken twice"),
    }
}

unsafe extern "C" {
    fn upcall_start() -> !;
}

/// The first Rust code, on the boot processor, on the first page tables.
#[unsafe(no_mangle)]
extern "C" fn boot_main(magic: u32, info: u32) -> ! {
    // SAFETY: one CPU, on the first page tables, which leave the image writable; without an IDT nothing can fault.
    unsafe { exception_table::settle() };
    // SAFETY: one CPU, no IST stacks yet.
    unsafe { idt::fill(false) };
    idt::load();
    pic::disable();
    crate::mem::heap::init_early();
    // SAFETY: the first page tables are in use, and what is read now is what the loader has left.
    let memory = unsafe { Physical::new() };
    let Some(mut boot) = loader::read(magic, info.into(), memory).map(BootInfo::from) else {
        serial::init(CommandLine(""));
        panic!("not started by a multiboot or PVH loader (magic {magic:#x})");
    };
    begin_console(&boot);
    let line = CommandLine(boot.command_line);
    limit_memory(&mut boot);
    cpu::detect(line);
    let plan = speculation::init(line);
    // SAFETY: the first page tables leave the image writable.
    unsafe { alternatives::apply(plan) };
    acpi::init(boot.rsdp, memory);
    bios::init(memory);
    let mut frames = crate::mem::setup::init(&boot, image_phys(), EARLY_MAPPED);
    crate::mem::heap::grow_at_boot(&mut frames);
    lapic::init(&mut frames);
    ioapic::init(&mut frames);
    crate::mem::window::init_device_pages(&mut frames);
    platform_timer::init(line, &mut frames);
    let features = command_line::parse(boot.command_line, |_| {}).features;
    let (containers, virtual_apic, identifiers) = (features.hap, features.apicv, features.vpid);
    container::detect(container::Wishes { containers, virtual_apic, identifiers });
    // SAFETY: one CPU.
    unsafe { percpu::create(&mut frames, 0) };
    smp::prepare(&boot, &mut frames);
    log::info!(
        "memory: {} MiB free of {} MiB",
        frames.free_bytes() >> 20,
        boot.memory_map.iter().filter(|r| r.kind == MemoryKind::Ram).map(|r| r.end - r.start).sum::<u64>() >> 20
    );
    // SAFETY: one CPU, and nobody has read it yet.
    unsafe { (&raw mut HANDOVER).write(Some((boot, frames))) };
    // The stack in the image was a loan: go on at the top of this CPU's own.
    let top = percpu::region_of(0) + percpu::TOP - 256;
    // SAFETY: the region exists; nothing of the old stack is used any more.
    unsafe {
        core::arch::asm!("mov rsp, {}", "xor ebp, ebp", "push rbp", "call {}", "ud2",
            in(reg) top, sym boot_on_own_stack, options(noreturn));
    }
}

/// Starts the console, and says there what the loader has said.
fn begin_console(boot: &BootInfo) {
    let BootInfo { command_line, loader, .. } = boot;
    let line = CommandLine(command_line);
    serial::init(line);
    power::set_reboot(line);
    serial::write_text(format_args!("\n"));
    log::info!("xen-rs {} started by {loader}", env!("CARGO_PKG_VERSION"));
    log::info!("command line: {command_line}");
    for range in &boot.memory_map {
        log::info!("memory {:#014x}-{:#014x} {:?}", range.start, range.end, range.kind);
    }
    for (i, module) in boot.modules.iter().enumerate() {
        let phys = module.phys();
        log::info!("module {i}: {:#x}-{:#x} {}", phys.start, phys.end, module.command_line);
    }
}

/// `mem=`: RAM above that address is as if it were not there. What the loader has put there is kept all the same.
fn limit_memory(boot: &mut BootInfo) {
    let Some(asked) = command_line::parse(boot.command_line, |_| {}).memory_limit else { return };
    let used = boot.modules.iter().map(|module| module.phys().end).chain([image_phys().end]).max().unwrap_or(0);
    let limit = asked.max(used).next_multiple_of(PAGE_SIZE);
    crate::boot_info::clip(&mut boot.memory_map, limit);
    log::info!("mem={}M: RAM above {limit:#x} is not used", asked >> 20);
}

/// The boot processor on its own stack and the final page tables.
extern "C" fn boot_on_own_stack() -> ! {
    // SAFETY: the region of this CPU exists, and from here on every exception finds its stack.
    unsafe {
        idt::fill(true);
        cpu::init_this();
    }
    fpu::detect();
    container::start_this();
    lapic::init_this();
    tsc::init();
    // SAFETY: the binary's `bind!` defines it with this signature.
    unsafe { upcall_start() }
}
