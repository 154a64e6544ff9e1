//! VT-x: whether it is used, and how it is switched on.
//!
//! Unsafe: model-specific registers and CR4 are written, and VMX is entered.

mod capability;
mod control_registers;
mod enter;
mod exits;
mod fields;
mod mode;
mod msr_bitmap;
mod registers;
mod state;
mod tsc;
mod vcpu;
mod virtual_apic;
mod vmcs;

pub(super) use capability::has_huge_pages;
pub(super) use tsc::scaling as tsc_scaling;
pub use vcpu::VmxVcpu;

use core::arch::asm;
use core::sync::atomic::Ordering;

use crate::arch::x86_64::cpu::{self, Features, has};
use crate::arch::x86_64::percpu;
use crate::container::Wishes;
use crate::mem::direct_map::va_of_phys;
use fields::Field;
use logic::hvm::walk::Paging;

const FEATURE_CONTROL: u32 = 0x3a;
const LOCKED: u64 = 1;
const OUTSIDE_SMX: u64 = 1 << 2;
const CR4_VMXE: u64 = 1 << 13;

/// Registers for system calls that a guest uses without an exit, and that no VM exit brings back: STAR, LSTAR, CSTAR,
/// FMASK, the other GS base.
const CALL_REGISTERS: [u32; 5] = [0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0102];

/// Whether PVH guests can run by VT-x here. On the boot processor.
pub(super) fn detect(wishes: Wishes) -> bool {
    if !has(Features::VMX) {
        return false;
    }
    // The firmware may have switched it off for good (SDM vol. 3C, 24.7).
    let control = cpu::rdmsr_safe(FEATURE_CONTROL).unwrap_or(0);
    if control & LOCKED != 0 && control & OUTSIDE_SMX == 0 {
        log::warn!("VMX: disabled by the firmware");
        return false;
    }
    match capability::look(wishes) {
        Ok(_) => {
            capability::report();
            true
        }
        Err(reason) => {
            log::info!("HVM: VMX is not used: {reason}");
            false
        }
    }
}

/// Switches VMX on, and notes what a guest's registers have to make way for.
pub(super) fn start_this() -> bool {
    let pages = percpu::this().container_pages.load(Ordering::Relaxed);
    let Some(found) = capability::get() else { return false };
    if pages == 0 {
        return false;
    }
    let refused: u8;
    // SAFETY: the CPU has VMX; the two pages were set aside for this CPU at boot, the first one for the CPU's own use.
    unsafe {
        let control = cpu::rdmsr_safe(FEATURE_CONTROL).unwrap_or(LOCKED);
        if control & LOCKED == 0 {
            cpu::wrmsr(FEATURE_CONTROL, control | LOCKED | OUTSIDE_SMX);
        }
        cpu::write_cr4(cpu::read_cr4() | CR4_VMXE);
        (va_of_phys(pages) as *mut u32).write(found.revision);
        asm!("vmxon [{}]", "setbe {}", in(reg) &raw const pages, out(reg_byte) refused, options(nostack));
        for (i, number) in CALL_REGISTERS.into_iter().enumerate() {
            call_register(i).write(cpu::rdmsr(number));
        }
    }
    if refused != 0 {
        log::error!("VMX: a CPU refuses VMXON");
    }
    refused == 0
}

/// Where the hypervisor's value of a call register is kept, of this CPU.
fn call_register(i: usize) -> *mut u64 {
    let page = va_of_phys(percpu::this().container_pages.load(Ordering::Relaxed) + 4096);
    (page as *mut u64).wrapping_add(i)
}

/// How the guest translates whose VMCS is loaded here.
pub(super) fn paging_here() -> Paging {
    Paging {
        cr0: control_registers::own_cr0(),
        cr3: vmcs::read(Field::GUEST_CR3),
        cr4: control_registers::own_cr4(),
        efer: vmcs::read(Field::GUEST_EFER),
    }
}
