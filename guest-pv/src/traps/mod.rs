//! Exceptions, software interrupts and the three callbacks (event, failsafe, syscall).
//!
//! Every entry ends in [`trap`], which calls the handler set for its number, or reports a crash and ends the domain.
//!
//! Unsafe: handlers are called by assembly, with a frame on the stack.

mod report;
mod stubs;

use crate::call;
use crate::power;
use crate::smp;
use core::cell::Cell;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use xen_abi::arch_x86::FLAT_KERNEL_CS;
use xen_abi::callback::{CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE, CALLBACKTYPE_SYSCALL};
use xen_abi::trap::{TI_IF, TrapInfo};

/// Number of the event callback, after the 256 vectors.
pub const EVENT: u64 = 256;
/// Number of the syscall callback.
pub const SYSCALL: u64 = 257;
/// Number of the failsafe callback.
pub const FAILSAFE: u64 = 258;
const NUMBERS: usize = 259;

/// The interrupted state. Handlers may change it; the guest goes on with what they leave.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Registers have their names.
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    /// Vector, or [`EVENT`], [`SYSCALL`], [`FAILSAFE`].
    pub vector: u64,
    /// Error code; 0 for vectors without one.
    pub error: u64,
    pub rip: u64,
    /// The selector in the low 16 bits, the saved event mask in bit 32.
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// The interrupt flag: on return, events are masked when it is clear.
pub const RFLAGS_IF: u64 = 1 << 9;

impl Frame {
    /// Did it interrupt user mode? (In the frames of a PV kernel, kernel mode has RPL 0.)
    pub fn from_user(&self) -> bool {
        self.cs & 3 == 3
    }

    /// Were event upcalls masked?
    pub fn events_masked(&self) -> bool {
        self.cs >> 32 & 1 != 0
    }

    /// Makes the interrupted code go on with event upcalls masked.
    pub fn mask_events(&mut self) {
        self.rflags &= !RFLAGS_IF;
    }
}

/// A handler of a trap.
pub type Handler = fn(&mut Frame);

static HANDLERS: [AtomicPtr<()>; NUMBERS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; NUMBERS];
/// Each vCPU's stack pointer of its innermost [`catch`], 0 outside.
static CATCH: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];

/// Sets the handler of a vector or callback; `None` restores the default, which is a crash report, except for events,
/// whose default keeps them masked until they are polled.
pub fn set_handler(number: u64, handler: Option<Handler>) {
    let pointer = handler.map_or(core::ptr::null_mut(), |handler| handler as *mut ());
    HANDLERS[number as usize].store(pointer, Ordering::Relaxed);
}

fn handler(number: u64) -> Option<Handler> {
    let pointer = HANDLERS[number as usize].load(Ordering::Relaxed);
    // SAFETY: only `set_handler` writes here, and it stores functions of this type.
    (!pointer.is_null()).then(|| unsafe { core::mem::transmute::<*mut (), Handler>(pointer) })
}

unsafe extern "C" {
    static guest_pv_vectors: u8;
    fn guest_pv_event();
    fn guest_pv_syscall();
    fn guest_pv_failsafe();
    fn guest_pv_peek_load();
    fn guest_pv_peek_failed();
    fn guest_pv_caught();
}

/// Where the stub of a vector is, for guests that write a trap table themselves.
#[cfg(target_os = "none")]
pub fn stub(vector: u8) -> u64 {
    (&raw const guest_pv_vectors) as u64 + 16 * u64::from(vector)
}

/// Stubs exist on bare metal only.
#[cfg(not(target_os = "none"))]
pub fn stub(_vector: u8) -> u64 {
    0
}

/// The trap table in which every vector may be raised from user mode or not, as on bare metal, and masks events.
pub fn default_entry(vector: u8) -> TrapInfo {
    // int3 and into are for everyone, and so are the software interrupts.
    let dpl = if matches!(vector, 3 | 4) || vector >= 32 { 3 } else { 0 };
    TrapInfo { vector, flags: dpl | TI_IF, cs: FLAT_KERNEL_CS, _pad: 0, address: stub(vector) }
}

/// The entry points of the event, failsafe and syscall callbacks.
#[cfg(target_os = "none")]
pub fn callbacks() -> [u64; 3] {
    [guest_pv_event as *const () as u64, guest_pv_failsafe as *const () as u64, guest_pv_syscall as *const () as u64]
}

/// There are none on the host.
#[cfg(not(target_os = "none"))]
pub fn callbacks() -> [u64; 3] {
    [0; 3]
}

/// Registers all entry points; again, for a guest that has changed them.
pub fn init() {
    if crate::pvh::is_active() {
        return crate::pvh::init_cpu();
    }
    // In two halves: the table of 257 entries would take more stack than it is worth.
    for half in [0u8, 128] {
        let mut table = [TrapInfo::default(); 129];
        for (entry, vector) in table.iter_mut().take(128).zip(half..) {
            *entry = default_entry(vector);
        }
        // SAFETY: the stubs understand the frames.
        unsafe { call::traps::set_trap_table(&table) }.expect("the trap table can be set");
    }
    let types = [CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE, CALLBACKTYPE_SYSCALL];
    for (type_, entry) in types.into_iter().zip(callbacks()) {
        // The event callback masks events by itself; syscall shall too.
        let flags = if type_ == CALLBACKTYPE_SYSCALL { xen_abi::callback::CALLBACKF_MASK_EVENTS } else { 0 };
        // SAFETY: the stubs understand the frames.
        unsafe { call::callback::register(type_, flags, entry) }.expect("callbacks can be registered");
    }
}

/// Ends the body of the innermost [`catch`] of this vCPU with this frame, when the handler returns. False: there is none.
pub fn abandon(frame: &mut Frame) -> bool {
    let stack = CATCH[smp::index()].load(Ordering::Relaxed);
    if stack == 0 {
        return false;
    }
    CAUGHT.0[smp::index()].set(*frame);
    // Back to the kernel, wherever the trap came from. RPL 0 is what the iret hypercall takes for kernel mode.
    (frame.cs, frame.ss) = if crate::pvh::is_active() {
        crate::pvh::SEGMENTS
    } else {
        (u64::from(FLAT_KERNEL_CS & !3), xen_abi::arch_x86::FLAT_KERNEL_SS.into())
    };
    #[cfg(target_os = "none")]
    {
        frame.rip = guest_pv_caught as *const () as u64;
    }
    frame.rsp = stack;
    // Nor does anything of the body's flags stay: single steps, the direction, nested tasks, alignment checks.
    frame.rflags = 2;
    true
}

/// In a hardware container: traps have stacks of their own from now on, on all vCPUs. A guest that loses its stack
/// pointer survives that; a trap inside a handler loses the outer one.
pub fn use_own_stacks() {
    if crate::pvh::is_active() {
        crate::pvh::use_own_stacks(true);
    }
}

/// The one function behind all stubs.
extern "C" fn trap(frame: &mut Frame) {
    #[cfg(target_os = "none")]
    if frame.rip == guest_pv_peek_load as *const () as u64 {
        frame.rip = guest_pv_peek_failed as *const () as u64;
        return;
    }
    if let Some(handler) = handler(frame.vector) {
        return handler(frame);
    }
    if frame.vector == EVENT {
        return frame.mask_events();
    }
    if abandon(frame) {
        return;
    }
    // The report reads what may not be there, and each such trap would begin at the top of this very stack.
    if crate::pvh::is_active() {
        crate::pvh::use_own_stacks(false);
    }
    report::crash(frame);
    power::crash()
}

/// Reads a u64 that may not be mapped.
#[cfg(target_os = "none")]
pub fn peek(address: u64) -> Option<u64> {
    let (value, ok): (u64, u64);
    // SAFETY: the load is the only access; `trap` turns its fault into a clean return. The registers that the
    // function changes are named, and a fault changes no others.
    unsafe {
        core::arch::asm!("call guest_pv_peek", in("rdi") address, out("rax") value, out("rdx") ok,
            lateout("rcx") _, lateout("r11") _);
    }
    (ok != 0).then_some(value)
}

/// There is nothing to read on the host.
#[cfg(not(target_os = "none"))]
pub fn peek(_address: u64) -> Option<u64> {
    None
}

/// Goes on with the state of a frame, by the iret hypercall: `cs` with RPL 3 means user mode.
///
/// # Safety
/// The state is one that can run; nothing of the current stack is needed any more, except what a later [`catch`]
/// returns to. For user mode there is a user page table and a kernel stack.
#[cfg(target_os = "none")]
pub unsafe fn resume(mut frame: Frame) -> ! {
    // SAFETY: the code pops the frame and leaves; the contract is above.
    unsafe {
        core::arch::asm!("mov rsp, rdi", "jmp guest_pv_trap_return", in("rdi") &raw mut frame, options(noreturn));
    }
}

/// There is nothing to resume on the host.
///
/// # Safety
/// None needed.
#[cfg(not(target_os = "none"))]
pub unsafe fn resume(_frame: Frame) -> ! {
    power::crash()
}

struct Caught([Cell<Frame>; smp::MAX]);

// SAFETY: each vCPU has its own cell, which is written and read with no reference kept.
unsafe impl Sync for Caught {}

const NO_FRAME: Frame = Frame {
    r15: 0,
    r14: 0,
    r13: 0,
    r12: 0,
    r11: 0,
    r10: 0,
    r9: 0,
    r8: 0,
    rdi: 0,
    rsi: 0,
    rbp: 0,
    rbx: 0,
    rdx: 0,
    rcx: 0,
    rax: 0,
    vector: 0,
    error: 0,
    rip: 0,
    cs: 0,
    rflags: 0,
    rsp: 0,
    ss: 0,
};

static CAUGHT: Caught = Caught([const { Cell::new(NO_FRAME) }; smp::MAX]);

/// Runs `body`; a trap without a handler of its own ends it, and its frame is returned.
///
/// # Safety
/// The rest of `body` is skipped after a trap, destructors included: it must hold no locks and owe nothing to anyone.
pub unsafe fn catch<F: FnOnce()>(body: F) -> Option<Frame> {
    extern "C" fn run<F: FnOnce()>(body: *mut Option<F>) {
        // SAFETY: `catch` passes a pointer to its own variable.
        if let Some(body) = unsafe { (*body).take() } {
            body();
        }
    }
    let mut body = Some(body);
    let me = smp::index();
    let outer = CATCH[me].load(Ordering::Relaxed);
    let trapped: u64;
    #[cfg(target_os = "none")]
    // SAFETY: the function saves the registers that the ABI says a callee keeps, and restores them in either case.
    unsafe {
        core::arch::asm!("call guest_pv_catch",
            in("rdi") run::<F> as extern "C" fn(*mut Option<F>), in("rsi") &raw mut body, in("rdx") CATCH[me].as_ptr(),
            lateout("rax") trapped, clobber_abi("C"));
    }
    #[cfg(not(target_os = "none"))]
    {
        run(&raw mut body);
        trapped = 0;
    }
    CATCH[me].store(outer, Ordering::Relaxed);
    (trapped != 0).then(|| CAUGHT.0[me].get())
}

/// ds, es, fs and gs as the last failsafe callback reported them.
#[cfg(target_os = "none")]
pub fn failsafe_segments() -> [u64; 4] {
    unsafe extern "C" {
        static guest_pv_failsafe_segments: [u64; 4];
    }
    // SAFETY: written by the stub only; one vCPU at a time misuses its segments.
    unsafe { (&raw const guest_pv_failsafe_segments).read_volatile() }
}

/// Nothing happens on the host.
#[cfg(not(target_os = "none"))]
pub fn failsafe_segments() -> [u64; 4] {
    [0; 4]
}
