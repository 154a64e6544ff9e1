//! The operations of the FIFO layout: `EVTCHNOP_init_control`, `EVTCHNOP_expand_array`, `EVTCHNOP_set_priority`.

use core::mem::offset_of;

use logic::hypercall::Outcome;
use xen_abi::{
    errno::Errno,
    event_channel::{self as abi, EVTCHN_FIFO_LINK_BITS},
    ids::Mfn,
};

use crate::{cpu::Context, event::fifo, guest};

/// Registers a control block. A PV guest's frame numbers are the machine's.
pub(super) fn init_control(cx: &mut Context<'_>, va: u64) -> Result<Outcome, Errno> {
    let op: abi::EvtchnInitControl = guest::read(va)?;
    let outcome = fifo::init_control(cx.domain, op.vcpu, Mfn(op.control_gfn), op.offset, &mut cx.held)?;
    if matches!(outcome, Outcome::Done(_)) {
        let bits = u8::try_from(EVTCHN_FIFO_LINK_BITS).unwrap_or(u8::MAX);
        guest::write(va.wrapping_add(offset_of!(abi::EvtchnInitControl, link_bits) as u64), &bits)?;
    }
    Ok(outcome)
}

/// Adds a page of words.
pub(super) fn expand_array(cx: &mut Context<'_>, va: u64) -> Result<Outcome, Errno> {
    let op: abi::EvtchnExpandArray = guest::read(va)?;
    fifo::expand_array(cx.domain, Mfn(op.array_gfn), &mut cx.held)
}

/// Says which queue a port joins from now on.
pub(super) fn set_priority(cx: &mut Context<'_>, va: u64) -> Result<(), Errno> {
    let op: abi::EvtchnSetPriority = guest::read(va)?;
    cx.domain.events.table.lock(&mut cx.held).0.set_priority(&**cx.domain, op.port, op.priority)
}
