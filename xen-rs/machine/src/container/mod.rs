//! Containers: the hardware that runs a PVH guest's vCPU beside the hypervisor, AMD's SVM or Intel's VMX, behind one
//! interface. Which of the two it is, is asked with a `match`.
//!
//! A [`Container`] belongs to one vCPU. The CPU that runs the vCPU [loads](Container::load) it, [runs](Container::run) it as
//! often as it comes back with an [`Exit`], and [leaves](Container::leave) it before another CPU may have it.
//!
//! Unsafe: none here.

#[cfg(target_os = "none")]
mod entry_code;
mod exit;
#[cfg(target_os = "none")]
mod known;
#[cfg(target_os = "none")]
pub mod memory;
mod state;
#[cfg(target_os = "none")]
mod svm;
#[cfg(target_os = "none")]
mod vcpu;
#[cfg(target_os = "none")]
mod vmx;
#[cfg(target_os = "none")]
mod window;

pub use exit::{Access, Event, EventKind, Exit, PortAccess};
pub use state::{CpuState, DescriptorTable, Segment, attributes};

#[cfg(target_os = "none")]
pub use machine_side::*;
#[cfg(target_os = "none")]
pub use vcpu::Container;
#[cfg(target_os = "none")]
pub use window::Window;

#[cfg(target_os = "none")]
mod machine_side {
    use core::sync::atomic::{AtomicU8, Ordering};

    use logic::hvm::p2m::{Format, Order};
    use logic::time::Scaling;

    use super::{svm, vmx};
    use crate::arch::x86_64::{cpu, speculation};

    /// What the command line says.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Wishes {
        /// PVH guests are not forbidden (`hap`).
        pub containers: bool,
        /// The hardware may serve their local APICs where it can (`apicv`).
        pub virtual_apic: bool,
        /// Translations may have identifiers where the hardware has those (`vpid`).
        pub identifiers: bool,
    }

    /// Whose hardware it is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Vendor {
        /// AMD-V.
        Svm,
        /// VT-x.
        Vmx,
    }

    const NONE: u8 = 0;
    const SVM: u8 = 1;
    const VMX: u8 = 2;

    /// What the boot processor has found.
    static FOUND: AtomicU8 = AtomicU8::new(NONE);

    /// The hardware that PVH guests run in; `None`: there are none.
    #[inline]
    #[must_use]
    pub fn vendor() -> Option<Vendor> {
        match FOUND.load(Ordering::Relaxed) {
            SVM => Some(Vendor::Svm),
            VMX => Some(Vendor::Vmx),
            _ => None,
        }
    }

    /// The format of its nested page tables.
    #[must_use]
    pub fn table_format() -> Format {
        match vendor() {
            Some(Vendor::Vmx) if speculation::plan().small_code => Format::EptSmallCode,
            Some(Vendor::Vmx) => Format::Ept,
            Some(Vendor::Svm) | None => Format::Npt,
        }
    }

    /// The largest page that one entry of them maps.
    #[must_use]
    pub fn largest_page() -> Order {
        let huge = match vendor() {
            Some(Vendor::Vmx) => vmx::has_huge_pages(),
            Some(Vendor::Svm) => cpu::has(cpu::Features::PAGE_1G),
            None => false,
        };
        if huge { Order::Huge } else { Order::Large }
    }

    /// How the hardware can make a guest's TSC of the CPU's; `None`: not at all.
    #[must_use]
    pub fn tsc_scaling() -> Option<Scaling> {
        match vendor()? {
            Vendor::Svm => svm::tsc_scaling(),
            Vendor::Vmx => vmx::tsc_scaling(),
        }
    }

    /// Whether guests had better not run in containers on the first CPU: on QEMU's TCG, where `xrstor` on any CPU writes to
    /// what says of the first one whether it is in a container, and nothing keeps them apart.
    #[must_use]
    pub fn shuns_first() -> bool {
        is_emulated_svm()
    }

    /// Whether the CPU may forget an interrupt that comes while it goes into a container or out of it: QEMU's TCG changes the
    /// word of what is pending there while its other threads may, too.
    #[must_use]
    pub(crate) fn forgets_interrupts() -> bool {
        is_emulated_svm()
    }

    fn is_emulated_svm() -> bool {
        vendor() == Some(Vendor::Svm) && cpu::has(cpu::Features::EMULATED)
    }

    /// Looks what there is, and says so, on the boot processor.
    pub(crate) fn detect(wishes: Wishes) {
        if !wishes.containers {
            return log::info!("HVM: switched off");
        }
        let found = match (svm::detect(), vmx::detect(wishes)) {
            (true, _) => SVM,
            (false, true) => VMX,
            (false, false) => NONE,
        };
        FOUND.store(found, Ordering::Relaxed);
        if found == NONE {
            return log::info!("HVM: not supported by this machine, only PV guests can be created");
        }
        // What stands at each way in and out of a container; what is done between vCPUs is said with the plan.
        let word = |on: bool, word| if on { word } else { "" };
        let plan = speculation::plan();
        let ibpb = word(plan.ibpb_entry_containers, " IBPB-entry");
        let verw = word(found == VMX && plan.verw_containers, " VERW");
        let cache = word(found == VMX && plan.l1d_flush, " L1D_FLUSH");
        log::info!("Speculation: containers: RSB{ibpb}{verw}{cache}");
    }

    /// Switches the hardware on, on this CPU.
    pub(crate) fn start_this() {
        match vendor() {
            Some(Vendor::Svm) => svm::start_this(),
            Some(Vendor::Vmx) if !vmx::start_this() => FOUND.store(NONE, Ordering::Relaxed),
            Some(Vendor::Vmx) | None => {}
        }
    }
}
