//! The last words of the hypervisor: what went wrong, registers, stack, backtrace, build id.
//!
//! Unsafe: a stack that may be broken is walked.

use super::percpu::{self, REGION};
use super::{power, serial};
use core::arch::asm;
use core::sync::atomic::Ordering;
use logic::regs::GuestRegs;
use logic::symbols;

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __build_id_start: [u8; 36];
    static __load_start: u8;
    static __symbols_start: u8;
    static __symbols_end: u8;
}

/// An address in the image, with the name of its function where the build has put a table of them.
enum Address {
    /// Of the instruction itself.
    Instruction(u64),
    /// Where a call returns to: behind it, maybe even behind its function, if that does not return.
    Return(u64),
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (start, end) = (&raw const __symbols_start, &raw const __symbols_end);
        // SAFETY: the linker's script leaves this room in the image's constants.
        let table = unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) };
        let (address, back) = match *self {
            Self::Instruction(address) => (address, 0),
            Self::Return(address) => (address, 1),
        };
        write!(f, "[<{address:016x}>]")?;
        let offset = address.checked_sub((&raw const __load_start) as u64 + u64::from(back));
        match offset.and_then(|offset| symbols::find(table, u32::try_from(offset).ok()?)) {
            Some(place) => write!(f, " {}", symbols::Place { offset: place.offset + back, ..place }),
            None => Ok(()),
        }
    }
}

macro_rules! say {
    ($($arg:tt)*) => {
        serial::write_panic(format_args!("(XEN) {}\n", format_args!($($arg)*)))
    };
}

const NAMES: [&str; 32] = [
    "divide error",
    "debug exception",
    "NMI",
    "breakpoint",
    "overflow",
    "bound range",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection fault",
    "page fault",
    "reserved 15",
    "x87 error",
    "alignment check",
    "machine check",
    "SIMD error",
    "virtualization",
    "control protection",
    "reserved 22",
    "reserved 23",
    "reserved 24",
    "reserved 25",
    "reserved 26",
    "reserved 27",
    "hypervisor injection",
    "VMM communication",
    "security",
    "reserved 31",
];

/// Name of an exception vector.
#[must_use]
pub fn exception_name(vector: u32) -> &'static str {
    usize::try_from(vector).ok().and_then(|v| NAMES.get(v)).copied().unwrap_or("interrupt")
}

fn in_text(address: u64) -> bool {
    address >= (&raw const __text_start) as u64 && address < (&raw const __text_end) as u64
}

/// Reads a word of the running CPU's own stack region, if it is one that is always mapped.
fn stack_word(address: u64) -> Option<u64> {
    let region = percpu::region();
    let offset = address.checked_sub(region)?;
    let mapped = (percpu::IST_STACKS..=REGION - 8).contains(&offset)
        && !(percpu::GUARD..percpu::GUARD + 0x1000).contains(&offset);
    if !mapped || !address.is_multiple_of(8) {
        return None;
    }
    // SAFETY: inside this CPU's region and not in the guard page: mapped, initialised by the CPU or zero.
    Some(unsafe { (address as *const u64).read_volatile() })
}

/// The SHA-1 that the linker has given this build.
#[must_use]
pub fn build_id() -> [u8; 20] {
    // SAFETY: the linker puts the note there (16 bytes of header, 20 of SHA-1).
    let note = unsafe { (&raw const __build_id_start).read() };
    let mut id = [0; 20];
    id.iter_mut().zip(note.iter().skip(16)).for_each(|(to, from)| *to = *from);
    id
}

fn print_build() {
    let id = build_id();
    let mut text = [0u8; 40];
    let digits = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(id) {
        if let [high, low] = pair {
            *high = digits.get(usize::from(byte >> 4)).copied().unwrap_or(b'?');
            *low = digits.get(usize::from(byte & 15)).copied().unwrap_or(b'?');
        }
    }
    say!("----[ xen-rs {}  build {} ]----", env!("CARGO_PKG_VERSION"), core::str::from_utf8(&text).unwrap_or("?"));
}

fn print_stack(rsp: u64) {
    say!("stack from {rsp:016x}:");
    for line in 0..6 {
        let at = rsp + line * 32;
        let word = |i: u64| stack_word(at + i * 8);
        let Some(first) = word(0) else { return };
        say!(
            "   {first:016x} {:016x} {:016x} {:016x}",
            word(1).unwrap_or(0),
            word(2).unwrap_or(0),
            word(3).unwrap_or(0)
        );
    }
}

/// Follows the frames of this CPU's stack: the return addresses, from the innermost on.
fn backtrace(mut rbp: u64, mut each: impl FnMut(Address)) {
    for _ in 0..32 {
        let (Some(next), Some(ret)) = (stack_word(rbp), stack_word(rbp.wrapping_add(8))) else {
            return;
        };
        if !in_text(ret) {
            return;
        }
        each(Address::Return(ret));
        if next <= rbp {
            return;
        }
        rbp = next;
    }
}

fn print_backtrace(rip: Option<u64>, rbp: u64) {
    say!("call trace:");
    if let Some(rip) = rip {
        say!("   {}", Address::Instruction(rip));
    }
    backtrace(rbp, |address| say!("   {address}"));
}

/// Logs from where this function was called.
pub fn show_trace() {
    let rbp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    log::warn!("call trace of CPU {}:", percpu::number());
    backtrace(rbp, |address| log::warn!("   {address}"));
}

/// Whether this CPU may go on to print; a second fatal error while printing stops at once.
fn begin() {
    if percpu::this().panicking.swap(true, Ordering::Relaxed) {
        serial::write_panic(format_args!("(XEN) error inside an error report\n"));
        power::stop_after_error();
    }
    crate::mailbox::stop_others();
    print_build();
}

fn finish(message: core::fmt::Arguments<'_>) -> ! {
    say!("****************************************");
    say!("Panic on CPU {}:", percpu::number());
    say!("{message}");
    say!("****************************************");
    power::stop_after_error()
}

/// An exception in the hypervisor itself that nothing expected.
pub fn fatal_exception(regs: &GuestRegs) -> ! {
    begin();
    let (cr0, cr2, cr3, cr4): (u64, u64, u64, u64);
    // SAFETY: reads control registers.
    unsafe {
        asm!("mov {}, cr0", "mov {}, cr2", "mov {}, cr3", "mov {}, cr4",
             out(reg) cr0, out(reg) cr2, out(reg) cr3, out(reg) cr4, options(nomem, nostack, preserves_flags));
    }
    say!("CPU:    {}", percpu::number());
    say!("RIP:    {:04x}:{}", regs.cs & 0xffff, Address::Instruction(regs.rip));
    say!("RFLAGS: {:016x}   vector {:02x} error code {:04x}", regs.rflags, regs.entry_vector, regs.error_code);
    say!("rax: {:016x}   rbx: {:016x}   rcx: {:016x}", regs.rax, regs.rbx, regs.rcx);
    say!("rdx: {:016x}   rsi: {:016x}   rdi: {:016x}", regs.rdx, regs.rsi, regs.rdi);
    say!("rbp: {:016x}   rsp: {:016x}   r8:  {:016x}", regs.rbp, regs.rsp, regs.r8);
    say!("r9:  {:016x}   r10: {:016x}   r11: {:016x}", regs.r9, regs.r10, regs.r11);
    say!("r12: {:016x}   r13: {:016x}   r14: {:016x}", regs.r12, regs.r13, regs.r14);
    say!("r15: {:016x}   cr0: {cr0:016x}   cr4: {cr4:016x}", regs.r15);
    say!("cr3: {cr3:016x}   cr2: {cr2:016x}",);
    if in_text(regs.rip) {
        let mut code = [0u8; 16];
        for (place, address) in code.iter_mut().zip(regs.rip..) {
            if in_text(address) {
                // SAFETY: an address in the image's text.
                *place = unsafe { (address as *const u8).read() };
            }
        }
        say!("code:   {code:02x?}");
    }
    print_stack(regs.rsp);
    print_backtrace(Some(regs.rip), regs.rbp);
    if percpu::region() + percpu::GUARD == cr2 & !0xfff && matches!(regs.entry_vector, 8 | 14) {
        finish(format_args!("the hypervisor's stack overflowed"));
    }
    finish(format_args!("FATAL TRAP: vector = {} ({})", regs.entry_vector, exception_name(regs.entry_vector)))
}

/// A Rust panic.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    begin();
    let (rbp, rsp): (u64, u64);
    // SAFETY: reads registers.
    unsafe { asm!("mov {}, rbp", "mov {}, rsp", out(reg) rbp, out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    print_stack(rsp);
    print_backtrace(None, rbp);
    match info.location() {
        Some(place) => finish(format_args!("{}:{}: {}", place.file(), place.line(), info.message())),
        None => finish(format_args!("{}", info.message())),
    }
}
