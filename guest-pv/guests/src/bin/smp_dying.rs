//! A domain that comes and goes under one number while three vCPUs work on it: they map its pages and grants, change and pin
//! its tables, copy, trade and give memory, connect event channels, set its state. In the middle of it the domain is
//! destroyed. Each time it goes for good once nobody has anything of it any more, and no page is lost by that; on xen-rs a
//! recount at the end finds every reference.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Numbers are cut to size on purpose.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use guest_pv::alloc::boxed::Box;
use guest_pv::alloc::vec::Vec;
use guest_pv::call::{domctl, sysctl};
use guest_pv::mem::Frame;
use guest_pv::mem::table::{READ_ONLY, READ_WRITE};
use guest_pv::smp::Barrier;
use guest_pv::tap::Tap;
use guest_pv::{events, smp as vcpus, time};
use guests::smp::{COUNT, Random, Watch, on_all};
use guests::{address_of, call, op, page, store, trap_of, update_va_mapping};
use spin::Mutex;
use xen_abi::Errno;
use xen_abi::arch_x86::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, VGCF_IN_KERNEL, VcpuGuestContext};
use xen_abi::domctl::CreateDomain;
use xen_abi::event_channel::*;
use xen_abi::grant_table::*;
use xen_abi::hypercall::*;
use xen_abi::ids::{DomId, GrantHandle, GrantRef, Port, VcpuId};
use xen_abi::memory::*;
use xen_abi::mmu::*;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

guest_pv::test!(run);

/// The domain's number, always the same.
const CHILD: DomId = DomId(77);
const OWN: DomId = DomId(0);
/// Pages of the domain, and addresses of ours.
const POOL: usize = 16;
const ROUNDS: usize = 30;
/// On a busy machine some kinds of work need more rounds than that before they succeed once.
const MOST_ROUNDS: usize = 600;
/// Rounds after which everything that is kept for good has been made.
const WARM: usize = 8;
const KINDS: usize = 14;
/// How long the end of a domain may take, nanoseconds.
const PATIENCE: u64 = 5_000_000_000;

static FRAMES: [AtomicU64; POOL] = [const { AtomicU64::new(0) }; POOL];
static PLACES: [AtomicU64; POOL] = [const { AtomicU64::new(0) }; POOL];
/// Where the first page of the domain's grants is mapped.
static GRANTS: AtomicU64 = AtomicU64::new(0);
static HANDLES: Mutex<Vec<(GrantHandle, u64)>> = Mutex::new(Vec::new());
static SEEDS: AtomicU64 = AtomicU64::new(1);
static DONE: [AtomicU64; KINDS] = [const { AtomicU64::new(0) }; KINDS];
static RACE: AtomicBool = AtomicBool::new(false);
static BARRIER: Barrier = Barrier::new(COUNT);
static WATCH: Watch = Watch::new();
/// There is another round.
static GOES_ON: AtomicBool = AtomicBool::new(true);
/// Free pages of the machine after each round; the last is that of all later ones.
static FREE: [AtomicU64; ROUNDS] = [const { AtomicU64::new(0) }; ROUNDS];

fn run(tap: &mut Tap) {
    let pages: Vec<Frame> = (0..=POOL).map(|_| page()).collect();
    for (page, place) in pages.iter().zip(PLACES.iter().chain([&GRANTS])) {
        place.store(page.address(), SeqCst);
        update_va_mapping(page.address(), 0, UVMF_INVLPG).expect("it can be unmapped");
    }
    events::set_upcall_mask(true);
    on_all(live);
    WATCH.verdict(tap, "a domain is worked on by three vCPUs while it is made and destroyed");
    let done = DONE.each_ref().map(|done| done.load(SeqCst));
    tap.note(format_args!("successes: {done:?}"));
    tap.ok(done.iter().all(|done| *done > 0), "and each kind of work succeeds now and then");
    let free = FREE.each_ref().map(|free| free.load(SeqCst));
    tap.is(free[ROUNDS - 1], free[WARM], "no page is lost by that");
    for page in pages {
        page.leak();
    }
}

fn live() {
    events::set_upcall_mask(true);
    let mut random = Random::new(SEEDS.fetch_add(1, SeqCst));
    for round in 0..MOST_ROUNDS {
        if vcpus::index() == 0 {
            let missing = DONE.iter().any(|done| done.load(SeqCst) == 0);
            GOES_ON.store(round < ROUNDS || missing, SeqCst);
            if GOES_ON.load(SeqCst) {
                make();
                RACE.store(true, SeqCst);
            }
        }
        BARRIER.wait();
        if !GOES_ON.load(SeqCst) {
            return;
        }
        if vcpus::index() == 0 {
            wait(1_000_000 * random.below(20) as u64);
            let _ = domctl::destroy_domain(CHILD);
            wait(1_000_000 * random.below(5) as u64);
            RACE.store(false, SeqCst);
        } else {
            work(&mut random);
        }
        BARRIER.wait();
        if vcpus::index() == 0 {
            end();
            FREE[round.min(ROUNDS - 1)].store(sysctl::physinfo().map_or(0, |info| info.free_pages), SeqCst);
        }
    }
}

/// The port of our timer goes away with all others, so this does not sleep.
fn wait(nanos: u64) {
    let until = time::now() + nanos;
    while time::now() < until {
        vcpus::relax();
    }
}

fn make() {
    let config = CreateDomain {
        max_vcpus: 1,
        max_evtchn_port: 1023,
        max_grant_frames: 8,
        max_maptrack_frames: 8,
        grant_opts: 2,
        ..Default::default()
    };
    let made = domctl::create_domain(CHILD, &config);
    WATCH.check(made == Ok(CHILD), format_args!("create: {made:?}"));
    let given = domctl::max_mem(CHILD, 4 * 64).and(domctl::max_vcpus(CHILD, 1));
    WATCH.check(given == Ok(()), format_args!("limits: {given:?}"));
    for (index, frame) in FRAMES.iter().enumerate() {
        let mut mfn = index as u64;
        let got = op(HYPERVISOR_MEMORY_OP, XENMEM_POPULATE_PHYSMAP, &mut side(&mut mfn));
        WATCH.check(got == Ok(1), format_args!("populate: {got:?}"));
        frame.store(mfn, SeqCst);
    }
    let mut mfn = 0;
    let mut table = MemAcquireResource {
        domid: CHILD,
        type_: XENMEM_RESOURCE_GRANT_TABLE,
        id: XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED,
        nr_frames: 1,
        frame_list: address_of(&mut mfn),
        ..Default::default()
    };
    let got = op(HYPERVISOR_MEMORY_OP, XENMEM_ACQUIRE_RESOURCE, &mut table);
    let mapped = other_domain(GRANTS.load(SeqCst), mfn << 12 | READ_WRITE);
    WATCH.check(got == Ok(0) && mapped == Ok(0), format_args!("grants: {got:?} {mapped:?}"));
}

/// Lets go of whatever we may have of the domain, and sees it end.
fn end() {
    for (handle, at) in core::mem::take(&mut *HANDLES.lock()) {
        let _ = unmap_at(handle, at);
    }
    for place in PLACES.iter().chain([&GRANTS]) {
        let _ = update_va_mapping(place.load(SeqCst), 0, UVMF_TLB_FLUSH | UVMF_ALL);
    }
    while event_op(EVTCHNOP_RESET, &mut EvtchnReset { dom: DomId::SELF }) == Err(Errno::EAGAIN) {}
    let until = time::now() + PATIENCE;
    let last = loop {
        match domctl::destroy_domain(CHILD) {
            Err(Errno::ESRCH) => break Ok(()),
            _ if time::now() < until => {}
            other => break other,
        }
    };
    WATCH.check(last == Ok(()), format_args!("it does not end: {last:?}"));
}

fn work(random: &mut Random) {
    while RACE.load(SeqCst) {
        let kind = random.below(KINDS);
        if step(kind, random).is_ok() {
            DONE[kind].fetch_add(1, SeqCst);
        }
    }
}

fn frame(random: &mut Random) -> u64 {
    FRAMES[random.below(POOL)].load(SeqCst)
}

fn place(random: &mut Random) -> u64 {
    PLACES[random.below(POOL)].load(SeqCst)
}

fn entry(random: &mut Random) -> u64 {
    let mfn = frame(random);
    [0, mfn << 12 | READ_ONLY, mfn << 12 | READ_WRITE][random.below(3)]
}

fn step(kind: usize, random: &mut Random) -> Result<u64, Errno> {
    match kind {
        0 | 1 => other_domain(place(random), entry(random)),
        2 => tables(random),
        3 => {
            let cmd = [MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L4_TABLE, MMUEXT_UNPIN_TABLE][random.below(3)];
            let mut op = MmuextOp { cmd, _pad: 0, arg1: frame(random), arg2: 0 };
            call(HYPERVISOR_MMUEXT_OP, [address_of(&mut op), 1, 0, CHILD.0.into()])
        }
        4 => map(random),
        5 => {
            let taken = HANDLES.lock().pop();
            taken.map_or(Ok(0), |(handle, at)| unmap_at(handle, at))
        }
        6 => {
            // Entries of its grants, for us.
            let at = GRANTS.load(SeqCst) + 8 * random.below(32) as u64;
            let word = u64::from(GTF_PERMIT_ACCESS) | u64::from(OWN.0) << 16 | frame(random) << 32;
            trap_of(|| store(at, word)).map_or(Ok(0), |_| Err(Errno::EFAULT))
        }
        7 => copy(random),
        8 | 9 => ports(random),
        10 => {
            let mut mfn = frame(random);
            let command = [XENMEM_POPULATE_PHYSMAP, XENMEM_DECREASE_RESERVATION][random.below(2)];
            match op(HYPERVISOR_MEMORY_OP, command, &mut side(&mut mfn))? {
                0 => Err(Errno::EAGAIN),
                done => Ok(done),
            }
        }
        11 => {
            let (mut given, mut taken) = (frame(random), 0);
            let mut exchange = MemoryExchange { in_: side(&mut given), out: side(&mut taken), nr_exchanged: 0 };
            let result = op(HYPERVISOR_MEMORY_OP, XENMEM_EXCHANGE, &mut exchange);
            if result == Ok(0) {
                FRAMES[random.below(POOL)].store(taken, SeqCst);
            }
            result
        }
        12 => state(random),
        _ => {
            let mut claim = side(&mut 0);
            (claim.extent_start, claim.nr_extents) = (0, [0, 40][random.below(2)]);
            op(HYPERVISOR_MEMORY_OP, XENMEM_CLAIM_PAGES, &mut claim)
        }
    }
}

fn other_domain(va: u64, entry: u64) -> Result<u64, Errno> {
    call(HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, [va, entry, UVMF_INVLPG, CHILD.0.into()])
}

/// An entry of a table of its own, with one of its pages.
fn tables(random: &mut Random) -> Result<u64, Errno> {
    let ptr = (frame(random) << 12) | (random.below(256) as u64 * 8);
    let mut request = MmuUpdate { ptr, val: entry(random) };
    let who = u64::from(CHILD.0) | (u64::from(CHILD.0) + 1) << 16;
    call(HYPERVISOR_MMU_UPDATE, [address_of(&mut request), 1, 0, who])
}

fn grant_op<T: FromBytes + IntoBytes>(command: u32, argument: &mut T) -> Result<u64, Errno> {
    call(HYPERVISOR_GRANT_TABLE_OP, [command.into(), address_of(argument), 1])
}

fn map(random: &mut Random) -> Result<u64, Errno> {
    let at = place(random);
    let flags = GNTMAP_HOST_MAP | [0, GNTMAP_READONLY][random.below(2)];
    let ref_ = GrantRef(random.below(32) as u32);
    let mut map = GnttabMapGrantRef { host_addr: at, flags, ref_, dom: CHILD, ..Default::default() };
    grant_op(GNTTABOP_MAP_GRANT_REF, &mut map)?;
    if map.status != GNTST_OKAY {
        return Err(Errno::EAGAIN);
    }
    HANDLES.lock().push((map.handle, at));
    Ok(0)
}

fn unmap_at(handle: GrantHandle, host_addr: u64) -> Result<u64, Errno> {
    grant_op(GNTTABOP_UNMAP_GRANT_REF, &mut GnttabUnmapGrantRef { host_addr, handle, ..Default::default() })
}

fn copy(random: &mut Random) -> Result<u64, Errno> {
    let mut end =
        || GnttabCopyPtr { u: random.below(32) as u64, domid: CHILD, offset: random.below(64) as u16, _pad: 0 };
    let (source, dest) = (end(), end());
    let flags = GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF;
    let mut copy = GnttabCopy { source, dest, len: 4000, flags, ..Default::default() };
    grant_op(GNTTABOP_COPY, &mut copy)?;
    if copy.status == GNTST_OKAY { Ok(0) } else { Err(Errno::EAGAIN) }
}

fn side(frame: &mut u64) -> MemoryReservation {
    MemoryReservation { extent_start: address_of(frame), nr_extents: 1, domid: CHILD, ..Default::default() }
}

fn event_op<T: FromBytes + IntoBytes>(command: u32, argument: &mut T) -> Result<u64, Errno> {
    op(HYPERVISOR_EVENT_CHANNEL_OP, command, argument)
}

fn ports(random: &mut Random) -> Result<u64, Errno> {
    let port = Port(1 + random.below(16) as u32);
    match random.below(5) {
        0 => event_op(
            EVTCHNOP_ALLOC_UNBOUND,
            &mut EvtchnAllocUnbound { dom: CHILD, remote_dom: DomId::SELF, port: Port(0) },
        ),
        1 | 2 => {
            let mut bind = EvtchnBindInterdomain { remote_dom: CHILD, _pad: 0, remote_port: port, local_port: Port(0) };
            event_op(EVTCHNOP_BIND_INTERDOMAIN, &mut bind)
        }
        3 => event_op(EVTCHNOP_SEND, &mut EvtchnSend { port }),
        _ if random.below(8) == 0 => event_op(EVTCHNOP_RESET, &mut EvtchnReset { dom: CHILD }),
        _ => event_op(EVTCHNOP_CLOSE, &mut EvtchnClose { port }),
    }
}

/// A state for its vCPU: roots and a descriptor table that are pages of it.
fn state(random: &mut Random) -> Result<u64, Errno> {
    let mut context = Box::new(VcpuGuestContext::new_zeroed());
    context.flags = VGCF_IN_KERNEL;
    context.user_regs.cs = FLAT_KERNEL_CS;
    context.user_regs.ss = FLAT_KERNEL_SS;
    context.ctrlreg[3] = frame(random) << 12;
    if random.below(2) == 0 {
        context.ctrlreg[1] = frame(random) << 12;
        (context.gdt_ents, context.gdt_frames[0]) = (512, frame(random));
    }
    domctl::set_vcpu_context(CHILD, VcpuId(0), &context).map(|()| 0)
}
