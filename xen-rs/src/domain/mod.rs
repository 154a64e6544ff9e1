//! Domains: what the hypervisor knows of each, and the table that finds one by its number.
//!
//! A `Domain` is shared between CPUs. Each part that changes has a lock of its own; what belongs to one subject
//! (memory, events, grants, time) is a struct of that subject's file, so that this file stays a table of contents.

mod life;
mod table;

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
};
use core::sync::atomic::{AtomicU32, AtomicU64};

use logic::access::{Caller, Privilege};
use xen_abi::ids::{DomId, VcpuId};

pub use self::{
    life::{Life, Shutdown},
    table::{find, first_free_id, for_each, insert, next_from, remove},
};
use crate::{sync::Once, vcpu::Vcpu};

/// A domain.
pub struct Domain {
    /// Its number.
    pub id: DomId,
    /// What it may ask for.
    pub privilege: Privilege,
    /// `XEN_DOMCTL_CDF_*` flags it was created with.
    pub create_flags: u32,
    /// The UUID that the toolstack gave it, as two halves in memory order.
    pub handle: [AtomicU64; 2],
    /// Life, death and shutdown.
    pub life: life::State,
    /// How many reasons there are for none of its vCPUs to run.
    pub pause_count: AtomicU32,
    /// `VMASST_TYPE_*` bits that are on.
    pub vm_assist: AtomicU64,
    /// The CPUs whose TLB may hold entries of this domain, a bit each.
    pub dirty_cpus: AtomicU64,
    max_vcpus: u32,
    vcpus: Once<Box<[Arc<Vcpu>]>>,
    this: Weak<Self>,
}

/// How a domain is made.
#[derive(Clone, Copy, Debug)]
pub struct Blueprint {
    /// Its number.
    pub id: DomId,
    /// What it may ask for.
    pub privilege: Privilege,
    /// `XEN_DOMCTL_CDF_*`.
    pub create_flags: u32,
    /// The UUID.
    pub handle: [u8; 16],
    /// How many vCPUs it has.
    pub max_vcpus: u32,
}

impl Domain {
    /// A domain without memory and vCPUs, paused once as the toolstack expects.
    #[must_use]
    pub fn new(blueprint: &Blueprint) -> Arc<Self> {
        Arc::new_cyclic(|this| {
            let domain = Self {
                id: blueprint.id,
                privilege: blueprint.privilege,
                create_flags: blueprint.create_flags,
                handle: [AtomicU64::new(0), AtomicU64::new(0)],
                life: life::State::new(),
                pause_count: AtomicU32::new(1),
                vm_assist: AtomicU64::new(0),
                dirty_cpus: AtomicU64::new(0),
                max_vcpus: blueprint.max_vcpus,
                vcpus: Once::new(),
                this: this.clone(),
            };
            domain.set_handle(blueprint.handle);
            domain
        })
    }

    /// Makes its vCPUs, all down (`XEN_DOMCTL_max_vcpus`). A second call changes nothing.
    pub fn allocate_vcpus(&self) {
        self.vcpus.call_once(|| (0..self.max_vcpus).map(|id| Vcpu::new(&self.this, self.id, VcpuId(id))).collect());
    }

    /// How many vCPUs it was created for.
    #[must_use]
    pub const fn max_vcpus(&self) -> u32 {
        self.max_vcpus
    }

    /// Its vCPUs in the order of their numbers.
    #[must_use]
    pub fn vcpus(&self) -> &[Arc<Vcpu>] {
        self.vcpus.get().map_or(&[], |all| all)
    }

    /// The vCPU of a number.
    #[must_use]
    pub fn vcpu(&self, id: VcpuId) -> Option<&Arc<Vcpu>> {
        self.vcpus().get(usize::try_from(id.0).ok()?)
    }

    /// Whether it may control other domains.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.privilege == Privilege::Control
    }

    /// It as a caller of operations that have an access rule.
    #[must_use]
    pub const fn as_caller(&self) -> Caller {
        Caller { id: self.id, privilege: self.privilege }
    }
}
