//! A PVH vCPU: its container, and what of it the container does not hold.

use alloc::sync::Arc;
use core::fmt;

use logic::hvm::{
    apic::{Apic, Role},
    msr,
};
use machine::{
    arch::x86_64::{fpu::FpuArea, guest_registers},
    container::Container,
    mem::nested::Tables,
};
use xen_abi::ids::VcpuId;

use crate::domain::Domain;

/// What a PVH vCPU has that a PV vCPU has not.
pub struct PvhVcpu {
    /// The container.
    pub container: Container,
    /// The local APIC.
    pub apic: Apic,
    /// XCR0.
    pub xcr0: u64,
    /// TSC_AUX.
    pub tsc_aux: u32,
    /// MTRRdefType.
    pub mtrr_default: u64,
    /// Whether it takes NMIs.
    pub nmis: Nmis,
}

/// Whether a vCPU takes NMIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nmis {
    /// It does.
    Taken,
    /// The handler of one runs: no other until its `iret`.
    HeldOff,
    /// Until it has got over the `iret` at this address, whose frame another one would be written over.
    HeldOffAt(u64),
}

impl Nmis {
    /// Whether one can be delivered before the instruction at this address.
    #[must_use]
    pub fn are_taken(self, rip: u64) -> bool {
        match self {
            Self::Taken => true,
            Self::HeldOff => false,
            Self::HeldOffAt(iret) => rip != iret,
        }
    }
}

impl fmt::Debug for PvhVcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PvhVcpu")
    }
}

impl PvhVcpu {
    /// With the state after INIT. `None`: no memory.
    #[must_use]
    pub fn new(tables: Arc<Tables>, id: VcpuId) -> Option<Self> {
        let container = Container::new(tables)?;
        let role = if id.0 == 0 { Role::First } else { Role::Other };
        let apic = Apic::new(id.0 * 2, role);
        let mtrr_default = msr::MTRR_DEFAULT;
        Some(Self { container, apic, xcr0: 1, tsc_aux: 0, mtrr_default, nmis: Nmis::Taken })
    }

    /// Takes this CPU.
    pub fn load(&mut self, domain: &Domain, fpu: &mut FpuArea) {
        self.container.load(domain.id);
        self.container.set_tsc(domain.tsc.way());
        fpu.restore();
        // Not offered, and still to be reached where CR4 is the guest's own: nothing of another's is to be seen in them.
        guest_registers::clear_protection_keys();
        // All components are on after the extended state was loaded; a CPU without XSAVE has nothing to set.
        let _set = guest_registers::set_xcr0(self.xcr0);
        guest_registers::set_tsc_aux(self.tsc_aux);
    }

    /// Leaves this CPU.
    pub fn save(&mut self, fpu: &mut FpuArea) {
        // Emulators may not let `xsetbv` exit.
        self.xcr0 = guest_registers::xcr0();
        fpu.save();
        self.container.leave();
    }
}
