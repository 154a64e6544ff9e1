//! Hypercalls of 32-bit code in a hardware container: a second processor makes them for the first one, without paging and
//! then in compatibility mode, with structures as the compat ABI has them. A PV domain has no such code.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Hypercalls of its own, to compare with.
#![allow(clippy::cast_possible_truncation)] // Addresses and halves of numbers.

use guest_pv::call::raw;
use guest_pv::tap::Tap;
use guest_pv::{Mode, mode, time};
use guests::code_32::{
    ARGUMENT, CHANGE_MODE, DATA, LIST, TABLES, call, flat, get, initialise, install, post, put, start, with,
};
use guests::{address_of, load, page, store};
use xen_abi::compat;
use xen_abi::errno::Errno;
use xen_abi::event_channel::*;
use xen_abi::grant_table::*;
use xen_abi::hvm::{
    HVM_PARAM_CALLBACK_IRQ, HVMOP_GET_PARAM, HVMOP_GET_TIME, HvmParam, VCPU_HVM_MODE_32B, VCPU_HVM_MODE_64B,
    VcpuHvmX86_32, VcpuHvmX86_64,
};
use xen_abi::hypercall::*;
use xen_abi::ids::DomId;
use xen_abi::memory::*;
use xen_abi::mmu::{MMUEXT_TLB_FLUSH_LOCAL, MmuextOp};
use xen_abi::physdev::*;
use xen_abi::platform::{PlatformOp, XENPF_INTERFACE_VERSION, XENPF_SETTIME64};
use xen_abi::sched::*;
use xen_abi::vcpu::*;
use xen_abi::version::*;

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;
/// No memory is there, and in compatibility mode no page.
const NOWHERE: u32 = 0xf000_0000;

fn run(tap: &mut Tap) {
    if mode() == Mode::Pv {
        return tap.skip("hypercalls of 32-bit code", "a PV domain");
    }
    install();
    impossible(tap);
    if !tap.is(start(), Ok(()), "another processor begins in 32-bit code without paging") {
        return;
    }
    for mode in ["without paging", "in compatibility mode"] {
        tap.note(format_args!("{mode}"));
        versions(tap);
        memory(tap);
        extents(tap);
        events(tap);
        scheduling(tap);
        vcpus(tap);
        parameters(tap);
        grants(tap);
        refused(tap);
        control(tap);
        post(CHANGE_MODE, [0; 6]);
    }
}

/// States that no processor comes to.
fn impossible(tap: &mut Tap) {
    type Change = fn(&mut VcpuHvmX86_32);
    let changes: [(&str, Change); 17] = [
        ("no TR", |state| state.tr_ar = 0),
        ("a TR that is not present", |state| state.tr_ar = 0x0b),
        ("data as TR", |state| state.tr_ar = 0x93),
        ("a 16-bit TSS", |state| state.tr_ar = 0x83),
        ("no CS", |state| state.cs_ar = 0),
        ("data as CS", |state| state.cs_ar = 0xc93),
        ("a TSS as CS", |state| state.cs_ar = 0x8b),
        ("rights beyond 12 bits", |state| state.cs_ar = 0x1c9b),
        ("no SS", |state| state.ss_ar = 0),
        ("an SS that cannot be written", |state| state.ss_ar = 0xc91),
        ("an SS of another level", |state| state.ss_ar = 0xcf3),
        ("code as DS that cannot be read", |state| state.ds_ar = 0xc99),
        ("an ES of an outer level", |state| state.es_ar = 0xcf3),
        ("an ES that is not present", |state| state.es_ar = 0xc13),
        ("EIP beyond the limit", |state| (state.cs_ar, state.cs_limit) = (0x49b, 0xfff)),
        ("LMA without LME", |state| state.efer = 1 << 10),
        ("something in a gap", |state| state.pad1 = 1),
    ];
    for (what, change) in changes {
        let mut state = flat();
        change(&mut state);
        tap.is(initialise(VCPU_HVM_MODE_32B, &state), Err(Errno::EINVAL), what);
    }
    let long = VcpuHvmX86_64 { cr0: 0x8000_0011, cr3: TABLES, cr4: 0x20, efer: 0x100, ..Default::default() };
    let others = [
        ("64 bits without paging", VcpuHvmX86_64 { cr0: 0x11, ..long }),
        ("64 bits without PAE", VcpuHvmX86_64 { cr4: 0, ..long }),
        ("64 bits without LME", VcpuHvmX86_64 { efer: 0, ..long }),
        ("an RIP that is not canonical", VcpuHvmX86_64 { rip: 1 << 47, ..long }),
        ("a bit of CR4 that nothing means", VcpuHvmX86_64 { cr4: 0x20 | 1 << 31, ..long }),
    ];
    for (what, state) in others {
        tap.is(initialise(VCPU_HVM_MODE_64B, &state), Err(Errno::EINVAL), what);
    }
    tap.is(initialise(7, &flat()), Err(Errno::EINVAL), "no such mode");
}

fn versions(tap: &mut Tap) {
    const OP: u32 = HYPERVISOR_XEN_VERSION;
    tap.is(call(OP, [XENVER_VERSION, 0]), Ok(4 << 16 | 17), "xen_version: 4.17");
    put(ARGUMENT, &[0xffu8; 64]);
    tap.is(call(OP, [XENVER_EXTRAVERSION, ARGUMENT as u32]), Ok(0), "its text");
    let text: [u8; 24] = get(ARGUMENT);
    tap.ok(text[..16].contains(&0) && text[16..] == [0xff; 8], "has its size");
    tap.is(call(OP, [XENVER_PLATFORM_PARAMETERS, ARGUMENT as u32]), Ok(0), "platform parameters");
    let words: [u32; 2] = get(ARGUMENT);
    tap.ok(words[1] == u32::from_le_bytes(text[4..8].try_into().unwrap_or_default()), "are one word");
    tap.is(words[0], 0, "no address is the hypervisor's");
    let mut features = FeatureInfo { submap_idx: 0, submap: 0 };
    tap.is(with(OP, XENVER_GET_FEATURES, &mut features), Ok(0), "features");
    let mut same = FeatureInfo { submap_idx: 0, submap: 0 };
    // SAFETY: writes to a variable.
    unsafe { raw(OP.into(), [XENVER_GET_FEATURES.into(), address_of(&mut same)]) };
    tap.is(features.submap, same.submap, "are the same as for 64-bit code");
    tap.is(call(OP, [XENVER_GET_FEATURES, NOWHERE]), Err(Errno::EFAULT), "an address without memory");
}

fn memory(tap: &mut Tap) {
    const OP: u32 = HYPERVISOR_MEMORY_OP;
    let native = |command: u32| {
        let mut domain = SELF;
        // SAFETY: it reads a number.
        unsafe { raw(OP.into(), [command.into(), address_of(&mut domain)]) as u32 }
    };
    let mut me = SELF;
    tap.is(with(OP, XENMEM_CURRENT_RESERVATION, &mut me), Ok(native(XENMEM_CURRENT_RESERVATION)), "memory there is");
    tap.is(with(OP, XENMEM_MAXIMUM_GPFN, &mut me), Ok(native(XENMEM_MAXIMUM_GPFN)), "the highest frame");
    let mut map = compat::MemoryMap { nr_entries: 16, buffer: DATA as u32 };
    tap.is(with(OP, XENMEM_MEMORY_MAP, &mut map), Ok(0), "the memory map");
    tap.ok((1..=16).contains(&map.nr_entries) && map.buffer == DATA as u32, "has entries");
    tap.is(get::<[u32; 2]>(DATA), [0, 0], "and begins at 0");

    let frame = page();
    let gfn = frame.mfn().0 as u32;
    let list = |nr_extents| compat::MemoryReservation {
        extent_start: LIST as u32,
        nr_extents,
        domid: SELF,
        ..Default::default()
    };
    put(LIST, &gfn);
    tap.is(with(OP, XENMEM_DECREASE_RESERVATION, &mut list(1)), Ok(1), "a page is given back");
    let mut place = compat::AddToPhysmap { domid: SELF, size: 0, space: XENMAPSPACE_GRANT_TABLE, idx: 0, gpfn: gfn };
    tap.is(with(OP, XENMEM_ADD_TO_PHYSMAP, &mut place), Ok(0), "the grant table is put there");
    let mut gone = compat::RemoveFromPhysmap { domid: SELF, _pad: 0, gpfn: gfn };
    tap.is(with(OP, XENMEM_REMOVE_FROM_PHYSMAP, &mut gone), Ok(0), "and taken away");
    many(tap, gfn);
    tap.is(with(OP, XENMEM_POPULATE_PHYSMAP, &mut list(1)), Ok(1), "a page is there again");
    store(frame.address(), 0x3232);
    tap.is(load(frame.address()), 0x3232, "which can be used");
    place.space = 77;
    tap.is(with(OP, XENMEM_ADD_TO_PHYSMAP, &mut place), Err(Errno::EINVAL), "no such space");
    tap.is(call(OP, [XENMEM_ADD_TO_PHYSMAP, NOWHERE]), Err(Errno::EFAULT), "nor such an address");
}

/// The grant table again, as the last of more pages than the hypervisor enters in one go; there are not so many others.
fn many(tap: &mut Tap, gfn: u32) {
    const OP: u32 = HYPERVISOR_MEMORY_OP;
    const PAGES: usize = 40;
    let (frames, answers) = (DATA + 256, DATA + 512);
    let mut indices = [0x10_0000u32; PAGES];
    indices[PAGES - 1] = 0;
    put(DATA, &indices);
    put(frames, &[gfn; PAGES]);
    put(answers, &[7i32; PAGES + 1]);
    let mut batch = compat::AddToPhysmapBatch {
        domid: SELF,
        space: XENMAPSPACE_GRANT_TABLE as u16,
        size: PAGES as u16,
        foreign_domid: DomId(0),
        idxs: DATA as u32,
        gpfns: frames as u32,
        errs: answers as u32,
    };
    tap.is(with(OP, XENMEM_ADD_TO_PHYSMAP_BATCH, &mut batch), Ok(0), "many pages at a time");
    let mut expected = [-(Errno::EINVAL as i32); PAGES + 1];
    (expected[PAGES - 1], expected[PAGES]) = (0, 7);
    tap.ok(get::<[i32; PAGES + 1]>(answers) == expected, "each has its answer");
    let mut gone = compat::RemoveFromPhysmap { domid: SELF, _pad: 0, gpfn: gfn };
    tap.is(with(OP, XENMEM_REMOVE_FROM_PHYSMAP, &mut gone), Ok(0), "and the one that came is taken away");
    batch.idxs = NOWHERE;
    tap.is(with(OP, XENMEM_ADD_TO_PHYSMAP_BATCH, &mut batch), Err(Errno::EFAULT), "a list without memory");
}

/// More than fits in a page of the hypervisor's in its own form.
fn extents(tap: &mut Tap) {
    const OP: u32 = HYPERVISOR_MEMORY_OP;
    const MANY: usize = 600;
    let frames = [const { None }; MANY].map(|_: Option<()>| page());
    for (i, frame) in (0..).zip(&frames) {
        put(LIST + i * 4, &(frame.mfn().0 as u32));
    }
    let all = || compat::MemoryReservation {
        extent_start: LIST as u32,
        nr_extents: MANY as u32,
        domid: SELF,
        ..Default::default()
    };
    let many = Ok(MANY as u32);
    tap.is(with(OP, XENMEM_DECREASE_RESERVATION, &mut all()), many, "many pages are given back");
    tap.is(with(OP, XENMEM_POPULATE_PHYSMAP, &mut all()), many, "and asked for again");
    for (i, frame) in (0..).zip(&frames) {
        store(frame.address(), i);
    }
    tap.ok((0..).zip(&frames).all(|(i, frame)| load(frame.address()) == i), "each is where it was");
    // A number that is no page's ends the call.
    put(LIST + 500 * 4, &u32::MAX);
    tap.is(with(OP, XENMEM_DECREASE_RESERVATION, &mut all()), Ok(500), "it ends at what is no page");
    let mut some = compat::MemoryReservation { nr_extents: 500, ..all() };
    tap.is(with(OP, XENMEM_POPULATE_PHYSMAP, &mut some), Ok(500), "those before it were done");
}

fn events(tap: &mut Tap) {
    const OP: u32 = HYPERVISOR_EVENT_CHANNEL_OP;
    let mut alloc = EvtchnAllocUnbound { dom: SELF, remote_dom: SELF, ..Default::default() };
    tap.is(with(OP, EVTCHNOP_ALLOC_UNBOUND, &mut alloc), Ok(0), "a port");
    let mut status = EvtchnStatus { dom: SELF, port: alloc.port, ..Default::default() };
    tap.is(with(OP, EVTCHNOP_STATUS, &mut status), Ok(0), "its status");
    tap.is(status.status, EVTCHNSTAT_UNBOUND, "is: not bound");
    let mut close = EvtchnClose { port: alloc.port };
    tap.is(with(OP, EVTCHNOP_CLOSE, &mut close), Ok(0), "it is closed");
    tap.is(with(OP, EVTCHNOP_CLOSE, &mut close), Err(Errno::EINVAL), "once");
    tap.is(call(OP, [EVTCHNOP_SEND, NOWHERE]), Err(Errno::EFAULT), "a port at an address without memory");
}

fn scheduling(tap: &mut Tap) {
    const OP: u32 = HYPERVISOR_SCHED_OP;
    tap.is(call(OP, [SCHEDOP_YIELD, 0]), Ok(0), "yield");
    let mut alloc = EvtchnAllocUnbound { dom: SELF, remote_dom: SELF, ..Default::default() };
    let _ = with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_ALLOC_UNBOUND, &mut alloc);
    put(DATA, &alloc.port);
    let until = time::now() + 5_000_000;
    let timeout = [until as u32, (until >> 32) as u32];
    let mut poll = compat::SchedPoll { ports: DATA as u32, nr_ports: 1, timeout };
    tap.is(with(OP, SCHEDOP_POLL, &mut poll), Ok(0), "a poll of a port");
    tap.ok(time::now() >= until, "ends when its time has come");
    poll.nr_ports = 129;
    tap.is(with(OP, SCHEDOP_POLL, &mut poll), Err(Errno::EINVAL), "there are too many ports");
    let _ = with(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_CLOSE, &mut EvtchnClose { port: alloc.port });
    let far = time::now() + (1 << 40);
    let timer = HYPERVISOR_SET_TIMER_OP;
    tap.is(call(timer, [far as u32, (far >> 32) as u32]), Ok(0), "a timer, whose time comes in two words");
    tap.is(call(timer, [0, 0]), Ok(0), "none");
}

fn vcpus(tap: &mut Tap) {
    const OP: u32 = HYPERVISOR_VCPU_OP;
    tap.is(call(OP, [VCPUOP_IS_UP, 1, 0]), Ok(1), "this vCPU is up");
    tap.is(call(OP, [VCPUOP_IS_UP, 2, 0]), Err(Errno::ENOENT), "there is no third one");
    let at = ARGUMENT as u32;
    put(ARGUMENT, &[0xffu8; 64]);
    tap.is(call(OP, [VCPUOP_GET_RUNSTATE_INFO, 1, at]), Ok(0), "what it has been doing");
    let info: compat::VcpuRunstateInfo = get(ARGUMENT);
    let number = |[low, high]: [u32; 2]| u64::from(low) | u64::from(high) << 32;
    tap.is(info.state, 0, "it runs");
    let (entry, sum) = (number(info.state_entry_time), info.time.map(number).iter().sum::<u64>());
    tap.ok(entry != 0 && entry <= time::now() && sum != 0 && sum <= time::now(), "its times are numbers of 64 bits");
    tap.is(get::<[u32; 2]>(ARGUMENT + 44), [u32::MAX; 2], "in 44 bytes");
    let far = time::now() + (1 << 40);
    let set = compat::VcpuSetSingleshotTimer { timeout_abs_ns: [far as u32, (far >> 32) as u32], flags: 0 };
    put(ARGUMENT, &set);
    tap.is(call(OP, [VCPUOP_SET_SINGLESHOT_TIMER, 1, at]), Ok(0), "a timer");
    tap.is(call(OP, [VCPUOP_STOP_SINGLESHOT_TIMER, 1, 0]), Ok(0), "no timer");
    put(DATA, &[0u8; 64]);
    put(ARGUMENT, &compat::VcpuRegisterTimeMemoryArea { addr: DATA as u32, _pad: u32::MAX });
    tap.is(call(OP, [VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, 1, at]), Ok(0), "a place for its clock");
    // tsc_to_system_mul
    tap.ok(get::<u32>(DATA + 24) != 0, "which is filled");
    put(ARGUMENT, &[0u32; 2]);
    tap.is(call(OP, [VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, 1, at]), Ok(0), "none any more");
}

fn parameters(tap: &mut Tap) {
    const OP: u32 = HYPERVISOR_HVM_OP;
    let mut param = HvmParam { domid: SELF, index: HVM_PARAM_CALLBACK_IRQ, ..Default::default() };
    let mut same = param;
    tap.is(with(OP, HVMOP_GET_PARAM, &mut param), Ok(0), "a parameter");
    // SAFETY: writes to a variable.
    unsafe { raw(OP.into(), [HVMOP_GET_PARAM.into(), address_of(&mut same)]) };
    tap.is(param.value, same.value, "is the same as for 64-bit code");
    tap.is(call(OP, [HVMOP_GET_PARAM, NOWHERE]), Err(Errno::EFAULT), "at an address without memory");
    let mut now = 0u64;
    let before = time::now();
    tap.is(with(OP, HVMOP_GET_TIME, &mut now), Ok(0), "the time");
    tap.ok(now != 0 && now <= time::now() && now + 1_000_000_000 >= before, "is now");
}

fn grants(tap: &mut Tap) {
    const OP: u32 = HYPERVISOR_GRANT_TABLE_OP;
    const MANY: u64 = 40;
    let at = ARGUMENT as u32;
    let mut size = GnttabQuerySize { dom: SELF, ..Default::default() };
    put(ARGUMENT, &size);
    tap.is(call(OP, [GNTTABOP_QUERY_SIZE, at, 1]), Ok(0), "the grant table's size");
    size = get(ARGUMENT);
    tap.ok(size.status == GNTST_OKAY && size.max_nr_frames >= 1, "can be asked");
    put(ARGUMENT, &GnttabGetVersion { dom: SELF, ..Default::default() });
    tap.is(call(OP, [GNTTABOP_GET_VERSION, at, 1]), Ok(0), "its version");
    tap.is(get::<GnttabGetVersion>(ARGUMENT).version, 1, "is 1");
    put(LIST, &[u32::MAX; 2]);
    let setup =
        compat::GnttabSetupTable { dom: SELF, nr_frames: 1, status: 77, frame_list: LIST as u32, ..Default::default() };
    put(ARGUMENT, &setup);
    tap.is(call(OP, [GNTTABOP_SETUP_TABLE, at, 1]), Ok(0), "where it is");
    tap.is(get::<compat::GnttabSetupTable>(ARGUMENT), compat::GnttabSetupTable { status: 0, ..setup }, "is told");
    tap.is(get::<u32>(LIST + 4), u32::MAX, "in one word");

    // Words of one page to places of another.
    let (from, to) = (page(), page());
    for i in 0..512 {
        store(from.address() + i * 8, 0x1000 + i);
    }
    let end = |frame: &guest_pv::mem::Frame, offset: u64| compat::GnttabCopyPtr {
        u: frame.mfn().0 as u32,
        domid: SELF,
        offset: offset as u16,
    };
    for i in 0..MANY {
        let copy = compat::GnttabCopy {
            source: end(&from, i * 8),
            dest: end(&to, (MANY - i) * 8),
            len: 8,
            flags: 0,
            status: 77,
            _pad: 0x55,
        };
        put(LIST + i * 24, &copy);
    }
    // One that leads nowhere.
    let wrong = compat::GnttabCopyPtr { u: 0x8_0000, domid: SELF, offset: 0 };
    put(LIST + 36 * 24, &compat::GnttabCopy { source: wrong, len: 8, dest: end(&to, 0), ..Default::default() });
    tap.is(call(OP, [GNTTABOP_COPY, LIST as u32, MANY as u32]), Ok(0), "many copies");
    let status = |i: u64| get::<compat::GnttabCopy>(LIST + i * 24).status;
    tap.ok((0..MANY).all(|i| (status(i) == 0) == (i != 36)), "each has an answer of its own");
    let moved = |i: u64| load(to.address() + (MANY - i) * 8) == 0x1000 + i;
    tap.ok((0..MANY).all(|i| moved(i) == (i != 36)), "what was to be copied is there");
    tap.is(get::<compat::GnttabCopy>(LIST)._pad, 0x55, "nothing else is written");
    tap.is(call(OP, [GNTTABOP_COPY, NOWHERE, 1]), Err(Errno::EFAULT), "a copy at an address without memory");
}

fn refused(tap: &mut Tap) {
    tap.is(call(60, [0]), Err(Errno::ENOSYS), "no such hypercall");
    tap.is(call(HYPERVISOR_MMU_UPDATE, [0, 0, 0, 0]), Err(Errno::ENOSYS), "none of PV guests' own");
}

/// A call of 64-bit code's, to compare with.
fn native<const N: usize>(number: u32, args: [u64; N]) -> Result<u64, Errno> {
    // SAFETY: a call that is refused.
    guest_pv::call::check(unsafe { raw(number.into(), args) })
}

/// What is for a control domain: who is none gets the same errors from both.
fn control(tap: &mut Tap) {
    let at = ARGUMENT as u32;
    physical_devices(tap);
    let mut wanted =
        PlatformOp { cmd: XENPF_SETTIME64, interface_version: XENPF_INTERFACE_VERSION, ..Default::default() };
    for (version, errno) in [(XENPF_INTERFACE_VERSION, Errno::EPERM), (7, Errno::EACCES)] {
        wanted.interface_version = version;
        put(ARGUMENT, &wanted);
        tap.is(call(HYPERVISOR_PLATFORM_OP, [at]), Err(errno), "platform_op is refused");
        tap.is(native(HYPERVISOR_PLATFORM_OP, [address_of(&mut wanted)]), Err(errno), "to 64-bit code, too");
    }
    tap.is(call(HYPERVISOR_PLATFORM_OP, [NOWHERE]), Err(Errno::EFAULT), "nor is there memory");

    let mut list = [MmuextOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, ..Default::default() }; 2];
    put(ARGUMENT, &[compat::MmuextOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, ..Default::default() }; 2]);
    let others = [(SELF, Errno::EINVAL), (DomId(0x7000), Errno::ESRCH), (DomId(0), Errno::EPERM)];
    for (owner, errno) in others {
        let domid = u32::from(owner.0);
        tap.is(call(HYPERVISOR_MMUEXT_OP, [at, 2, 0, domid]), Err(errno), "mmuext_op has nothing to work on");
        let same = native(HYPERVISOR_MMUEXT_OP, [address_of(&mut list), 2, 0, domid.into()]);
        tap.is(same, Err(errno), "nor for 64-bit code");
    }
    let own = u32::from(SELF.0);
    tap.is(call(HYPERVISOR_MMUEXT_OP, [NOWHERE, 1, 0, own]), Err(Errno::EINVAL), "even by a list without memory");
    tap.is(call(HYPERVISOR_MMUEXT_OP, [at, 0, 0, own]), Ok(0), "an empty one is done");

    const OP: u32 = HYPERVISOR_MEMORY_OP;
    let mut frames =
        compat::MemAcquireResource { domid: DomId(0), nr_frames: 1, frame_list: LIST as u32, ..Default::default() };
    let mut same = MemAcquireResource { domid: DomId(0), nr_frames: 1, frame_list: LIST, ..Default::default() };
    tap.is(with(OP, XENMEM_ACQUIRE_RESOURCE, &mut frames), Err(Errno::EACCES), "others' resources are not had");
    let answer = native(OP, [XENMEM_ACQUIRE_RESOURCE.into(), address_of(&mut same)]);
    tap.is(answer, Err(Errno::EACCES), "by 64-bit code neither");
    tap.is(call(OP, [XENMEM_ACQUIRE_RESOURCE, NOWHERE]), Err(Errno::EFAULT), "at an address without memory");
    exchange(tap);
}

fn physical_devices(tap: &mut Tap) {
    const OP: u32 = HYPERVISOR_PHYSDEV_OP;
    let all = [
        PHYSDEVOP_MAP_PIRQ,
        PHYSDEVOP_UNMAP_PIRQ,
        PHYSDEVOP_EOI,
        PHYSDEVOP_IRQ_STATUS_QUERY,
        PHYSDEVOP_GET_FREE_PIRQ,
        PHYSDEVOP_SET_IOPL,
        PHYSDEVOP_PCI_DEVICE_ADD,
        PHYSDEVOP_PCI_MMCFG_RESERVED,
        PHYSDEVOP_DBGP_OP,
        77,
    ];
    put(ARGUMENT, &[0u8; 64]);
    let answers = all.map(|command| call(OP, [command, ARGUMENT as u32]));
    tap.ok(answers.iter().all(|answer| *answer == Err(Errno::ENOSYS)), "nothing of physdev_op is there");
    let mut argument = [0u64; 8];
    let answers = all.map(|command| native(OP, [command.into(), address_of(&mut argument)]));
    tap.ok(answers.iter().all(|answer| *answer == Err(Errno::ENOSYS)), "for 64-bit code neither");
}

fn exchange(tap: &mut Tap) {
    const OP: u32 = HYPERVISOR_MEMORY_OP;
    let gfn = page().mfn().0 as u32;
    put(LIST, &[gfn, gfn]);
    let list = |place: u64| compat::MemoryReservation {
        extent_start: place as u32,
        nr_extents: 1,
        domid: SELF,
        ..Default::default()
    };
    let mut trade = compat::MemoryExchange { in_: list(LIST), out: list(LIST + 4), nr_exchanged: 0 };
    tap.is(with(OP, XENMEM_EXCHANGE, &mut trade), Err(Errno::EOPNOTSUPP), "there are no frames to trade");
    trade.out.nr_extents = 2;
    tap.is(with(OP, XENMEM_EXCHANGE, &mut trade), Err(Errno::EINVAL), "least of all more than are given");
    tap.is(call(OP, [XENMEM_EXCHANGE, NOWHERE]), Err(Errno::EFAULT), "at an address without memory");
}
