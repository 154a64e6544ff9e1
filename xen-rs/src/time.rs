//! The hypervisor's clock, and what guests are told of time.

mod domain_tsc;
mod per_cpu;

pub use domain_tsc::DomainTsc;

use core::sync::atomic::Ordering;

use logic::{
    boot::command_line::ClockSource,
    event::EventDomain,
    field,
    guest::Out,
    hvm::compat::{Wide, halves},
    lock::Held,
    time::{Nanos, Scale, SystemClock, TimeBody, TimePage, WallClock, publish},
    width::{WallPlaces, Width},
};
use machine::{
    arch::x86_64::{cpu::rdtsc, platform_timer, rtc, tsc},
    mem::shared::SharedView,
};
use xen_abi::{
    arch_x86::VcpuTimeInfo,
    compat,
    errno::Errno,
    ids::DomId,
    vcpu::{VcpuRunstateInfo, XEN_RUNSTATE_UPDATE},
    vm_assist::VMASST_TYPE_RUNSTATE_UPDATE_FLAG,
};

use crate::{
    domain::{self, Domain},
    guest::Handle,
    sync::Lock,
    sync::Once,
    vcpu::Vcpu,
};

/// One reference for all CPUs and guests, so that nobody's time runs backwards.
static CLOCK: Once<SystemClock> = Once::new();
/// What the wall clock showed at system time 0.
static WALL: Lock<WallClock, { logic::lock::rank::LEAF }> = Lock::new(WallClock { seconds: 0, nanos: 0 });

/// A frequency to go on with until the TSC has been measured.
const GUESS: Scale = Scale { mul: 1 << 31, shift: 1 };

/// Starts system time, once the TSC has been measured and all CPUs have compared theirs. The TSC is the clock where it can
/// be; `clocksource=` names another, or insists on it.
pub fn start(source: ClockSource) {
    let by_tsc = match source {
        ClockSource::Best => tsc::is_reliable(),
        ClockSource::Tsc if tsc::is_synchronous() => true,
        ClockSource::Tsc => {
            log::warn!("clocksource=tsc: CPUs do not agree on it");
            false
        }
        ClockSource::Platform => false,
    };
    let platform = platform_timer::chosen().map_or("nothing", |timer| timer.name);
    if by_tsc || platform_timer::chosen().is_none() {
        let scale = Scale::from_hertz(tsc::hertz()).unwrap_or(GUESS);
        CLOCK.call_once(|| SystemClock { ticks: rdtsc(), time: Nanos::ZERO, scale });
        log::info!("System time by the TSC, measured by {platform}");
    } else {
        per_cpu::start();
        log::info!("System time by {platform}, with the TSC in between");
    }
    let seconds = rtc::read();
    WALL.lock_leaf(|wall| *wall = WallClock::new(seconds, 0, now(), 0));
}

/// The system clock; before [`start`] it stands still. Where each CPU has its own, this CPU's.
#[inline(always)]
fn system() -> SystemClock {
    let standing = SystemClock { ticks: u64::MAX, time: Nanos::ZERO, scale: GUESS };
    CLOCK.get().copied().or_else(per_cpu::clock).unwrap_or(standing)
}

/// When this CPU must look after its clock, if it has one of its own.
#[must_use]
pub fn next_look() -> Option<Nanos> {
    if CLOCK.is_completed() { None } else { per_cpu::next_look() }
}

/// Looks after this CPU's clock if that is due, and shows the vCPU that runs here.
pub fn look(now: Nanos, running: Option<(&Vcpu, &DomainTsc, &mut Areas)>) {
    if next_look().is_some_and(|due| due <= now) {
        per_cpu::look();
        if let Some((vcpu, tsc, areas)) = running {
            renew_time(vcpu, tsc);
            areas.show_time(tsc);
        }
    }
}

/// System time: nanoseconds since the start.
#[inline(always)]
#[must_use]
pub fn now() -> Nanos {
    system().at(rdtsc())
}

/// What the TSC reads when a time has come.
#[must_use]
pub fn ticks_at(time: Nanos) -> u64 {
    system().ticks_at(time)
}

/// Frequency of the time stamp counter.
#[must_use]
pub fn tsc_khz() -> u32 {
    u32::try_from(tsc::hertz() / 1000).unwrap_or(u32::MAX)
}

/// The time record of a guest; on this CPU, where each has its own clock. It is the same for all vCPUs, as the stable bit
/// says, when there is one clock.
#[inline]
fn body(tsc: &DomainTsc) -> TimeBody {
    tsc.body(CLOCK.is_completed() && tsc::is_synchronous())
}

/// Writes a vCPU's time record where it is now.
pub fn show_time(vcpu: &Vcpu, tsc: &DomainTsc) {
    publish(&vcpu.info.get(), &body(tsc));
}

/// Writes a vCPU's time record again if what is there is not this CPU's: it came from another CPU, or whoever built its
/// domain has cleared its shared page.
pub fn renew_time(vcpu: &Vcpu, tsc: &DomainTsc) {
    let (info, body) = (vcpu.info.get(), body(tsc));
    if info.tsc_timestamp() != body.tsc_timestamp {
        publish(&info, &body);
    }
}

/// The wall clock at system time 0.
#[must_use]
pub fn wall_clock() -> WallClock {
    WALL.lock_leaf(|wall| *wall)
}

/// Sets the wall clock and shows it to all domains (`XENPF_settime`).
pub fn set_wall_clock(wall: WallClock, held: &mut Held<'_, 0>) {
    WALL.lock_leaf(|now| *now = wall);
    let mut from = DomId(0);
    while let Some(domain) = domain::next_from(from, held) {
        show_wall_clock(&domain, held);
        from = DomId(domain.id.0.saturating_add(1));
    }
}

struct WallPage<'a>(SharedView<'a>, WallPlaces);

impl TimePage<WallClock> for WallPage<'_> {
    fn version(&self) -> u32 {
        self.0.load32(self.1.version)
    }

    fn set_version(&self, version: u32) {
        self.0.store32(self.1.version, version);
    }

    fn set_body(&self, wall: &WallClock) {
        self.0.store32(self.1.sec, wall.sec());
        self.0.store32(self.1.nsec, wall.nanos);
        self.0.store32(self.1.sec_hi, wall.sec_hi());
    }
}

/// Writes a domain's wall clock, which differs from the host's by what `XEN_DOMCTL_settimeoffset` has said.
pub fn show_wall_clock(domain: &Domain, _held: &mut Held<'_, 0>) {
    let mut wall = wall_clock();
    wall.seconds = wall.seconds.wrapping_add_signed(domain.time_offset.load(Ordering::Relaxed));
    if let Some(page) = domain.events.shared_info() {
        publish(&WallPage(page, domain.width().wall_clock()), &wall);
    }
}

/// Places in a guest's memory, by its own addresses, that are kept up to date while its kernel's page tables are loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Areas {
    /// `VCPUOP_register_runstate_memory_area`; 0 for none.
    pub runstate: u64,
    /// `VCPUOP_register_vcpu_time_memory_area`; 0 for none.
    pub time: u64,
    /// The run state could not be written: the kernel's memory was not mapped.
    pub stale: bool,
}

impl Areas {
    /// Shows the run state to the guest. A place that cannot be written is the guest's loss.
    pub fn show_runstate(&mut self, vcpu: &Vcpu, domain: &Domain) {
        if self.runstate == 0 {
            return;
        }
        self.stale = write_runstate(self.runstate, vcpu, domain).is_err();
    }

    /// Shows the time to the guest, where it has changed: when the clock is this CPU's own. Where that cannot be written now,
    /// the guest finds the old one, which goes on at about the right rate, until the next time.
    pub fn show_time(&self, tsc: &DomainTsc) {
        if self.time != 0 && !CLOCK.is_completed() {
            let _ = write_time_area(self.time, tsc);
        }
    }

    /// The guest's kernel is mapped again: writes what could not be written before.
    #[inline]
    pub fn catch_up(&mut self, vcpu: &Vcpu, domain: &Domain) {
        if self.stale {
            self.show_runstate(vcpu, domain);
        }
    }
}

/// The run state as `vcpu.h` lays it out.
#[must_use]
pub fn runstate_record(snapshot: logic::sched::RunSnapshot) -> VcpuRunstateInfo {
    VcpuRunstateInfo { state: snapshot.state, _pad: 0, state_entry_time: snapshot.since.0, time: snapshot.time }
}

/// Writes a run state as code of this width has it.
pub fn write_runstate_record(va: u64, record: &VcpuRunstateInfo, width: Width) -> Result<(), Errno> {
    match width {
        Width::Long64 => Handle::<_, Out>::new(va).write(record),
        Width::Long32 => Handle::<_, Out>::new(va).write(&compat::VcpuRunstateInfo::default().narrow(record)),
    }
}

fn write_runstate(va: u64, vcpu: &Vcpu, domain: &Domain) -> Result<(), Errno> {
    use core::sync::atomic::{Ordering, fence};

    let mut record = runstate_record(vcpu.seat.clock.stored());
    let width = domain.width();
    let flagged = domain.vm_assist.load(Ordering::Relaxed) & (1 << VMASST_TYPE_RUNSTATE_UPDATE_FLAG) != 0;
    if !flagged {
        return write_runstate_record(va, &record, width);
    }
    let since = |value: u64| match width {
        Width::Long64 => {
            Handle::<VcpuRunstateInfo, Out>::new(va).part(field!(VcpuRunstateInfo, state_entry_time)).write(&value)
        }
        Width::Long32 => Handle::<compat::VcpuRunstateInfo, Out>::new(va)
            .part(field!(compat::VcpuRunstateInfo, state_entry_time))
            .write(&halves(value)),
    };
    // A reader that sees the bit, or another value before and after, reads again.
    record.state_entry_time |= XEN_RUNSTATE_UPDATE;
    since(record.state_entry_time)?;
    fence(Ordering::SeqCst);
    write_runstate_record(va, &record, width)?;
    fence(Ordering::SeqCst);
    since(record.state_entry_time & !XEN_RUNSTATE_UPDATE)
}

/// Writes the time record to a place in the calling guest's memory (`VCPUOP_register_vcpu_time_memory_area`).
pub fn write_time_area(va: u64, tsc: &DomainTsc) -> Result<(), Errno> {
    let body = body(tsc);
    let record = VcpuTimeInfo {
        version: 2,
        pad0: 0,
        tsc_timestamp: body.tsc_timestamp,
        system_time: body.system_time,
        tsc_to_system_mul: body.tsc_to_system_mul,
        tsc_shift: body.tsc_shift,
        flags: body.flags,
        pad1: [0; 2],
    };
    Handle::<_, Out>::new(va).write(&record)
}
