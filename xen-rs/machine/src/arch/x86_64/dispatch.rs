//! Between the entry code and the upcalls: sorts out what machine handles itself, hands the rest to the hypervisor above,
//! and makes every frame that leaves for a guest harmless.
//!
//! Unsafe: called by assembly with pointers to what it saved.

use super::percpu;
use super::{exception_table, interrupts, panic, power};
use crate::mem::layout::is_canonical;
use crate::upcall::{Call, Exception, Hypervisor, Return, ShortFrame};
use core::arch::asm;
use core::sync::atomic::Ordering;
use logic::lock::Held;
use logic::regs::{GuestRegs, TRAP_SYSCALL, rflags, selector};

/// First vector that is not an exception.
const FIRST_INTERRUPT: u32 = 32;

/// What the entry code hands over: this CPU's `H::Cpu`, as `PerCpu::hypervisor_cpu` has it, and the guest's frame.
///
/// # Safety
/// Called with what the entry code says, once in each entry. `enter_guest` has taken the object for good, and at most one
/// reference to it lives at a time: only the outermost entry from a guest makes one, and interrupts that hit the hypervisor
/// itself do not reach the upcalls. The frame is on this CPU's stack, and the entry code does not touch it meanwhile.
#[inline(always)]
unsafe fn handed_over<C, F>(cpu: *mut C, frame: *mut F) -> (&'static mut C, &'static mut F) {
    // SAFETY: the caller's promise.
    unsafe { (&mut *cpu, &mut *frame) }
}

/// SYSRET may be used, and of the frame's registers that a called function preserves none was changed. What is above this
/// is the same by IRETQ, what is below loads all registers.
pub(super) const KEPT_BY_SYSRET: u8 = 2;

impl Return {
    /// The frame has to be loaded by IRETQ.
    const BY_IRET: Self = Self(0);
    /// SYSRET may be used.
    const BY_SYSRET: Self = Self(1);

    /// Forces what a guest may not choose.
    #[inline(always)]
    pub fn to(regs: &mut GuestRegs) -> Self {
        if !flags_are_good(regs) {
            regs.rflags = (regs.rflags & !FORBIDDEN) | rflags::IF | rflags::FIXED;
        }
        if regs.entry_vector == TRAP_SYSCALL {
            // SYSRET loads fixed selectors and must not be told a rip that is not canonical: it would fault in ring 0.
            if regs.cs != u64::from(selector::FLAT_RING3_CS32) && is_canonical(regs.rip) {
                return Self::BY_SYSRET;
            }
            like_sysret(regs);
        }
        regs.cs |= 3;
        regs.ss |= 3;
        Self::BY_IRET
    }

    /// Of the frame's registers none has changed that a called function preserves, so that the CPU still has them: they
    /// are not loaded.
    #[inline(always)]
    #[must_use]
    pub const fn keeping(self) -> Self {
        // 0 and 3 by IRETQ, 1 and 2 by SYSRET.
        Self(self.0 ^ 3)
    }

    /// [`Return::to`] and [`Return::keeping`] for a [`Call::Syscall64`] after which the guest goes on behind its `syscall`.
    /// None where that is not to be had.
    #[inline(always)]
    #[must_use]
    pub fn in_place(regs: &GuestRegs) -> Option<Self> {
        // Whatever else the frame says, with these two right SYSRET does no harm.
        (flags_are_good(regs) && is_canonical(regs.rip)).then_some(Self(KEPT_BY_SYSRET))
    }
}

/// Last steps before the return: upcall, then force what a guest may not choose.
#[inline(always)]
fn finish<H: Hypervisor>(cpu: &mut H::Cpu, regs: &mut GuestRegs) -> u8 {
    H::before_guest(cpu, regs, Held::entry());
    Return::to(regs).0
}

/// Whether the flags are those of a guest.
#[inline(always)]
const fn flags_are_good(regs: &GuestRegs) -> bool {
    regs.rflags & (rflags::IF | FORBIDDEN) == rflags::IF
}

/// What SYSRET leaves in the registers, where IRET has to take its place.
#[cold]
fn like_sysret(regs: &mut GuestRegs) {
    if regs.cs == u64::from(selector::FLAT_RING3_CS32) {
        regs.rip &= 0xffff_ffff;
        regs.ss = selector::FLAT_RING3_SS.into();
    }
    regs.rcx = regs.rip;
    regs.r11 = regs.rflags;
}

/// Flags that a guest never runs with. NT is not among them: ring 3 sets it by itself, and the ways in clear it.
const FORBIDDEN: u64 = rflags::IOPL | rflags::VM;

/// `syscall` from 64-bit code of a guest.
///
/// # Safety
/// Called by the entry code alone, with the guest's frame.
#[inline(always)]
pub unsafe fn call<H: Hypervisor>(cpu: *mut H::Cpu, regs: *mut GuestRegs) -> u8 {
    // SAFETY: an entry from a guest.
    let (cpu, regs) = unsafe { handed_over(cpu, regs) };
    H::call(cpu, regs, Call::Syscall64, Held::entry()).0
}

/// `syscall` from 64-bit code of a guest with the number of `iret` in rax: whether the frame is to be loaded. Where it is not,
/// [`call`] follows.
///
/// # Safety
/// Called by the entry code alone, with as much of a frame as that call can change.
#[inline(always)]
pub unsafe fn iret<H: Hypervisor>(cpu: *mut H::Cpu, frame: *mut ShortFrame) -> bool {
    // SAFETY: an entry from a guest.
    let (cpu, frame) = unsafe { handed_over(cpu, frame) };
    H::iret(cpu, frame).is_some()
}

/// `syscall` from compatibility mode, or `sysenter`.
///
/// # Safety
/// Called by the entry code alone, with the guest's frame.
pub unsafe fn other_call<H: Hypervisor>(cpu: *mut H::Cpu, regs: *mut GuestRegs) -> u8 {
    // SAFETY: an entry from a guest.
    let (cpu, regs) = unsafe { handed_over(cpu, regs) };
    let call = if regs.error_code == 1 { Call::Syscall32 } else { Call::Sysenter };
    H::call(cpu, regs, call, Held::entry()).0
}

/// Exception or interrupt that hit a guest.
///
/// # Safety
/// Called by the entry code alone, with the guest's frame.
#[inline(always)]
pub unsafe fn trap<H: Hypervisor>(cpu: *mut H::Cpu, regs: *mut GuestRegs) -> u8 {
    // SAFETY: an entry from a guest.
    let (cpu, regs) = unsafe { handed_over(cpu, regs) };
    if regs.entry_vector < FIRST_INTERRUPT {
        return H::exception(cpu, regs, exception(regs), Held::entry()).0;
    }
    interrupt::<H>(cpu, regs)
}

/// Not a part of [`trap`], so that the way to an exception saves no registers.
#[inline(never)]
fn interrupt<H: Hypervisor>(cpu: &mut H::Cpu, regs: &mut GuestRegs) -> u8 {
    interrupts::arrived(regs.entry_vector as u8);
    deliver_interrupts::<H>(cpu);
    finish::<H>(cpu, regs)
}

/// The return to the guest failed.
///
/// # Safety
/// Called by the entry code alone, with the frame that was tried.
pub unsafe fn return_failed<H: Hypervisor>(cpu: *mut H::Cpu, regs: *mut GuestRegs) -> u8 {
    // SAFETY: the upcalls of the failed return are over.
    let (cpu, regs) = unsafe { handed_over(cpu, regs) };
    let per_cpu = percpu::this();
    regs.entry_vector = per_cpu.fault_vector.load(Ordering::Relaxed);
    regs.error_code = per_cpu.fault_error.load(Ordering::Relaxed);
    H::bad_return(cpu, regs, exception(regs), Held::entry()).0
}

/// The first guest of this CPU.
///
/// # Safety
/// Called by the entry code alone, with an empty frame.
pub unsafe fn first_return<H: Hypervisor>(cpu: *mut H::Cpu, regs: *mut GuestRegs) -> u8 {
    // SAFETY: nothing else runs on this CPU.
    let (cpu, regs) = unsafe { handed_over(cpu, regs) };
    *regs = GuestRegs::default();
    finish::<H>(cpu, regs)
}

/// What the CPU says about an exception besides its frame.
#[inline]
fn exception(regs: &GuestRegs) -> Exception {
    let detail = match regs.entry_vector {
        1 => {
            let dr6: u64;
            // SAFETY: DR6 is sticky: read it and set it to its idle value.
            unsafe {
                asm!("mov {}, dr6", out(reg) dr6, options(nomem, nostack, preserves_flags));
                asm!("mov dr6, {}", in(reg) 0xffff_0ff0_u64, options(nomem, nostack, preserves_flags));
            }
            dr6
        }
        14 => {
            let cr2: u64;
            // SAFETY: reads a register.
            unsafe { asm!("mov {}, cr2", out(reg) cr2, options(nomem, nostack, preserves_flags)) };
            cr2
        }
        _ => 0,
    };
    Exception { vector: regs.entry_vector as u8, error_code: regs.error_code, detail }
}

/// Hands every interrupt that has arrived to the hypervisor above.
#[inline]
fn deliver_interrupts<H: Hypervisor>(cpu: &mut H::Cpu) {
    while let Some(vector) = interrupts::take() {
        H::interrupt(cpu, vector, Held::entry());
    }
}

/// Exception or interrupt that hit the hypervisor itself, and NMI or #MC wherever they hit.
#[unsafe(no_mangle)]
extern "C" fn upcall_hypervisor_trap(regs: &mut GuestRegs) {
    let per_cpu = percpu::this();
    match regs.entry_vector {
        // Single step or a breakpoint that a guest set: SYSENTER does not clear TF, and MOV SS delays #DB into an entry.
        1 if regs.cs & 3 == 0 => {
            regs.rflags &= !rflags::TF;
            exception(regs);
        }
        2 if per_cpu.panicking.load(Ordering::Relaxed) => power::halt(),
        FIRST_INTERRUPT.. => interrupts::arrived(regs.entry_vector as u8),
        vector => match exception_table::find(regs.rip) {
            // #DB, NMI, #DF and #MC are never what a fault at an instruction means.
            Some(target) if !matches!(vector, 1 | 2 | 8 | 18) && regs.cs & 3 == 0 => {
                per_cpu.fault_vector.store(vector, Ordering::Relaxed);
                per_cpu.fault_error.store(regs.error_code, Ordering::Relaxed);
                regs.rip = target;
            }
            _ => panic::fatal_exception(regs),
        },
    }
}
