//! `HYPERVISOR_sched_op`: block, yield, poll, shutdown (`sched.h`).

use logic::{
    access::{Allowed, SchedOp as Op},
    event::{self, Poll},
    guest::In,
    hypercall::Outcome,
    num,
    time::Nanos,
};
use xen_abi::{
    errno::Errno,
    ids::Port,
    sched as abi,
    trace::{TRC_SCHED_BLOCK, TRC_SCHED_YIELD},
};

use crate::{
    cpu::Context,
    cpu_loop,
    domain::Shutdown,
    guest::{Elements, Handle},
    hvm, trace, watchdog,
};

/// The most ports one poll may name.
const POLL_PORTS: u32 = 128;

/// The hypercall: rdi is the operation, rsi points to its structure.
pub fn sched_op(cx: &mut Context<'_>) -> Outcome {
    let [command, va, ..] = cx.args();
    let op = match cx.permit::<Op>(num::uint(command)) {
        Ok(op) => op,
        Err(errno) => return Outcome::Fail(errno),
    };
    match op.op() {
        Op::Yield => {
            give_way(cx);
            Outcome::OK
        }
        Op::Block => {
            block(cx);
            Outcome::OK
        }
        Op::Shutdown => shutdown(cx, Handle::new(va)).into(),
        Op::ShutdownCode => shutdown_code(cx, Handle::new(va)).into(),
        Op::Poll => poll(cx, Handle::new(va)).into(),
        Op::RemoteShutdown => remote_shutdown(cx, op, Handle::new(va)).into(),
        Op::Watchdog => watch(cx, Handle::new(va)).into(),
        Op::PinOverride => pin_override(cx, Handle::new(va)).into(),
    }
}

/// The vCPU lets others run first.
pub fn give_way(cx: &mut Context<'_>) {
    trace::of_vcpu(TRC_SCHED_YIELD, cx.vcpu);
    // Nobody to give way to: the common case for a guest that spins.
    if cpu_loop::waiting(cx.cpu.id) != 0 {
        cx.cpu.sched.yields = true;
        cx.cpu.sched.reschedule();
    }
}

/// The vCPU waits for an event; its upcalls are unmasked.
pub fn block(cx: &mut Context<'_>) {
    trace::of_vcpu(TRC_SCHED_BLOCK, cx.vcpu);
    cx.vcpu.info.get().set_upcall_mask(false);
    cx.vcpu.seat.ready.block();
    // Only now look: an event that came before the vCPU was blocked wakes nobody.
    if takes_event(cx) {
        cpu_loop::unblock(cx.vcpu, &mut cx.held);
    }
}

/// Whether something waits that the guest would take at once: an event; in a container, any interrupt that it lets in, as the mask
/// of events means nothing there.
fn takes_event(cx: &mut Context<'_>) -> bool {
    if cx.state.pvh.is_some() { hvm::exit::takes_event(cx) } else { cx.vcpu.info.get().needs_delivery() }
}

/// `SCHEDOP_poll`: waits until one of some ports is pending, even if masked, or a time has come.
fn poll(cx: &mut Context<'_>, op: Handle<abi::SchedPoll, In>) -> Result<(), Errno> {
    let op = op.read()?;
    if op.nr_ports > POLL_PORTS {
        return Err(Errno::EINVAL);
    }
    let mut ports = Elements::<Port, In>::new(op.ports, op.nr_ports.into())?.map(|port| port.read());
    let only = if op.nr_ports == 1 { ports.next() } else { None };
    let want = match only {
        Some(Ok(port)) => Poll::One(port),
        _ => Poll::Any,
    };
    cx.vcpu.seat.ready.block();
    event::start_poll(&**cx.domain, &cx.vcpu.events, want);
    let domain = &**cx.domain;
    // Only now look: see `block`.
    let there = if takes_event(cx) {
        Ok(true)
    } else {
        // One after the other: what stands behind a pending one is not read.
        only.into_iter()
            .chain(ports)
            .map(|port| event::is_pending(domain, port?).ok_or(Errno::EINVAL))
            .find(|one| *one != Ok(false))
            .unwrap_or(Ok(false))
    };
    if there != Ok(false) {
        event::end_poll(domain, &cx.vcpu.events);
        cpu_loop::unblock(cx.vcpu, &mut cx.held);
    } else if op.timeout != 0 {
        cx.state.timers.poll = Some(Nanos(op.timeout));
    }
    there.map(drop)
}

/// The domain stops.
fn shutdown(cx: &mut Context<'_>, op: Handle<abi::SchedShutdown, In>) -> Result<(), Errno> {
    let op = op.read()?;
    cx.domain.shut_down(Shutdown::new(op.reason), &mut cx.held);
    Ok(())
}

/// A timer of the domain's that stops it unless it is set again.
fn watch(cx: &mut Context<'_>, op: Handle<abi::SchedWatchdog, In>) -> Result<u64, Errno> {
    let op = op.read()?;
    watchdog::set(cx.domain, op.id, op.timeout, cx.cpu, &mut cx.held)
}

/// Says why the domain is about to stop, without stopping it.
fn shutdown_code(cx: &mut Context<'_>, op: Handle<abi::SchedShutdown, In>) -> Result<(), Errno> {
    let op = op.read()?;
    cx.domain.life.set_code(Shutdown::new(op.reason));
    Ok(())
}

/// Stops another domain: the control domain may.
fn remote_shutdown(
    cx: &mut Context<'_>,
    allowed: Allowed<Op>,
    op: Handle<abi::SchedRemoteShutdown, In>,
) -> Result<(), Errno> {
    let op = op.read()?;
    let target = cx.target(&allowed, op.domain_id)?;
    target.shut_down(Shutdown::new(op.reason), &mut cx.held);
    Ok(())
}

/// Pins the calling vCPU to a CPU, once, or takes that back: the hardware domain may.
fn pin_override(cx: &mut Context<'_>, op: Handle<abi::SchedPinOverride, In>) -> Result<(), Errno> {
    let op = op.read()?;
    match u32::try_from(op.pcpu) {
        Ok(cpu) if cx.domain.pool.cpus().has(cpu) => {
            if !cx.vcpu.seat.pin(cpu) {
                return Err(Errno::EBUSY);
            }
            cx.cpu.sched.reschedule();
            Ok(())
        }
        Ok(_) => Err(Errno::EINVAL),
        Err(_) => cx.vcpu.seat.unpin().then_some(()).ok_or(Errno::EINVAL),
    }
}
