//! More than one virtual CPU: bringing the others up, barriers between them, and telling which one runs.
//!
//! A vCPU is known by its stack, so that no register has to be reserved for it: vCPU 0 has the boot stack, each other
//! one a part of one array. Each vCPU has the whole cooperative model for itself: its own event words, timer and
//! [`crate::traps::catch`]. The console is shared without a lock: one vCPU should do the talking.
//!
//! Unsafe: a new virtual CPU starts on a stack made for it.

use crate::call::{self, vcpu};
use crate::{events, mem, pvh, time, traps};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use xen_abi::arch_x86::{
    FLAT_KERNEL_CS, FLAT_KERNEL_SS, VGCF_IN_KERNEL, VGCF_SYSCALL_DISABLES_EVENTS, VcpuGuestContext,
};
use xen_abi::errno::Errno;
use xen_abi::ids::VcpuId;
use zerocopy::FromZeros;

/// How many vCPUs this runtime can use.
pub const MAX: usize = 8;

#[cfg(target_os = "none")]
mod stacks {
    /// Bytes of a stack.
    pub const SIZE: u64 = 0x10000;

    core::arch::global_asm!(
        // The hypervisor starts the vCPU here, on its own stack.
        ".pushsection .text.vcpu, \"ax\", @progbits",
        ".globl guest_pv_vcpu_entry",
        "guest_pv_vcpu_entry:",
        "cld",
        "xor ebp, ebp",
        "call {secondary}",
        "ud2",
        ".popsection",
        ".pushsection .bss.stacks, \"aw\", @nobits",
        ".balign 4096",
        ".globl guest_pv_vcpu_stacks",
        "guest_pv_vcpu_stacks:",
        ".skip {bytes}",
        ".popsection",
        secondary = sym super::secondary,
        bytes = const SIZE * (super::MAX as u64 - 1),
    );

    unsafe extern "C" {
        static guest_pv_vcpu_stacks: u8;
        fn guest_pv_vcpu_entry();
    }

    /// Where a vCPU other than 0 starts.
    pub fn entry() -> u64 {
        guest_pv_vcpu_entry as *const () as u64
    }

    /// The end of the stack of vCPU `index`, which is not 0.
    pub fn top(index: usize) -> u64 {
        (&raw const guest_pv_vcpu_stacks) as u64 + index as u64 * SIZE
    }

    /// Which vCPU's stack we are on.
    #[inline]
    pub fn current() -> usize {
        let sp: u64;
        // SAFETY: reads a register.
        unsafe { core::arch::asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
        let part = sp.wrapping_sub((&raw const guest_pv_vcpu_stacks) as u64) / SIZE;
        if part < super::MAX as u64 - 1 { part as usize + 1 } else { 0 }
    }
}

#[cfg(not(target_os = "none"))]
mod stacks {
    pub fn entry() -> u64 {
        0
    }
    pub fn top(_index: usize) -> u64 {
        0
    }
    pub fn current() -> usize {
        0
    }
}

/// Bytes of the stack of a vCPU other than 0.
#[cfg(target_os = "none")]
pub(crate) const STACK_SIZE: u64 = stacks::SIZE;

/// The end of the stack of vCPU `index`, which is not 0.
#[cfg(target_os = "none")]
pub(crate) fn stack_top(index: usize) -> u64 {
    stacks::top(index)
}

/// What each vCPU is to do, or is doing: a `fn()`, or null.
static JOBS: [AtomicPtr<()>; MAX] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX];
static INITIALISED: [AtomicBool; MAX] = [const { AtomicBool::new(false) }; MAX];

/// The number of the vCPU that runs this, below [`MAX`].
#[inline]
pub fn index() -> usize {
    stacks::current()
}

/// The vCPU that runs this.
#[inline]
pub fn this() -> VcpuId {
    VcpuId(index() as u32)
}

/// Gives the vCPU its first state without starting it: [`start`] does both.
///
/// # Errors
/// Those of `VCPUOP_initialise`.
///
/// # Panics
/// For vCPU 0 and those from [`MAX`] on.
pub fn initialise(vcpu: VcpuId) -> Result<(), Errno> {
    let index = vcpu.0 as usize;
    assert!((1..MAX).contains(&index), "vCPU {index} cannot be started");
    // The hypervisor leaves the mask of a new vCPU to the guest.
    events::set_upcall_mask_of(index, true);
    if pvh::is_active() {
        let mut context = pvh::vcpu_context(stacks::entry(), stacks::top(index));
        // SAFETY: the vCPU has a stack of its own.
        unsafe { vcpu::initialise_pvh(vcpu, &mut context) }?;
        INITIALISED[index].store(true, Ordering::SeqCst);
        return Ok(());
    }
    let mut context = VcpuGuestContext::new_zeroed();
    context.flags = VGCF_IN_KERNEL | VGCF_SYSCALL_DISABLES_EVENTS;
    context.user_regs.rip = stacks::entry();
    context.user_regs.cs = FLAT_KERNEL_CS;
    context.user_regs.ss = FLAT_KERNEL_SS;
    context.user_regs.rsp = stacks::top(index);
    context.user_regs.rflags = 2;
    for (entry, vector) in context.trap_ctxt.iter_mut().zip(0..) {
        *entry = traps::default_entry(vector);
    }
    context.kernel_ss = FLAT_KERNEL_SS.into();
    context.kernel_sp = stacks::top(index);
    context.ctrlreg[3] = mem::table::root().0 << 12;
    [context.event_callback_eip, context.failsafe_callback_eip, context.syscall_callback_eip] = traps::callbacks();
    // SAFETY: the vCPU has a stack of its own and goes by the same entry points as vCPU 0.
    unsafe { vcpu::initialise(vcpu, &mut context) }?;
    INITIALISED[index].store(true, Ordering::SeqCst);
    Ok(())
}

/// Lets the vCPU run `job` and go down again. Waits for what it is doing already.
///
/// # Errors
/// Those of the hypercalls: `ENOENT` when the domain has no such vCPU.
///
/// # Panics
/// For vCPU 0 and those from [`MAX`] on.
pub fn start(vcpu: VcpuId, job: fn()) -> Result<(), Errno> {
    let index = vcpu.0 as usize;
    if INITIALISED.get(index).is_some_and(|done| done.load(Ordering::SeqCst)) {
        join(vcpu)?;
    } else {
        initialise(vcpu)?;
    }
    JOBS[index].store(job as *mut (), Ordering::SeqCst);
    vcpu::up(vcpu)
}

/// Waits until the vCPU has done its job and is down.
///
/// # Errors
/// `ENOENT` when there is no such vCPU.
pub fn join(vcpu: VcpuId) -> Result<(), Errno> {
    while vcpu::is_up(vcpu)? {
        relax();
    }
    Ok(())
}

/// The life of a vCPU other than 0.
#[cfg(target_os = "none")]
extern "C" fn secondary() -> ! {
    if pvh::is_active() {
        pvh::init_cpu();
    }
    time::init_vcpu();
    loop {
        let job = JOBS[index()].swap(core::ptr::null_mut(), Ordering::SeqCst);
        if !job.is_null() {
            // SAFETY: only `start` writes here, and it stores functions of this type.
            let job = unsafe { core::mem::transmute::<*mut (), fn()>(job) };
            job();
        }
        // Comes back when someone brings it up.
        vcpu::down(this()).expect("a vCPU can go down");
    }
}

#[cfg(not(target_os = "none"))]
const _: fn() = time::init_vcpu;

/// What to do in a loop that waits for another vCPU: it may have no physical CPU but ours.
pub fn relax() {
    for _ in 0..50 {
        core::hint::spin_loop();
    }
    let _ = call::sched::yield_cpu();
}

/// A place where vCPUs wait for each other, any number of times.
#[derive(Debug)]
pub struct Barrier {
    members: u32,
    arrived: AtomicU32,
    round: AtomicU32,
}

impl Barrier {
    /// A barrier for so many vCPUs.
    pub const fn new(members: u32) -> Self {
        Self { members, arrived: AtomicU32::new(0), round: AtomicU32::new(0) }
    }

    /// Waits until all members have come.
    pub fn wait(&self) {
        let round = self.round.load(Ordering::SeqCst);
        if self.arrived.fetch_add(1, Ordering::SeqCst) + 1 == self.members {
            self.arrived.store(0, Ordering::SeqCst);
            self.round.store(round.wrapping_add(1), Ordering::SeqCst);
        } else {
            while self.round.load(Ordering::SeqCst) == round {
                relax();
            }
        }
    }
}
