//! The trace buffers: what happens on each CPU, for a monitor in the control domain such as Xen's `xentrace` (public headers
//! `trace.h` and `sysctl.h`).
//!
//! The table (`t_info`) and the buffers are pages of `DOMID_XEN`, which the control domain maps. As in Xen they are made
//! once and never go. While nothing is traced, a place that could be costs one look at a word.
//!
//! Not traced are the three hypercalls that are over before they could be (`xen_version` for the version, `stack_switch`,
//! `fpu_taskswitch`).

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use logic::{
    lock::{Held, rank},
    num,
    sched::Runstate,
    trace::{Buffer, Ring, Written, is_wanted},
};
use machine::{
    arch::x86_64::{cpu as processor, percpu},
    mem::shared::SharedPage,
};
use xen_abi::{
    errno::Errno,
    hypercall::VIRQ_TBUF,
    ids::{DomId, Mfn},
    trace::{TRC_ALL, TRC_SCHED_RUNSTATE_CHANGE},
};

use crate::{
    cpu_loop, event, memory,
    sync::{Lock, Once},
    topology,
    vcpu::Vcpu,
};

/// Bytes of a page.
const PAGE: u32 = 4096;
/// `struct t_buf` before the records.
const HEADER: u32 = 8;
/// Offset of `prod` in it.
const PRODUCED: usize = 4;
/// Pages of buffers made in one go.
const PAGES_PER_ROUND: usize = 32;

/// Classes of events that are recorded now; none while tracing is off.
static ACTIVE: AtomicU32 = AtomicU32::new(0);
/// Whether it is on.
static ENABLED: AtomicBool = AtomicBool::new(false);
/// Classes that are to be recorded while it is on.
static WANTED: AtomicU32 = AtomicU32::new(TRC_ALL);
/// CPUs that record.
static CPUS: AtomicU64 = AtomicU64::new(u64::MAX);
/// A buffer has become half full.
static HALF_FULL: AtomicBool = AtomicBool::new(false);
static BUFFERS: Once<Buffers> = Once::new();
/// Pages made so far.
static MAKING: Lock<Vec<SharedPage>, { rank::LEAF }> = Lock::new(Vec::new());

struct Buffers {
    info: SharedPage,
    cpus: Vec<CpuBuffer>,
}

/// The pages of one buffer.
struct Pages(Vec<SharedPage>);

struct CpuBuffer {
    pages: Pages,
    /// Only its CPU writes records: nobody waits for this.
    ring: Lock<Ring, { rank::LEAF }>,
}

impl Buffer for Pages {
    fn bytes(&self) -> u32 {
        num::count(self.0.len()) * PAGE - HEADER
    }

    fn consumed(&self) -> u32 {
        self.0.first().map_or(0, |page| page.view().load32(0))
    }

    fn publish(&self, produced: u32) {
        if let Some(page) = self.0.first() {
            page.view().store32(PRODUCED, produced);
        }
    }

    fn store(&self, offset: u32, word: u32) {
        let at = offset + HEADER;
        if let Some(page) = self.0.get((at / PAGE) as usize) {
            page.view().store32((at % PAGE) as usize, word);
        }
    }
}

/// Whether anything is traced.
#[inline(always)]
#[must_use]
pub fn is_on() -> bool {
    ACTIVE.load(Ordering::Relaxed) != 0
}

/// Notes an event, with at most seven words of data, if somebody wants to know.
#[inline(always)]
pub fn event<const N: usize>(event: u32, data: impl FnOnce() -> [u32; N]) {
    if is_on() {
        record(event, &data());
    }
}

/// Notes an event of a vCPU whose data is its domain and its number.
#[inline(always)]
pub fn of_vcpu(name: u32, vcpu: &Vcpu) {
    event(name, || ids(vcpu));
}

/// A vCPU changes its state (`RUNSTATE_*`).
#[inline(always)]
pub fn runstate(vcpu: &Vcpu, from: Runstate, to: Runstate) {
    let name = TRC_SCHED_RUNSTATE_CHANGE | (from as u32) << 8 | (to as u32) << 4;
    event(name, || {
        let [domain, number] = ids(vcpu);
        [number | domain << 16]
    });
}

/// The two words of an address.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "the two halves of a number")]
pub const fn halves(address: u64) -> [u32; 2] {
    [address as u32, (address >> 32) as u32]
}

/// Domain and number of a vCPU.
#[must_use]
pub fn ids(vcpu: &Vcpu) -> [u32; 2] {
    [vcpu.domain_id.0.into(), vcpu.id.0]
}

#[cold]
fn record(event: u32, data: &[u32]) {
    let cpu = percpu::number();
    if !is_wanted(ACTIVE.load(Ordering::Relaxed), event) || CPUS.load(Ordering::Relaxed) >> (cpu & 63) & 1 == 0 {
        return;
    }
    let Some(buffer) = BUFFERS.get().and_then(|buffers| buffers.cpus.get(cpu as usize)) else { return };
    let written = buffer.ring.lock_leaf(|ring| ring.write(&buffer.pages, event, processor::rdtsc(), data));
    if written == Written::HalfFull {
        HALF_FULL.store(true, Ordering::Relaxed);
        cpu_loop::look_again(cpu);
    }
}

/// Tells the monitor that it is time to read, if it is.
pub fn tell_monitor(held: &mut Held<'_, 0>) {
    if HALF_FULL.load(Ordering::Relaxed) && HALF_FULL.swap(false, Ordering::Relaxed) {
        event::raise_control_virq(VIRQ_TBUF, held);
    }
}

/// What a monitor has to know: the event mask, the first frame of the table and its bytes (0 without one).
#[must_use]
pub fn info() -> (u32, Mfn, u32) {
    let table = BUFFERS.get().map(|buffers| buffers.info.mfn());
    (WANTED.load(Ordering::Relaxed), table.unwrap_or(Mfn(0)), if table.is_some() { PAGE } else { 0 })
}

/// Chooses the events.
pub fn set_events(mask: u32) {
    WANTED.store(mask, Ordering::Relaxed);
    if ENABLED.load(Ordering::Relaxed) {
        ACTIVE.store(mask, Ordering::Relaxed);
    }
}

/// Chooses the CPUs.
pub fn set_cpus(mask: u64) {
    CPUS.store(mask, Ordering::Relaxed);
}

/// Begins to record. EINVAL without buffers.
pub fn enable() -> Result<(), Errno> {
    BUFFERS.get().ok_or(Errno::EINVAL)?;
    ENABLED.store(true, Ordering::Relaxed);
    ACTIVE.store(WANTED.load(Ordering::Relaxed), Ordering::Relaxed);
    Ok(())
}

/// Ends recording. What was recorded stays.
pub fn disable() {
    ENABLED.store(false, Ordering::Relaxed);
    ACTIVE.store(0, Ordering::Relaxed);
}

/// Makes buffers of so many pages for each CPU, or of as many as the table can name, and begins to record. Only once: EBUSY
/// when there are some of that size, EINVAL when they are of another.
/// ERESTART: not finished, call again.
pub fn set_size(pages: u32, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let cpus = topology::online();
    // Half-words: the size and each CPU's offset; then four bytes for each page.
    let names = (PAGE - 2 - 2 * cpus) / 4 / cpus.max(1);
    let pages = pages.min(names);
    if pages == 0 {
        return Err(Errno::EINVAL);
    }
    if let Some(buffers) = BUFFERS.get() {
        let same = buffers.cpus.first().is_some_and(|cpu| cpu.pages.0.len() == pages as usize);
        return Err(if same { Errno::EBUSY } else { Errno::EINVAL });
    }
    let wanted = 1 + (pages * cpus) as usize;
    for _ in 0..PAGES_PER_ROUND {
        if MAKING.lock_leaf(|making| making.len()) >= wanted {
            break;
        }
        let page = memory::shared_page(DomId::XEN, held)?;
        MAKING.lock_leaf(|making| making.push(page));
    }
    // Pages that an earlier try has made for larger buffers stay for the next one.
    let done = MAKING.lock_leaf(|making| (making.len() >= wanted).then(|| making.split_off(making.len() - wanted)));
    let Some(mut made) = done else { return Err(Errno::ERESTART) };
    let Some(info) = made.pop() else { return Err(Errno::ENOMEM) };
    let mut made = made.into_iter();
    let cpus: Vec<CpuBuffer> = (0..cpus)
        .map(|_| CpuBuffer { pages: Pages(made.by_ref().take(pages as usize).collect()), ring: Lock::new(Ring::new()) })
        .collect();
    describe(&info, pages, &cpus);
    BUFFERS.call_once(|| Buffers { info, cpus });
    log::info!("xentrace: initialised");
    enable()
}

/// Writes the table: `tbuf_size`, where each CPU's list begins (in words), the lists of frames.
fn describe(info: &SharedPage, pages: u32, cpus: &[CpuBuffer]) {
    let count = num::count(cpus.len());
    let first = (2 + 2 * count).div_ceil(4);
    let halves = core::iter::once(pages).chain((0..count).map(|cpu| first + cpu * pages));
    let mut word = 0;
    for (index, half) in halves.enumerate() {
        word = if index % 2 == 0 { half & 0xffff } else { word | half << 16 };
        info.view().store32(index / 2 * 4, word);
    }
    for (index, page) in (first as usize..).zip(cpus.iter().flat_map(|cpu| &cpu.pages.0)) {
        let frame = u32::try_from(page.mfn().0).unwrap_or(0);
        info.view().store32(index * 4, frame);
    }
}
