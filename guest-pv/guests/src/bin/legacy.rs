//! Hypercalls that newer ones have replaced: old kernels still make them.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use guest_pv::tap::Tap;
use guest_pv::{events, traps};
use guests::domain::{CODE, End, Tiny};
use guests::{address_of, call, code};
use xen_abi::Errno;
use xen_abi::event_channel::{
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_CLOSE, EVTCHNOP_RESET, EVTCHNOP_SEND, EVTCHNOP_SET_PRIORITY, EVTCHNOP_STATUS,
    EVTCHNSTAT_UNBOUND, EvtchnOp,
};
use xen_abi::hypercall::*;
use xen_abi::ids::{DomId, Port};
use xen_abi::nmi::{XENNMI_REGISTER_CALLBACK, XENNMI_UNREGISTER_CALLBACK, XennmiCallback};
use xen_abi::physdev::{PHYSDEVOP_SET_IOPL, PhysdevOp};
use xen_abi::sched::{SCHEDOP_BLOCK, SCHEDOP_POLL, SCHEDOP_YIELD};

guest_pv::test!(run);

/// The first address that is not canonical.
const WILD: u64 = 1 << 47;

fn run(tap: &mut Tap) {
    callbacks(tap);
    scheduling(tap);
    event_channels(tap);
    physdev(tap);
    nmi(tap);
}

static UPCALLS: AtomicU32 = AtomicU32::new(0);

fn upcall(_: &mut traps::Frame) {
    UPCALLS.fetch_add(1, SeqCst);
    // Without this the upcall would come again on return.
    while events::poll().is_some() {}
}

fn callbacks(tap: &mut Tap) {
    let ours = traps::callbacks();
    tap.is(call(HYPERVISOR_SET_CALLBACKS, ours), Ok(0), "set_callbacks");
    tap.is(call(HYPERVISOR_SET_CALLBACKS, [WILD; 3]), Ok(0), "wild ones are no error");
    let port = events::bind_ipi().expect("a free port");
    traps::set_handler(traps::EVENT, Some(upcall));
    events::set_upcall_mask(false);
    events::notify(port).expect("bound");
    tap.is(UPCALLS.load(SeqCst), 1, "but passed over: an event is announced where it was before");
    events::set_upcall_mask(true);
    traps::set_handler(traps::EVENT, None);
    events::close(port).expect("a port of ours");
    traps::init();
}

fn scheduling(tap: &mut Tap) {
    let old = |operation: u32, argument: u64| call(HYPERVISOR_SCHED_OP_COMPAT, [operation.into(), argument]);
    tap.is(old(SCHEDOP_YIELD, 0), Ok(0), "yield");
    let port = events::bind_ipi().expect("a free port");
    events::notify(port).expect("bound");
    tap.is(old(SCHEDOP_BLOCK, 0), Ok(0), "block, with an event pending");
    events::set_upcall_mask(true);
    events::close(port).expect("a port of ours");
    tap.is(old(SCHEDOP_POLL, 0), Err(Errno::ENOSYS), "there is no poll");
    let shutdown = code!("mov edi, 2", "mov esi, 0x101", "mov eax, 6", "syscall");
    let tiny = Tiny::new(shutdown);
    tap.is(
        tiny.run(&tiny.context()),
        End::Shutdown(1),
        "shutdown has its reason in a register, of which a byte counts",
    );
}

fn event_channels(tap: &mut Tap) {
    let old = |op: &mut EvtchnOp| call(HYPERVISOR_EVENT_CHANNEL_OP_COMPAT, [address_of(op)]);
    // dom, remote_dom, port
    let both = u32::from(DomId::SELF.0) << 16 | u32::from(DomId::SELF.0);
    let mut op = EvtchnOp { cmd: EVTCHNOP_ALLOC_UNBOUND, u: [both, 0, 0, 0, 0, 0] };
    tap.is(old(&mut op), Ok(0), "alloc_unbound");
    let port = op.u[1];
    tap.ok(port != 0 && op.cmd == EVTCHNOP_ALLOC_UNBOUND, "answers with a port behind the command");
    // dom, port, status
    op = EvtchnOp { cmd: EVTCHNOP_STATUS, u: [DomId::SELF.0.into(), port, 99, 0, 0, 0] };
    tap.is(old(&mut op).map(|_| op.u[2]), Ok(EVTCHNSTAT_UNBOUND), "status");
    op = EvtchnOp { cmd: EVTCHNOP_SEND, u: [port, 0, 0, 0, 0, 0] };
    tap.is(old(&mut op), Ok(0), "send, to nobody yet");
    op.cmd = EVTCHNOP_CLOSE;
    tap.is(old(&mut op), Ok(0), "close");
    tap.is(events::close(Port(port)), Err(Errno::EINVAL), "which is then closed");
    for cmd in [EVTCHNOP_RESET, EVTCHNOP_SET_PRIORITY, 99] {
        op.cmd = cmd;
        tap.is(old(&mut op), Err(Errno::ENOSYS), "an operation of later");
    }
    tap.is(call(HYPERVISOR_EVENT_CHANNEL_OP_COMPAT, [0x1000]), Err(Errno::EFAULT), "an operation that is not mapped");
}

fn physdev(tap: &mut Tap) {
    let old = |op: &mut PhysdevOp| call(HYPERVISOR_PHYSDEV_OP_COMPAT, [address_of(op)]);
    let mut op = PhysdevOp { cmd: PHYSDEVOP_SET_IOPL, _pad: 0, u: [1, 0] };
    tap.is(old(&mut op), Ok(0), "set_iopl");
    op.u[0] = 4;
    tap.is(old(&mut op), Err(Errno::EINVAL), "of a level that does not exist");
    op.cmd = 99;
    tap.is(old(&mut op), Err(Errno::ENOSYS), "an operation that does not exist");
    tap.is(call(HYPERVISOR_PHYSDEV_OP_COMPAT, [0x1000]), Err(Errno::EFAULT), "one that is not mapped");
}

fn nmi(tap: &mut Tap) {
    let mut callback = XennmiCallback { handler_address: WILD, _unused: 0 };
    let set = guests::op(HYPERVISOR_NMI_OP, XENNMI_REGISTER_CALLBACK, &mut callback);
    tap.is(set, Err(Errno::EINVAL), "a wild handler of NMIs");
    let missing = call(HYPERVISOR_NMI_OP, [XENNMI_REGISTER_CALLBACK.into(), 0x1000]);
    tap.is(missing, Err(Errno::EFAULT), "one that is not mapped");
    tap.is(call(HYPERVISOR_NMI_OP, [2, 0]), Err(Errno::ENOSYS), "a command that does not exist");
    tap.is(call(HYPERVISOR_NMI_OP, [XENNMI_UNREGISTER_CALLBACK.into(), 0]), Ok(0), "it is taken away");
    traps::init();

    let mut program = [0x90u8; 256];
    let start = code!(
        // register_callback
        "push 0",
        "push 0x400050",
        "xor edi, edi",
        "mov rsi, rsp",
        "mov eax, 28",
        "syscall",
        // send_nmi to vCPU 0
        "mov edi, 11",
        "xor esi, esi",
        "xor edx, edx",
        "mov eax, 24",
        "syscall",
        // shutdown: crash
        "push 3",
        "mov edi, 2",
        "mov rsi, rsp",
        "mov eax, 29",
        "syscall"
    );
    let handler = code!("push 1", "mov edi, 2", "mov rsi, rsp", "mov eax, 29", "syscall");
    program[..start.len()].copy_from_slice(start);
    program[80..80 + handler.len()].copy_from_slice(handler);
    let tiny = Tiny::new(&program);
    assert_eq!(CODE + 80, 0x40_0050, "where the handler is");
    tap.is(tiny.run(&tiny.context()), End::Shutdown(1), "an NMI goes to the handler that nmi_op has made");
}
