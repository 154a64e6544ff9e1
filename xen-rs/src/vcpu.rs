//! A virtual CPU in two halves: what every CPU may look at, and what only its runner may touch.

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
};
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use bitflags::bitflags;
use logic::{
    event::VcpuEvents,
    hvm::apic::Inbox,
    lock::rank,
    regs::GuestRegs,
    sched::{CpuMask, pools::Slot},
    time::{Nanos, Periodic, VcpuTimers},
};
use machine::{
    arch::x86_64::{descriptors, fpu::FpuArea},
    mem::shared::SharedPage,
};
use xen_abi::ids::{DomId, VcpuId};

use crate::{
    cpu_loop::Seat,
    domain::Domain,
    hvm::PvhVcpu,
    memory::Paging,
    sync::Lock,
    trap::{PvState, segments},
    vcpu_info::VcpuInfoPlace,
};

bitflags! {
    /// What else there is to know about a vCPU. The first four stand in [`Seat::ready`] and are only shown here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VcpuFlags: u32 {
        /// Not brought up yet, or taken down (`VCPUOP_down`).
        const DOWN = 1 << 0;
        /// Waits for an event (`SCHEDOP_block`, `SCHEDOP_poll`).
        const BLOCKED = 1 << 1;
        /// Waits for one of some ports (`SCHEDOP_poll`).
        const POLLING = 1 << 2;
        /// A CPU owns its private state at the moment.
        const RUNNING = 1 << 5;
        /// Its context has been set (`VCPUOP_initialise`, `setvcpucontext`).
        const INITIALISED = 1 << 3;
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
    /// Its place in the scheduler: whether it may run, where, and for how long.
    pub seat: Seat,
    /// Its VIRQs and what it polls for.
    pub events: VcpuEvents,
    /// Where its `vcpu_info` is.
    pub info: VcpuInfoPlace,
    /// Of a PVH vCPU: what is sent to its local APIC.
    pub inbox: Inbox,
    /// Of a PVH vCPU: the vector of its upcalls; 0: its domain's callback.
    upcall_vector: AtomicU8,
    /// What another vCPU has made of its private half while it ran: its CPU takes it over.
    pub wishes: Lock<Option<Wishes>, { rank::LEAF }>,
    /// The private half while no CPU runs it.
    pub parked: Lock<Option<Box<VcpuState>>, { rank::VCPU_PARKED }>,
}

/// What another vCPU wants of a vCPU's private half; `None` each: as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// Its periodic timer, or to have none.
    pub periodic: Option<Option<Periodic>>,
    /// The place of its run state.
    pub runstate: Option<u64>,
    /// The place of its time.
    pub time: Option<u64>,
}

/// The private half of a virtual CPU: owned by the CPU that runs it, else parked.
pub struct VcpuState {
    /// Its registers; stale while it runs, when they are on the CPU's stack.
    pub regs: GuestRegs,
    /// Its container, of a PVH vCPU that has a context.
    pub pvh: Option<Box<PvhVcpu>>,
    /// What its kernel has set up.
    pub pv: PvState,
    /// Its x87, SSE, AVX.. registers while it does not run.
    pub fpu: FpuArea,
    /// Its page-table roots.
    pub paging: Paging,
    /// Its timers.
    pub timers: VcpuTimers,
    /// Places in the guest's memory that want to be told the time and the run state.
    pub areas: crate::time::Areas,
}

impl Vcpu {
    /// A vCPU that is down and has no context yet, paused once when its domain is.
    #[must_use]
    pub fn new(
        domain: &Weak<Domain>,
        domain_id: DomId,
        id: VcpuId,
        shared: Option<Arc<SharedPage>>,
        paused: bool,
        pool: Slot,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            domain_id,
            domain: domain.clone(),
            flags: AtomicU32::new(0),
            seat: Seat::new(id, paused, pool),
            events: VcpuEvents::new(),
            info: VcpuInfoPlace::new(shared, id.0),
            inbox: Inbox::new(id.0 * 2),
            upcall_vector: AtomicU8::new(0),
            wishes: Lock::new(None),
            parked: Lock::new(Some(Box::new(VcpuState {
                regs: GuestRegs::default(),
                pvh: None,
                pv: PvState::default(),
                fpu: FpuArea::new(),
                paging: Paging::default(),
                timers: VcpuTimers::of_new_vcpu(crate::time::now()),
                areas: crate::time::Areas::default(),
            }))),
        })
    }

    /// Its domain, unless that is gone.
    #[must_use]
    pub fn domain(&self) -> Option<Arc<Domain>> {
        self.domain.upgrade()
    }

    /// The vector of its upcalls (`HVMOP_set_evtchn_upcall_vector`); 0: its domain's callback.
    #[inline]
    #[must_use]
    pub fn upcall_vector(&self) -> u8 {
        self.upcall_vector.load(Ordering::Relaxed)
    }

    /// Sets it.
    pub fn set_upcall_vector(&self, vector: u8) {
        self.upcall_vector.store(vector, Ordering::Relaxed);
    }

    /// Time it has run, in nanoseconds.
    #[must_use]
    pub fn cpu_time_ns(&self) -> u64 {
        self.seat.clock.at(crate::time::now()).time[0]
    }

    /// The physical CPU whose queue it is on.
    #[must_use]
    pub fn processor(&self) -> u32 {
        self.seat.processor()
    }

    /// The physical CPU that it runs on, or would: the last one, or another where that is none for it any more. One that
    /// sleeps is told of a change only when it wakes up.
    #[must_use]
    pub fn home(&self) -> u32 {
        let (last, allowed) = (self.seat.processor(), self.seat.may_run_on());
        if self.seat.ready.is_running() || allowed.and(CpuMask::one(last)) != CpuMask(0) {
            return last;
        }
        allowed.first().unwrap_or(last)
    }

    /// The flags as of now.
    #[must_use]
    pub fn flags(&self) -> VcpuFlags {
        let mut flags = VcpuFlags::from_bits_truncate(self.flags.load(Ordering::Acquire));
        flags.set(VcpuFlags::DOWN, !self.seat.ready.is_up());
        flags.set(VcpuFlags::BLOCKED, self.seat.ready.is_blocked());
        flags.set(VcpuFlags::POLLING, logic::event::is_polled(&self.events));
        flags.set(VcpuFlags::RUNNING, self.seat.ready.is_running());
        flags
    }

    /// Sets flags of its own (not those of [`Seat::ready`]) and tells which of them were set before.
    pub fn set(&self, flags: VcpuFlags) -> VcpuFlags {
        VcpuFlags::from_bits_truncate(self.flags.fetch_or(flags.bits(), Ordering::AcqRel))
    }

    /// Takes flags of its own away.
    pub fn clear(&self, flags: VcpuFlags) {
        self.flags.fetch_and(!flags.bits(), Ordering::AcqRel);
    }
}

impl VcpuState {
    /// The CPU takes on what is the vCPU's: page and descriptor tables, extended state, segments, debug registers. False:
    /// a selector could not be loaded.
    #[must_use]
    pub fn load(&mut self, domain: &Domain) -> bool {
        if let Some(pvh) = &mut self.pvh {
            segments::separate(domain.id);
            pvh.load(domain, &mut self.fpu);
            return true;
        }
        segments::separate(domain.id);
        self.paging.load(domain.id, self.pv.in_kernel);
        descriptors::load_gdt(&self.pv.gdt.pages);
        self.pv.ldt.load();
        self.fpu.restore();
        segments::enter(&self.pv, domain)
    }

    /// Takes over what another vCPU wants, if anything.
    #[inline]
    pub fn take_over(&mut self, vcpu: &Vcpu) {
        if let Some(wishes) = vcpu.wishes.lock_leaf(Option::take) {
            self.grant(wishes);
        }
    }

    /// Does as another vCPU wants.
    pub fn grant(&mut self, wishes: Wishes) {
        self.timers.periodic = wishes.periodic.unwrap_or(self.timers.periodic);
        self.areas.runstate = wishes.runstate.unwrap_or(self.areas.runstate);
        self.areas.time = wishes.time.unwrap_or(self.areas.time);
    }

    /// The timer of its local APIC goes off.
    #[cold]
    pub fn expire_apic(&mut self, now: Nanos) {
        if let Some(pvh) = self.pvh.as_deref_mut() {
            pvh.apic.expire(now);
            self.timers.apic = pvh.apic.deadline();
        }
    }

    /// The vCPU leaves the CPU: what the CPU holds of it goes into its state.
    pub fn save(&mut self) {
        if let Some(pvh) = &mut self.pvh {
            return pvh.save(&mut self.fpu);
        }
        segments::leave(&mut self.pv);
        self.fpu.save();
        machine::mem::tlb::leave_root();
    }
}
