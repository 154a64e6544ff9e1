//! The way into a guest and back.
//!
//! Unsafe: assembly that exchanges all registers.

use logic::regs::GuestRegs;

use super::fields::Field;
use crate::container::entry_code::entry_code;

unsafe extern "C" {
    /// Enters the guest of the current VMCS, which has this stack pointer of the host's. 0: it came back; 1: the entry was
    /// refused.
    pub(super) fn vmx_enter(regs: *mut GuestRegs, launched: u64, host_rsp: *mut u64) -> u64;
    /// Where exits come back to.
    pub(super) static vmx_exit: u8;
}

entry_code!(
    r#"
    .pushsection .text.vmx, "ax"
    .globl vmx_enter
    .globl vmx_exit
    // rdi: the guest's registers, rsi: 0 for the first entry since the VMCS was loaded, rdx: the stack pointer that it has.
vmx_enter:
    KEEP_OWN
    push rdi
    cmp rsp, [rdx]
    je 1f
    mov [rdx], rsp
    mov eax, {host_rsp}
    vmwrite rax, rsp
1:  test rsi, rsi
    mov rax, [rdi + {rax}]
    LOAD_GUEST
    jnz 2f
    vmlaunch
    jmp 3f
2:  vmresume
3:  mov eax, 1
    add rsp, 8
    jmp 4f
vmx_exit:
    // Not by `xchg` with memory, which locks the bus.
    push rax
    mov rax, [rsp + 8]
    STORE_GUEST
    pop rcx
    mov [rax + {rax}], rcx
    pop rcx
    FILL_RETURNS
    // The first `ret` is not predicted before the calls above are done, whatever the CPU made of its return stack at the exit.
    lfence
    xor eax, eax
4:  TAKE_OWN
    cld
    ret
    .popsection
    "#,
    host_rsp = const Field::HOST_RSP.0,
    rax = const core::mem::offset_of!(GuestRegs, rax),
);
