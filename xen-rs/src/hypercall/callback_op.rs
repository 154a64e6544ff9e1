//! `HYPERVISOR_callback_op`: where the guest wants to be called back (public header `callback.h`).

use logic::{access::CallbackOp, hypercall::Outcome, num, trap::is_canonical};
use xen_abi::{
    callback::{
        CALLBACKF_MASK_EVENTS, CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE, CALLBACKTYPE_NMI, CALLBACKTYPE_SYSCALL,
        CALLBACKTYPE_SYSCALL32, CALLBACKTYPE_SYSENTER, CallbackRegister, CallbackUnregister,
    },
    errno::Errno,
};

use crate::{
    cpu::Context,
    guest,
    trap::state::{Callback, Callbacks},
};

/// The hypercall: rdi is the command, rsi points to its argument.
pub fn callback_op(cx: &mut Context<'_>) -> Outcome {
    let [command, argument, ..] = cx.args();
    match cx.permit(num::uint(command)).map(|op| op.op()) {
        Ok(CallbackOp::Register) => {
            guest::read(argument).and_then(|wanted| register(&mut cx.state.pv.callbacks, &wanted)).into()
        }
        Ok(CallbackOp::Unregister) => guest::read(argument).and_then(|wanted| unregister(&wanted)).into(),
        Err(errno) => Outcome::Fail(errno),
    }
}

fn register(callbacks: &mut Callbacks, wanted: &CallbackRegister) -> Result<(), Errno> {
    if !is_canonical(wanted.address) {
        return Err(Errno::EINVAL);
    }
    let callback = Callback { address: wanted.address, masks_events: wanted.flags & CALLBACKF_MASK_EVENTS != 0 };
    match wanted.type_ {
        CALLBACKTYPE_EVENT => callbacks.event = wanted.address,
        CALLBACKTYPE_FAILSAFE => callbacks.failsafe = callback,
        CALLBACKTYPE_SYSCALL => callbacks.syscall = callback,
        CALLBACKTYPE_SYSCALL32 => callbacks.syscall32 = callback,
        CALLBACKTYPE_SYSENTER => callbacks.sysenter = callback,
        CALLBACKTYPE_NMI => return Err(Errno::EINVAL), // that one is a gate of the trap table
        _ => return Err(Errno::ENOSYS),
    }
    Ok(())
}

/// Callbacks stay once they are registered.
fn unregister(wanted: &CallbackUnregister) -> Result<(), Errno> {
    match wanted.type_ {
        CALLBACKTYPE_EVENT
        | CALLBACKTYPE_FAILSAFE
        | CALLBACKTYPE_SYSCALL
        | CALLBACKTYPE_SYSCALL32
        | CALLBACKTYPE_SYSENTER => Err(Errno::EINVAL),
        CALLBACKTYPE_NMI => Ok(()),
        _ => Err(Errno::ENOSYS),
    }
}
