//! Four vCPUs do with the same few pages whatever the subsystems allow: mappings and page tables, grants of both versions
//! to the domain itself, trades of frames, descriptor tables, areas that the hypervisor writes, event channels of the FIFO
//! layout with words that are scribbled on. Most of it fails, since another vCPU was faster; what counts is what is left:
//! every page can be made an ordinary one again, and on xen-rs a recount at the end finds every reference.
//!
//! Unsafe: descriptors are looked at.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)]
#![allow(clippy::cast_possible_truncation)] // Numbers are cut to size on purpose.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use guest_pv::alloc::vec::Vec;
use guest_pv::mem::Frame;
use guest_pv::mem::table::{READ_ONLY, READ_WRITE};
use guest_pv::tap::Tap;
use guest_pv::{events, grants, smp as vcpus};
use guests::smp::{COUNT, Random, Watch, on_all};
use guests::{address_of, call, load, mmu_update, mmuext, op, page, store, trap_of, update_va_mapping};
use spin::Mutex;
use xen_abi::Errno;
use xen_abi::event_channel::*;
use xen_abi::grant_table::*;
use xen_abi::hypercall::*;
use xen_abi::ids::{DomId, GrantHandle, GrantRef, Mfn, Port, VcpuId};
use xen_abi::memory::*;
use xen_abi::mmu::*;
use xen_abi::vcpu::*;
use zerocopy::{FromBytes, IntoBytes};

guest_pv::test!(run);

const POOL: usize = 24;
const STEPS: usize = 3000;
const KINDS: usize = 24;
/// Ourselves: grants are not given to `DOMID_SELF`.
const OWN: DomId = DomId(0);
/// The frames that are fought for, 0 for one that was lost, and the addresses at which they are seen.
static FRAMES: [AtomicU64; POOL] = [const { AtomicU64::new(0) }; POOL];
static PLACES: [AtomicU64; POOL] = [const { AtomicU64::new(0) }; POOL];
/// Grants that are mapped: handle, and the address it was mapped at.
static HANDLES: Mutex<Vec<(GrantHandle, u64, u64)>> = Mutex::new(Vec::new());
static SEEDS: AtomicU64 = AtomicU64::new(1);
/// How often each kind of step succeeded.
static DONE: [AtomicU64; KINDS] = [const { AtomicU64::new(0) }; KINDS];
static QUIET: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
static WATCH: Watch = Watch::new();

fn run(tap: &mut Tap) {
    let pages: Vec<Frame> = (0..POOL).map(|_| page()).collect();
    for (index, page) in pages.iter().enumerate() {
        FRAMES[index].store(page.mfn().0, SeqCst);
        PLACES[index].store(page.address(), SeqCst);
        update_va_mapping(page.address(), 0, UVMF_INVLPG).expect("it can be unmapped");
    }
    // Their events go away with all others.
    events::set_upcall_mask(true);
    on_all(fight);
    WATCH.verdict(tap, "four vCPUs do what they like with the same pages");
    let done = DONE.each_ref().map(|done| done.load(SeqCst));
    tap.note(format_args!("successes: {done:?}"));
    tap.ok(done.iter().all(|done| *done > 0), "and each kind of step succeeds now and then");
    clean_up();
    tap.ok(ordinary(), "all pages are ordinary afterwards: no reference was lost or kept");
    for page in pages {
        page.leak();
    }
}

fn fight() {
    let mut random = Random::new(SEEDS.fetch_add(1, SeqCst));
    events::set_upcall_mask(true);
    for _ in 0..STEPS {
        let kind = random.below(KINDS);
        let result = step(kind, &mut random);
        if result.is_ok() {
            DONE[kind].fetch_add(1, SeqCst);
        }
        WATCH.check(!matches!(result, Err(Errno::ENOSYS | Errno::EFAULT)), format_args!("{result:?}"));
    }
    let _ = set_gdt(&mut []);
    let _ = set_ldt(0, 0);
    // Nobody minds what is written there.
    let mut quiet = VcpuRegisterRunstateMemoryArea { addr: QUIET.as_ptr() as u64 };
    for command in [VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA] {
        let moved = call(HYPERVISOR_VCPU_OP, [command.into(), vcpus::index() as u64, address_of(&mut quiet)]);
        WATCH.check(moved == Ok(0), format_args!("an area moves: {moved:?}"));
    }
}

fn frame(random: &mut Random) -> (usize, u64) {
    let index = random.below(POOL);
    (index, FRAMES[index].load(SeqCst))
}

fn place(random: &mut Random) -> u64 {
    PLACES[random.below(POOL)].load(SeqCst)
}

fn entry(random: &mut Random) -> u64 {
    let (_, mfn) = frame(random);
    match random.below(4) {
        0 => 0,
        1 => mfn << 12 | READ_ONLY,
        _ => mfn << 12 | READ_WRITE,
    }
}

fn step(kind: usize, random: &mut Random) -> Result<u64, Errno> {
    match kind {
        0..=4 => {
            let flush = [UVMF_NONE, UVMF_INVLPG, UVMF_TLB_FLUSH | UVMF_ALL][random.below(3)];
            update_va_mapping(place(random), entry(random), flush).map(|()| 0)
        }
        5 => mmuext(MMUEXT_PIN_L1_TABLE, Mfn(frame(random).1)).map(|()| 0),
        6 => mmuext(MMUEXT_UNPIN_TABLE, Mfn(frame(random).1)).map(|()| 0),
        7 | 8 => mmu_update((frame(random).1 << 12) | (random.below(512) as u64 * 8), entry(random)).map(|()| 0),
        9 => mmuext([MMUEXT_CLEAR_PAGE, MMUEXT_TLB_FLUSH_ALL][random.below(2)], Mfn(frame(random).1)).map(|()| 0),
        10 | 11 => map(random),
        12 | 13 => unmap(random),
        14 => {
            write_grant(random);
            Ok(0)
        }
        15 => copy(random),
        16 => version(random),
        17 => trade(random),
        18 => give_and_take(random),
        19 => descriptors(random),
        20 => areas(random),
        21 => layout(random),
        22 => ports(random),
        _ => {
            // Words of event channels, entries of tables, descriptors, grants: whatever the page is.
            let (at, word) = (place(random) + random.below(512) as u64 * 8, random.below(1 << 30) as u64);
            let _ = trap_of(|| store(at, word | word << 32));
            let _ = trap_of(|| {
                let _ = load(at);
            });
            Ok(0)
        }
    }
}

fn grant_op<T: FromBytes + IntoBytes>(command: u32, argument: &mut T) -> Result<u64, Errno> {
    call(HYPERVISOR_GRANT_TABLE_OP, [command.into(), address_of(argument), 1])
}

fn reference(random: &mut Random) -> GrantRef {
    GrantRef(16 + random.below(16) as u32)
}

/// An entry of either version at the place of one.
fn write_grant(random: &mut Random) {
    let Ok(table) = grants::table_frame(0) else { return };
    let flags = [GTF_PERMIT_ACCESS, GTF_PERMIT_ACCESS, GTF_PERMIT_ACCESS | GTF_READONLY, GTF_TRANSITIVE, 0];
    let (flags, (_, mfn)) = (u64::from(flags[random.below(5)]), frame(random));
    let at = 128 + 8 * random.below(64);
    match random.below(3) {
        0 => table.store_u64(at, flags | mfn << 32),
        1 => {
            table.store_u64(at | 8, mfn);
            table.store_u64(at & !8, flags);
        }
        // A part of a page, or what somebody else grants.
        _ => table.store_u64(at & !8, flags | u64::from(GTF_SUB_PAGE) | (random.below(1 << 31) as u64) << 32),
    }
}

fn map(random: &mut Random) -> Result<u64, Errno> {
    let at = place(random);
    let way = [GNTMAP_HOST_MAP, GNTMAP_HOST_MAP, GNTMAP_HOST_MAP | GNTMAP_DEVICE_MAP, GNTMAP_DEVICE_MAP];
    let flags = way[random.below(4)] | [0, GNTMAP_READONLY][random.below(2)];
    let mut map = GnttabMapGrantRef { host_addr: at, flags, ref_: reference(random), dom: OWN, ..Default::default() };
    grant_op(GNTTABOP_MAP_GRANT_REF, &mut map)?;
    if map.status != GNTST_OKAY {
        return Err(Errno::EAGAIN);
    }
    HANDLES.lock().push((map.handle, at, map.dev_bus_addr));
    Ok(0)
}

fn unmap(random: &mut Random) -> Result<u64, Errno> {
    let (handle, mut at, bus) = {
        let mut handles = HANDLES.lock();
        let Some(which) = handles.len().checked_sub(1).map(|last| random.below(last + 1)) else { return Ok(0) };
        // Now and then it is unmapped by two, or twice.
        if random.below(4) == 0 { handles[which] } else { handles.swap_remove(which) }
    };
    if random.below(8) == 0 {
        at = place(random);
    }
    if random.below(4) == 0 {
        let new_addr = place(random);
        let mut unmap = GnttabUnmapAndReplace { host_addr: at, new_addr, handle, ..Default::default() };
        return grant_op(GNTTABOP_UNMAP_AND_REPLACE, &mut unmap);
    }
    unmap_at(handle, at, bus)
}

fn unmap_at(handle: GrantHandle, host_addr: u64, dev_bus_addr: u64) -> Result<u64, Errno> {
    let mut unmap = GnttabUnmapGrantRef { host_addr, dev_bus_addr, handle, ..Default::default() };
    grant_op(GNTTABOP_UNMAP_GRANT_REF, &mut unmap)
}

fn copy(random: &mut Random) -> Result<u64, Errno> {
    let flags = random.below(4) as u16;
    let end = |random: &mut Random, by_grant: bool| {
        let u = if by_grant { reference(random).0.into() } else { frame(random).1 };
        let domid = if by_grant { OWN } else { DomId::SELF };
        GnttabCopyPtr { u, domid, offset: random.below(4200) as u16, ..Default::default() }
    };
    let source = end(random, flags & GNTCOPY_SOURCE_GREF != 0);
    let dest = end(random, flags & GNTCOPY_DEST_GREF != 0);
    let mut copy = GnttabCopy { source, dest, len: random.below(4200) as u16, flags, ..Default::default() };
    grant_op(GNTTABOP_COPY, &mut copy)
}

fn version(random: &mut Random) -> Result<u64, Errno> {
    if random.below(2) == 0 {
        let mut swap = GnttabSwapGrantRef { ref_a: reference(random), ref_b: reference(random), ..Default::default() };
        return grant_op(GNTTABOP_SWAP_GRANT_REF, &mut swap);
    }
    grant_op(GNTTABOP_SET_VERSION, &mut GnttabSetVersion { version: 1 + random.below(2) as u32 })
}

fn side(frame: &mut u64) -> MemoryReservation {
    MemoryReservation { extent_start: address_of(frame), nr_extents: 1, domid: DomId::SELF, ..Default::default() }
}

fn trade(random: &mut Random) -> Result<u64, Errno> {
    let (index, mfn) = frame(random);
    let (mut given, mut taken) = (mfn, 0);
    let mut exchange = MemoryExchange { in_: side(&mut given), out: side(&mut taken), nr_exchanged: 0 };
    let result = op(HYPERVISOR_MEMORY_OP, XENMEM_EXCHANGE, &mut exchange);
    if result == Ok(0) {
        FRAMES[index].store(taken, SeqCst);
    }
    result
}

fn give_and_take(random: &mut Random) -> Result<u64, Errno> {
    let (index, mut mfn) = frame(random);
    let (pfn, old) = (index as u64, mfn);
    if op(HYPERVISOR_MEMORY_OP, XENMEM_DECREASE_RESERVATION, &mut side(&mut mfn))? != 1 {
        return Err(Errno::EAGAIN);
    }
    let mut new = pfn;
    let got = op(HYPERVISOR_MEMORY_OP, XENMEM_POPULATE_PHYSMAP, &mut side(&mut new))?;
    // What is mapped still stays ours until it is unmapped: nobody will look for it.
    let _ = FRAMES[index].compare_exchange(old, if got == 1 { new } else { 0 }, SeqCst, SeqCst);
    Ok(got)
}

fn set_gdt(frames: &mut [u64]) -> Result<u64, Errno> {
    let count = frames.len() as u64 * 512;
    call(HYPERVISOR_SET_GDT, [address_of(frames), count])
}

fn set_ldt(base: u64, count: u64) -> Result<u64, Errno> {
    let mut op = MmuextOp { cmd: MMUEXT_SET_LDT, _pad: 0, arg1: base, arg2: count };
    call(HYPERVISOR_MMUEXT_OP, [address_of(&mut op), 1, 0, DomId::SELF.0.into()])
}

fn descriptors(random: &mut Random) -> Result<u64, Errno> {
    let result = match random.below(4) {
        0 => set_gdt(&mut [frame(random).1, frame(random).1]),
        1 => set_gdt(&mut []),
        2 => set_ldt(place(random), 1024),
        _ => call(HYPERVISOR_UPDATE_DESCRIPTOR, [frame(random).1 << 12 | 8, 0x00cf_f300_0000_ffff]),
    };
    for selector in [0xb_u32, 0xf, 0x1f, 0x1007] {
        // SAFETY: reads a descriptor; a page that cannot be one of the table is a page fault of ours.
        let _ = trap_of(|| unsafe { asm!("lar {0:e}, {1:e}", out(reg) _, in(reg) selector) });
    }
    result
}

fn areas(random: &mut Random) -> Result<u64, Errno> {
    let command = [VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA][random.below(2)];
    let mut area = VcpuRegisterRunstateMemoryArea { addr: place(random) + random.below(512) as u64 * 8 };
    match call(HYPERVISOR_VCPU_OP, [command.into(), vcpus::index() as u64, address_of(&mut area)]) {
        // Nothing is mapped there that can be written.
        Err(Errno::EFAULT) => Err(Errno::EAGAIN),
        result => result,
    }
}

fn layout(random: &mut Random) -> Result<u64, Errno> {
    match random.below(8) {
        0 => event_op(EVTCHNOP_RESET, &mut EvtchnReset { dom: DomId::SELF }),
        1..=3 => event_op(EVTCHNOP_EXPAND_ARRAY, &mut EvtchnExpandArray { array_gfn: frame(random).1 }),
        _ => {
            let vcpu = VcpuId(random.below(COUNT as usize) as u32);
            let offset = 8 * random.below(500) as u32;
            let control_gfn = frame(random).1;
            event_op(EVTCHNOP_INIT_CONTROL, &mut EvtchnInitControl { control_gfn, offset, vcpu, ..Default::default() })
        }
    }
}

fn event_op<T: FromBytes + IntoBytes>(command: u32, argument: &mut T) -> Result<u64, Errno> {
    op(HYPERVISOR_EVENT_CHANNEL_OP, command, argument)
}

fn ports(random: &mut Random) -> Result<u64, Errno> {
    let mut last = Ok(0);
    for _ in 0..8 {
        let port = Port(1 + random.below(40) as u32);
        let vcpu = VcpuId(random.below(COUNT as usize) as u32);
        last = match random.below(8) {
            0 | 1 => event_op(EVTCHNOP_BIND_IPI, &mut EvtchnBindIpi { vcpu, port: Port(0) }),
            2 | 3 => event_op(EVTCHNOP_SEND, &mut EvtchnSend { port }),
            4 => event_op(EVTCHNOP_UNMASK, &mut EvtchnUnmask { port }),
            5 => {
                let priority = random.below(17) as u32;
                match event_op(EVTCHNOP_SET_PRIORITY, &mut EvtchnSetPriority { port, priority }) {
                    // The other layout.
                    Err(Errno::ENOSYS) => Ok(0),
                    result => result,
                }
            }
            6 => event_op(EVTCHNOP_BIND_VCPU, &mut EvtchnBindVcpu { port, vcpu }),
            _ => event_op(EVTCHNOP_CLOSE, &mut EvtchnClose { port }),
        };
    }
    last
}

/// Takes away whatever may still refer to the pages.
fn clean_up() {
    while event_op(EVTCHNOP_RESET, &mut EvtchnReset { dom: DomId::SELF }) == Err(Errno::EAGAIN) {}
    let handles = core::mem::take(&mut *HANDLES.lock());
    for (handle, at, bus) in handles {
        let _ = unmap_at(handle, at, bus);
        // Its entry may have been overwritten: then only what a device has is left.
        let _ = unmap_at(handle, 0, bus);
    }
    let frames = || FRAMES.iter().map(|frame| frame.load(SeqCst)).filter(|mfn| *mfn != 0);
    for mfn in frames() {
        let _ = mmuext(MMUEXT_UNPIN_TABLE, Mfn(mfn));
    }
    for place in &PLACES {
        let _ = update_va_mapping(place.load(SeqCst), 0, UVMF_TLB_FLUSH | UVMF_ALL);
    }
}

/// Whether all frames can be mapped writable, and written.
fn ordinary() -> bool {
    let mut all = true;
    for (place, frame) in PLACES.iter().zip(&FRAMES) {
        let (place, mfn) = (place.load(SeqCst), frame.load(SeqCst));
        if mfn != 0 {
            let mapped = update_va_mapping(place, mfn << 12 | READ_WRITE, UVMF_INVLPG);
            all &= mapped.is_ok() && trap_of(|| store(place, mfn)).is_none() && load(place) == mfn;
        }
    }
    all
}
