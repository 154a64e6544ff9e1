//! From the boot loader to Rust: the multiboot1 entry in 32-bit mode, first page tables, what the loader tells us.
//!
//! Multiboot 1 (GNU specification 0.6.96): EAX holds the magic number, EBX the physical address of the information.

use super::percpu::{self, REGION};
use super::{acpi, alternatives, cpu, fpu, idt, ioapic, lapic, pic, power, serial, smp, tsc};
use crate::boot_info::{BootInfo, MemoryKind, MemoryRange, Module};
use crate::command_line::CommandLine;
use crate::mem::boot_frames::BootFrames;
use crate::mem::layout::{DIRECT_MAP, IMAGE_OFFSET};
use core::arch::global_asm;

/// What a multiboot1 loader leaves in EAX.
const MULTIBOOT_MAGIC: u32 = 0x2bad_b002;
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
    .popsection

    .pushsection .boot.text, "ax"
    .code32
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

/// Reads a little-endian word of the loader's data.
///
/// # Safety
/// `phys + 4 <= EARLY_MAPPED`, and the first page tables are in use.
unsafe fn phys_u32(phys: u64) -> u32 {
    // SAFETY: mapped as the caller says; any alignment, any value.
    unsafe { ((DIRECT_MAP + phys) as *const u32).read_unaligned() }
}

/// A string of the loader, kept for good: the loader's memory is reused.
///
/// # Safety
/// As for [`phys_u32`]; `phys` is 0 or points to a string that ends with a zero byte.
unsafe fn loader_string(phys: u32) -> &'static str {
    /// Longer command lines are cut.
    const MAX: usize = 4095;
    if phys == 0 {
        return "";
    }
    let mut bytes = alloc::vec::Vec::new();
    for i in 0..MAX {
        // SAFETY: the loader's string, in the first 4 GiB.
        let byte = unsafe { ((DIRECT_MAP + u64::from(phys) + i as u64) as *const u8).read() };
        if byte == 0 {
            break;
        }
        bytes.push(if byte.is_ascii() { byte } else { b'?' });
    }
    alloc::string::String::from_utf8(bytes).map_or("", |text| text.leak())
}

/// The multiboot information structure, by its physical address.
struct Multiboot(u64);

impl Multiboot {
    fn word(&self, offset: u64) -> u32 {
        // SAFETY: the loader put the structure there, below 4 GiB; the first page tables are in use.
        unsafe { phys_u32(self.0 + offset) }
    }

    fn has(&self, flag: u32) -> bool {
        self.word(0) & (1 << flag) != 0
    }

    fn string(&self, flag: u32, offset: u64) -> &'static str {
        if self.has(flag) {
            // SAFETY: the flag says that the word is the address of a string.
            unsafe { loader_string(self.word(offset)) }
        } else {
            ""
        }
    }

    fn memory_map(&self) -> alloc::vec::Vec<MemoryRange> {
        let mut map = alloc::vec::Vec::new();
        if self.has(6) {
            let (length, start) = (u64::from(self.word(44)), u64::from(self.word(48)));
            let mut at = start;
            while at + 24 <= start + length {
                // SAFETY: inside the table that the loader describes.
                let word = |i: u64| unsafe { phys_u32(at + i) };
                let long = |i: u64| u64::from(word(i)) | u64::from(word(i + 4)) << 32;
                let (base, size) = (long(4), long(12));
                map.push(MemoryRange {
                    start: base,
                    end: base.saturating_add(size),
                    kind: MemoryKind::from_e820(word(20)),
                });
                at += u64::from(word(0)) + 4;
            }
        } else if self.has(0) {
            for (start, kib) in [(0, self.word(4)), (0x10_0000, self.word(8))] {
                map.push(MemoryRange { start, end: start + u64::from(kib) * 1024, kind: MemoryKind::Ram });
            }
        }
        crate::boot_info::tidy(map)
    }

    fn modules(&self, names_in_front: bool) -> alloc::vec::Vec<Module> {
        let mut modules = alloc::vec::Vec::new();
        if self.has(3) {
            let (count, table) = (u64::from(self.word(20)), u64::from(self.word(24)));
            for i in 0..count.min(64) {
                // SAFETY: the loader's table of modules, 16 bytes each.
                let word = |offset: u64| unsafe { phys_u32(table + i * 16 + offset) };
                // SAFETY: its third word is 0 or the address of a string.
                let line = unsafe { loader_string(word(8)) };
                modules.push(Module {
                    command_line: strip_name(line, names_in_front),
                    phys: u64::from(word(0))..u64::from(word(4)),
                });
            }
        }
        modules
    }
}

/// Takes the file name off a command line, where the loader puts one.
fn strip_name(line: &'static str, name_in_front: bool) -> &'static str {
    let line = line.trim();
    if !name_in_front {
        return line;
    }
    line.split_once(' ').map_or("", |(_, rest)| rest.trim_start())
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
    // SAFETY: one CPU, no IST stacks yet.
    unsafe { idt::fill(false) };
    idt::load();
    pic::disable();
    crate::mem::heap::init_early();
    if magic != MULTIBOOT_MAGIC {
        serial::init(CommandLine(""));
        panic!("not started by a multiboot loader (magic {magic:#x})");
    }
    let boot = read_multiboot(&Multiboot(u64::from(info)));
    let line = CommandLine(boot.command_line);
    cpu::detect(line);
    // SAFETY: the first page tables leave the image writable.
    unsafe { alternatives::apply() };
    // SAFETY: the first page tables are in use.
    unsafe { acpi::init() };
    let mut frames = crate::mem::setup::init(&boot, image_phys(), EARLY_MAPPED);
    crate::mem::heap::grow_at_boot(&mut frames);
    lapic::init(&mut frames);
    ioapic::init(&mut frames);
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

/// Reads the loader's structure and starts the console.
fn read_multiboot(multiboot: &Multiboot) -> BootInfo {
    let loader = multiboot.string(9, 64);
    // GRUB 2 gives the arguments alone, all others put the file name first.
    let names_in_front = !loader.starts_with("GRUB 2");
    let command_line = strip_name(multiboot.string(2, 16), names_in_front);
    let line = CommandLine(command_line);
    serial::init(line);
    power::set_no_reboot(line.flag("noreboot", false));
    let boot = BootInfo {
        command_line,
        loader,
        memory_map: multiboot.memory_map(),
        modules: multiboot.modules(names_in_front),
    };
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
    boot
}

/// The boot processor on its own stack and the final page tables.
extern "C" fn boot_on_own_stack() -> ! {
    // SAFETY: the region of this CPU exists, and from here on every exception finds its stack.
    unsafe {
        idt::fill(true);
        cpu::init_this();
    }
    fpu::detect();
    lapic::init_this();
    tsc::init();
    // SAFETY: the binary's `bind!` defines it with this signature.
    unsafe { upcall_start() }
}
