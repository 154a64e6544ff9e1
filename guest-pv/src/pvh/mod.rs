//! The same guests in a hardware container (PVH): what is other there.
//!
//! The kernel runs in ring 0 on page tables of its own, in which frame numbers are the guest's: a frame of the machine is its
//! own number, and all memory below 4 GiB is mapped at [`mem::DIRECT_MAP`] from the start. Hypercalls stay `syscall`
//! instructions: [`entry`] points LSTAR to a stub that makes the call by `vmcall` or `vmmcall`. So nothing is dearer for PV
//! guests, and guests that make their calls by hand need not know. Events arrive by a vector ([`traps`]).
//!
//! Unsafe: the boot information is at an address in a register; a processor's own registers.

mod entry;
#[cfg(target_os = "none")]
mod stacks;
mod traps;

use crate::boot::Boot;
use crate::call;
use crate::mem::{DIRECT_MAP, PAGE_SIZE};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use xen_abi::hvm::{
    HVM_PARAM_CALLBACK_IRQ, HVM_PARAM_CALLBACK_TYPE_VECTOR, HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN,
    HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN, HvmMemmapTableEntry, HvmModlistEntry, HvmStartInfo,
    XEN_HVM_MEMMAP_TYPE_RAM,
};
use xen_abi::ids::{DomId, Mfn, Port};
use xen_abi::memory::XENMAPSPACE_SHARED_INFO;

pub(crate) use entry::{init_cpu, root, vcpu_context};
#[cfg(target_os = "none")]
pub(crate) use traps::init as init_traps;

/// Gives traps stacks of their own, or takes them away, on all processors.
#[cfg(target_os = "none")]
pub(crate) fn use_own_stacks(wanted: bool) {
    if stacks::in_use() != wanted {
        stacks::set_in_use(wanted);
        traps::fill();
    }
}

/// There are no traps on the host.
#[cfg(not(target_os = "none"))]
pub(crate) fn use_own_stacks(_wanted: bool) {}

/// Code and stack of the kernel, by the selectors of the GDT that the entry code has.
pub(crate) const SEGMENTS: (u64, u64) = (8, 16);

static ACTIVE: AtomicBool = AtomicBool::new(false);
/// The first frame behind all that the builder put into memory.
static FIRST_FREE: AtomicU64 = AtomicU64::new(0);

/// Frames that the boot page tables map: 4 GiB.
pub(crate) const MAPPED: u64 = 1 << 20;

/// What a guest runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Ring 3, on page tables that the hypervisor checks.
    Pv,
    /// A hardware container.
    Pvh,
}

/// What this guest runs in: what it asks where the two have different answers.
#[inline]
pub fn mode() -> Mode {
    if is_active() { Mode::Pvh } else { Mode::Pv }
}

/// Is this guest in a hardware container?
#[inline]
pub(crate) fn is_active() -> bool {
    ACTIVE.load(Ordering::Relaxed)
}

/// The first frame behind all that the builder put into memory.
pub(crate) fn first_free() -> u64 {
    FIRST_FREE.load(Ordering::Relaxed)
}

/// Reads what the builder left at a physical address.
///
/// # Safety
/// There is a `T` there.
unsafe fn read<T: Copy>(address: u64) -> T {
    // SAFETY: by the contract; all memory below 4 GiB is mapped.
    unsafe { ((DIRECT_MAP + address) as *const T).read_unaligned() }
}

/// Reads the start info, asks for what it does not say, and puts the shared info page into memory.
///
/// # Safety
/// `info` is what the builder left in ebx; nothing has been overwritten yet.
pub(crate) unsafe fn boot(info: u64) -> Boot {
    ACTIVE.store(true, Ordering::Relaxed);
    init_cpu();
    // SAFETY: by the contract.
    let start: HvmStartInfo = unsafe { read(info) };
    // SAFETY: the start info says that they are there.
    let maps = (0..u64::from(start.memmap_entries)).map(|index| unsafe {
        read::<HvmMemmapTableEntry>(start.memmap_paddr + index * size_of::<HvmMemmapTableEntry>() as u64)
    });
    let low = maps.into_iter().find(|entry| entry.addr == 0 && entry.type_ == XEN_HVM_MEMMAP_TYPE_RAM);
    // SAFETY: as above.
    let module: Option<HvmModlistEntry> = (start.nr_modules > 0).then(|| unsafe { read(start.modlist_paddr) });
    let mut cmd_line = [0; 1024];
    let mut end = start.cmdline_paddr;
    for byte in cmd_line.iter_mut().take(1023) {
        // SAFETY: the command line ends with a zero.
        *byte = unsafe { read(end) };
        end += 1;
        if *byte == 0 {
            break;
        }
    }
    let module_end = module.map_or(0, |module| module.paddr + module.size);
    let used = entry::image_end().max(end).max(module_end);
    FIRST_FREE.store(used.div_ceil(PAGE_SIZE), Ordering::Relaxed);

    let shared_info = entry::shared_page();
    call::memory::add_to_physmap(DomId::SELF, XENMAPSPACE_SHARED_INFO, 0, shared_info / PAGE_SIZE)
        .expect("the shared info page can be put into memory");
    let vector = u64::from(HVM_PARAM_CALLBACK_TYPE_VECTOR) << 56 | u64::from(traps::EVENT_VECTOR);
    call::hvm::set_param(DomId::SELF, HVM_PARAM_CALLBACK_IRQ, vector).expect("events can have a vector");
    let param = |index| call::hvm::get_param(DomId::SELF, index).unwrap_or(0);
    Boot {
        magic: [0; 32],
        nr_pages: low.map_or(0, |entry| entry.size / PAGE_SIZE).min(MAPPED),
        shared_info,
        flags: start.flags,
        store_mfn: Mfn(param(HVM_PARAM_STORE_PFN)),
        store_evtchn: Port(param(HVM_PARAM_STORE_EVTCHN) as u32),
        console_mfn: Mfn(param(HVM_PARAM_CONSOLE_PFN)),
        console_evtchn: Port(param(HVM_PARAM_CONSOLE_EVTCHN) as u32),
        pt_base: DIRECT_MAP + root().0 * PAGE_SIZE,
        nr_pt_frames: 0,
        mfn_list: 0,
        mod_pfn: module.map_or(0, |module| module.paddr / PAGE_SIZE),
        mod_len: module.map_or(0, |module| module.size),
        cmd_line,
    }
}

/// Sleeps until there is an event. Interrupts are let in for just that: an event that came before ends the sleep as well.
#[cfg(target_os = "none")]
pub(crate) fn halt() {
    // SAFETY: the event's handler leaves with interrupts off, and nothing else comes in.
    unsafe { core::arch::asm!("sti", "hlt", "cli") };
}

/// Nothing sleeps on the host.
#[cfg(not(target_os = "none"))]
pub(crate) fn halt() {}

/// The address of the last page fault.
#[cfg(target_os = "none")]
pub(crate) fn cr2() -> u64 {
    let address;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}

/// There is none on the host.
#[cfg(not(target_os = "none"))]
pub(crate) fn cr2() -> u64 {
    0
}
