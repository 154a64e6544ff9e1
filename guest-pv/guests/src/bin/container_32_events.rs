//! What a hypervisor shares with a kernel that is 32-bit throughout: a second processor in 32-bit code sets the callback or the
//! hypercall page, and from then on the bits of events, the wall clock and run states are laid out for it, until 64-bit code
//! does the same. And lists of calls of such code. A PV domain has none.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Addresses and halves of numbers.

use core::arch::x86_64::__cpuid_count;
use core::mem::offset_of;
use core::sync::atomic::Ordering::SeqCst;
use guest_pv::alloc::vec::Vec;
use guest_pv::tap::Tap;
use guest_pv::{Mode, events, mode, time};
use guests::code_32::{ARGUMENT, CHANGE_MODE, DATA, LIST, WRITE_MSR, call, get, install, post, put, start, with};
use guests::{load, op, page, store};
use xen_abi::arch_x86::{SharedInfo, VcpuInfo};
use xen_abi::compat;
use xen_abi::errno::Errno;
use xen_abi::event_channel::*;
use xen_abi::hvm::{HVM_PARAM_CALLBACK_IRQ, HVMOP_GET_PARAM, HVMOP_SET_PARAM, HvmParam};
use xen_abi::hypercall::*;
use xen_abi::ids::{DomId, Port, VcpuId};
use xen_abi::memory::*;
use xen_abi::sched::*;
use xen_abi::vcpu::*;
use xen_abi::version::XENVER_VERSION;

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;
const CHANNEL: u32 = HYPERVISOR_EVENT_CHANNEL_OP;
/// `vcpu_info` of the second processor in the shared page, and where it is put later.
const INFO: usize = size_of::<VcpuInfo>();
const NEW_INFO: u64 = DATA + 0x400;
/// Where its run state is written.
const RUNSTATE: u64 = DATA + 0x800;
const PENDING: usize = offset_of!(SharedInfo, evtchn_pending);
const MASK: usize = offset_of!(compat::SharedInfo, evtchn_mask);
const WIDE_MASK: usize = offset_of!(SharedInfo, evtchn_mask);

/// What was seen while the first processor's own events are not where it looks for them.
type Seen = Vec<(&'static str, bool)>;

fn run(tap: &mut Tap) {
    if mode() == Mode::Pv {
        return tap.skip("a 32-bit kernel's events", "a PV domain");
    }
    install();
    if !tap.is(start(), Ok(()), "another processor begins in 32-bit code without paging") {
        return;
    }
    let mut callback = HvmParam { domid: SELF, index: HVM_PARAM_CALLBACK_IRQ, ..Default::default() };
    tap.is(op(HYPERVISOR_HVM_OP, HVMOP_GET_PARAM, &mut callback), Ok(0), "the callback");
    let Some(port) = a_port(tap) else { return };
    wide(tap, port);

    tap.note(format_args!("a 32-bit kernel sets its callback, without paging"));
    let mut seen = Seen::new();
    let mut same = callback;
    seen.push(("it is set", with(HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, &mut same) == Ok(0)));
    narrow(&mut seen, port);
    back(tap, seen, callback);
    wide(tap, port);
    wide_runstate(tap);
    lists(tap);

    post(CHANGE_MODE, [0; 6]);
    tap.note(format_args!("it sets its hypercall page, in compatibility mode"));
    let mut seen = Seen::new();
    let frame = page();
    let at = frame.mfn().0 << 12;
    post(WRITE_MSR, [hypercall_msr(), at as u32, (at >> 32) as u32, 0, 0, 0]);
    seen.push(("it is filled", load(frame.address()) != 0));
    narrow(&mut seen, port);
    another_place(&mut seen, port);
    back(tap, seen, callback);
    lists(tap);
}

/// The number of the register that takes the hypercall page: CPUID leaves from 0x40000000 on, or where the first of them says.
fn hypercall_msr() -> u32 {
    (0x4000_0000..0x4001_0000)
        .step_by(0x100)
        .find(|base| __cpuid_count(*base, 0).ebx == u32::from_le_bytes(*b"XenV"))
        .map_or(0, |base| __cpuid_count(base + 2, 0).ebx)
}

/// A port of the second processor's in the second word of 32 bits.
fn a_port(tap: &mut Tap) -> Option<u32> {
    let mut found = None;
    for _ in 0..64 {
        let mut bind = EvtchnBindIpi { vcpu: VcpuId(1), ..Default::default() };
        if op(CHANNEL, EVTCHNOP_BIND_IPI, &mut bind) == Ok(0) && (33..64).contains(&bind.port.0) {
            found = Some(bind.port.0);
            break;
        }
    }
    tap.ok(found.is_some(), "a port of the second processor's");
    found
}

fn send(port: u32) -> bool {
    op(CHANNEL, EVTCHNOP_SEND, &mut EvtchnSend { port: Port(port) }) == Ok(0)
}

/// Nothing has come for the port.
fn forget(port: u32) {
    let shared = events::shared();
    shared.u32_at(PENDING + 4).fetch_and(!(1 << (port - 32)), SeqCst);
    shared.u64_at(INFO).store(0, SeqCst);
    shared.u64_at(INFO + 8).store(0, SeqCst);
}

fn is_pending(port: u32) -> bool {
    events::shared().load_u32(PENDING + 4) & 1 << (port - 32) != 0
}

/// The first 16 bytes of the second processor's `vcpu_info`.
fn info() -> [u64; 2] {
    [INFO, INFO + 8].map(|at| events::shared().load_u64(at))
}

/// Upcall pending, and the second bit of a selector of 32 bits.
const NARROW_NEWS: [u64; 2] = [1 | 2 << 32, 0];
/// Upcall pending, and the first bit of one of 64.
const WIDE_NEWS: [u64; 2] = [1, 1];

fn wide(tap: &mut Tap, port: u32) {
    forget(port);
    events::shared().u64_at(WIDE_MASK).fetch_and(!(1 << port), SeqCst);
    tap.ok(send(port) && is_pending(port), "an event is pending");
    tap.is(info(), WIDE_NEWS, "and announced as to a 64-bit kernel");
    forget(port);
}

fn narrow(seen: &mut Seen, port: u32) {
    let shared = events::shared();
    let mut say = |what, right| seen.push((what, right));
    forget(port);
    shared.u32_at(MASK + 4).store(0, SeqCst);
    say("an event is pending", send(port) && is_pending(port));
    say("and announced as to a 32-bit kernel", info() == NARROW_NEWS);
    forget(port);

    shared.u32_at(MASK + 4).store(1 << (port - 32), SeqCst);
    say("one that is masked is pending", send(port) && is_pending(port));
    say("and not announced", info() == [0; 2]);
    put(LIST, &port);
    let mut poll = compat::SchedPoll { ports: LIST as u32, nr_ports: 1, timeout: [0; 2] };
    say("a poll finds it", with(HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut poll) == Ok(0));
    let mut unmask = EvtchnUnmask { port: Port(port) };
    say("it is unmasked", with(CHANNEL, EVTCHNOP_UNMASK, &mut unmask) == Ok(0));
    say("in the second word", shared.load_u32(MASK + 4) == 0);
    say("and is announced then", info() == NARROW_NEWS);
    forget(port);

    let clock = |at| shared.load_u32(at);
    let version = clock(offset_of!(compat::SharedInfo, wc_version));
    say("the wall clock is there", version != 0 && version & 1 == 0);
    let now = clock(offset_of!(compat::SharedInfo, wc_sec));
    say("and shows the time", now != 0 && now == clock(offset_of!(SharedInfo, wc_sec)));
    say("its high half", clock(offset_of!(compat::SharedInfo, arch.wc_sec_hi)) == 0);

    put(RUNSTATE, &[0xffu8; 64]);
    put(ARGUMENT, &compat::VcpuRegisterRunstateMemoryArea { addr: RUNSTATE as u32, _pad: u32::MAX });
    let registered = call(HYPERVISOR_VCPU_OP, [VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, 1, ARGUMENT as u32]);
    say("a place for its run state", registered == Ok(0));
    say("which is written", plausible());
    put(RUNSTATE, &[0xffu8; 64]);
    say("it sleeps", sleep());
    say("its run state is written again", plausible());
    say("in 44 bytes", get::<[u32; 2]>(RUNSTATE + 44) == [u32::MAX; 2]);
}

/// Has the second processor sleep for a millisecond.
fn sleep() -> bool {
    let until = time::now() + 1_000_000;
    let mut poll = compat::SchedPoll { ports: 0, nr_ports: 0, timeout: [until as u32, (until >> 32) as u32] };
    with(HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut poll) == Ok(0)
}

/// Whether what is at the place of the run state can be one of 32-bit code.
fn plausible() -> bool {
    let info: compat::VcpuRunstateInfo = get(RUNSTATE);
    let number = |[low, high]: [u32; 2]| u64::from(low) | u64::from(high) << 32;
    let (since, sum) = (number(info.state_entry_time), info.time.map(number).iter().sum::<u64>());
    let now = time::now();
    info.state <= RUNSTATE_OFFLINE && since != 0 && since <= now && sum != 0 && sum <= now
}

/// The same place in a 64-bit kernel's domain.
fn wide_runstate(tap: &mut Tap) {
    put(RUNSTATE, &[0xffu8; 64]);
    tap.ok(sleep(), "it sleeps");
    let info: VcpuRunstateInfo = get(RUNSTATE);
    let (since, sum) = (info.state_entry_time, info.time.iter().sum::<u64>());
    let now = time::now();
    tap.ok(since != 0 && since <= now && sum != 0 && sum <= now, "its run state is as for a 64-bit kernel now");
}

/// `VCPUOP_register_vcpu_info`.
fn another_place(seen: &mut Seen, port: u32) {
    let mut say = |what, right| seen.push((what, right));
    put(NEW_INFO, &[0u8; 64]);
    put(ARGUMENT, &VcpuRegisterVcpuInfo { mfn: NEW_INFO >> 12, offset: (NEW_INFO & 0xfff) as u32, rsvd: 0 });
    let registered = call(HYPERVISOR_VCPU_OP, [VCPUOP_REGISTER_VCPU_INFO, 1, ARGUMENT as u32]);
    say("its vcpu_info is elsewhere", registered == Ok(0));
    let info: compat::VcpuInfo = get(NEW_INFO);
    say("all words are to be looked at", (info.evtchn_upcall_pending, info.evtchn_pending_sel) == (1, u32::MAX));
    say("and nothing is written behind them", (info.arch.cr2, info.arch.pad) == (0, [0; 5]));
    say("its clock is there", info.time.tsc_to_system_mul != 0);
    put(NEW_INFO, &[0u64; 2]);
    say("an event is pending", send(port) && is_pending(port));
    say("and announced there", get::<[u64; 2]>(NEW_INFO) == NARROW_NEWS);
    put(NEW_INFO, &[0u64; 2]);
    forget(port);
}

/// The first processor, which is in 64-bit code, sets the callback. What came for it meanwhile is looked for.
fn back(tap: &mut Tap, seen: Seen, mut callback: HvmParam) {
    let shared = events::shared();
    shared.zero(MASK, offset_of!(compat::SharedInfo, arch) + size_of::<compat::ArchSharedInfo>() - MASK);
    let set = op(HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, &mut callback);
    shared.u64_at(offset_of!(VcpuInfo, evtchn_pending_sel)).fetch_or(u64::MAX, SeqCst);
    shared.u8_at(offset_of!(VcpuInfo, evtchn_upcall_pending)).store(1, SeqCst);
    for (what, right) in seen {
        tap.ok(right, what);
    }
    tap.is(set, Ok(0), "64-bit code sets the callback");
}

/// Lists of calls.
fn lists(tap: &mut Tap) {
    const SIZE: u64 = size_of::<compat::MulticallEntry>() as u64;
    const NOWHERE: u32 = 0xf000_0000;
    const MANY: u32 = 100;
    let multicall = |count: u32| call(HYPERVISOR_MULTICALL, [LIST as u32, count]);
    let entry = |op: u32, [first, second]: [u32; 2]| compat::MulticallEntry {
        op,
        result: 77,
        args: [first, second, 0, 0, 0, 0x55],
    };
    let result = |i: u32| get::<compat::MulticallEntry>(LIST + u64::from(i) * SIZE).result;
    let failed = |errno: Errno| errno.as_ret() as u32;
    let version = 4 << 16 | 17;
    let calls = [
        ("a number", HYPERVISOR_XEN_VERSION, [XENVER_VERSION, 0], version),
        ("no memory", HYPERVISOR_EVENT_CHANNEL_OP, [EVTCHNOP_SEND, NOWHERE], failed(Errno::EFAULT)),
        ("a PV guest's call", HYPERVISOR_MMU_UPDATE, [0, 0], failed(Errno::ENOSYS)),
        ("a list in a list", HYPERVISOR_MULTICALL, [LIST as u32, 1], failed(Errno::EINVAL)),
        ("another vCPU's turn", HYPERVISOR_SCHED_OP, [SCHEDOP_YIELD, 0], 0),
        ("the next one after that", HYPERVISOR_XEN_VERSION, [XENVER_VERSION, 0], version),
    ];
    for (i, (_, op, args, _)) in (0..).zip(calls) {
        put(LIST + i * SIZE, &entry(op, args));
    }
    tap.is(multicall(calls.len() as u32), Ok(0), "a list of calls");
    for (i, (what, _, _, wanted)) in (0..).zip(calls) {
        tap.is(result(i), wanted, what);
    }
    for i in 0..MANY {
        put(LIST + u64::from(i) * SIZE, &entry(HYPERVISOR_XEN_VERSION, [XENVER_VERSION, 0]));
    }
    tap.is(multicall(MANY - 1), Ok(0), "a long list");
    tap.ok((0..MANY - 1).all(|i| result(i) == version), "each call has its result");
    tap.is(result(MANY - 1), 77, "and no other");
    tap.is(call(HYPERVISOR_MULTICALL, [NOWHERE, 1]), Err(Errno::EFAULT), "a list at an address without memory");
    tap.is(multicall(0), Ok(0), "no calls");

    // A call that is made in several parts.
    const PAGES: u32 = 600;
    let frames: Vec<_> = (0..PAGES).map(|_| page()).collect();
    let list = LIST + 0x400;
    for (i, frame) in (0..).zip(&frames) {
        put(list + i * 4, &(frame.mfn().0 as u32));
    }
    let all =
        compat::MemoryReservation { extent_start: list as u32, nr_extents: PAGES, domid: SELF, ..Default::default() };
    put(ARGUMENT, &all);
    put(LIST, &entry(HYPERVISOR_MEMORY_OP, [XENMEM_DECREASE_RESERVATION, ARGUMENT as u32]));
    put(LIST + SIZE, &entry(HYPERVISOR_MEMORY_OP, [XENMEM_POPULATE_PHYSMAP, ARGUMENT as u32]));
    tap.is(multicall(2), Ok(0), "pages are given back, and asked for again");
    tap.is([result(0), result(1)], [PAGES; 2], "all of them");
    for (i, frame) in (0..).zip(&frames) {
        store(frame.address(), i);
    }
    tap.ok((0..).zip(&frames).all(|(i, frame)| load(frame.address()) == i), "each is where it was");
}
