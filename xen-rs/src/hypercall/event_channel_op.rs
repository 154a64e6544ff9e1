//! `HYPERVISOR_event_channel_op`: event channels (`event_channel.h`).

mod fifo;

use logic::{
    access::{Allowed, EventChannelOp as Op},
    event::{self, Binding, Channels, Notify, Sent},
    guest::{In, InOut},
    hypercall::Outcome,
    irq::Pirq,
    lock::lock_pair,
    num,
};
use machine::mem::guest_words::Piece;
use xen_abi::{
    errno::Errno,
    event_channel as abi,
    ids::{DomId, Port, VcpuId},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    cpu::Context,
    domain::{self, Domain},
    event::{close, close_some, tell},
    guest::Handle,
    irq, trace,
};

/// Ports closed by one round of `EVTCHNOP_reset`.
const RESET_ROUND: u32 = 64;

/// A send that needs no context. None for everything else, of which nothing is done.
#[inline(always)]
pub fn at_once(domain: &Domain, command: u64, va: u64) -> Option<Notify> {
    if !is_plain_send(command) {
        return None;
    }
    event::send_at_once(domain, Handle::<abi::EvtchnSend, In>::new(va).read_at_once().ok()?.port)
}

/// The same with another way to read the port.
#[inline(always)]
pub fn at_once_with(domain: &Domain, command: u64, port: impl FnOnce() -> Option<Port>) -> Option<Notify> {
    if !is_plain_send(command) {
        return None;
    }
    event::send_at_once(domain, port()?)
}

/// A send of which nobody keeps a record.
#[inline(always)]
fn is_plain_send(command: u64) -> bool {
    command == u64::from(abi::EVTCHNOP_SEND) && !trace::is_on()
}

/// The hypercall: rdi is the operation, rsi points to its structure.
#[inline(always)]
pub fn event_channel_op(cx: &mut Context<'_>) -> Outcome {
    const SEND: u64 = abi::EVTCHNOP_SEND as u64;
    const STATUS: u64 = abi::EVTCHNOP_STATUS as u64;
    let [command, va, ..] = cx.args();
    match command {
        SEND => send(cx, const { Op::Send.open_to_all() }, Handle::new(va)),
        STATUS => status(cx, va),
        _ => others(cx),
    }
}

/// All operations but the one that is worth a path of its own.
#[inline(never)]
fn others(cx: &mut Context<'_>) -> Outcome {
    let [command, va, ..] = cx.args();
    serve(cx, num::uint(command), va)
}

/// Carries out an operation whose structure is at `va`.
pub fn serve(cx: &mut Context<'_>, command: u32, va: u64) -> Outcome {
    let op = match cx.permit::<Op>(command) {
        Ok(op) => op,
        Err(errno) => return Outcome::Fail(errno),
    };
    match op.op() {
        Op::Unmask => unmask(cx, Handle::new(va)).into(),
        Op::AllocUnbound => update(cx, op, va, alloc_unbound),
        Op::BindInterdomain => update(cx, op, va, bind_interdomain),
        Op::BindVirq => update(cx, op, va, bind_virq),
        Op::BindIpi => update(cx, op, va, bind_ipi),
        Op::BindPirq => update(cx, op, va, bind_pirq),
        Op::Status => update(cx, op, va, status_of_any),
        Op::Close => Handle::<abi::EvtchnClose, In>::new(va)
            .read()
            .and_then(|op| close(cx.domain, op.port, &mut cx.held).map(drop))
            .into(),
        Op::BindVcpu => bind_vcpu(cx, Handle::new(va)).into(),
        Op::Reset => reset(cx, op, Handle::new(va)),
        Op::SetPriority => fifo::set_priority(cx, Handle::new(va)).into(),
        Op::InitControl => fifo::init_control(cx, Handle::new(va)).unwrap_or_else(Outcome::Fail),
        Op::ExpandArray => fifo::expand_array(cx, Handle::new(va)).unwrap_or_else(Outcome::Fail),
        Op::Send => send(cx, op, Handle::new(va)),
    }
}

/// Reads the structure, carries out the operation on it and writes it back.
fn update<T: FromBytes + IntoBytes + Immutable>(
    cx: &mut Context<'_>,
    op: Allowed<Op>,
    va: u64,
    carry_out: fn(&mut Context<'_>, &Allowed<Op>, &mut T) -> Result<(), Errno>,
) -> Outcome {
    let (mut arg, answer) = match Handle::<T, InOut>::new(va).read() {
        Ok(read) => read,
        Err(errno) => return Outcome::Fail(errno),
    };
    carry_out(cx, &op, &mut arg).and_then(|()| answer.write(&arg)).into()
}

/// `EVTCHNOP_send`. What is rare is at the end of it, in calls of its own, so that it needs no registers of its caller's.
#[inline(never)]
fn send(cx: &mut Context<'_>, op: Allowed<Op>, arg: Handle<abi::EvtchnSend, In>) -> Outcome {
    match arg.read_at_once() {
        Ok(arg) => send_on(cx, op, arg.port),
        Err(arg) => send_slowly(cx, op, arg),
    }
}

#[cold]
#[inline(never)]
fn send_slowly(cx: &mut Context<'_>, op: Allowed<Op>, arg: Handle<abi::EvtchnSend, In>) -> Outcome {
    match arg.read() {
        Ok(arg) => send_on(cx, op, arg.port),
        Err(errno) => Outcome::Fail(errno),
    }
}

#[inline(always)]
fn send_on(cx: &mut Context<'_>, _op: Allowed<Op>, port: Port) -> Outcome {
    match event::send(&**cx.domain, port) {
        Ok(Sent::Here(Notify::NOBODY)) => Outcome::OK,
        Ok(Sent::Here(notify)) => told(cx, notify),
        Ok(Sent::There(remote, there)) if remote == cx.domain.id => {
            match event::deliver_remote(&**cx.domain, there, remote) {
                Notify::NOBODY => Outcome::OK,
                notify => told(cx, notify),
            }
        }
        Ok(Sent::There(remote, there)) => send_to(cx, remote, there),
        Err(errno) => Outcome::Fail(errno),
    }
}

#[inline(never)]
fn told(cx: &mut Context<'_>, notify: Notify) -> Outcome {
    tell(cx.domain, notify, &mut cx.held);
    Outcome::OK
}

#[inline(never)]
fn send_to(cx: &mut Context<'_>, remote: DomId, there: Port) -> Outcome {
    // A peer that is gone has closed its end.
    if let Some(peer) = domain::find(remote, &mut cx.held) {
        let notify = event::deliver_remote(&*peer, there, cx.domain.id);
        tell(&peer, notify, &mut cx.held);
    }
    Outcome::OK
}

fn unmask(cx: &mut Context<'_>, op: Handle<abi::EvtchnUnmask, In>) -> Result<(), Errno> {
    let op = op.read()?;
    let notify = event::unmask(&**cx.domain, op.port)?;
    tell(cx.domain, notify, &mut cx.held);
    Ok(())
}

fn alloc_unbound(cx: &mut Context<'_>, allowed: &Allowed<Op>, op: &mut abi::EvtchnAllocUnbound) -> Result<(), Errno> {
    let domain = cx.target(allowed, op.dom)?;
    let remote = if op.remote_dom == DomId::SELF { cx.domain.id } else { op.remote_dom };
    op.port = domain.events.table.lock(&mut cx.held).0.alloc_unbound(&**domain, remote)?;
    Ok(())
}

fn bind_interdomain(
    cx: &mut Context<'_>,
    _allowed: &Allowed<Op>,
    op: &mut abi::EvtchnBindInterdomain,
) -> Result<(), Errno> {
    let remote_id = if op.remote_dom == DomId::SELF { cx.domain.id } else { op.remote_dom };
    let remote = domain::find(remote_id, &mut cx.held).ok_or(Errno::ESRCH)?;
    let (port, notify) = {
        let (mut tables, _held) =
            lock_pair(&mut cx.held, (cx.domain.id, &cx.domain.events.table), (remote.id, &remote.events.table));
        tables.first().bind_interdomain(&**cx.domain, &*remote, op.remote_port)?
    };
    tell(cx.domain, notify, &mut cx.held);
    op.local_port = port;
    Ok(())
}

fn bind_virq(cx: &mut Context<'_>, _allowed: &Allowed<Op>, op: &mut abi::EvtchnBindVirq) -> Result<(), Errno> {
    op.port = cx.domain.events.table.lock(&mut cx.held).0.bind_virq(&**cx.domain, op.virq, op.vcpu)?;
    Ok(())
}

fn bind_ipi(cx: &mut Context<'_>, _allowed: &Allowed<Op>, op: &mut abi::EvtchnBindIpi) -> Result<(), Errno> {
    op.port = cx.domain.events.table.lock(&mut cx.held).0.bind_ipi(&**cx.domain, op.vcpu)?;
    Ok(())
}

/// `EVTCHNOP_bind_pirq`: `EINVAL` beyond the domain's numbers, `EPERM` for one that stands for no interrupt of the domain's,
/// `EEXIST` when it is bound, `EBUSY` when somebody else has it.
fn bind_pirq(cx: &mut Context<'_>, _allowed: &Allowed<Op>, op: &mut abi::EvtchnBindPirq) -> Result<(), Errno> {
    let pirq = Pirq(op.pirq);
    irq::check(cx.domain, pirq, &mut cx.held)?;
    let share = op.flags & abi::BIND_PIRQ__WILL_SHARE != 0;
    let (mut table, mut held) = cx.domain.events.table.lock(&mut cx.held);
    let port = table.bind_pirq(&**cx.domain, op.pirq)?;
    let cpu = cx.domain.vcpu(VcpuId(0)).map_or(0, |vcpu| vcpu.seat.processor());
    if let Err(errno) = irq::bind(cx.domain, pirq, port, share, cpu, &mut held) {
        // It was bound just now, so it can be closed.
        let _ = table.close(&**cx.domain, port, None);
        return Err(errno);
    }
    op.port = port;
    Ok(())
}

fn bind_vcpu(cx: &mut Context<'_>, op: Handle<abi::EvtchnBindVcpu, In>) -> Result<(), Errno> {
    let op = op.read()?;
    cx.domain.events.table.lock(&mut cx.held).0.bind_vcpu(&**cx.domain, op.port, op.vcpu)?;
    let binding = cx.domain.events.channels.get(op.port).map(|channel| channel.binding);
    if let (Some(Binding::Pirq(pirq)), Some(vcpu)) = (binding, cx.domain.vcpu(op.vcpu)) {
        irq::move_to(cx.domain.id, Pirq(pirq), vcpu.seat.processor(), &mut cx.held);
    }
    Ok(())
}

/// `EVTCHNOP_status` of a port of the caller's own, or else the general way. It reads its structure once, too, but in words,
/// and writes those back that changed: guests ask it as often as they send.
#[inline(never)]
fn status(cx: &mut Context<'_>, va: u64) -> Outcome {
    // Two words of the three are the question and what the answer may leave as it is; the one between them is the answer.
    let Some(piece) = Piece::<{ size_of::<abi::EvtchnStatus>() as u64 }>::new(va) else { return others(cx) };
    let Some((question, rest)) = piece.words_at_once::<0, 16>() else { return others(cx) };
    let mut arg: abi::EvtchnStatus = zerocopy::transmute!([question, 0, rest]);
    if arg.dom != DomId::SELF && arg.dom != cx.domain.id {
        return others(cx);
    }
    if let Err(errno) = describe(&cx.domain.events.channels, &mut arg) {
        return Outcome::Fail(errno);
    }
    let [_, answer, peer]: [u64; 3] = zerocopy::transmute!(arg);
    let written = piece.write_word::<8>(answer);
    if peer == rest { written } else { written.and_then(|()| piece.write_word::<16>(peer)) }.into()
}

fn status_of_any(cx: &mut Context<'_>, allowed: &Allowed<Op>, arg: &mut abi::EvtchnStatus) -> Result<(), Errno> {
    describe(&cx.target(allowed, arg.dom)?.events.channels, arg)
}

#[inline(always)]
fn describe(channels: &Channels, arg: &mut abi::EvtchnStatus) -> Result<(), Errno> {
    let channel = channels.get(arg.port).ok_or(Errno::EINVAL)?;
    arg.status = match channel.binding {
        Binding::Free | Binding::Reserved => abi::EVTCHNSTAT_CLOSED,
        Binding::Unbound { remote } => {
            arg.u = remote.0.into();
            abi::EVTCHNSTAT_UNBOUND
        }
        Binding::Interdomain { remote, port } => {
            arg.u = remote.0.into();
            arg.interdomain_port = port;
            abi::EVTCHNSTAT_INTERDOMAIN
        }
        Binding::Pirq(pirq) => {
            arg.u = pirq;
            abi::EVTCHNSTAT_PIRQ
        }
        Binding::Virq(virq) => {
            arg.u = virq;
            abi::EVTCHNSTAT_VIRQ
        }
        Binding::Ipi => abi::EVTCHNSTAT_IPI,
    };
    arg.vcpu = channel.vcpu;
    Ok(())
}

/// `EVTCHNOP_reset`, in rounds, and back to the 2-level layout: what is closed already is passed over in the next.
fn reset(cx: &mut Context<'_>, allowed: Allowed<Op>, op: Handle<abi::EvtchnReset, In>) -> Outcome {
    let domain = match op.read().and_then(|op| Ok(cx.target(&allowed, op.dom)?)) {
        Ok(domain) => domain,
        Err(errno) => return Outcome::Fail(errno),
    };
    if domain.id != cx.domain.id && !domain.paused_by_controller() {
        return Outcome::Fail(Errno::EINVAL);
    }
    if !close_some(&domain, RESET_ROUND, &mut cx.held) {
        return Outcome::Again;
    }
    crate::event::fifo::end(&domain, &mut cx.held).into()
}
