//! PVH guests: what the hypervisor keeps of a domain that runs in a container of the hardware's, and how its vCPUs run.

mod apic;
mod compat;
pub mod context;
mod cpuid;
pub mod exit;
mod hypercall;
pub mod hypercall_page;
mod mmio;
mod msr;
mod params;
mod physmap;
mod port;
mod run;
pub mod upcall;
mod vcpu;

pub use apic::start_if_asked;
pub use hypercall::dispatch;
pub use params::{latch_width, set_callback};
pub use physmap::DomainPhysmap;
pub use run::run;
pub use vcpu::PvhVcpu;

use core::sync::atomic::{AtomicU64, Ordering};

use xen_abi::{
    hvm::{HVM_NR_PARAMS, HVM_PARAM_TRIPLE_FAULT_REASON},
    sched::SHUTDOWN_REBOOT,
};

/// What a PVH domain has that a PV domain has not.
#[derive(Debug)]
pub struct PvhDomain {
    /// Its memory as it sees it.
    pub physmap: DomainPhysmap,
    /// How it hears of events, but for vCPUs with a vector of their own (`HVM_PARAM_CALLBACK_IRQ`).
    pub callback: AtomicU64,
    params: [AtomicU64; HVM_NR_PARAMS as usize],
}

impl Default for PvhDomain {
    fn default() -> Self {
        Self::new()
    }
}

impl PvhDomain {
    /// Of a new domain.
    #[must_use]
    pub fn new() -> Self {
        let new = Self {
            physmap: DomainPhysmap::new(),
            callback: AtomicU64::new(0),
            params: [const { AtomicU64::new(0) }; HVM_NR_PARAMS as usize],
        };
        new.set_param(HVM_PARAM_TRIPLE_FAULT_REASON, SHUTDOWN_REBOOT.into());
        new
    }

    /// A parameter; 0 for one that there is not.
    #[must_use]
    pub fn param(&self, index: u32) -> u64 {
        self.place(index).map_or(0, |param| param.load(Ordering::Relaxed))
    }

    /// Notes a parameter.
    pub fn set_param(&self, index: u32, value: u64) {
        if let Some(param) = self.place(index) {
            param.store(value, Ordering::Relaxed);
        }
    }

    fn place(&self, index: u32) -> Option<&AtomicU64> {
        self.params.get(usize::try_from(index).ok()?)
    }
}
