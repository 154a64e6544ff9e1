//! `HYPERVISOR_event_channel_op`: event channels (`event_channel.h`).

use alloc::sync::Arc;

use logic::{
    event::{self, Binding, Sent},
    hypercall::Outcome,
    lock::lock_pair,
};
use xen_abi::{
    errno::Errno,
    event_channel as abi,
    ids::{DomId, Port},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    cpu::Context,
    domain::{self, Domain},
    event::{close, close_some, tell},
    guest,
};

/// Ports closed by one round of `EVTCHNOP_reset`.
const RESET_ROUND: u32 = 64;

/// The hypercall: rdi is the operation, rsi points to its structure.
#[inline]
pub fn event_channel_op(cx: &mut Context<'_>) -> Outcome {
    let [command, va, ..] = cx.args;
    if command != u64::from(abi::EVTCHNOP_SEND) {
        return others(cx);
    }
    match guest::read::<abi::EvtchnSend>(va) {
        Ok(op) => send(cx, op.port),
        Err(errno) => Outcome::Fail(errno),
    }
}

/// All operations but the one that is worth a path of its own.
#[inline(never)]
fn others(cx: &mut Context<'_>) -> Outcome {
    let [command, va, ..] = cx.args;
    let Ok(command) = u32::try_from(command) else { return Outcome::Fail(Errno::ENOSYS) };
    match command {
        abi::EVTCHNOP_UNMASK => unmask(cx, va).into(),
        abi::EVTCHNOP_ALLOC_UNBOUND => update(cx, va, alloc_unbound),
        abi::EVTCHNOP_BIND_INTERDOMAIN => update(cx, va, bind_interdomain),
        abi::EVTCHNOP_BIND_VIRQ => update(cx, va, bind_virq),
        abi::EVTCHNOP_BIND_IPI => update(cx, va, bind_ipi),
        abi::EVTCHNOP_BIND_PIRQ => update(cx, va, bind_pirq),
        abi::EVTCHNOP_STATUS => update(cx, va, status),
        abi::EVTCHNOP_CLOSE => {
            guest::read(va).and_then(|op: abi::EvtchnClose| close(cx.domain, op.port, &mut cx.held).map(drop)).into()
        }
        abi::EVTCHNOP_BIND_VCPU => bind_vcpu(cx, va).into(),
        abi::EVTCHNOP_RESET => reset(cx, va),
        abi::EVTCHNOP_SET_PRIORITY => set_priority(cx, va).into(),
        // The FIFO layout is not offered; guests fall back to the 2-level one.
        _ => Outcome::Fail(Errno::ENOSYS),
    }
}

/// Reads the structure, carries out the operation on it and writes it back.
fn update<T: FromBytes + IntoBytes + Immutable>(
    cx: &mut Context<'_>,
    va: u64,
    op: fn(&mut Context<'_>, &mut T) -> Result<(), Errno>,
) -> Outcome {
    let mut arg = match guest::read::<T>(va) {
        Ok(arg) => arg,
        Err(errno) => return Outcome::Fail(errno),
    };
    op(cx, &mut arg).and_then(|()| guest::write(va, &arg)).into()
}

/// The domain of a number that may stand for the caller, if the caller may act on it: `ESRCH`, `EPERM`.
fn target(cx: &mut Context<'_>, id: DomId) -> Result<Arc<Domain>, Errno> {
    if id == DomId::SELF || id == cx.domain.id {
        return Ok(cx.domain.clone());
    }
    let domain = domain::find(id, &mut cx.held).ok_or(Errno::ESRCH)?;
    if cx.domain.is_control() { Ok(domain) } else { Err(Errno::EPERM) }
}

#[inline(always)]
fn send(cx: &mut Context<'_>, port: Port) -> Outcome {
    match event::send(&**cx.domain, port) {
        Ok(Sent::Here(notify)) => tell(cx.domain, notify, &mut cx.held),
        Ok(Sent::There(remote, there)) if remote == cx.domain.id => {
            let notify = event::deliver_remote(&**cx.domain, there, remote);
            tell(cx.domain, notify, &mut cx.held);
        }
        Ok(Sent::There(remote, there)) => {
            // A peer that is gone has closed its end.
            if let Some(peer) = domain::find(remote, &mut cx.held) {
                let notify = event::deliver_remote(&*peer, there, cx.domain.id);
                tell(&peer, notify, &mut cx.held);
            }
        }
        Err(errno) => return Outcome::Fail(errno),
    }
    Outcome::OK
}

fn unmask(cx: &mut Context<'_>, va: u64) -> Result<(), Errno> {
    let op: abi::EvtchnUnmask = guest::read(va)?;
    let notify = event::unmask(&**cx.domain, op.port)?;
    tell(cx.domain, notify, &mut cx.held);
    Ok(())
}

fn alloc_unbound(cx: &mut Context<'_>, op: &mut abi::EvtchnAllocUnbound) -> Result<(), Errno> {
    let domain = target(cx, op.dom)?;
    let remote = if op.remote_dom == DomId::SELF { cx.domain.id } else { op.remote_dom };
    op.port = domain.events.table.lock(&mut cx.held).0.alloc_unbound(&*domain, remote)?;
    Ok(())
}

fn bind_interdomain(cx: &mut Context<'_>, op: &mut abi::EvtchnBindInterdomain) -> Result<(), Errno> {
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

fn bind_virq(cx: &mut Context<'_>, op: &mut abi::EvtchnBindVirq) -> Result<(), Errno> {
    op.port = cx.domain.events.table.lock(&mut cx.held).0.bind_virq(&**cx.domain, op.virq, op.vcpu)?;
    Ok(())
}

fn bind_ipi(cx: &mut Context<'_>, op: &mut abi::EvtchnBindIpi) -> Result<(), Errno> {
    op.port = cx.domain.events.table.lock(&mut cx.held).0.bind_ipi(&**cx.domain, op.vcpu)?;
    Ok(())
}

/// No physical interrupts are given to domains yet: what Xen answers for a number beyond a domain's.
fn bind_pirq(_cx: &mut Context<'_>, _op: &mut abi::EvtchnBindPirq) -> Result<(), Errno> {
    Err(Errno::EINVAL)
}

fn bind_vcpu(cx: &mut Context<'_>, va: u64) -> Result<(), Errno> {
    let op: abi::EvtchnBindVcpu = guest::read(va)?;
    cx.domain.events.table.lock(&mut cx.held).0.bind_vcpu(&**cx.domain, op.port, op.vcpu)
}

fn status(cx: &mut Context<'_>, op: &mut abi::EvtchnStatus) -> Result<(), Errno> {
    let domain = target(cx, op.dom)?;
    let channel = domain.events.channels.get(op.port).ok_or(Errno::EINVAL)?;
    op.status = match channel.binding {
        Binding::Free | Binding::Reserved => abi::EVTCHNSTAT_CLOSED,
        Binding::Unbound { remote } => {
            op.u = remote.0.into();
            abi::EVTCHNSTAT_UNBOUND
        }
        Binding::Interdomain { remote, port } => {
            op.u = remote.0.into();
            op.interdomain_port = port;
            abi::EVTCHNSTAT_INTERDOMAIN
        }
        Binding::Pirq(pirq) => {
            op.u = pirq;
            abi::EVTCHNSTAT_PIRQ
        }
        Binding::Virq(virq) => {
            op.u = virq;
            abi::EVTCHNSTAT_VIRQ
        }
        Binding::Ipi => abi::EVTCHNSTAT_IPI,
    };
    op.vcpu = channel.vcpu;
    Ok(())
}

/// `EVTCHNOP_set_priority` is for the FIFO layout: `ENOSYS`, after the port was looked at.
fn set_priority(cx: &mut Context<'_>, va: u64) -> Result<(), Errno> {
    let op: abi::EvtchnSetPriority = guest::read(va)?;
    cx.domain.events.channels.get(op.port).ok_or(Errno::EINVAL)?;
    Err(Errno::ENOSYS)
}

/// `EVTCHNOP_reset`, in rounds: what is closed already is passed over in the next.
fn reset(cx: &mut Context<'_>, va: u64) -> Outcome {
    let domain = match guest::read(va).and_then(|op: abi::EvtchnReset| target(cx, op.dom)) {
        Ok(domain) => domain,
        Err(errno) => return Outcome::Fail(errno),
    };
    if domain.id != cx.domain.id && !domain.paused_by_controller() {
        return Outcome::Fail(Errno::EINVAL);
    }
    if close_some(&domain, RESET_ROUND, &mut cx.held) { Outcome::OK } else { Outcome::Again }
}

/// Whether a port exists, for `SCHEDOP_poll`.
pub(super) fn exists(domain: &Domain, port: Port) -> bool {
    domain.events.channels.get(port).is_some()
}
