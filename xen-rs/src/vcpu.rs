//! A virtual CPU in two halves: what every CPU may look at, and what only its runner may touch.

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
};
use core::sync::atomic::{AtomicU32, Ordering};

use bitflags::bitflags;
use logic::regs::GuestRegs;
use xen_abi::ids::{DomId, VcpuId};

use logic::lock::rank;

use crate::{domain::Domain, memory::Paging, sync::Lock, trap::PvState, vcpu_info::VcpuInfoPlace};

bitflags! {
    /// Why a vCPU does not run, beyond the pause counts.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VcpuFlags: u32 {
        /// Not brought up yet, or taken down (`VCPUOP_down`).
        const DOWN = 1 << 0;
        /// Waits for an event (`SCHEDOP_block`).
        const BLOCKED = 1 << 1;
        /// Waits for one of some ports (`SCHEDOP_poll`).
        const POLLING = 1 << 2;
        /// Its context has been set (`VCPUOP_initialise`, `setvcpucontext`).
        const INITIALISED = 1 << 3;
        /// An NMI is to be delivered.
        const NMI_PENDING = 1 << 4;
        /// A CPU owns its private state at the moment.
        const RUNNING = 1 << 5;
    }
}

/// The shared half of a virtual CPU.
pub struct Vcpu {
    /// Its number within its domain.
    pub id: VcpuId,
    /// Its domain's number.
    pub domain_id: DomId,
    domain: Weak<Domain>,
    flags: AtomicU32,
    /// How often it was paused on its own; the domain has a count too.
    pub pause_count: AtomicU32,
    processor: AtomicU32,
    /// Where its `vcpu_info` lies.
    pub info: VcpuInfoPlace,
    /// The private half while no CPU runs it.
    pub parked: Lock<Option<Box<VcpuState>>, { rank::VCPU_PARKED }>,
}

/// The private half of a virtual CPU: owned by the CPU that runs it, else parked.
pub struct VcpuState {
    /// Its registers; stale while it runs, when they are on the CPU's stack.
    pub regs: GuestRegs,
    /// What its kernel has set up.
    pub pv: PvState,
    /// Its page-table roots.
    pub paging: Paging,
}

impl Vcpu {
    /// A vCPU that is down and has no context yet.
    #[must_use]
    pub fn new(domain: &Weak<Domain>, domain_id: DomId, id: VcpuId) -> Arc<Self> {
        Arc::new(Self {
            id,
            domain_id,
            domain: domain.clone(),
            flags: AtomicU32::new(VcpuFlags::DOWN.bits()),
            pause_count: AtomicU32::new(0),
            processor: AtomicU32::new(0),
            info: VcpuInfoPlace::new(),
            parked: Lock::new(Some(Box::new(VcpuState {
                regs: GuestRegs::default(),
                pv: PvState::default(),
                paging: Paging::default(),
            }))),
        })
    }

    /// Its domain, unless that is gone.
    #[must_use]
    pub fn domain(&self) -> Option<Arc<Domain>> {
        self.domain.upgrade()
    }

    /// Time it has run, in nanoseconds.
    #[must_use]
    pub const fn cpu_time_ns(&self) -> u64 {
        0
    }

    /// The physical CPU whose queue it is on.
    #[must_use]
    pub fn processor(&self) -> u32 {
        self.processor.load(Ordering::Relaxed)
    }

    /// The flags as of now.
    #[must_use]
    pub fn flags(&self) -> VcpuFlags {
        VcpuFlags::from_bits_truncate(self.flags.load(Ordering::Acquire))
    }

    /// Sets flags and tells which of all were set before.
    pub fn set(&self, flags: VcpuFlags) -> VcpuFlags {
        VcpuFlags::from_bits_truncate(self.flags.fetch_or(flags.bits(), Ordering::AcqRel))
    }

    /// Clears flags and tells which of all were set before.
    pub fn clear(&self, flags: VcpuFlags) -> VcpuFlags {
        VcpuFlags::from_bits_truncate(self.flags.fetch_and(!flags.bits(), Ordering::AcqRel))
    }

    /// Whether nothing keeps it from running but the scheduler's choice.
    #[must_use]
    pub fn runnable(&self, domain: &Domain) -> bool {
        let waits = VcpuFlags::DOWN | VcpuFlags::BLOCKED | VcpuFlags::POLLING;
        !self.flags().intersects(waits)
            && self.pause_count.load(Ordering::Acquire) == 0
            && domain.pause_count.load(Ordering::Acquire) == 0
    }
}
