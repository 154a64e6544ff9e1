//! What the hypervisor keeps of a PV vCPU beside its general registers: the virtual CPU that its kernel has set up.

use alloc::boxed::Box;

use arrayvec::ArrayVec;
use logic::page::{Descriptors, TypeRef};
use logic::trap::{debug::DebugRegisters, gate::TrapTable};
use machine::arch::x86_64::segments::Selectors;

use super::ldt::Ldt;

/// A callback that the guest registered by `callback_op`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Callback {
    /// Its address, 0 for none.
    pub address: u64,
    /// `CALLBACKF_mask_events`.
    pub masks_events: bool,
}

/// The callbacks of a vCPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Callbacks {
    /// Event upcall; always masks.
    pub event: u64,
    /// A return that could not be carried out.
    pub failsafe: Callback,
    /// `syscall` from 64-bit user mode.
    pub syscall: Callback,
    /// `syscall` from 32-bit user mode.
    pub syscall32: Callback,
    /// `sysenter` from 32-bit user mode.
    pub sysenter: Callback,
}

/// The bases of FS and GS. Stale where the CPU holds the live ones: FS and the GS of the current mode.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bases {
    /// FS.
    pub fs: u64,
    /// GS in kernel mode.
    pub gs_kernel: u64,
    /// GS in user mode.
    pub gs_user: u64,
}

/// The I/O permission bitmap that `PHYSDEVOP_set_iobitmap` named.
#[derive(Clone, Copy, Debug, Default)]
pub struct IoBitmap {
    /// Where it lies in the kernel's address space.
    pub va: u64,
    /// How many ports it covers.
    pub ports: u32,
}

/// The guest's part of its GDT.
#[derive(Debug, Default)]
pub struct Gdt {
    /// Its pages.
    pub pages: ArrayVec<TypeRef<'static, Descriptors>, 14>,
    /// Number of descriptors.
    pub entries: u32,
}

/// The virtual CPU of a PV guest.
pub struct PvState {
    /// Its IDT.
    pub traps: Box<TrapTable>,
    /// Its callbacks.
    pub callbacks: Callbacks,
    /// In its kernel (else in user mode): says which root table and GS base are in use.
    pub in_kernel: bool,
    /// `stack_switch`.
    pub kernel_ss: u64,
    /// See `kernel_ss`.
    pub kernel_sp: u64,
    /// CR0.TS as the guest set it: the next use of the FPU is an #NM of its own.
    pub task_switched: bool,
    /// CR2 as `mov` reads it.
    pub cr2: u64,
    /// CR4 as `mov` reads it.
    pub cr4: u64,
    /// Virtual IOPL, as bits of RFLAGS.
    pub iopl: u64,
    /// I/O permissions of its user mode.
    pub io_bitmap: IoBitmap,
    /// Debug registers.
    pub debug: DebugRegisters,
    /// Bases of FS and GS.
    pub bases: Bases,
    /// Data selectors while it does not run.
    pub selectors: Selectors,
    /// GDT.
    pub gdt: Gdt,
    /// LDT.
    pub ldt: Ldt,
    /// XCR0.
    pub xcr0: u64,
    /// TSC_AUX.
    pub tsc_aux: u32,
    /// An NMI handler runs: no other NMI until its `iret`.
    pub nmi_masked: bool,
}

impl Default for PvState {
    fn default() -> Self {
        Self {
            traps: Box::default(),
            callbacks: Callbacks::default(),
            in_kernel: true,
            kernel_ss: 0,
            kernel_sp: 0,
            task_switched: false,
            cr2: 0,
            cr4: 0,
            iopl: 0,
            io_bitmap: IoBitmap::default(),
            debug: DebugRegisters::default(),
            bases: Bases::default(),
            selectors: Selectors::default(),
            gdt: Gdt::default(),
            ldt: Ldt::default(),
            xcr0: 3,
            tsc_aux: 0,
            nmi_masked: false,
        }
    }
}
