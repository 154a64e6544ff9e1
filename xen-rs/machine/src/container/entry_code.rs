//! The registers that no container exchanges, for the ways in and out of both vendors' (`entry_code!`).
//!
//! Unsafe: none here; what is made of it is assembly.

/// `global_asm!` in which `KEEP_OWN` and `TAKE_OWN` are the registers that a called function preserves, pushed and popped;
/// `LOAD_GUEST` loads a guest's from the [`GuestRegs`](logic::regs::GuestRegs) at rdi, and `STORE_GUEST` stores them at rax:
/// all but rax, which is the vendors' affair. `FILL_RETURNS` comes before the first `ret` after a guest;
/// its last instruction is at 771. Operands are constants and, behind a semicolon, symbols.
macro_rules! entry_code {
    ($code:literal $(, $operand:ident = const $value:expr)* $(; $($name:ident = sym $symbol:path),*)? $(,)?) => {
        core::arch::global_asm!(
            ".macro KEEP_OWN",
            "push rbp",
            "push rbx",
            "push r12",
            "push r13",
            "push r14",
            "push r15",
            ".endm",
            ".macro TAKE_OWN",
            "pop r15",
            "pop r14",
            "pop r13",
            "pop r12",
            "pop rbx",
            "pop rbp",
            ".endm",
            ".macro LOAD_GUEST",
            "mov r15, [rdi + {r15}]",
            "mov r14, [rdi + {r14}]",
            "mov r13, [rdi + {r13}]",
            "mov r12, [rdi + {r12}]",
            "mov rbp, [rdi + {rbp}]",
            "mov rbx, [rdi + {rbx}]",
            "mov r11, [rdi + {r11}]",
            "mov r10, [rdi + {r10}]",
            "mov r9, [rdi + {r9}]",
            "mov r8, [rdi + {r8}]",
            "mov rcx, [rdi + {rcx}]",
            "mov rdx, [rdi + {rdx}]",
            "mov rsi, [rdi + {rsi}]",
            "mov rdi, [rdi + {rdi}]",
            ".endm",
            ".macro STORE_GUEST",
            "mov [rax + {r15}], r15",
            "mov [rax + {r14}], r14",
            "mov [rax + {r13}], r13",
            "mov [rax + {r12}], r12",
            "mov [rax + {rbp}], rbp",
            "mov [rax + {rbx}], rbx",
            "mov [rax + {r11}], r11",
            "mov [rax + {r10}], r10",
            "mov [rax + {r9}], r9",
            "mov [rax + {r8}], r8",
            "mov [rax + {rcx}], rcx",
            "mov [rax + {rdx}], rdx",
            "mov [rax + {rsi}], rsi",
            "mov [rax + {rdi}], rdi",
            ".endm",
            // 32 calls that return nowhere, with places behind them where speculation ends: what a guest has put into the
            // return stack buffer is not in it any more (APM vol. 2, 3.2.9; Intel's "Retpoline: A Branch Target Injection
            // Mitigation", 5). Unrolled, since a loop's branch could be predicted.
            ".macro FILL_RETURNS",
            ".rept 32",
            "call 770f",
            "int3",
            "770:",
            ".endr",
            "771: add rsp, 32 * 8",
            ".endm",
            $code,
            ".purgem FILL_RETURNS",
            ".purgem KEEP_OWN",
            ".purgem TAKE_OWN",
            ".purgem LOAD_GUEST",
            ".purgem STORE_GUEST",
            r15 = const core::mem::offset_of!(logic::regs::GuestRegs, r15),
            r14 = const core::mem::offset_of!(logic::regs::GuestRegs, r14),
            r13 = const core::mem::offset_of!(logic::regs::GuestRegs, r13),
            r12 = const core::mem::offset_of!(logic::regs::GuestRegs, r12),
            rbp = const core::mem::offset_of!(logic::regs::GuestRegs, rbp),
            rbx = const core::mem::offset_of!(logic::regs::GuestRegs, rbx),
            r11 = const core::mem::offset_of!(logic::regs::GuestRegs, r11),
            r10 = const core::mem::offset_of!(logic::regs::GuestRegs, r10),
            r9 = const core::mem::offset_of!(logic::regs::GuestRegs, r9),
            r8 = const core::mem::offset_of!(logic::regs::GuestRegs, r8),
            rcx = const core::mem::offset_of!(logic::regs::GuestRegs, rcx),
            rdx = const core::mem::offset_of!(logic::regs::GuestRegs, rdx),
            rsi = const core::mem::offset_of!(logic::regs::GuestRegs, rsi),
            rdi = const core::mem::offset_of!(logic::regs::GuestRegs, rdi),
            $($operand = const $value,)*
            $($($name = sym $symbol,)*)?
        );
    };
}
pub(super) use entry_code;
