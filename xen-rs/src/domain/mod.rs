//! Domains: what the hypervisor knows of each, and the table that finds one by its number.
//!
//! A `Domain` is shared between CPUs. Each part that changes has a lock of its own; what belongs to one subject
//! (memory, events, grants, time) is a struct of that subject's file, so that this file stays a table of contents.

pub mod build_dom0;
pub mod context;
mod dom0_devices;
mod life;
pub mod memory;
mod pause;
mod shutdown;
mod table;
pub mod teardown;

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

use logic::access::{Caller, Privilege};
use logic::grant::Version;
use logic::lock::{Held, rank};
use logic::page::Owner;
use logic::sched::{Budget, CpuMask};
use machine::container;
use machine::mem::heap;
use xen_abi::{
    domctl::XEN_DOMCTL_CDF_HVM,
    errno::Errno,
    ids::{DomId, Gfn, Mfn, VcpuId},
};

use crate::cpu_loop;

pub use self::{
    life::{Life, Shutdown},
    table::{find, hardware, insert, next_free_id, next_from, remove},
};
use crate::{
    console::GuestLine,
    event, grant,
    hvm::PvhDomain,
    irq,
    sync::{Lock, Once},
    time::DomainTsc,
    trap::cpuid::DomainPolicy,
    vcpu::Vcpu,
    watchdog,
};

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
    pauses: pause::Pauses,
    /// How many of them are the toolstack's.
    controller_pauses: AtomicU32,
    /// Its event channels.
    pub events: event::DomainEvents,
    /// Its grants, and those of others that it has mapped.
    pub grants: grant::DomainGrants,
    /// Its watchdogs.
    pub watchdogs: watchdog::Watchdogs,
    /// The line it is writing to the hypervisor's console.
    pub console_line: Lock<GuestLine, { rank::CONSOLE }>,
    /// Its memory.
    pub memory: memory::DomainMemory,
    /// The ports and interrupts it was given.
    pub devices: irq::DeviceAccess,
    /// Where it sees which interrupts it has to end.
    pub eoi_map: irq::EoiMap,
    /// `VMASST_TYPE_*` bits that are on.
    pub vm_assist: AtomicU64,
    max_vcpus: u32,
    vcpus: Once<(Box<[Arc<Vcpu>]>, cpu_loop::Room)>,
    /// What its vCPUs may run under its cap.
    pub budget: Lock<Budget, { rank::LEAF }>,
    /// The pool of CPUs that it is in.
    pub pool: cpu_loop::pools::Member,
    /// What CPUID tells it.
    pub cpuid: DomainPolicy,
    /// Its TSC.
    pub tsc: DomainTsc,
    /// Seconds that its wall clock is ahead of the host's.
    pub time_offset: AtomicI64,
    /// How its vCPUs run.
    pub kind: Kind,
    /// Whose frames it names by their own numbers: its own, or as a PVH domain nobody's.
    pub frames_by_number: Owner,
    this: Weak<Self>,
}

/// How the vCPUs of a domain run.
#[derive(Debug)]
pub enum Kind {
    /// In ring 3, on page tables that are checked.
    Pv,
    /// In a container of the hardware's.
    Pvh(Box<PvhDomain>),
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
    /// The number of its pool of CPUs.
    pub pool: u32,
    /// How many vCPUs it has.
    pub max_vcpus: u32,
    /// Its highest event channel.
    pub max_event_port: u32,
    /// Frames its grant table may grow to.
    pub max_grant_frames: u32,
    /// The highest version of its grant table.
    pub grant_version: Version,
    /// Frames of its maptrack table: how many grants of others it may map, in pages of entries.
    pub max_maptrack_frames: u32,
}

impl Blueprint {
    /// The most vCPUs a domain can have.
    pub const MAX_VCPUS: u32 = 128;
    /// Xen's `gnttab_max_frames`.
    pub const DEFAULT_GRANT_FRAMES: u32 = 64;
    /// Xen's `gnttab_max_maptrack_frames`.
    pub const DEFAULT_MAPTRACK_FRAMES: u32 = 1024;

    /// Whether it is a PVH domain's.
    #[must_use]
    pub const fn is_pvh(&self) -> bool {
        self.create_flags & XEN_DOMCTL_CDF_HVM != 0
    }
}

impl Domain {
    /// A domain without memory and vCPUs, paused once as the toolstack expects.
    pub fn new(blueprint: &Blueprint, held: &mut Held<'_, 0>) -> Result<Arc<Self>, Errno> {
        let (frames, maptrack) = (blueprint.max_grant_frames, blueprint.max_maptrack_frames);
        let grants = grant::DomainGrants::new(blueprint.id, frames, maptrack, blueprint.grant_version, held)?;
        let events = event::DomainEvents::new(blueprint.id, blueprint.max_event_port, held)?;
        let pool = cpu_loop::pools::Member::join(blueprint.pool, held)?;
        let kind = if blueprint.is_pvh() { Kind::Pvh(Box::default()) } else { Kind::Pv };
        let cpuid = DomainPolicy::new();
        if blueprint.is_pvh() {
            // Nobody has fixed it yet.
            let _chosen = cpuid.choose(Box::new(crate::trap::cpuid::policies().pvh.clone()));
        }
        Ok(Arc::new_cyclic(|this| {
            let domain = Self {
                id: blueprint.id,
                privilege: blueprint.privilege,
                create_flags: blueprint.create_flags,
                handle: [AtomicU64::new(0), AtomicU64::new(0)],
                life: life::State::new(),
                pauses: pause::Pauses::new(1),
                controller_pauses: AtomicU32::new(1),
                events,
                grants,
                watchdogs: watchdog::Watchdogs::new(),
                console_line: Lock::new(GuestLine::new()),
                memory: memory::DomainMemory::new(),
                devices: irq::DeviceAccess::new(),
                eoi_map: irq::EoiMap::new(),
                vm_assist: AtomicU64::new(0),
                max_vcpus: blueprint.max_vcpus,
                vcpus: Once::new(),
                budget: Lock::new(Budget::UNLIMITED),
                pool,
                cpuid,
                tsc: DomainTsc::new(blueprint.privilege != Privilege::Control || blueprint.is_pvh()),
                time_offset: AtomicI64::new(0),
                kind,
                frames_by_number: Owner::of(if blueprint.is_pvh() { DomId::INVALID } else { blueprint.id }),
                this: this.clone(),
            };
            domain.set_handle(blueprint.handle);
            domain
        }))
    }

    /// Makes its vCPUs, all down (`XEN_DOMCTL_max_vcpus`). A second call changes nothing. `ENOMEM`.
    pub fn allocate_vcpus(&self, held: &mut Held<'_, 0>) -> Result<(), Errno> {
        /// vCPUs that a heap has room for when it is not low.
        const PART: u32 = 8;
        if self.vcpus.get().is_some() {
            return Ok(());
        }
        let room = cpu_loop::Room::new(self.max_vcpus as usize, held)?;
        let paused = self.is_paused();
        let mut vcpus = Vec::new();
        vcpus.try_reserve_exact(self.max_vcpus as usize).map_err(|_| Errno::ENOMEM)?;
        for id in 0..self.max_vcpus {
            if id % PART == 0 {
                crate::memory::feed_heap(held);
                if heap::is_low() {
                    return Err(Errno::ENOMEM);
                }
            }
            vcpus.push(self.new_vcpu(VcpuId(id), paused));
        }
        self.vcpus.call_once(|| (vcpus.into_boxed_slice(), room));
        // It may have been moved meanwhile.
        self.vcpus().iter().for_each(|vcpu| vcpu.seat.set_pool(self.pool.slot()));
        Ok(())
    }

    fn new_vcpu(&self, id: VcpuId, paused: bool) -> Arc<Vcpu> {
        let vcpu = Vcpu::new(&self.this, self.id, id, self.events.shared_slot().share(), paused, self.pool.slot());
        // The emulator's first CPU loses its place now and then when it enters or leaves a container (decision 0042).
        if self.pvh().is_some() && container::shuns_first() {
            vcpu.seat.shun(CpuMask::one(0));
        }
        crate::time::show_time(&vcpu, &self.tsc);
        vcpu
    }

    /// How many vCPUs it was created for.
    #[must_use]
    pub const fn max_vcpus(&self) -> u32 {
        self.max_vcpus
    }

    /// Its vCPUs in the order of their numbers.
    #[must_use]
    pub fn vcpus(&self) -> &[Arc<Vcpu>] {
        self.vcpus.get().map_or(&[], |(all, _)| all)
    }

    /// The vCPU of a number.
    #[must_use]
    pub fn vcpu(&self, id: VcpuId) -> Option<&Arc<Vcpu>> {
        self.vcpus().get(usize::try_from(id.0).ok()?)
    }

    /// The frame of its `shared_info` page.
    #[must_use]
    pub fn shared_info_frame(&self) -> Mfn {
        self.events.shared_slot().mfn().unwrap_or_default()
    }

    /// Whether a `VMASST_TYPE_*` is on.
    #[inline]
    #[must_use]
    pub fn assists(&self, kind: u32) -> bool {
        self.vm_assist.load(core::sync::atomic::Ordering::Relaxed) >> kind & 1 != 0
    }

    /// What it has as a PVH domain; `None` for a PV domain.
    #[inline]
    #[must_use]
    pub fn pvh(&self) -> Option<&PvhDomain> {
        match &self.kind {
            Kind::Pv => None,
            Kind::Pvh(pvh) => Some(pvh),
        }
    }

    /// The machine's frame behind a frame number of the domain's: for a PV domain they are the same.
    #[inline]
    pub fn frame_of(&self, number: u64, held: &mut Held<'_, 0>) -> Option<Mfn> {
        match &self.kind {
            Kind::Pv => Some(Mfn(number)),
            Kind::Pvh(pvh) => pvh.physmap.find(Gfn(number), held).map(|found| found.mfn),
        }
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
