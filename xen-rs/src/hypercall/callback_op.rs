//! `HYPERVISOR_callback_op`: where the guest wants to be called back (public header `callback.h`).

use logic::{
    access::CallbackOp,
    guest::In,
    hypercall::Outcome,
    num,
    trap::{gate::Gate, is_canonical, vector},
};
use xen_abi::{
    arch_x86::FLAT_KERNEL_CS,
    callback::{
        CALLBACKF_MASK_EVENTS, CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE, CALLBACKTYPE_NMI, CALLBACKTYPE_SYSCALL,
        CALLBACKTYPE_SYSCALL32, CALLBACKTYPE_SYSENTER, CallbackRegister, CallbackUnregister,
    },
    errno::Errno,
};

use crate::{cpu::Context, guest::Handle, trap::state::Callback};

/// The hypercall: rdi is the command, rsi points to its argument.
pub fn callback_op(cx: &mut Context<'_>) -> Outcome {
    let [command, argument, ..] = cx.args();
    match cx.permit(num::uint(command)).map(|op| op.op()) {
        Ok(CallbackOp::Register) => {
            Handle::<_, In>::new(argument).read().and_then(|wanted| register(cx, &wanted)).into()
        }
        Ok(CallbackOp::Unregister) => {
            Handle::<_, In>::new(argument).read().and_then(|wanted| unregister(cx, &wanted)).into()
        }
        Err(errno) => Outcome::Fail(errno),
    }
}

/// Registers a callback. EINVAL when it is not canonical, ENOSYS when there is none of its type.
pub fn register(cx: &mut Context<'_>, wanted: &CallbackRegister) -> Result<(), Errno> {
    if !is_canonical(wanted.address) {
        return Err(Errno::EINVAL);
    }
    let callbacks = &mut cx.state.pv.callbacks;
    let callback = Callback { address: wanted.address, masks_events: wanted.flags & CALLBACKF_MASK_EVENTS != 0 };
    match wanted.type_ {
        CALLBACKTYPE_EVENT => callbacks.event = wanted.address,
        CALLBACKTYPE_FAILSAFE => callbacks.failsafe = callback,
        CALLBACKTYPE_SYSCALL => callbacks.syscall = callback,
        CALLBACKTYPE_SYSCALL32 => callbacks.syscall32 = callback,
        CALLBACKTYPE_SYSENTER => callbacks.sysenter = callback,
        CALLBACKTYPE_NMI => return register_nmi(cx, wanted.address),
        _ => return Err(Errno::ENOSYS),
    }
    Ok(())
}

/// Makes a handler of NMIs. It is a gate of the trap table, so that [`unregister_nmi`] and `set_trap_table` undo it.
pub fn register_nmi(cx: &mut Context<'_>, address: u64) -> Result<(), Errno> {
    let gate = Gate { flags: Gate::MASKS_EVENTS, cs: FLAT_KERNEL_CS, address };
    cx.state.pv.traps.set(vector::NMI, gate).map_err(|_| Errno::EINVAL)
}

/// Takes the handler of NMIs away.
pub fn unregister_nmi(cx: &mut Context<'_>) {
    // No handler is at a canonical address.
    let _ = cx.state.pv.traps.set(vector::NMI, Gate::default());
}

/// Callbacks stay once they are registered, but for the one that is a gate.
fn unregister(cx: &mut Context<'_>, wanted: &CallbackUnregister) -> Result<(), Errno> {
    match wanted.type_ {
        CALLBACKTYPE_EVENT
        | CALLBACKTYPE_FAILSAFE
        | CALLBACKTYPE_SYSCALL
        | CALLBACKTYPE_SYSCALL32
        | CALLBACKTYPE_SYSENTER => Err(Errno::EINVAL),
        CALLBACKTYPE_NMI => {
            unregister_nmi(cx);
            Ok(())
        }
        _ => Err(Errno::ENOSYS),
    }
}
