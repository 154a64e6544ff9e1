//! The ELF notes by which a domain builder recognises the image, and the first instructions.
//!
//! Notes as in Xen's public `elfnote.h`. There is no HYPERCALL_PAGE: hypercalls are a bare `syscall` instruction.
//!
//! Unsafe: the first instructions, before there is a stack.

#[cfg(target_os = "none")]
use crate::{boot, events, mem, power, pvh, time, traps};
#[cfg(target_os = "none")]
use xen_abi::start::StartInfo;

#[cfg(target_os = "none")]
core::arch::global_asm!(
    // A note is: name size, descriptor size, type, name, descriptor; each part padded to 4 bytes.
    ".macro xen_note_u64 kind, value",
    ".long 4, 8, \\kind",
    ".asciz \"Xen\"",
    ".quad \\value",
    ".endm",
    ".macro xen_note_text kind, text",
    ".long 4, 2f - 1f, \\kind",
    ".asciz \"Xen\"",
    "1: .asciz \"\\text\"",
    "2: .balign 4",
    ".endm",
    ".pushsection .note.Xen, \"a\", @note",
    ".balign 4",
    "xen_note_text 6, \"guest-pv\"",    // GUEST_OS
    "xen_note_text 7, \"0.1\"",         // GUEST_VERSION
    "xen_note_text 5, \"xen-3.0\"",     // XEN_VERSION
    "xen_note_text 8, \"generic\"",     // LOADER
    "xen_note_text 9, \"yes\"",         // PAE_MODE
    "xen_note_text 10, \"!writable_page_tables|pae_pgdir_above_4gb\"", // FEATURES
    "xen_note_u64 1, guest_pv_entry",   // ENTRY
    "xen_note_u64 3, VIRT",             // VIRT_BASE, from the link script
    "xen_note_u64 4, 0",                // PADDR_OFFSET
    "xen_note_u64 16, 1",               // MOD_START_PFN: the ramdisk need not be mapped
    // L1_MFN_VALID: a mask and the value under it that marks a present entry.
    ".long 4, 16, 13",
    ".asciz \"Xen\"",
    ".quad 1, 1",
    ".popsection",
    // rsi holds the start_info page (xen.h, "start of day"). The builder cleared .bss. The one-page boot stack is
    // left for a bigger one at once.
    ".pushsection .text.entry, \"ax\", @progbits",
    ".globl guest_pv_entry",
    "guest_pv_entry:",
    "cld",
    "lea rsp, [rip + guest_pv_stack_top]",
    "xor ebp, ebp",
    "mov rdi, rsi",
    "call {start}",
    "ud2",
    ".popsection",
    ".pushsection .bss.stack, \"aw\", @nobits",
    ".balign 4096",
    ".globl guest_pv_stack_bottom",
    "guest_pv_stack_bottom:",
    ".skip 0x20000",
    ".globl guest_pv_stack_top",
    "guest_pv_stack_top:",
    ".popsection",
    start = sym start,
);

#[cfg(target_os = "none")]
unsafe extern "Rust" {
    /// The guest's own main function, defined by [`crate::entry!`].
    safe fn guest_pv_main();
}

#[cfg(target_os = "none")]
extern "C" fn start(info: *const StartInfo) -> ! {
    // SAFETY: called once, by the entry code, with the pointer the domain builder left in rsi.
    unsafe { boot::init(info) };
    traps::init();
    run()
}

/// The start in a hardware container.
#[cfg(target_os = "none")]
pub(crate) extern "C" fn start_pvh(info: u64) -> ! {
    pvh::init_traps();
    // SAFETY: called once, by the entry code, with what the domain builder left in ebx.
    boot::keep(unsafe { pvh::boot(info) });
    run()
}

#[cfg(target_os = "none")]
fn run() -> ! {
    let boot = boot::boot();
    mem::init(boot);
    events::init(boot.shared_info);
    time::init_vcpu();
    guest_pv_main();
    power::off()
}

/// Makes `$main: fn()` the guest's main function. On the host, where guests are only type-checked, it expands to a
/// `main` that does nothing.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        fn guest_pv_main() {
            let main: fn() = $main;
            main();
        }
        #[cfg(not(target_os = "none"))]
        fn main() {
            let _: fn() = $main;
        }
    };
}

/// Makes `$run: fn(&mut Tap)` the main function of a test guest: it prints TAP and then powers the domain off.
#[macro_export]
macro_rules! test {
    ($run:path) => {
        fn guest_pv_test() {
            let mut tap = $crate::tap::Tap::new();
            $run(&mut tap);
            tap.finish();
        }
        $crate::entry!(guest_pv_test);
    };
}
