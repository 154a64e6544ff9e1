//! The seam to the binary above: what machine calls, and how the binary says who answers.
//!
//! Unsafe: functions of the binary above are called by their symbols.

use crate::boot_info::BootInfo;
use crate::mem::boot_frames::BootFrames;
use logic::{lock::Held, regs::GuestRegs, trap::iret};

/// An exception raised by a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Vector, 0-31.
    pub vector: u8,
    /// Error code, or 0 for vectors that have none.
    pub error_code: u32,
    /// CR2 for a page fault, DR6 for a debug exception, else 0.
    pub detail: u64,
}

/// How a guest asked for a service without a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `syscall` in 64-bit mode: a hypercall in kernel mode, the guest's own system call in user mode.
    Syscall64,
    /// `syscall` in compatibility mode (AMD).
    Syscall32,
    /// `sysenter`; rip and rsp of the caller are not known.
    Sysenter,
}

/// How the entry code is to load a frame that is fit for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return(pub(crate) u8);

/// Of a guest's frame what `iret` can change; all other registers stay the guest's. Whatever is put into it is fit for a guest.
#[repr(C)]
pub struct ShortFrame {
    /// r10, r9, r8.
    kept_low: [u64; 3],
    rax: u64,
    rcx: u64,
    /// rdx, rsi, rdi.
    kept_high: [u64; 3],
    r11: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Says that a [`ShortFrame`] is complete.
pub struct Loaded(());

impl ShortFrame {
    /// The caller's stack pointer.
    #[inline(always)]
    #[must_use]
    pub const fn rsp(&self) -> u64 {
        self.rsp
    }

    /// Code selector and flags, with the bits that are a guest's.
    #[inline(always)]
    pub const fn set_code_and_flags(&mut self, cs: u64, rflags: u64) {
        self.cs = iret::selector(cs);
        self.rflags = iret::flags(rflags);
    }

    /// All the rest, after which there is no other way than to the guest. `words`: rax, r11, rcx, rip, rsp, ss.
    #[inline(always)]
    #[must_use]
    pub const fn complete(&mut self, words: [u64; 6]) -> Loaded {
        [self.rax, self.r11, self.rcx, self.rip, self.rsp, self.ss] = words;
        self.ss = iret::selector(self.ss);
        Loaded(())
    }
}

/// What the hypervisor above the machine floor provides. All upcalls run on this CPU's stack with interrupts off.
///
/// Where the stack is empty no lock can be held, so here the right to take any lock comes into being: this floor hands it
/// out, nobody else.
///
/// An upcall from a guest is followed by the return to what `regs` describes (with the privilege bits forced to those of a
/// guest). Those that return a [`Return`] do last what [`Hypervisor::before_guest`] does.
pub trait Hypervisor: Sized + 'static {
    /// What one CPU owns. Exactly one upcall at a time holds the reference to it.
    type Cpu: 'static;

    /// Called once on the boot processor when there is a heap and a console. `frames` is all memory that is free. Ends in
    /// [`run`](crate::arch::x86_64::cpu::run) or in a panic.
    fn start(boot: BootInfo, frames: BootFrames, held: Held<'static, 0>) -> !;

    /// Called on each other processor once the boot processor has called
    /// [`start_secondaries`](crate::arch::x86_64::smp::start_secondaries). Ends in
    /// [`run`](crate::arch::x86_64::cpu::run).
    fn start_secondary(number: u32) -> !;

    /// A guest executed `syscall` or `sysenter`.
    fn call(cpu: &mut Self::Cpu, regs: &mut GuestRegs, call: Call, held: Held<'static, 0>) -> Return;

    /// A guest executed `syscall` with the number of `iret` in rax. None: it takes more than this, and nothing is lost: the
    /// stack pointer is still the caller's. [`Hypervisor::call`] follows.
    fn iret(cpu: &mut Self::Cpu, frame: &mut ShortFrame) -> Option<Loaded>;

    /// A guest raised an exception.
    fn exception(cpu: &mut Self::Cpu, regs: &mut GuestRegs, exception: Exception, held: Held<'static, 0>) -> Return;

    /// A device or inter-processor interrupt arrived: while a guest ran, or while this CPU idled or had opened its
    /// window (then it is delivered when the window closes).
    fn interrupt(cpu: &mut Self::Cpu, vector: u8, held: Held<'static, 0>);

    /// The frame could not be loaded: a selector is not what the guest's tables hold. `regs` is what was tried.
    fn bad_return(cpu: &mut Self::Cpu, regs: &mut GuestRegs, exception: Exception, held: Held<'static, 0>) -> Return;

    /// Called last before every return to a guest; also the place where the scheduler changes the vCPU. Returns when
    /// `regs` is the frame of the guest to run.
    fn before_guest(cpu: &mut Self::Cpu, regs: &mut GuestRegs, held: Held<'static, 0>);
}

/// The token of a CPU that holds no lock, for `bind!`.
#[doc(hidden)]
#[must_use]
pub const fn no_lock() -> Held<'static, 0> {
    Held::entry()
}

/// Names the type that answers the upcalls: `machine::bind!(MyHypervisor);`, once, in the binary.
#[macro_export]
macro_rules! bind {
    ($hypervisor:ty) => {
        const _: () = {
            use $crate::GuestRegs;
            use $crate::arch::x86_64::dispatch;
            use $crate::upcall::ShortFrame;

            type Cpu = <$hypervisor as $crate::upcall::Hypervisor>::Cpu;

            #[unsafe(no_mangle)]
            extern "C" fn upcall_start() -> ! {
                let (boot, frames) = $crate::arch::x86_64::boot::take_handover();
                <$hypervisor as $crate::upcall::Hypervisor>::start(boot, frames, $crate::upcall::no_lock())
            }

            #[unsafe(no_mangle)]
            extern "C" fn upcall_start_secondary(number: u32) -> ! {
                <$hypervisor as $crate::upcall::Hypervisor>::start_secondary(number)
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn upcall_call(cpu: *mut Cpu, regs: *mut GuestRegs) -> u8 {
                // SAFETY: only the entry code calls this symbol.
                unsafe { dispatch::call::<$hypervisor>(cpu, regs) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn upcall_iret(cpu: *mut Cpu, frame: *mut ShortFrame) -> bool {
                // SAFETY: only the entry code calls this symbol.
                unsafe { dispatch::iret::<$hypervisor>(cpu, frame) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn upcall_other_call(cpu: *mut Cpu, regs: *mut GuestRegs) -> u8 {
                // SAFETY: only the entry code calls this symbol.
                unsafe { dispatch::other_call::<$hypervisor>(cpu, regs) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn upcall_trap(cpu: *mut Cpu, regs: *mut GuestRegs) -> u8 {
                // SAFETY: only the entry code calls this symbol.
                unsafe { dispatch::trap::<$hypervisor>(cpu, regs) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn upcall_return_failed(cpu: *mut Cpu, regs: *mut GuestRegs) -> u8 {
                // SAFETY: only the entry code calls this symbol.
                unsafe { dispatch::return_failed::<$hypervisor>(cpu, regs) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn upcall_first_return(cpu: *mut Cpu, regs: *mut GuestRegs) -> u8 {
                // SAFETY: only the entry code calls this symbol.
                unsafe { dispatch::first_return::<$hypervisor>(cpu, regs) }
            }
        };
    };
}
