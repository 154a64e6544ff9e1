//! Things of which there is an end: references and handles of grants, a domain's and the machine's memory, ports. Each is
//! used up, and can be used again.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::Ordering;
use guest_pv::alloc::vec::Vec;
use guest_pv::call::memory::{current_reservation, decrease_reservation, maximum_reservation, populate_physmap};
use guest_pv::call::{domctl, event_channel as ec, sysctl};
use guest_pv::events::fifo::{Fifo, PENDING, Page, WORDS};
use guest_pv::mem::{Access, PAGE_SIZE, table};
use guest_pv::tap::Tap;
use guest_pv::{events, grants};
use guests::child::Child;
use guests::{address_of, call, load, op, page, store, update_va_mapping};
use xen_abi::Errno;
use xen_abi::domctl::CreateDomain;
use xen_abi::grant_table::*;
use xen_abi::hypercall::{HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_MEMORY_OP};
use xen_abi::ids::{DomId, GrantHandle, GrantRef, Port, VcpuId};
use xen_abi::memory::{MemoryReservation, XENMEM_INCREASE_RESERVATION};

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;
const ME: DomId = DomId(0);

fn run(tap: &mut Tap) {
    references(tap);
    handles(tap);
    reservation(tap);
    machine(tap);
    ports(tap);
}

fn grant_op<T>(command: u32, ops: &mut [T]) -> Result<u64, Errno> {
    let count = ops.len() as u64;
    call(HYPERVISOR_GRANT_TABLE_OP, [command.into(), address_of(ops), count])
}

/// The last entry of the largest table works, the one after it does not exist.
fn references(tap: &mut Tap) {
    let mut size = [GnttabQuerySize { dom: SELF, ..Default::default() }];
    grant_op(GNTTABOP_QUERY_SIZE, &mut size).expect("one's own table has a size");
    let most = size[0].max_nr_frames;
    let last = GrantRef(most * 512 - 1);
    let data = page();
    store(data.address(), 0x1234);
    let target = page();
    let copy = |reference: GrantRef| {
        let source = GnttabCopyPtr { u: reference.0.into(), domid: ME, ..Default::default() };
        let dest = GnttabCopyPtr { u: target.mfn().0, domid: SELF, ..Default::default() };
        let mut ops = [GnttabCopy { source, dest, len: 8, flags: GNTCOPY_SOURCE_GREF, ..Default::default() }];
        grant_op(GNTTABOP_COPY, &mut ops).map(|_| ops[0].status)
    };
    tap.is(copy(last), Ok(GNTST_BAD_GNTREF), "an entry of a frame that is not there yet");
    let mut frames = 0;
    while grants::table_frame(frames).is_ok() {
        frames += 1;
    }
    tap.is(frames, most as usize, "the table grows to its limit");
    tap.is(grants::table_frame(frames).err(), Some(Errno::ENOSPC), "and no further");
    grant_op(GNTTABOP_QUERY_SIZE, &mut size).expect("one's own table has a size");
    tap.is((size[0].nr_frames, size[0].max_nr_frames), (most, most), "which its size says");
    let bytes = grants::table_frame(frames - 1).expect("it is there");
    tap.is(copy(last), Ok(GNTST_GENERAL_ERROR), "its last entry grants nothing");
    bytes.u16_at(4090).store(ME.0, Ordering::Relaxed);
    bytes.u32_at(4092).store(u32::try_from(data.mfn().0).unwrap_or(0), Ordering::Relaxed);
    bytes.u16_at(4088).store(GTF_PERMIT_ACCESS | GTF_READONLY, Ordering::Release);
    tap.is(copy(last), Ok(GNTST_OKAY), "then it does");
    tap.is(load(target.address()), 0x1234, "what it says");
    bytes.u16_at(4088).store(0, Ordering::Release);
    tap.is(copy(GrantRef(last.0 + 1)), Ok(GNTST_BAD_GNTREF), "the one after it does not exist");
}

/// Handles that the control domain may have: Xen's 1024 frames of 256.
const HANDLES: usize = 1024 * 256;
/// How often one grant may be mapped: an `u8` counts that in Xen, and its top bit is no count.
const PER_GRANT: usize = 128;
/// Operations of one call.
const BATCH: usize = 1024;
/// Where grants are mapped.
const WINDOW: u64 = 0x1000_0000_0000;

fn handles(tap: &mut Tap) {
    let data = page();
    store(data.address(), 0x5678);
    let grants: Vec<GrantRef> = (0..=(HANDLES + BATCH) / PER_GRANT)
        .map(|_| grants::grant(ME, data.mfn(), Access::ReadWrite).expect("a free entry"))
        .collect();
    // As much more as one more batch takes.
    for part in 0..(HANDLES + BATCH).div_ceil(512) as u64 {
        table::ensure_slot(WINDOW + part * 512 * PAGE_SIZE).expect("there is room for tables");
    }
    let at = |index: usize| WINDOW + index as u64 * PAGE_SIZE;
    let fill = |handles: &mut Vec<GrantHandle>| {
        let mut ops = Vec::with_capacity(BATCH);
        loop {
            ops.clear();
            ops.extend((handles.len()..handles.len() + BATCH).map(|index| GnttabMapGrantRef {
                host_addr: at(index),
                flags: GNTMAP_HOST_MAP | GNTMAP_READONLY,
                ref_: grants[index / PER_GRANT],
                dom: ME,
                ..Default::default()
            }));
            grant_op(GNTTABOP_MAP_GRANT_REF, &mut ops).expect("the operations are there");
            let good = ops.iter().take_while(|op| op.status == GNTST_OKAY).count();
            handles.extend(ops[..good].iter().map(|op| op.handle));
            if good < BATCH {
                let rest = ops[good..].iter().all(|op| op.status == ops[good].status);
                return (ops[good].status, rest);
            }
        }
    };
    let mut handles = Vec::new();
    let end = fill(&mut handles);
    tap.note(format_args!("{} handles", handles.len()));
    tap.is(end, (GNTST_NO_SPACE, true), "grants are mapped until there is no handle, and then no more");
    // Xen keeps one back for each vCPU that has any.
    tap.ok((HANDLES - 1..=HANDLES).contains(&handles.len()), "all handles were used");
    let mut sorted = handles.clone();
    sorted.sort_unstable();
    sorted.dedup();
    tap.is(sorted.len(), handles.len(), "each once");
    drop(sorted);
    tap.is((load(at(0)), load(at(handles.len() - 1))), (0x5678, 0x5678), "first and last show the page");
    tap.is(table::lookup(at(handles.len())), Some(0), "what failed left no entry");
    tap.is(grants::revoke(grants[0]), Err(Errno::EBUSY), "a grant is in use");

    let unmap = |index: usize, handle: GrantHandle| {
        let mut ops = [GnttabUnmapGrantRef { host_addr: at(index), handle, ..Default::default() }];
        grant_op(GNTTABOP_UNMAP_GRANT_REF, &mut ops).map(|_| ops[0].status)
    };
    let middle = handles.len() / 2;
    tap.is(unmap(middle, handles[middle]), Ok(GNTST_OKAY), "one of them is unmapped");
    let host_addr = at(middle);
    let ref_ = grants[HANDLES / PER_GRANT];
    let mut again = [GnttabMapGrantRef { host_addr, flags: GNTMAP_HOST_MAP, ref_, dom: ME, ..Default::default() }; 2];
    again[1].host_addr = at(handles.len());
    grant_op(GNTTABOP_MAP_GRANT_REF, &mut again).expect("the operations are there");
    tap.is((again[0].status, again[1].status), (GNTST_OKAY, GNTST_NO_SPACE), "which makes room for one, not two");
    handles[middle] = again[0].handle;

    let mut bad = 0;
    let mut ops = Vec::with_capacity(BATCH);
    for (part, handles) in handles.chunks(BATCH).enumerate() {
        ops.clear();
        ops.extend(handles.iter().zip(part * BATCH..).map(|(&handle, index)| GnttabUnmapGrantRef {
            host_addr: at(index),
            handle,
            ..Default::default()
        }));
        grant_op(GNTTABOP_UNMAP_GRANT_REF, &mut ops).expect("the operations are there");
        bad += ops.iter().filter(|op| op.status != GNTST_OKAY).count();
    }
    tap.is(bad, 0, "all are unmapped");
    let before = handles.len();
    handles.clear();
    tap.is(fill(&mut handles).0, GNTST_NO_SPACE, "and mapped again");
    tap.is(handles.len(), before, "as many");
    let left = handles.iter().enumerate().filter(|&(index, &handle)| unmap(index, handle) != Ok(GNTST_OKAY)).count();
    tap.is(left, 0, "and unmapped one by one");
    let revoked = grants.iter().filter(|&&grant| grants::revoke(grant).is_ok()).count();
    tap.is(revoked, grants.len(), "the grants are free");

    let ref_ = grants::grant(ME, data.mfn(), Access::ReadWrite).expect("a free entry");
    let map = |flags| {
        let ops = (0..=PER_GRANT).map(|index| GnttabMapGrantRef {
            host_addr: at(index),
            flags,
            ref_,
            dom: ME,
            ..Default::default()
        });
        let mut ops: Vec<GnttabMapGrantRef> = ops.collect();
        grant_op(GNTTABOP_MAP_GRANT_REF, &mut ops).expect("the operations are there");
        let good = ops.iter().take_while(|op| op.status == GNTST_OKAY).count();
        let freed = ops[..good].iter().enumerate().filter(|&(index, op)| unmap(index, op.handle) == Ok(GNTST_OKAY));
        (good, ops[good.min(PER_GRANT)].status, freed.count())
    };
    let wanted = (PER_GRANT, GNTST_GENERAL_ERROR, PER_GRANT);
    tap.is(map(GNTMAP_HOST_MAP | GNTMAP_READONLY), wanted, "one grant can be mapped 128 times");
    tap.is(map(GNTMAP_HOST_MAP), wanted, "for writing, too");
    tap.is(grants::revoke(ref_), Ok(()), "it is free");
}

fn increase(domid: DomId, frames: &mut [u64], extent_order: u32) -> Result<u64, Errno> {
    let nr_extents = frames.len() as u64;
    let extent_start = address_of(frames);
    let mut wanted = MemoryReservation { extent_start, nr_extents, extent_order, domid, ..Default::default() };
    op(HYPERVISOR_MEMORY_OP, XENMEM_INCREASE_RESERVATION, &mut wanted)
}

/// The domain's own limit.
fn reservation(tap: &mut Tap) {
    let old = maximum_reservation(SELF).expect("one's own limit can be asked for");
    let have = current_reservation(SELF).expect("and what one has");
    let limit = |pages: u64| domctl::max_mem(ME, pages * 4);
    tap.is(limit(have + 5), Ok(()), "five pages more than there are");
    tap.is(maximum_reservation(SELF), Ok(have + 5), "are the limit");
    let mut frames = [0u64; 8];
    tap.is(increase(SELF, &mut frames, 0), Ok(5), "five of eight pages come");
    tap.ok(frames[..5].iter().all(|&mfn| mfn != 0) && frames[5..] == [0; 3], "and are named");
    tap.is(current_reservation(SELF), Ok(have + 5), "the limit is reached");
    tap.is(increase(SELF, &mut [0], 0), Ok(0), "another page does not come");
    let mut names = [100u64; 3];
    tap.is(populate_physmap(SELF, &mut names, 0, 0), Ok(0), "not for a frame number either");
    tap.is(names, [100; 3], "which stays");
    tap.is(decrease_reservation(SELF, &frames[..3], 0), Ok(3), "three pages are given back");
    let mut pairs = [0u64; 4];
    tap.is(increase(SELF, &mut pairs, 1), Ok(1), "one pair comes for them, not two");
    tap.is(increase(SELF, &mut pairs[1..], 0), Ok(1), "and one page");
    tap.is(limit(have), Ok(()), "the limit may be less than there is");
    tap.is(increase(SELF, &mut [0], 0), Ok(0), "nothing comes then");
    tap.is(decrease_reservation(SELF, &[frames[3], frames[4], pairs[1]], 0), Ok(3), "three pages go");
    tap.is(increase(SELF, &mut [0], 0), Ok(0), "still nothing");
    tap.is(decrease_reservation(SELF, &pairs[..1], 1), Ok(1), "the pair goes");
    tap.is(current_reservation(SELF), Ok(have), "all is as before");
    let mine = page();
    update_va_mapping(mine.address(), 0, 2).expect("it can be unmapped");
    let mut name = [mine.mfn().0, mine.mfn().0];
    tap.is(decrease_reservation(SELF, &name, 0), Ok(1), "a page goes once");
    name = [mine.pfn().0; 2];
    tap.is(populate_physmap(SELF, &mut name, 0, 0), Ok(1), "and one comes for it");
    tap.is(update_va_mapping(mine.address(), name[0] << 12 | table::READ_WRITE, 2), Ok(()), "which can be mapped");
    mine.leak();
    let unlimited = u64::from(u32::MAX);
    tap.is(limit(old.min(unlimited)), Ok(()), "the old limit");
}

fn free_pages() -> u64 {
    sysctl::physinfo().map_or(0, |info| info.free_pages)
}

/// All of the machine's memory.
fn machine(tap: &mut Tap) {
    let before = free_pages();
    let child = Child::new(1 << 22);
    let after = free_pages();
    let (mut got, mut large) = (0, 0);
    for order in [9, 4, 0] {
        loop {
            let mut frames = [0u64; 256];
            let count = increase(child.id(), &mut frames, order).unwrap_or(0);
            got += count << order;
            if order == 9 && count != 0 {
                large = frames[0];
            }
            if count < 256 {
                let named = frames.iter().filter(|&&mfn| mfn != 0).count() as u64;
                tap.is(named, count, "as many extents are named as came");
                break;
            }
        }
    }
    tap.is(current_reservation(child.id()), Ok(got), "the domain has what came");
    tap.ok(got <= after && after - got < 2048, "that was about all there was");
    tap.is(increase(child.id(), &mut [0; 4], 0), Ok(0), "there is no more");
    tap.is(increase(child.id(), &mut [0; 4], 9), Ok(0), "nor more at once");
    tap.ok(events::bind_ipi().and_then(events::close).is_ok(), "the hypervisor goes on");
    domains(tap, child.id(), large);
    drop(child);
    tap.ok(free_pages().abs_diff(before) < 64, "all comes back");
    let next = Child::new(1024);
    tap.is(increase(next.id(), &mut [0; 2], 9), Ok(2), "and can be had");
}

/// Domains and vCPUs for which there is too little memory: none at first, then a little more each time, of an extent that
/// another domain gives back.
fn domains(tap: &mut Tap, owner: DomId, extent: u64) {
    let config = CreateDomain {
        max_vcpus: 24,
        max_evtchn_port: 1023,
        max_grant_frames: 8,
        max_maptrack_frames: 8,
        grant_opts: 1,
        ..Default::default()
    };
    let (mut refused, mut without) = (0, 0);
    let (mut made, mut wrong) = (Vec::new(), None);
    let mut pages = extent..extent + 512;
    while made.len() < 1000 {
        match domctl::create_domain(ME, &config) {
            Ok(id) => {
                made.push(id);
                if let Err(errno) = domctl::max_vcpus(id, 24) {
                    without += 1;
                    wrong = wrong.or((errno != Errno::ENOMEM).then_some(errno));
                }
            }
            Err(errno) => {
                refused += 1;
                wrong = wrong.or((errno != Errno::ENOMEM).then_some(errno));
                let given: Vec<u64> = pages.by_ref().take(8).collect();
                if given.is_empty() || decrease_reservation(owner, &given, 0) != Ok(given.len()) {
                    break;
                }
            }
        }
    }
    tap.note(format_args!("{} domains, {refused} refused, {without} without vCPUs", made.len()));
    tap.ok(refused > 64, "there is no domain without memory");
    tap.ok(without > 0, "and no vCPUs");
    tap.is(wrong, None, "that is what is said of each");
    let destroyed = made.iter().filter(|&&id| {
        loop {
            match domctl::destroy_domain(id) {
                Err(Errno::EAGAIN | Errno::ERESTART) => {}
                result => break result.is_ok(),
            }
        }
    });
    tap.is(destroyed.count(), made.len(), "what was made of them can be destroyed");
}

/// More ports than the 2-level layout has, and than there are words for. Leaves the runtime without its timer.
fn ports(tap: &mut Tap) {
    const V0: VcpuId = VcpuId(0);
    const COUNT: u32 = 2 * 4096;
    ec::reset(SELF).expect("the domain may");
    let mut fifo = Fifo::new();
    tap.is(fifo.init_control(&Page::new(), 0, V0), Ok(17), "the FIFO layout");
    fifo.expand(Page::new()).expect("there is room");
    let all = (1..=COUNT).all(|port| ec::bind_ipi(V0) == Ok(Port(port)));
    tap.ok(all, "twice the ports of the 2-level layout");
    let far = Port(WORDS + 5);
    tap.is((ec::send(far), ec::send(far)), (Ok(()), Ok(())), "an event for a port without a word");
    tap.is(fifo.ready(V0), 0, "is not there");
    fifo.expand(Page::new()).expect("there is room");
    tap.is(fifo.state(far) & PENDING, PENDING, "it is when there is a word");
    tap.is(fifo.take(V0).map(|taken| (taken.port, taken.news)), Some((far, true)), "on the queue, too");
    tap.is(fifo.take(V0), None, "once");
    let closed = (1..=COUNT).rev().step_by(2).all(|port| ec::close(Port(port)).is_ok());
    tap.ok(closed, "every other port is closed");
    tap.is(ec::bind_ipi(V0), Ok(Port(2)), "the first of them is the next to be had");
    tap.is(ec::reset(SELF), Ok(()), "a reset closes all");
    tap.is(ec::bind_ipi(V0), Ok(Port(1)), "and the first is the next again");
}
