//! The way into a guest and back.
//!
//! Unsafe: assembly that exchanges all registers.

use logic::regs::GuestRegs;

use crate::{
    arch::x86_64::{alternatives, lapic},
    container::entry_code::entry_code,
};

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
    // What `sti` holds off ends here; else it went on in the guest, and the guest's own `sti` there had no such effect.
    nop
    vmrun rax
    cli
    stgi
    pop rax
    STORE_GUEST
    FILL_RETURNS
    .pushsection .alt_jumps, "a"
    .long 771b - ., svm_emulated - ., {jump_emulated}
    .long 771b - ., svm_emulated_x2apic - ., {jump_emulated_x2apic}
    .popsection
svm_left:
    TAKE_OWN
    ret
    // QEMU's TCG forgets now and then that an interrupt waits in the APIC when it leaves a guest. The priority is 0 already;
    // writing it has the APIC look again (decision 0035).
svm_emulated:
    add rsp, 32 * 8
    mov rax, [rip + {lapic}]
    mov dword ptr [rax + {priority}], 0
    jmp svm_left
svm_emulated_x2apic:
    add rsp, 32 * 8
    mov ecx, {x2apic} + {priority} / 16
    xor eax, eax
    xor edx, edx
    wrmsr
    jmp svm_left
    .popsection
    "#,
    jump_emulated = const alternatives::JUMP_EMULATED,
    jump_emulated_x2apic = const alternatives::JUMP_EMULATED_X2APIC,
    x2apic = const lapic::X2APIC,
    priority = const lapic::TASK_PRIORITY;
    lapic = sym lapic::BASE,
);
