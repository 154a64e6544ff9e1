//! The boot sector of a test disk: a multiboot1 loader for emulators that load no kernel by themselves (Bochs).
//!
//! `xtask/src/bochs` writes the disk. Sector 1 is a list of 32-bit words: entry point, address of the multiboot
//! information, and then for each piece its first sector, its number of sectors and its address, up to a piece of no
//! sectors. All that this code finds out by itself is the memory map (INT 15h, E820), since only the BIOS knows it.
//!
//! Unsafe, since it is assembly: 512 bytes that run before there is a stack for anything else.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code, reason = "a boot sector is assembly")]

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    // The list of what to load.
    .set LIST, 0x7e00
    // The memory map, as multiboot has it: 24 bytes an entry, of which the first 4 say how many follow.
    .set MAP, 0x6000
    .set MAP_END, 0x6600

    .pushsection .boot_sector, "ax"
    .globl boot_sector
    .code16
boot_sector:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    ljmpw $0, $1f
1:
    // Address line 20 by the system control port.
    inb $0x92, %al
    orb $2, %al
    andb $0xfe, %al
    outb %al, $0x92

    xorl %ebx, %ebx
    movw $MAP + 4, %di
2:  movl $0xe820, %eax
    movl $20, %ecx
    movl $0x534d4150, %edx
    int $0x15
    jc 3f
    cmpl $0x534d4150, %eax
    jne 3f
    movl $20, -4(%di)
    addw $24, %di
    cmpw $MAP_END, %di
    jae 3f
    testl %ebx, %ebx
    jnz 2b
3:  subw $MAP + 4, %di
    movzwl %di, %ebp

    lgdtl gdt_register
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $8, $protected

    .code32
protected:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $0x7c00, %esp
    // No interrupts from the disk: it is polled.
    movb $2, %al
    movw $0x3f6, %dx
    outb %al, %dx
    movl $1, %ebx
    movl $1, %ecx
    movl $LIST, %edi
    call read
    movl $LIST + 8, %esi
4:  movl (%esi), %ebx
    movl 4(%esi), %ecx
    movl 8(%esi), %edi
    jecxz 5f
    call read
    addl $12, %esi
    jmp 4b
5:  movl LIST + 4, %ebx
    // The length of the memory map; its address stands there already.
    movl %ebp, 44(%ebx)
    movl $0x2badb002, %eax
    jmpl *LIST

    // Reads ECX sectors from sector EBX on to EDI: ATA's READ SECTORS with 28-bit addresses, up to 256 at a time.
read:
    movw $0x1f7, %dx
1:  inb %dx, %al
    testb $0x80, %al
    jnz 1b
    movl $256, %eax
    cmpl %eax, %ecx
    jae 2f
    movl %ecx, %eax
2:  pushl %ecx
    pushl %eax
    movw $0x1f2, %dx
    outb %al, %dx
    movl %ebx, %eax
    incl %edx
    outb %al, %dx
    shrl $8, %eax
    incl %edx
    outb %al, %dx
    shrl $8, %eax
    incl %edx
    outb %al, %dx
    shrl $8, %eax
    andb $0x0f, %al
    orb $0xe0, %al
    incl %edx
    outb %al, %dx
    incl %edx
    movb $0x20, %al
    outb %al, %dx
    movl (%esp), %ecx
3:  pushl %ecx
    movw $0x1f7, %dx
4:  inb %dx, %al
    andb $0x88, %al
    cmpb $8, %al
    jne 4b
    movl $128, %ecx
    movw $0x1f0, %dx
    rep insl
    popl %ecx
    loop 3b
    popl %eax
    popl %ecx
    addl %eax, %ebx
    subl %eax, %ecx
    jnz read
    ret

    .balign 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_register:
    .word 23
    .long gdt
    .org 510
    .word 0xaa55
    .popsection
    "#,
    options(att_syntax)
);

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// On the host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {}
