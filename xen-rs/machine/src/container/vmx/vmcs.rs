//! The virtual machine control structure: a page that the CPU alone understands, read and written by instructions while it
//! is the current one.
//!
//! Unsafe: VMX instructions.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::fields::Field;
use crate::arch::x86_64::percpu;
use crate::mem::direct_map::phys_of_va;

/// A page of zeroes that belongs to this value.
#[derive(Debug)]
pub(super) struct Page {
    at: NonNull<u8>,
    phys: u64,
}

// SAFETY: the page belongs to this value alone.
unsafe impl Send for Page {}
// SAFETY: what reads it through a shared reference reads single words, volatile.
unsafe impl Sync for Page {}

#[repr(C, align(4096))]
struct Bytes([u8; 4096]);

impl Page {
    /// `None`: no memory.
    pub(super) fn new() -> Option<Self> {
        // SAFETY: the layout is not empty.
        let at = NonNull::new(unsafe { alloc_zeroed(Layout::new::<Bytes>()) })?;
        match phys_of_va(at.as_ptr() as u64) {
            Some(phys) => Some(Self { at, phys }),
            None => {
                // SAFETY: just allocated with this layout.
                unsafe { dealloc(at.as_ptr(), Layout::new::<Bytes>()) };
                None
            }
        }
    }

    /// Where the CPU finds it.
    pub(super) const fn phys(&self) -> u64 {
        self.phys
    }

    /// A word of it.
    pub(super) fn read(&self, offset: usize) -> u32 {
        // SAFETY: aligned and inside the page; the CPU may write it while a guest runs, so volatile.
        unsafe { self.at.as_ptr().add(offset & 0xffc).cast::<u32>().read_volatile() }
    }

    /// Writes a word of it.
    pub(super) fn write(&mut self, offset: usize, value: u32) {
        // SAFETY: as in `read`, and nobody else has it.
        unsafe { self.at.as_ptr().add(offset & 0xffc).cast::<u32>().write_volatile(value) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; no CPU uses it: a container is left before it is dropped.
        unsafe { dealloc(self.at.as_ptr(), Layout::new::<Bytes>()) };
    }
}

/// Makes a VMCS the current one of this CPU.
///
/// # Safety
/// VMX is on, and this is the address of a VMCS that no other CPU has.
pub(super) unsafe fn make_current(phys: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("vmptrld [{}]", in(reg) &raw const phys, options(nostack)) };
}

/// Takes a VMCS off this CPU: all of it is in memory then, and its next entry is a launch.
///
/// # Safety
/// As for [`make_current`].
pub(super) unsafe fn clear(phys: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("vmclear [{}]", in(reg) &raw const phys, options(nostack)) };
}

/// Works on a VMCS that is not loaded on this CPU, nor on any other.
pub(super) fn borrowed<R>(vmcs: &Page, work: impl FnOnce() -> R) -> R {
    // SAFETY: VMX is on where there are containers; the page is a VMCS, and its owner is here.
    unsafe { make_current(vmcs.phys()) };
    let result = work();
    // SAFETY: as before; then the one that is loaded here is the current one again.
    unsafe {
        clear(vmcs.phys());
        let loaded = percpu::this().container_block.load(Ordering::Relaxed);
        if loaded != 0 {
            make_current(loaded);
        }
    }
    result
}

/// A field of the current VMCS; zero if it does not exist.
#[inline(always)]
pub(super) fn read(field: Field) -> u64 {
    let value: u64;
    // SAFETY: reads. Callers have made a VMCS current; without one the instruction only says so in the flags.
    unsafe {
        asm!("xor {value:e}, {value:e}", "vmread {value}, {field}", value = out(reg) value,
            field = in(reg) u64::from(field.0), options(nostack));
    }
    value
}

/// Writes a field of the current VMCS, which is the caller's.
///
/// # Safety
/// With the value the next entry and exit keep the hypervisor whole.
#[inline(always)]
pub(super) unsafe fn write_any(field: Field, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("vmwrite {field}, {value}", field = in(reg) u64::from(field.0), value = in(reg) value, options(nostack))
    };
}

/// Writes a field of the guest's state, of events, or one that only decides what comes back as an exit.
#[inline(always)]
pub(super) fn write(field: Field, value: u64) {
    // Host state has "11" in bits 11:10 of its encoding (SDM vol. 3D, appendix B).
    debug_assert!(field.0 >> 10 & 3 != 3);
    // SAFETY: whatever a guest's state says, the CPU checks it at the entry, and the guest reaches its own memory only.
    unsafe { write_any(field, value) };
}

/// Forgets translations by an EPT pointer; all of them where the CPU cannot tell them apart.
pub(super) fn invalidate_ept(pointer: u64, kind: u64) {
    let descriptor = [pointer, 0u64];
    // SAFETY: forgetting translations changes nothing that memory safety rests on.
    unsafe { asm!("invept {}, [{}]", in(reg) kind, in(reg) &raw const descriptor, options(nostack)) };
}

/// Forgets translations with a VPID; with all of them for kind 2.
pub(super) fn invalidate_vpid(vpid: u64, kind: u64) {
    let descriptor = [vpid, 0u64];
    // SAFETY: as above.
    unsafe { asm!("invvpid {}, [{}]", in(reg) kind, in(reg) &raw const descriptor, options(nostack)) };
}
