//! `vcpu_op`: what a vCPU can ask about itself, and the memory it registers.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Halves and bytes are cut out of words on purpose.

use core::sync::atomic::Ordering;
use guest_pv::call::vcpu;
use guest_pv::mem::SharedBytes;
use guest_pv::tap::Tap;
use guest_pv::{Mode, events, mode, time};
use guests::{address_of, call, load, page};
use xen_abi::Errno;
use xen_abi::arch_x86::{shared_info, vcpu_info};
use xen_abi::hypercall::HYPERVISOR_VCPU_OP;
use xen_abi::ids::VcpuId;
use xen_abi::vcpu::*;
use xen_abi::vm_assist::{VMASST_CMD_ENABLE, VMASST_TYPE_RUNSTATE_UPDATE_FLAG};

guest_pv::test!(run);

const V0: VcpuId = VcpuId(0);
const NONE: u64 = 1000;
/// An address of the hypervisor's, by mode: in a container it is one like another, and written to when it can be.
const IN_THE_HYPERVISOR: [Result<u64, Errno>; 2] = [Err(Errno::EFAULT), Ok(0)];

fn op<T>(command: u32, vcpu: u64, argument: &mut T) -> Result<u64, Errno> {
    call(HYPERVISOR_VCPU_OP, [command.into(), vcpu, address_of(argument)])
}

fn run(tap: &mut Tap) {
    questions(tap);
    runstate_area(tap);
    time_area(tap);
    errors(tap);
    // Last: the runtime does not follow its vcpu_info to the new place.
    info_area(tap);
}

fn questions(tap: &mut Tap) {
    tap.is(vcpu::is_up(V0), Ok(true), "vCPU 0 is up");
    tap.is(vcpu::is_up(VcpuId(1000)), Err(Errno::ENOENT), "vCPU 1000 does not exist");
    let info = vcpu::runstate(V0).unwrap_or_default();
    tap.is(info.state, RUNSTATE_RUNNING, "it is running");
    let now = time::now();
    tap.ok(info.state_entry_time <= now, "since some time ago");
    let total: u64 = info.time.iter().sum();
    tap.ok(total > 0 && total <= now, "and has used some time");
    time::sleep(10_000_000);
    let later = vcpu::runstate(V0).unwrap_or_default();
    let blocked = RUNSTATE_BLOCKED as usize;
    tap.ok(later.time[blocked] >= info.time[blocked] + 5_000_000, "sleeping is counted as blocked");
    let mut physid = VcpuGetPhysid::default();
    let result = op(VCPUOP_GET_PHYSID, 0, &mut physid);
    tap.ok(matches!(result, Ok(0) | Err(Errno::EINVAL)), "a vCPU has a physical number when it is pinned");
}

fn runstate_area(tap: &mut Tap) {
    let area = page();
    let mut argument = VcpuRegisterRunstateMemoryArea { addr: area.address() };
    tap.is(op(VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, 0, &mut argument), Ok(0), "a runstate area");
    tap.is(load(area.address()) as u32, RUNSTATE_RUNNING, "is filled at once");
    time::sleep(5_000_000);
    let entry = load(area.address() + 8);
    tap.ok(entry > 0 && entry <= time::now(), "and kept up to date");
    let assist = guest_pv::call::traps::vm_assist(VMASST_CMD_ENABLE, VMASST_TYPE_RUNSTATE_UPDATE_FLAG);
    tap.is(assist, Ok(()), "the assist that marks updates");
    time::sleep(1_000_000);
    tap.is(load(area.address() + 8) & XEN_RUNSTATE_UPDATE, 0, "the mark is gone after the update");
    // Registering an address that is not mapped is accepted: it is written to when it can be.
    let mut argument = VcpuRegisterRunstateMemoryArea { addr: 0x1000 };
    tap.is(op(VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, 0, &mut argument), Ok(0), "an area that is not mapped");
    time::sleep(1_000_000);
    let mut argument = VcpuRegisterRunstateMemoryArea { addr: 0xffff_8300_0000_0000 };
    let result = op(VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, 0, &mut argument);
    tap.is(result, IN_THE_HYPERVISOR[mode() as usize], "an area in the hypervisor");
    area.leak();
}

fn time_area(tap: &mut Tap) {
    let area = page();
    let mut argument = VcpuRegisterTimeMemoryArea { addr: area.address() };
    tap.is(op(VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, 0, &mut argument), Ok(0), "a time area");
    let shared = events::shared();
    let same = load(area.address() + 8) == shared.load_u64(vcpu_info::TIME_TSC_TIMESTAMP)
        && load(area.address() + 16) == shared.load_u64(vcpu_info::TIME_SYSTEM_TIME);
    tap.ok(same, "has the time of vcpu_info");
    let mut argument = VcpuRegisterTimeMemoryArea { addr: 0xffff_8300_0000_0000 };
    let result = op(VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, 0, &mut argument);
    tap.is(result, IN_THE_HYPERVISOR[mode() as usize], "not in the hypervisor");
    area.leak();
}

fn errors(tap: &mut Tap) {
    tap.is(call(HYPERVISOR_VCPU_OP, [99, 0, 0]), Err(Errno::ENOSYS), "an unknown command");
    tap.is(call(HYPERVISOR_VCPU_OP, [VCPUOP_UP.into(), NONE, 0]), Err(Errno::ENOENT), "up: no such vCPU");
    tap.is(call(HYPERVISOR_VCPU_OP, [VCPUOP_UP.into(), 0, 0]), Ok(0), "up: it is");
    tap.is(call(HYPERVISOR_VCPU_OP, [VCPUOP_DOWN.into(), NONE, 0]), Err(Errno::ENOENT), "down: no such vCPU");
    let initialise = call(HYPERVISOR_VCPU_OP, [VCPUOP_INITIALISE.into(), NONE, 0x1000]);
    tap.is(initialise, Err(Errno::ENOENT), "initialise: no such vCPU");
    let initialise = call(HYPERVISOR_VCPU_OP, [VCPUOP_INITIALISE.into(), 0, 0x1000]);
    tap.is(initialise, Err(Errno::EFAULT), "initialise: a context that is not mapped");
    let runstate = call(HYPERVISOR_VCPU_OP, [VCPUOP_GET_RUNSTATE_INFO.into(), 0, 0x1000]);
    tap.is(runstate, Err(Errno::EFAULT), "runstate: a struct that is not mapped");
    tap.is(vcpu::stop_periodic_timer(VcpuId(1000)), Err(Errno::ENOENT), "timers: no such vCPU");
    let other = vcpu::set_singleshot_timer(VcpuId(1), 1, 0);
    tap.is(other, Err(Errno::ENOENT), "timers: not even vCPU 1");
}

fn info_area(tap: &mut Tap) {
    let area = page();
    let mut argument = VcpuRegisterVcpuInfo { mfn: area.mfn().0, offset: 4090, rsvd: 0 };
    tap.is(
        op(VCPUOP_REGISTER_VCPU_INFO, 0, &mut argument),
        Err(Errno::ENXIO),
        "an info that does not fit into the page",
    );
    argument = VcpuRegisterVcpuInfo { mfn: 1 << 40, offset: 0, rsvd: 0 };
    tap.is(op(VCPUOP_REGISTER_VCPU_INFO, 0, &mut argument), Err(Errno::EINVAL), "a frame that does not exist");

    let port = events::bind_ipi().expect("a free port");
    while events::poll().is_some() {}
    argument = VcpuRegisterVcpuInfo { mfn: area.mfn().0, offset: 64, rsvd: 0 };
    tap.is(op(VCPUOP_REGISTER_VCPU_INFO, 0, &mut argument), Ok(0), "a new place for vcpu_info");
    let at = |offset: usize| area.address() + 64 + offset as u64;
    let byte = |offset: usize| (load(at(offset & !7)) >> (offset % 8 * 8)) as u8;
    tap.is(byte(vcpu_info::EVTCHN_UPCALL_MASK), 1, "the mask came along");
    tap.is(byte(vcpu_info::EVTCHN_UPCALL_PENDING), 1, "an upcall is pending, to be on the safe side");
    tap.is(load(at(vcpu_info::EVTCHN_PENDING_SEL)), u64::MAX, "and all words are announced");
    tap.ok(load(at(vcpu_info::TIME_TSC_TO_SYSTEM_MUL)) != 0, "the time is there");
    guests::store(at(vcpu_info::EVTCHN_PENDING_SEL), 0);
    guests::store(at(0), 0x100);
    events::notify(port).expect("bound");
    tap.is(load(at(vcpu_info::EVTCHN_PENDING_SEL)), 1 << (port.0 / 64), "events are announced there");
    tap.is(byte(vcpu_info::EVTCHN_UPCALL_PENDING), 1, "with an upcall");
    let old: &SharedBytes = events::shared();
    let unused = old.u8_at(shared_info::VCPU_INFO + vcpu_info::EVTCHN_UPCALL_PENDING).load(Ordering::SeqCst);
    tap.is(unused, 0, "and not in the old place");
    if mode() == Mode::Pv {
        let _ = guests::trap_of(|| _ = load(0x1230));
        tap.is(load(at(vcpu_info::ARCH_CR2)), 0x1230, "fault addresses are told there");
    }
    tap.is(op(VCPUOP_REGISTER_VCPU_INFO, 0, &mut argument), Err(Errno::EINVAL), "the place is chosen once");
    area.leak();
}
