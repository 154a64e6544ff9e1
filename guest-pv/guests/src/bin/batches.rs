//! `multicall` with long calls in it: calls that are continued, that fail, that block, that return elsewhere, and that
//! change the batch itself. A timer ticks meanwhile, so that many are interrupted.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // A frame for iret is made by hand.

use core::arch::asm;
use guest_pv::alloc::vec;
use guest_pv::alloc::vec::Vec;
use guest_pv::call::memory::current_reservation;
use guest_pv::mem::table::{READ_ONLY, READ_WRITE, TABLE};
use guest_pv::mem::{Access, Frame, Mapping, PAGE_SIZE, table};
use guest_pv::tap::Tap;
use guest_pv::{events, grants, time};
use guests::child::Child;
use guests::{address_of, call, load, make_writable, op, page, store, table_page, update_va_mapping};
use xen_abi::Errno;
use xen_abi::domctl::{Domctl, XEN_DOMCTL_DESTROYDOMAIN, XEN_DOMCTL_INTERFACE_VERSION};
use xen_abi::event_channel::{EVTCHNOP_SEND, EvtchnSend};
use xen_abi::grant_table::*;
use xen_abi::hypercall::*;
use xen_abi::ids::DomId;
use xen_abi::memory::*;
use xen_abi::mmu::*;
use xen_abi::multicall::MulticallEntry;
use xen_abi::sched::{SCHEDOP_BLOCK, SCHEDOP_YIELD};
use xen_abi::vcpu::*;
use xen_abi::version::XENVER_EXTRAVERSION;

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;
const VERSION: u64 = 0x4_0011;
/// Where pages are mapped.
const WINDOW: u64 = 0x1000_0000_0000;

fn run(tap: &mut Tap) {
    let mut period = VcpuSetPeriodicTimer { period_ns: 1_000_000 };
    let start = call(HYPERVISOR_VCPU_OP, [VCPUOP_SET_PERIODIC_TIMER.into(), 0, address_of(&mut period)]);
    tap.is(start, Ok(0), "a timer ticks");
    many(tap);
    updates(tap);
    trees(tap);
    memory(tap);
    copies(tap);
    tap.is(call(HYPERVISOR_VCPU_OP, [VCPUOP_STOP_PERIODIC_TIMER.into(), 0, 0]), Ok(0), "the timer stops");
    failures(tap);
    blocking(tap);
    returns(tap);
    moving_ground(tap);
}

fn entry<const N: usize>(op: u32, args: [u64; N]) -> MulticallEntry {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&args);
    MulticallEntry { op: op.into(), result: 0xdead, args: all }
}

fn version() -> MulticallEntry {
    entry(HYPERVISOR_XEN_VERSION, [0, 0])
}

fn multicall(entries: &mut [MulticallEntry]) -> Result<u64, Errno> {
    let count = entries.len() as u64;
    call(HYPERVISOR_MULTICALL, [address_of(entries), count])
}

/// What the calls returned.
fn results(entries: &[MulticallEntry]) -> Vec<Result<u64, Errno>> {
    entries.iter().map(|entry| Errno::from_ret(entry.result).map_or(Ok(entry.result), Err)).collect()
}

fn many(tap: &mut Tap) {
    let mut calls = vec![version(); 20_000];
    for (index, call) in calls.iter_mut().enumerate() {
        match index % 5 {
            1 => *call = entry(63, []),
            3 => *call = entry(HYPERVISOR_SCHED_OP, [SCHEDOP_YIELD.into(), 0]),
            _ => {}
        }
    }
    tap.is(multicall(&mut calls), Ok(0), "20,000 calls");
    let right = calls.iter().enumerate().all(|(index, call)| match index % 5 {
        1 => Errno::from_ret(call.result) == Some(Errno::ENOSYS),
        3 => call.result == 0,
        _ => call.result == VERSION,
    });
    tap.ok(right, "each has its result");
    let ticked = (0..1000).any(|_| events::is_pending(time::timer_port()) || multicall(&mut calls).is_err());
    tap.ok(ticked, "the timer's event comes");
    events::clear(time::timer_port());
}

/// Requests that set the entries of so many pages.
fn requests(count: u64, entry: u64) -> Vec<MmuUpdate> {
    let slot = |index| table::ensure_slot(WINDOW + index * PAGE_SIZE).expect("there is room for tables");
    (0..count).map(|index| MmuUpdate { ptr: slot(index), val: entry }).collect()
}

fn updates(tap: &mut Tap) {
    const COUNT: u64 = 4096;
    let data = page();
    store(data.address(), 7);
    let me = u64::from(SELF.0);
    let mut map = requests(COUNT, data.mfn().0 << 12 | READ_WRITE);
    let mut clear = requests(COUNT, 0);
    let mut bad = map.clone();
    bad[3000].val = 1 << 51 | READ_WRITE;
    let mut done = [0u32; 4];
    let [first, second, third, fourth] = &mut done;
    let set = |requests: &mut Vec<MmuUpdate>, done: &mut u32| {
        entry(HYPERVISOR_MMU_UPDATE, [address_of(requests.as_mut_slice()), COUNT, address_of(done), me])
    };
    let mut calls =
        [set(&mut map, first), set(&mut clear, second), version(), set(&mut bad, third), set(&mut map, fourth)];
    tap.is(multicall(&mut calls), Ok(0), "long updates of page tables");
    let got = results(&calls);
    tap.is((got[0], got[1], got[2], got[4]), (Ok(0), Ok(0), Ok(VERSION), Ok(0)), "the good ones are made");
    tap.ok(got[3].is_err(), "the bad one fails");
    tap.is(done, [4096, 4096, 3000, 4096], "each tells how many it has made");
    let shown = (0..COUNT).filter(|index| load(WINDOW + index * PAGE_SIZE) == 7).count();
    tap.is(shown, 4096, "the last one holds");
    tap.is(multicall(&mut [set(&mut clear, &mut done[0])]), Ok(0), "all is cleared");
}

/// Pins and unpins a tree of tables with 32,768 entries.
fn trees(tap: &mut Tap) {
    let data = page();
    let leaf = data.mfn().0 << 12 | READ_ONLY;
    let entries: Vec<(usize, u64)> = (0..512).map(|index| (index, leaf)).collect();
    let l1: Vec<Frame> = (0..64).map(|_| table_page(&entries)).collect();
    let upper: Vec<(usize, u64)> = l1.iter().enumerate().map(|(at, l1)| (at, l1.mfn().0 << 12 | TABLE)).collect();
    let l2 = table_page(&upper);
    let me = u64::from(SELF.0);
    let mut ops =
        [MMUEXT_PIN_L2_TABLE, MMUEXT_UNPIN_TABLE].map(|cmd| MmuextOp { cmd, arg1: l2.mfn().0, ..Default::default() });
    let [pin, unpin] = &mut ops;
    let (pin, unpin) = (address_of(pin), address_of(unpin));
    let one = |op| entry(HYPERVISOR_MMUEXT_OP, [op, 1, 0, me]);
    let mut calls = [one(pin), one(pin), one(unpin), one(unpin), version(), one(pin), one(unpin)];
    tap.is(multicall(&mut calls), Ok(0), "a tree is pinned and unpinned");
    let want = [Ok(0), Err(Errno::EINVAL), Ok(0), Err(Errno::EINVAL), Ok(VERSION), Ok(0), Ok(0)];
    tap.is(results(&calls), Vec::from(want), "once each time");
    let ordinary = l1.iter().chain([&l2]).filter(|table| make_writable(table).is_ok()).count();
    tap.is(ordinary, 65, "its pages are ordinary ones again");
}

fn memory(tap: &mut Tap) {
    let child = Child::new(1 << 20);
    let mut frames = vec![0u64; 5000];
    let count = frames.len() as u64;
    let mut extents = MemoryReservation {
        extent_start: address_of(frames.as_mut_slice()),
        nr_extents: count,
        domid: child.id(),
        ..Default::default()
    };
    let extents = address_of(&mut extents);
    let mut domain = MemoryDomain { domid: child.id() };
    let domain = address_of(&mut domain);
    let one = |command: u32, argument| entry(HYPERVISOR_MEMORY_OP, [command.into(), argument]);
    let mut calls = [
        one(XENMEM_INCREASE_RESERVATION, extents),
        one(XENMEM_CURRENT_RESERVATION, domain),
        one(XENMEM_DECREASE_RESERVATION, extents),
        one(XENMEM_CURRENT_RESERVATION, domain),
        one(XENMEM_INCREASE_RESERVATION, extents),
    ];
    tap.is(multicall(&mut calls), Ok(0), "5,000 pages come, go, and come");
    tap.is(results(&calls), Vec::from([count, count, count, 0, count].map(Ok)), "all of them");
    tap.is(current_reservation(child.id()), Ok(count), "and are there");
    let destroy = Domctl {
        cmd: XEN_DOMCTL_DESTROYDOMAIN,
        interface_version: XEN_DOMCTL_INTERFACE_VERSION,
        domain: child.id(),
        ..Default::default()
    };
    let mut destroy = [destroy; 2];
    let [first, second] = &mut destroy;
    let (first, second) = (address_of(first), address_of(second));
    let mut calls = [
        entry(HYPERVISOR_DOMCTL, [first]),
        one(XENMEM_CURRENT_RESERVATION, domain),
        entry(HYPERVISOR_DOMCTL, [second]),
        version(),
    ];
    tap.is(multicall(&mut calls), Ok(0), "a domain is destroyed");
    let gone = Err(Errno::ESRCH);
    tap.is(results(&calls), Vec::from([Ok(0), gone, gone, Ok(VERSION)]), "before the next call is made");
}

fn copies(tap: &mut Tap) {
    const COUNT: usize = 3000;
    let (from, to) = (page(), page());
    let reference = grants::grant(DomId(0), from.mfn(), Access::ReadOnly).expect("a free entry");
    (0..512).for_each(|index| store(from.address() + index * 8, index));
    let copy = GnttabCopy {
        source: GnttabCopyPtr { u: reference.0.into(), domid: DomId(0), ..Default::default() },
        dest: GnttabCopyPtr { u: to.mfn().0, domid: SELF, ..Default::default() },
        len: 4096,
        flags: GNTCOPY_SOURCE_GREF,
        status: 77,
        ..Default::default()
    };
    let mut ops = vec![copy; COUNT];
    ops[1000].source.u = 100_000;
    let mut calls = [
        entry(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_COPY.into(), address_of(ops.as_mut_slice()), COUNT as u64]),
        version(),
    ];
    tap.is(multicall(&mut calls), Ok(0), "3,000 pages are copied");
    tap.is(results(&calls), Vec::from([Ok(0), Ok(VERSION)]), "all of them");
    let good = ops.iter().filter(|op| op.status == GNTST_OKAY).count();
    tap.is((good, ops[1000].status), (COUNT - 1, GNTST_BAD_GNTREF), "but one, which says why");
    tap.ok((0..512).all(|index| load(to.address() + index * 8) == index), "they arrive");
    tap.is(grants::revoke(reference), Ok(()), "the grant is free");
}

fn failures(tap: &mut Tap) {
    let mut inner = [version()];
    let mut send = EvtchnSend::default();
    let mut calls = [
        entry(HYPERVISOR_EVENT_CHANNEL_OP, [EVTCHNOP_SEND.into(), 0x1000]),
        entry(HYPERVISOR_EVENT_CHANNEL_OP, [EVTCHNOP_SEND.into(), address_of(&mut send)]),
        entry(HYPERVISOR_MMU_UPDATE, [1 << 47, 1, 0, SELF.0.into()]),
        entry(HYPERVISOR_MULTICALL, [address_of(&mut inner), 1]),
        entry(HYPERVISOR_SET_GDT, [0x1000, 1]),
        entry(HYPERVISOR_UPDATE_VA_MAPPING, [0xffff_8300_0000_0000, 0, 0]),
        entry(HYPERVISOR_MEMORY_OP, [63, 0]),
        version(),
    ];
    // A number is as wide as a register.
    calls[6].op |= 1 << 32;
    tap.is(multicall(&mut calls), Ok(0), "calls that fail");
    let want = [
        Err(Errno::EFAULT),
        Err(Errno::EINVAL),
        Err(Errno::EFAULT),
        Err(Errno::EINVAL),
        Err(Errno::EFAULT),
        Err(Errno::EINVAL),
        Err(Errno::ENOSYS),
        Ok(VERSION),
    ];
    tap.is(results(&calls), Vec::from(want), "do so alone");
    tap.is(inner[0].result, 0xdead, "a batch in a batch is not made");
}

/// Nanoseconds for which this vCPU was blocked.
fn blocked(info: &VcpuRunstateInfo) -> u64 {
    info.time[RUNSTATE_BLOCKED as usize]
}

fn blocking(tap: &mut Tap) {
    let mut info = [VcpuRunstateInfo::default(); 2];
    let [before, after] = &mut info;
    let (before, after) = (address_of(before), address_of(after));
    let ask = |at| entry(HYPERVISOR_VCPU_OP, [VCPUOP_GET_RUNSTATE_INFO.into(), 0, at]);
    while events::poll().is_some() {}
    let mut calls = [
        ask(before),
        entry(HYPERVISOR_SET_TIMER_OP, [time::now() + 5_000_000]),
        entry(HYPERVISOR_SCHED_OP, [SCHEDOP_BLOCK.into(), 0]),
        ask(after),
        version(),
    ];
    tap.is(multicall(&mut calls), Ok(0), "a batch that blocks");
    tap.is(results(&calls), Vec::from([Ok(0), Ok(0), Ok(0), Ok(0), Ok(VERSION)]), "is made to its end");
    tap.ok(blocked(&info[1]) > blocked(&info[0]) + 1_000_000, "after the block");
    tap.ok(events::is_pending(time::timer_port()), "which the timer ended");
    events::clear(time::timer_port());
    // The block has opened it.
    events::set_upcall_mask(true);
}

/// A batch in the middle of which the kernel goes on elsewhere. That ends it.
fn returns(tap: &mut Tap) {
    let mut calls = [version(), entry(HYPERVISOR_IRET, []), version(), version()];
    let (rax, rcx, r11): (u64, u64, u64);
    // SAFETY: goes on at the label, with the stack as it was.
    unsafe {
        asm!(
            "mov r12, rsp",
            "push 0xe02b",
            "push r12",
            "push 0x202",
            "push 0xe030",
            "lea rax, [rip + 2f]",
            "push rax",
            "push 0",
            "push 0x1111",
            "push 0x2222",
            "push 0x3333",
            "mov eax, 13",
            "syscall",
            "ud2",
            "2:",
            inout("rdi") address_of(&mut calls) => _,
            inout("rsi") 4u64 => _,
            out("rax") rax,
            out("rcx") rcx,
            out("r11") r11,
            out("r12") _,
        );
    }
    tap.is((rcx, r11), (0x1111, 0x2222), "an iret within the kernel is made");
    tap.is(rax, 0x3333, "with rax, too");
    tap.is(results(&calls), Vec::from([VERSION, 0x3333, 0xdead, 0xdead].map(Ok)), "what comes after it is not made");
}

/// A page, mapped at an address of its own, with the calls at its end.
fn tail(calls: &[MulticallEntry]) -> (Frame, u64) {
    let page = page();
    let offset = PAGE_SIZE - size_of_val(calls) as u64;
    let words = zerocopy::IntoBytes::as_bytes(calls).chunks(8);
    for (index, bytes) in words.enumerate() {
        let word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        store(page.address() + offset + index as u64 * 8, word);
    }
    (page, offset)
}

fn moving_ground(tap: &mut Tap) {
    let result = |page: &Frame, at: u64| load(page.address() + at + 8);
    let next = page();
    for (index, word) in [u64::from(HYPERVISOR_XEN_VERSION), 0xdead, 0, 0].into_iter().enumerate() {
        store(next.address() + index as u64 * 8, word);
    }
    let first = page();
    let window = Mapping::own(&[first.mfn().0, next.mfn().0], Access::ReadWrite).expect("own memory can be mapped");
    let va = window.address();
    let set = |at: u64, entry_: u64| entry(HYPERVISOR_UPDATE_VA_MAPPING, [va + at, entry_, UVMF_INVLPG]);
    let map = |page: &Frame, flags: u64| page.mfn().0 << 12 | flags;
    let show = |page: &Frame| update_va_mapping(va, map(page, READ_WRITE), UVMF_INVLPG).expect("own memory");
    let batch = |offset: u64, count: u64| call(HYPERVISOR_MULTICALL, [va + offset, count]);

    let (calls, at) = tail(&[set(PAGE_SIZE, map(&next, READ_WRITE))]);
    show(&calls);
    update_va_mapping(va + PAGE_SIZE, 0, UVMF_INVLPG).expect("it can be unmapped");
    tap.is(batch(at, 2), Ok(0), "the first call maps the page with the second");
    tap.is((result(&calls, at), result(&next, 0)), (0, VERSION), "and both are made");

    store(next.address() + 8, 0xdead);
    let (calls, at) = tail(&[set(PAGE_SIZE, 0)]);
    show(&calls);
    tap.is(batch(at, 2), Err(Errno::EFAULT), "the first call unmaps the page with the second");
    tap.is((result(&calls, at), result(&next, 0)), (0, 0xdead), "only the first is made");

    let (calls, at) = tail(&[set(0, 0), version()]);
    show(&calls);
    tap.is(batch(at, 2), Err(Errno::EFAULT), "a call unmaps the batch");
    tap.is((result(&calls, at), result(&calls, at + 64)), (0xdead, 0xdead), "and has no place for its result");
    tap.ok(guests::trap_of(|| _ = load(va)).is_some(), "but is made");

    let (calls, at) = tail(&[set(0, 0)]);
    let other = page();
    let (copy, _) = tail(&[set(0, map(&other, READ_WRITE)), version()]);
    show(&copy);
    store(other.address() + PAGE_SIZE - 64, HYPERVISOR_XEN_VERSION.into());
    tap.is(batch(PAGE_SIZE - 128, 2), Ok(0), "a call puts another page in the place of the batch");
    let there = |at| load(other.address() + at);
    tap.is((there(PAGE_SIZE - 120), there(PAGE_SIZE - 56)), (0, VERSION), "where the rest is found");
    tap.is(load(copy.address() + PAGE_SIZE - 120), 0xdead, "and results are written");
    drop((calls, at));

    let (calls, at) = tail(&[set(0, 0), version()]);
    store(calls.address() + at + 24, map(&calls, READ_ONLY));
    show(&calls);
    tap.is(batch(at, 2), Err(Errno::EFAULT), "a call makes the batch read-only");
    tap.is((result(&calls, at), result(&calls, at + 64)), (0xdead, 0xdead), "nothing is written to it");

    let mut calls = [version(), version(), version()];
    let second = address_of(&mut calls[1]);
    calls[0].args[..2].copy_from_slice(&[XENVER_EXTRAVERSION.into(), second]);
    tap.is(multicall(&mut calls), Ok(0), "a call writes over the next");
    tap.is(Errno::from_ret(calls[1].result), Some(Errno::ENOSYS), "which is made as it is then");
    tap.is((calls[0].result, calls[2].result), (0, VERSION), "as are all");
    drop(window);
    let mut nobody = MemoryDomain { domid: SELF };
    tap.ok(op(HYPERVISOR_MEMORY_OP, XENMEM_CURRENT_RESERVATION, &mut nobody).is_ok(), "it goes on");
}
