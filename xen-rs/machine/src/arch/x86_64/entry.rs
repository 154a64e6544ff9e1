//! Every way into the hypervisor, in assembly: exceptions, interrupts, and the way back to a guest.
//!
//! Each entry leaves one [`GuestRegs`] on the stack. From a guest (CS with a ring) the frame is the last thing below
//! [`PerCpu`](super::percpu::PerCpu) on the main stack. The asynchronous entries that can hit any instruction of the
//! entry path (#DB, NMI, #MC) and #DF have stacks of their own.
//!
//! Unsafe: every entry is assembly, and so is the way back to a guest.

use super::percpu::{PerCpu, REGION, TOP};
use crate::upcall::ShortFrame;
use core::arch::global_asm;
use logic::regs::GuestRegs;

global_asm!(
    r#"
    .pushsection .text.entry, "ax"

    .macro PUSH_REGS
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %rax
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    .endm

    .macro POP_REGS
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rax
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    .endm

    // Three bytes that boot turns into clac where the CPU has SMAP: a guest can arrive with AC set.
    .macro ALT_CLAC
    771: .byte 0x0f, 0x1f, 0x00
    .pushsection .alt_table, "a"
    .long 771b - ., 1
    .popsection
    .endm

    // The way back where the registers that a called function preserves are still the guest's, below the word that aligned
    // the stack; where they are not, on to \all. What it leaves for iretq is at \iretq, which may fault.
    .macro RETURN_KEPT all, iretq
    cmpb ${kept_by_sysret}, %al
    jb \all
    movq 64(%rsp), %r10
    movq 72(%rsp), %r9
    movq 80(%rsp), %r8
    movq 88(%rsp), %rax
    movq 104(%rsp), %rdx
    movq 112(%rsp), %rsi
    movq 120(%rsp), %rdi
    ja 2f
    movq 136(%rsp), %rcx
    movq 152(%rsp), %r11
773: movq 160(%rsp), %rsp
    sysretq
2:  movq 56(%rsp), %r11
    movq 96(%rsp), %rcx
774: leaq 136(%rsp), %rsp
\iretq:
    iretq
    EX_TABLE \iretq, return_failed
    .pushsection .text.entry.verw, "ax"
775: verw verw_selector(%rip)
    movq 160(%rsp), %rsp
    sysretq
776: verw verw_selector(%rip)
    leaq 136(%rsp), %rsp
    jmp \iretq
    .popsection
    ALT_JUMP 773b, 775b, {jump_verw}
    ALT_JUMP 774b, 776b, {jump_verw}
    .endm

    // What an upcall is told that is entered from a guest: this CPU's object, and the frame, which ends where `PerCpu` begins.
    // Aligns the stack, too.
    .macro FRAME_OF_GUEST
    movq %rsp, %rsi
    movq {cpu_behind_frame}(%rsp), %rdi
    pushq %rsi
    .endm

    // An instruction of five bytes or more that boot may turn into a jump (or a call) to \to.
    .macro ALT_JUMP from, to, kind
    .pushsection .alt_jumps, "a"
    .long \from - ., \to - ., \kind
    .popsection
    .endm

    // Calls a function that is not told of what returns a guest has made: where boot wants it, the return stack buffer is
    // filled first, with places where speculation ends, and before that what guests have taught the branch predictor is
    // forgotten. All that it changes is rcx and flags.
    .macro CALL_UPCALL function
772: call \function
    .pushsection .text.entry.rsb, "ax"
777: movl $16, %ecx
778: call 780f
779: pause
    lfence
    jmp 779b
780: call 782f
781: pause
    lfence
    jmp 781b
782: decl %ecx
    jnz 778b
    addq $256, %rsp
    jmp \function
783: pushq %rax
    pushq %rdx
    movl ${pred_cmd}, %ecx
    movl ${ibpb}, %eax
    xorl %edx, %edx
    wrmsr
    popq %rdx
    popq %rax
    jmp 777b
    .popsection
    ALT_JUMP 772b, 777b, {call_rsb}
    ALT_JUMP 772b, 783b, {call_ibpb}
    .endm

    .macro EX_TABLE insn, fixup
    .pushsection .ex_table, "a"
    .long \insn - ., \fixup - .
    .popsection
    .endm

    // One stub of 16 bytes for each vector: error code (or 0) and vector in one word.
    .balign 16
    .globl entry_stubs
entry_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    pushq $0
    .endif
    movl $vector, 4(%rsp)
    .if (vector == 1) || (vector == 2) || (vector == 8) || (vector == 18)
    jmp entry_own_stack
    .else
    jmp entry_common
    .endif
    .set vector, vector + 1
    .endr

    .balign 16
entry_common:
    PUSH_REGS
    cld
    ALT_CLAC
    testb $3, 136(%rsp)
    jz entry_from_hypervisor
entry_from_guest:
    FRAME_OF_GUEST
    CALL_UPCALL upcall_trap
    RETURN_KEPT 1f, trap_iretq
1:  addq $8, %rsp
return_to_guest:
    testb %al, %al
    POP_REGS
773: leaq 8(%rsp), %rsp
    jnz return_sysretq
    .globl return_iretq
return_iretq:
    iretq
return_sysretq:
    movq (%rsp), %rcx
    movq 16(%rsp), %r11
774: movq 24(%rsp), %rsp
    sysretq
    .pushsection .text.entry.verw, "ax"
775: leaq 8(%rsp), %rsp
    jnz return_sysretq
    verw verw_selector(%rip)
    jmp return_iretq
776: verw verw_selector(%rip)
    movq 24(%rsp), %rsp
    sysretq
    .balign 2
    // A segment of data that is always there.
verw_selector:
    .word 0xe02b
    .popsection
    ALT_JUMP 773b, 775b, {jump_verw}
    ALT_JUMP 774b, 776b, {jump_verw}
    // The frame could not be loaded. The registers are the guest's again and the five words of iretq are still there.
return_failed:
    pushq $0
    PUSH_REGS
    movq %rsp, %rsi
    movq %rsp, %rdi
    orq ${region_mask}, %rdi
    subq ${frame_from_end}, %rdi
    movq %rdi, %rdx
    cmpq %rdi, %rsi
    je 1f
    movl $21, %ecx
    rep movsq
    movq %rdx, %rsp
1:  FRAME_OF_GUEST
    CALL_UPCALL upcall_return_failed
    RETURN_KEPT 1f, failed_iretq
1:  addq $8, %rsp
    jmp return_to_guest

    EX_TABLE return_iretq, return_failed

entry_from_hypervisor:
    movq %rsp, %rdi
    // The CPU aligned the stack before its frame, so it is off by 8 now.
    pushq %rdi
    CALL_UPCALL upcall_hypervisor_trap
    addq $8, %rsp
    POP_REGS
    addq $8, %rsp
    iretq

entry_own_stack:
    PUSH_REGS
    cld
    ALT_CLAC
    testb $3, 136(%rsp)
    jz entry_from_hypervisor
    // A guest's #DB goes on like any exception, on the main stack.
    cmpl $1, 124(%rsp)
    jne 1f
    movq %rsp, %rsi
    movq %rsp, %rdi
    orq ${region_mask}, %rdi
    subq ${frame_from_end}, %rdi
    movq %rdi, %rsp
    movl $21, %ecx
    rep movsq
    jmp entry_from_guest
1:  xorl %ebp, %ebp
    movq %rsp, %rdi
    pushq %rdi
    CALL_UPCALL upcall_hypervisor_trap
    addq $8, %rsp
    xorl %eax, %eax
    jmp return_to_guest

    // The hot path, counted by the instruction.
    .balign 64
    .globl syscall_common
syscall_common:
    cmpq ${iret}, %rax
    je syscall_iret
syscall_long:
    PUSH_REGS
    FRAME_OF_GUEST
    CALL_UPCALL upcall_call
    RETURN_KEPT 1f, call_iretq
1:  addq $8, %rsp
    jmp return_to_guest

    // The hypercall iret: the frame below has room for what the call sets, which is rax, rcx, r11 and the last five words,
    // and holds what a called function may change: a `ShortFrame`. r11 takes the place of vector and error code.
    .balign 16
syscall_iret:
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %rax
    pushq %r8
    pushq %r9
    pushq %r10
    movq %rsp, %rsi
    movq {cpu_behind_short_frame}(%rsp), %rdi
    CALL_UPCALL upcall_iret
    testb %al, %al
    popq %r10
    popq %r9
    popq %r8
    popq %rax
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    jz 1f
    // popq %r11, in five bytes.
773: .byte 0x2e, 0x2e, 0x2e, 0x41, 0x5b
short_iretq:
    iretq
    EX_TABLE short_iretq, return_failed
    .pushsection .text.entry.verw, "ax"
775: verw verw_selector(%rip)
    popq %r11
    jmp short_iretq
    .popsection
    ALT_JUMP 773b, 775b, {jump_verw}
    // It takes more. All is as it was, but for r11, where SYSCALL had put the flags.
1:  movq 24(%rsp), %r11
    jmp syscall_long

    // SYSCALL from compatibility mode, and SYSENTER.
    .globl syscall_other
syscall_other:
    PUSH_REGS
    FRAME_OF_GUEST
    CALL_UPCALL upcall_other_call
    RETURN_KEPT 1f, other_iretq
1:  addq $8, %rsp
    jmp return_to_guest

    // The stubs that SYSCALL and SYSENTER lead to: a template that is copied into the first page of each CPU's region,
    // where distances from its beginning are distances from the beginning of the region.
    .balign 64
    .globl stub_base
stub_base:
    movq %rsp, stub_base + {scratch}(%rip)
    leaq stub_base + {top}(%rip), %rsp
    pushq $0xe02b
    pushq stub_base + {scratch}(%rip)
    pushq %r11
    pushq $0xe033
    pushq %rcx
    pushq stub_calls(%rip)
    jmp syscall_common
    .globl stub_syscall64_end
stub_syscall64_end:

    .org stub_base + 64, 0xcc
    movq %rsp, stub_base + {scratch}(%rip)
    leaq stub_base + {top}(%rip), %rsp
    pushq $0xe02b
    pushq stub_base + {scratch}(%rip)
    pushq %r11
    pushq $0xe023
    pushq %rcx
    pushq stub_calls + 8(%rip)
    jmp syscall_other
    .globl stub_syscall32_end
stub_syscall32_end:

    // SYSENTER leaves most flags alone; iretq would fault on NT.
    .org stub_base + 128, 0xcc
    pushq $0xe02b
    pushq $0
    pushfq
    pushq $2
    popfq
    pushq $0xe023
    pushq $0
    pushq stub_calls + 16(%rip)
    jmp syscall_other
    .globl stub_sysenter_end
stub_sysenter_end:

    // Error code and vector of the three calls: which one it is, and TRAP_SYSCALL.
    .balign 8
stub_calls:
    .quad 0x10000000000, 0x10000000001, 0x10000000002
    .globl stub_end
stub_end:

    .globl enter_guest_asm
    // Starts over on an empty main stack: rdi holds the place of the guest's frame.
enter_guest_asm:
    movq %rdi, %rsp
    xorl %ebp, %ebp
    FRAME_OF_GUEST
    call upcall_first_return
    addq $8, %rsp
    jmp return_to_guest

    .popsection
    "#,
    jump_verw = const super::alternatives::JUMP_VERW,
    call_rsb = const super::alternatives::CALL_RSB,
    call_ibpb = const super::alternatives::CALL_IBPB,
    pred_cmd = const super::speculation::PRED_CMD,
    ibpb = const super::speculation::PRED_CMD_IBPB,
    iret = const xen_abi::hypercall::HYPERVISOR_IRET,
    cpu_behind_frame = const size_of::<GuestRegs>() + core::mem::offset_of!(PerCpu, hypervisor_cpu),
    cpu_behind_short_frame = const size_of::<ShortFrame>() + core::mem::offset_of!(PerCpu, hypervisor_cpu),
    kept_by_sysret = const super::dispatch::KEPT_BY_SYSRET,
    region_mask = const REGION - 1,
    top = const TOP,
    scratch = const TOP + core::mem::offset_of!(PerCpu, scratch_rsp) as u64,
    // From the last byte of the region down to the guest's frame.
    frame_from_end = const REGION - 1 - (TOP - size_of::<GuestRegs>() as u64),
    options(att_syntax)
);

unsafe extern "C" {
    /// First of 256 entry stubs, 16 bytes each.
    pub(super) static entry_stubs: [u8; 4096];
}
