//! Pointers that no hypercall may follow: events, scheduling, vCPUs, traps, versions, batches and calls of old kernels.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::mem::offset_of;
use guest_pv::call::event_channel as ec;
use guest_pv::events;
use guest_pv::tap::Tap;
use guests::pointers::Place::*;
use guests::pointers::{Ground, P, error, inout, input, value};
use guests::{call, op};
use xen_abi::Errno;
use xen_abi::arch_x86::VcpuGuestContext;
use xen_abi::callback::*;
use xen_abi::event_channel::*;
use xen_abi::hypercall::*;
use xen_abi::ids::{DomId, Port, VcpuId};
use xen_abi::multicall::MulticallEntry;
use xen_abi::nmi::*;
use xen_abi::physdev::{PHYSDEVOP_IRQ_STATUS_QUERY, PHYSDEVOP_SET_IOPL, PhysdevOp};
use xen_abi::sched::*;
use xen_abi::trap::TrapInfo;
use xen_abi::vcpu::*;
use xen_abi::version::*;

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;
const NOBODY: DomId = DomId(1234);

fn run(tap: &mut Tap) {
    let mut ground = Ground::new();
    events(tap, &mut ground);
    scheduling(tap, &mut ground);
    vcpus(tap, &mut ground);
    versions(tap, &mut ground);
    traps(tap, &mut ground);
    old_calls(tap, &mut ground);
}

/// Ports that are in use.
fn ports() -> usize {
    (1..4096).filter(|&port| ec::status(SELF, Port(port)).is_ok_and(|s| s.status != EVTCHNSTAT_CLOSED)).count()
}

fn events(tap: &mut Tap, ground: &mut Ground) {
    const E: u32 = HYPERVISOR_EVENT_CHANNEL_OP;
    let op = |command: u32| [u64::from(command), P];
    let port = events::bind_ipi().expect("a free port");
    let before = ports();
    let open = EvtchnAllocUnbound { dom: SELF, remote_dom: SELF, port: Port(0) };
    let nobody = EvtchnBindInterdomain { remote_dom: NOBODY, ..Default::default() };
    let status = EvtchnStatus { dom: SELF, port, ..Default::default() };
    let here = EvtchnBindVcpu { port, vcpu: VcpuId(0) };
    let control = EvtchnInitControl { control_gfn: 1 << 40, ..Default::default() };
    let invalid = error(Errno::EINVAL);
    ground.check(
        tap,
        &[
            inout("bind_interdomain", E, op(EVTCHNOP_BIND_INTERDOMAIN), &nobody).but(ReadOnly, error(Errno::ESRCH)),
            input("bind_pirq", E, op(EVTCHNOP_BIND_PIRQ), &EvtchnBindPirq { pirq: 1 << 30, ..Default::default() })
                .but(ReadOnly, invalid),
            inout("status", E, op(EVTCHNOP_STATUS), &status),
            input("send", E, op(EVTCHNOP_SEND), &EvtchnSend { port }).but(ReadOnly, value(0)),
            input("bind_vcpu", E, op(EVTCHNOP_BIND_VCPU), &here).but(ReadOnly, invalid),
            input("unmask", E, op(EVTCHNOP_UNMASK), &EvtchnUnmask { port }).but(ReadOnly, value(0)),
            input("reset", E, op(EVTCHNOP_RESET), &EvtchnReset { dom: NOBODY }).but(ReadOnly, error(Errno::ESRCH)),
            inout("init_control", E, op(EVTCHNOP_INIT_CONTROL), &control).but(ReadOnly, error(Errno::EINVAL)),
            input("expand_array", E, op(EVTCHNOP_EXPAND_ARRAY), &EvtchnExpandArray { array_gfn: 1 << 40 })
                .but(ReadOnly, error(Errno::EOPNOTSUPP)),
            input("set_priority", E, op(EVTCHNOP_SET_PRIORITY), &EvtchnSetPriority { port, priority: 7 })
                .but(ReadOnly, error(Errno::ENOSYS)),
            inout("alloc_unbound", E, op(EVTCHNOP_ALLOC_UNBOUND), &open).without(ReadOnly),
            inout("bind_virq", E, op(EVTCHNOP_BIND_VIRQ), &EvtchnBindVirq { virq: 1, ..Default::default() })
                .without(ReadOnly),
            inout("bind_ipi", E, op(EVTCHNOP_BIND_IPI), &EvtchnBindIpi::default()).without(ReadOnly),
        ],
    );
    tap.is(ports(), before, "no port was taken, none closed");
    ground.check(
        tap,
        &[
            inout("alloc_unbound, told to nobody", E, op(EVTCHNOP_ALLOC_UNBOUND), &open),
            inout(
                "bind_virq, told to nobody",
                E,
                op(EVTCHNOP_BIND_VIRQ),
                &EvtchnBindVirq { virq: 1, ..Default::default() },
            ),
            inout("bind_ipi, told to nobody", E, op(EVTCHNOP_BIND_IPI), &EvtchnBindIpi::default()),
            input("close", E, op(EVTCHNOP_CLOSE), &EvtchnClose { port }).but(ReadOnly, value(0)),
        ],
    );
    tap.is(ports(), before + 2, "ports that could not be told are taken all the same");
}

fn scheduling(tap: &mut Tap, ground: &mut Ground) {
    const S: u32 = HYPERVISOR_SCHED_OP;
    let op = |command: u32| [u64::from(command), P];
    let gone_by = SchedPoll { nr_ports: 1, timeout: 1, ..Default::default() };
    let ports = offset_of!(SchedPoll, ports);
    let nobody = SchedRemoteShutdown { domain_id: NOBODY, ..Default::default() };
    ground.check(
        tap,
        &[
            input("poll", S, op(SCHEDOP_POLL), &SchedPoll { timeout: 1, ..Default::default() }).but(ReadOnly, value(0)),
            input("poll's ports", S, op(SCHEDOP_POLL), &Port(1)).inside(&gone_by, ports).but(ReadOnly, value(0)),
            input("shutdown", S, op(SCHEDOP_SHUTDOWN), &SchedShutdown { reason: SHUTDOWN_CRASH }),
            input("remote_shutdown", S, op(SCHEDOP_REMOTE_SHUTDOWN), &nobody).but(ReadOnly, error(Errno::ESRCH)),
            input("shutdown_code", S, op(SCHEDOP_SHUTDOWN_CODE), &SchedShutdown { reason: SHUTDOWN_CRASH }),
            input("watchdog", S, op(SCHEDOP_WATCHDOG), &SchedWatchdog { id: 77, timeout: 0 })
                .but(ReadOnly, error(Errno::EINVAL)),
            input("pin_override", S, op(SCHEDOP_PIN_OVERRIDE), &SchedPinOverride { pcpu: -1 })
                .but(ReadOnly, error(Errno::EINVAL)),
            input("yield", S, op(SCHEDOP_YIELD), &0u32).but(ReadOnly, value(0)).always(value(0)),
        ],
    );
}

fn vcpus(tap: &mut Tap, ground: &mut Ground) {
    const V: u32 = HYPERVISOR_VCPU_OP;
    let op = |command: u32| [u64::from(command), 0, P];
    let timer = VcpuSetSingleshotTimer { timeout_abs_ns: u64::MAX >> 2, ..Default::default() };
    let info = VcpuRegisterVcpuInfo { mfn: 1 << 40, ..Default::default() };
    ground.check(
        tap,
        &[
            input("initialise", V, op(VCPUOP_INITIALISE), &VcpuGuestContext::default())
                .but(ReadOnly, error(Errno::EEXIST)),
            inout("get_runstate_info", V, op(VCPUOP_GET_RUNSTATE_INFO), &VcpuRunstateInfo::default()),
            input("set_periodic_timer", V, op(VCPUOP_SET_PERIODIC_TIMER), &VcpuSetPeriodicTimer { period_ns: 1 })
                .but(ReadOnly, error(Errno::EINVAL)),
            input("set_singleshot_timer", V, op(VCPUOP_SET_SINGLESHOT_TIMER), &timer).but(ReadOnly, value(0)),
            input("register_vcpu_info", V, op(VCPUOP_REGISTER_VCPU_INFO), &info).but(ReadOnly, error(Errno::EINVAL)),
            inout("get_physid", V, op(VCPUOP_GET_PHYSID), &VcpuGetPhysid::default()),
            input("is_up", V, op(VCPUOP_IS_UP), &0u32).but(ReadOnly, value(1)).always(value(1)),
            input("up", V, op(VCPUOP_UP), &0u32).but(ReadOnly, value(0)).always(value(0)),
            input("stop_singleshot_timer", V, op(VCPUOP_STOP_SINGLESHOT_TIMER), &0u32).always(value(0)),
            input("stop_periodic_timer", V, op(VCPUOP_STOP_PERIODIC_TIMER), &0u32).always(value(0)),
        ],
    );
    // Memory that is written to from now on. Where there is none nothing is written, and that is no error.
    let (runstate, time) = (VcpuRegisterRunstateMemoryArea::default(), VcpuRegisterTimeMemoryArea::default());
    let (fault, none) = (error(Errno::EFAULT), value(0));
    ground.check(
        tap,
        &[
            input("register_runstate_memory_area", V, op(VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA), &runstate),
            inout("the runstate's place", V, op(VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA), &VcpuRunstateInfo::default())
                .inside(&runstate, 0)
                .but(Hypervisor, fault)
                .but(NotCanonical, fault)
                .always(none),
            input("register_vcpu_time_memory_area", V, op(VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA), &time),
            inout("the time's place", V, op(VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA), &[0u64; 4])
                .inside(&time, 0)
                .but(Hypervisor, fault)
                .but(NotCanonical, fault)
                .always(none),
        ],
    );
    for command in [VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA] {
        let forgotten = call(V, [command.into(), 0, guests::address_of(&mut 0u64)]);
        tap.is(forgotten, Ok(0), "no place any more");
    }
}

fn versions(tap: &mut Tap, ground: &mut Ground) {
    const X: u32 = HYPERVISOR_XEN_VERSION;
    let op = |command: u32| [u64::from(command), P];
    let mut build_id = [0u8; 24];
    build_id[0] = 20;
    ground.check(
        tap,
        &[
            inout("version", X, op(XENVER_VERSION), &0u64).always(value(0x4_0011)),
            inout("extraversion", X, op(XENVER_EXTRAVERSION), &[0u8; 16]),
            inout("compile_info", X, op(XENVER_COMPILE_INFO), &CompileInfo::default()),
            inout("capabilities", X, op(XENVER_CAPABILITIES), &[0u8; 1024]),
            inout("changeset", X, op(XENVER_CHANGESET), &[0u8; 64]),
            inout("platform_parameters", X, op(XENVER_PLATFORM_PARAMETERS), &0u64),
            inout("get_features", X, op(XENVER_GET_FEATURES), &FeatureInfo::default()),
            inout("pagesize", X, op(XENVER_PAGESIZE), &0u64).but(Null, value(4096)).always(error(Errno::EINVAL)),
            inout("guest_handle", X, op(XENVER_GUEST_HANDLE), &[0u8; 16]),
            inout("commandline", X, op(XENVER_COMMANDLINE), &[0u8; 1024]),
            inout("build_id", X, op(XENVER_BUILD_ID), &build_id).but(Null, value(20)),
        ],
    );
}

fn traps(tap: &mut Tap, ground: &mut Ground) {
    let callback = CallbackRegister { type_: CALLBACKTYPE_NMI, address: 1 << 47, ..Default::default() };
    let version = MulticallEntry { op: HYPERVISOR_XEN_VERSION.into(), ..Default::default() };
    let table = [TrapInfo { vector: 200, cs: 0xe033, address: 1 << 20, ..Default::default() }, TrapInfo::default()];
    let nmi = XennmiCallback { handler_address: 1 << 47, ..Default::default() };
    ground.check(
        tap,
        &[
            // Null empties the table.
            input("set_trap_table", HYPERVISOR_SET_TRAP_TABLE, [P], &table).without(Null).but(ReadOnly, value(0)),
            input("set_gdt", HYPERVISOR_SET_GDT, [P, 512], &(1u64 << 40)).but(ReadOnly, error(Errno::EINVAL)),
            input("set_gdt, two frames", HYPERVISOR_SET_GDT, [P, 513], &[1u64 << 40; 2])
                .but(ReadOnly, error(Errno::EINVAL)),
            input("callback_op register", HYPERVISOR_CALLBACK_OP, [0, P], &callback)
                .but(ReadOnly, error(Errno::EINVAL)),
            input("callback_op unregister", HYPERVISOR_CALLBACK_OP, [1, P], &CallbackUnregister::default())
                .but(ReadOnly, error(Errno::EINVAL)),
            input("nmi_op register", HYPERVISOR_NMI_OP, [0, 0, P], &nmi).without(ReadOnly),
            input("console_io write", HYPERVISOR_CONSOLE_IO, [0, 8, P], b"# hello\n").but(ReadOnly, value(0)),
            inout("console_io read", HYPERVISOR_CONSOLE_IO, [1, 8, P], &[0u8; 8]).always(value(0)),
            inout("multicall", HYPERVISOR_MULTICALL, [P, 1], &version),
            input("an empty multicall", HYPERVISOR_MULTICALL, [P, 0], &version)
                .but(Hypervisor, error(Errno::EFAULT))
                .but(NotCanonical, error(Errno::EFAULT))
                .but(ReadOnly, value(0))
                .always(value(0)),
        ],
    );
}

fn old_calls(tap: &mut Tap, ground: &mut Ground) {
    let status = EvtchnOp { cmd: EVTCHNOP_STATUS, u: [SELF.0.into(), 0, 0, 0, 0, 0] };
    let status_query = PhysdevOp { cmd: PHYSDEVOP_IRQ_STATUS_QUERY, u: [1, 0], ..Default::default() };
    ground.check(
        tap,
        &[
            inout("event_channel_op, the old one", HYPERVISOR_EVENT_CHANNEL_OP_COMPAT, [P], &status),
            inout("physdev_op, the old one", HYPERVISOR_PHYSDEV_OP_COMPAT, [P], &status_query),
        ],
    );
    let mut query = PhysdevOp { cmd: PHYSDEVOP_SET_IOPL, u: [1, 0], ..Default::default() };
    tap.is(call(HYPERVISOR_PHYSDEV_OP_COMPAT, [guests::address_of(&mut query)]), Ok(0), "it goes on");
    let mut reset = EvtchnReset { dom: NOBODY };
    tap.is(op(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_RESET, &mut reset), Err(Errno::ESRCH), "and on");
}
