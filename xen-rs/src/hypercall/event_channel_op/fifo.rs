//! The operations of the FIFO layout: `EVTCHNOP_init_control`, `EVTCHNOP_expand_array`, `EVTCHNOP_set_priority`.

use logic::{
    field,
    guest::{In, InOut},
    hypercall::Outcome,
};
use xen_abi::{
    errno::Errno,
    event_channel::{self as abi, EVTCHN_FIFO_LINK_BITS},
    ids::Mfn,
};

use crate::{cpu::Context, event::fifo, guest::Handle};

/// Registers a control block. A PV guest's frame numbers are the machine's.
pub(super) fn init_control(cx: &mut Context<'_>, op: Handle<abi::EvtchnInitControl, InOut>) -> Result<Outcome, Errno> {
    let (op, answer) = op.read()?;
    let outcome = fifo::init_control(cx.domain, op.vcpu, Mfn(op.control_gfn), op.offset, &mut cx.held)?;
    if matches!(outcome, Outcome::Done(_)) {
        let bits = u8::try_from(EVTCHN_FIFO_LINK_BITS).unwrap_or(u8::MAX);
        answer.part(field!(abi::EvtchnInitControl, link_bits)).write(&bits)?;
    }
    Ok(outcome)
}

/// Adds a page of words.
pub(super) fn expand_array(cx: &mut Context<'_>, op: Handle<abi::EvtchnExpandArray, In>) -> Result<Outcome, Errno> {
    let op = op.read()?;
    fifo::expand_array(cx.domain, Mfn(op.array_gfn), &mut cx.held)
}

/// Says which queue a port joins from now on.
pub(super) fn set_priority(cx: &mut Context<'_>, op: Handle<abi::EvtchnSetPriority, In>) -> Result<(), Errno> {
    let op = op.read()?;
    cx.domain.events.table.lock(&mut cx.held).0.set_priority(&**cx.domain, op.port, op.priority)
}
