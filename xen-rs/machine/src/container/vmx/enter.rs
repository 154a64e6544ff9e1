//! The way into a guest and back.
//!
//! Unsafe: assembly that exchanges all registers.

use core::arch::global_asm;
use core::mem::offset_of;

use logic::regs::GuestRegs;

use super::fields::Field;

unsafe extern "C" {
    /// Enters the guest of the current VMCS. 0: it came back; 1: the entry was refused.
    pub(super) fn vmx_enter(regs: *mut GuestRegs, launched: u64) -> u64;
    /// Where exits come back to.
    pub(super) static vmx_exit: u8;
}

global_asm!(
    r#"
    .pushsection .text.vmx, "ax"
    .globl vmx_enter
    .globl vmx_exit
    // rdi: the guest's registers, rsi: 0 for the first entry since the VMCS was loaded.
vmx_enter:
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push rdi
    mov eax, {host_rsp}
    vmwrite rax, rsp
    test rsi, rsi
    mov r15, [rdi + {r15}]
    mov r14, [rdi + {r14}]
    mov r13, [rdi + {r13}]
    mov r12, [rdi + {r12}]
    mov rbp, [rdi + {rbp}]
    mov rbx, [rdi + {rbx}]
    mov r11, [rdi + {r11}]
    mov r10, [rdi + {r10}]
    mov r9, [rdi + {r9}]
    mov r8, [rdi + {r8}]
    mov rax, [rdi + {rax}]
    mov rcx, [rdi + {rcx}]
    mov rdx, [rdi + {rdx}]
    mov rsi, [rdi + {rsi}]
    mov rdi, [rdi + {rdi}]
    jnz 2f
    vmlaunch
    jmp 3f
2:  vmresume
3:  mov eax, 1
    add rsp, 8
    jmp 4f
vmx_exit:
    xchg rax, [rsp]
    mov [rax + {r15}], r15
    mov [rax + {r14}], r14
    mov [rax + {r13}], r13
    mov [rax + {r12}], r12
    mov [rax + {rbp}], rbp
    mov [rax + {rbx}], rbx
    mov [rax + {r11}], r11
    mov [rax + {r10}], r10
    mov [rax + {r9}], r9
    mov [rax + {r8}], r8
    mov [rax + {rcx}], rcx
    mov [rax + {rdx}], rdx
    mov [rax + {rsi}], rsi
    mov [rax + {rdi}], rdi
    pop rcx
    mov [rax + {rax}], rcx
    xor eax, eax
4:  pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    cld
    ret
    .popsection
    "#,
    host_rsp = const Field::HOST_RSP.0,
    r15 = const offset_of!(GuestRegs, r15),
    r14 = const offset_of!(GuestRegs, r14),
    r13 = const offset_of!(GuestRegs, r13),
    r12 = const offset_of!(GuestRegs, r12),
    rbp = const offset_of!(GuestRegs, rbp),
    rbx = const offset_of!(GuestRegs, rbx),
    r11 = const offset_of!(GuestRegs, r11),
    r10 = const offset_of!(GuestRegs, r10),
    r9 = const offset_of!(GuestRegs, r9),
    r8 = const offset_of!(GuestRegs, r8),
    rax = const offset_of!(GuestRegs, rax),
    rcx = const offset_of!(GuestRegs, rcx),
    rdx = const offset_of!(GuestRegs, rdx),
    rsi = const offset_of!(GuestRegs, rsi),
    rdi = const offset_of!(GuestRegs, rdi),
);
