//! The way into a guest and back.
//!
//! Unsafe: assembly that exchanges all registers.

use logic::regs::GuestRegs;

use super::fields::Field;
use crate::container::entry_code::entry_code;

unsafe extern "C" {
    /// Enters the guest of the current VMCS. 0: it came back; 1: the entry was refused.
    pub(super) fn vmx_enter(regs: *mut GuestRegs, launched: u64) -> u64;
    /// Where exits come back to.
    pub(super) static vmx_exit: u8;
}

entry_code!(
    r#"
    .pushsection .text.vmx, "ax"
    .globl vmx_enter
    .globl vmx_exit
    // rdi: the guest's registers, rsi: 0 for the first entry since the VMCS was loaded.
vmx_enter:
    KEEP_OWN
    push rdi
    mov eax, {host_rsp}
    vmwrite rax, rsp
    test rsi, rsi
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
    xchg rax, [rsp]
    STORE_GUEST
    pop rcx
    mov [rax + {rax}], rcx
    FILL_RETURNS
    xor eax, eax
4:  TAKE_OWN
    cld
    ret
    .popsection
    "#,
    host_rsp = const Field::HOST_RSP.0,
    rax = const core::mem::offset_of!(GuestRegs, rax),
);
