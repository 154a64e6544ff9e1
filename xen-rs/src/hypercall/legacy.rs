//! Hypercalls of older interface versions, told in terms of those that took their place (public headers `callback.h`,
//! `event_channel.h`, `nmi.h`, `physdev.h` and `sched.h`).

use logic::{
    field,
    guest::{In, InOut},
    hypercall::Outcome,
    num,
};
use xen_abi::{
    callback::{CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE, CALLBACKTYPE_SYSCALL, CallbackRegister},
    errno::Errno,
    event_channel::{self as evtchn, EvtchnOp},
    nmi::{XENNMI_REGISTER_CALLBACK, XENNMI_UNREGISTER_CALLBACK, XennmiCallback},
    physdev::PhysdevOp,
    sched::{SCHEDOP_BLOCK, SCHEDOP_SHUTDOWN, SCHEDOP_YIELD},
};

use super::{callback_op, event_channel_op, physdev_op, sched_op};
use crate::{cpu::Context, domain::Shutdown, guest::Handle};

/// `HYPERVISOR_set_callbacks`: the event, failsafe and syscall callbacks at once. One that is not canonical is passed over.
pub fn set_callbacks(cx: &mut Context<'_>) -> Outcome {
    let [event, failsafe, syscall, ..] = cx.args();
    let all = [(CALLBACKTYPE_EVENT, event), (CALLBACKTYPE_FAILSAFE, failsafe), (CALLBACKTYPE_SYSCALL, syscall)];
    for (type_, address) in all {
        let wanted = CallbackRegister { type_, flags: 0, _pad: 0, address };
        let _ = callback_op::register(cx, &wanted);
    }
    Outcome::OK
}

/// `HYPERVISOR_nmi_op`: rdi is the command, rsi points to its argument.
pub fn nmi_op(cx: &mut Context<'_>) -> Outcome {
    let [command, va, ..] = cx.args();
    match num::uint(command) {
        XENNMI_REGISTER_CALLBACK => Handle::<XennmiCallback, In>::new(va)
            .read()
            .and_then(|wanted| callback_op::register_nmi(cx, wanted.handler_address))
            .into(),
        XENNMI_UNREGISTER_CALLBACK => {
            callback_op::unregister_nmi(cx);
            Outcome::OK
        }
        _ => Outcome::Fail(Errno::ENOSYS),
    }
}

/// `HYPERVISOR_sched_op_compat`: rdi is the operation; rsi is the reason of a shutdown.
pub fn sched(cx: &mut Context<'_>) -> Outcome {
    let [operation, reason, ..] = cx.args();
    match num::uint(operation) {
        SCHEDOP_YIELD => sched_op::give_way(cx),
        SCHEDOP_BLOCK => sched_op::block(cx),
        SCHEDOP_SHUTDOWN => cx.domain.shut_down(Shutdown::new(num::uint(reason)), &mut cx.held),
        _ => return Outcome::Fail(Errno::ENOSYS),
    }
    Outcome::OK
}

/// `HYPERVISOR_event_channel_op_compat`: rdi points to the operation, behind which its structure lies. Of what is read here only
/// the operation's number is used; its structure is read once, by who serves it.
pub fn event_channel(cx: &mut Context<'_>) -> Outcome {
    let [va, ..] = cx.args();
    let (op, rest) = match Handle::<EvtchnOp, InOut>::new(va).read() {
        Ok(read) => read,
        Err(errno) => return Outcome::Fail(errno),
    };
    match op.cmd {
        evtchn::EVTCHNOP_BIND_INTERDOMAIN
        | evtchn::EVTCHNOP_BIND_VIRQ
        | evtchn::EVTCHNOP_BIND_PIRQ
        | evtchn::EVTCHNOP_CLOSE
        | evtchn::EVTCHNOP_SEND
        | evtchn::EVTCHNOP_STATUS
        | evtchn::EVTCHNOP_ALLOC_UNBOUND
        | evtchn::EVTCHNOP_BIND_IPI
        | evtchn::EVTCHNOP_BIND_VCPU
        | evtchn::EVTCHNOP_UNMASK => event_channel_op::serve(cx, op.cmd, rest.part(field!(EvtchnOp, u)).into_address()),
        _ => Outcome::Fail(Errno::ENOSYS),
    }
}

/// `HYPERVISOR_physdev_op_compat`: rdi points to the operation, behind which its structure lies; as [`event_channel`].
pub fn physdev(cx: &mut Context<'_>) -> Outcome {
    let [va, ..] = cx.args();
    match Handle::<PhysdevOp, InOut>::new(va).read() {
        Ok((op, rest)) => physdev_op::serve(cx, op.cmd, rest.part(field!(PhysdevOp, u)).into_address()),
        Err(errno) => Outcome::Fail(errno),
    }
}
