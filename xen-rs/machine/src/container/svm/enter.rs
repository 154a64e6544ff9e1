//! The way into a guest and back.
//!
//! Unsafe: assembly that exchanges all registers.

use logic::regs::GuestRegs;

use crate::container::entry_code::entry_code;

unsafe extern "C" {
    /// Runs the guest of a block until it comes back.
    pub(super) fn svm_enter(regs: *mut GuestRegs, vmcb: u64);
}

entry_code!(
    r#"
    .pushsection .text.svm, "ax"
    .globl svm_enter
    // rdi: the guest's registers, rsi: physical address of its block.
svm_enter:
    KEEP_OWN
    push rdi
    mov rax, rsi
    LOAD_GUEST
    // Until `stgi` nothing interrupts; IF says what interrupts the guest.
    clgi
    sti
    vmrun rax
    cli
    stgi
    pop rax
    STORE_GUEST
    FILL_RETURNS
    TAKE_OWN
    ret
    .popsection
    "#
);
