//! What is printed when the guest crashes by a trap it has no handler for.

use super::{EVENT, FAILSAFE, Frame, SYSCALL, peek};
use crate::{events, print, println};

const NAMES: [&str; 32] = [
    "divide error",
    "debug",
    "NMI",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection",
    "page fault",
    "reserved",
    "x87 error",
    "alignment check",
    "machine check",
    "SIMD error",
    "virtualization",
    "control protection",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "hypervisor injection",
    "VMM communication",
    "security",
    "reserved",
];

fn name(vector: u64) -> &'static str {
    match vector {
        EVENT => "event upcall",
        SYSCALL => "syscall from user mode",
        FAILSAFE => "failsafe callback",
        _ => NAMES.get(vector as usize).copied().unwrap_or("software interrupt"),
    }
}

/// Prints registers, code and stack.
pub(super) fn crash(f: &Frame) {
    let mode = if f.from_user() { "user" } else { "kernel" };
    println!("guest crash: {} (vector {}, error {:#x}) in {mode} mode", name(f.vector), f.vector, f.error);
    println!(
        "  rip {:016x}  cs {:04x}  events {}  rflags {:08x}",
        f.rip,
        f.cs & 0xffff,
        if f.events_masked() { "masked" } else { "open" },
        f.rflags
    );
    println!("  rsp {:016x}  ss {:04x}  cr2 {:016x}", f.rsp, f.ss & 0xffff, events::cr2());
    println!("  rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}", f.rax, f.rbx, f.rcx, f.rdx);
    println!("  rsi {:016x}  rdi {:016x}  rbp {:016x}  r8  {:016x}", f.rsi, f.rdi, f.rbp, f.r8);
    println!("  r9  {:016x}  r10 {:016x}  r11 {:016x}  r12 {:016x}", f.r9, f.r10, f.r11, f.r12);
    println!("  r13 {:016x}  r14 {:016x}  r15 {:016x}", f.r13, f.r14, f.r15);
    print!("  code:");
    for word in 0..2 {
        if let Some(value) = peek(f.rip.wrapping_add(word * 8)) {
            value.to_le_bytes().iter().for_each(|byte| print!(" {byte:02x}"));
        }
    }
    println!();
    print!("  stack:");
    for word in 0..16 {
        if word % 4 == 0 && word != 0 {
            print!("\n        ");
        }
        match peek(f.rsp.wrapping_add(word * 8)) {
            Some(value) => print!(" {value:016x}"),
            None => print!(" (not mapped)"),
        }
    }
    println!();
    // Frame pointers are kept in this build, so the callers can be followed.
    print!("  callers:");
    let mut rbp = f.rbp;
    for _ in 0..16 {
        let (Some(next), Some(address)) = (peek(rbp), peek(rbp.wrapping_add(8))) else { break };
        print!(" {address:x}");
        if next <= rbp {
            break;
        }
        rbp = next;
    }
    println!();
}
