//! Enters a PV guest's handlers: exceptions, software interrupts, events, NMIs, its user mode's system calls, and
//! returns that failed. The frames themselves are built in `logic::trap::frame`.

use log::error;
use logic::regs::rflags;
use logic::trap::frame::{self, Extra, Handler, Interrupted, Refused};
use logic::trap::vector;
use machine::arch::x86_64::segments;
use machine::upcall::Call;
use xen_abi::vm_assist::VMASST_TYPE_ARCHITECTURAL_IOPL;

use super::state::Callback;
use super::{crash, mode};
use crate::cpu::Context;
use crate::guest;
use crate::vcpu::VcpuFlags;

/// Length of `int n`, `syscall` and `sysenter`.
const SHORT_INSTRUCTION: u64 = 2;

/// Enters the handler of an exception of the guest's own making.
pub fn exception(cx: &mut Context<'_>, vector: u8, error_code: Option<u32>) {
    let gate = cx.state.pv.traps.gate(vector);
    let handler = Handler { address: gate.address, masks_events: gate.masks_events() };
    let extra = error_code.map_or(Extra::None, Extra::ErrorCode);
    if handler.address == 0 {
        error!("{} Unhandled: vec {vector}, {}[{:04x}]", crash::Name(cx.vcpu), name(vector), error_code.unwrap_or(0));
    }
    enter(cx, handler, extra);
}

/// Enters the page-fault handler; the address goes where the kernel looks for it.
pub fn page_fault(cx: &mut Context<'_>, address: u64, error_code: u32) {
    cx.state.pv.cr2 = address;
    cx.vcpu.info.get().set_cr2(address);
    let code = frame::page_fault_error_code(error_code, cx.state.pv.in_kernel);
    exception(cx, vector::PAGE_FAULT, Some(code));
}

/// `#GP(0)`, what most refused instructions come to.
pub fn general_protection(cx: &mut Context<'_>) {
    exception(cx, vector::GENERAL_PROTECTION, Some(0));
}

/// `int n`, which the guest's gate allows: the handler's frame points behind it.
pub fn software_interrupt(cx: &mut Context<'_>, vector: u8) {
    cx.regs.rip = cx.regs.rip.wrapping_add(SHORT_INSTRUCTION);
    exception(cx, vector, None);
}

/// Enters the event callback if an event is pending and not masked.
#[inline]
pub fn event_if_pending(cx: &mut Context<'_>) {
    let info = cx.vcpu.info.get();
    if info.upcall_pending() && !info.upcall_mask() {
        event(cx);
    }
}

fn event(cx: &mut Context<'_>) {
    let handler = Handler { address: cx.state.pv.callbacks.event, masks_events: true };
    enter(cx, handler, Extra::None);
}

/// Enters the NMI handler if an NMI is pending and none is being handled.
#[inline]
pub fn nmi_if_pending(cx: &mut Context<'_>) {
    if cx.vcpu.nmi_pending() && !cx.state.pv.nmi_masked {
        let gate = cx.state.pv.traps.gate(vector::NMI);
        // Like Xen, an NMI waits for a handler.
        if gate.address != 0 {
            cx.vcpu.clear(VcpuFlags::NMI_PENDING);
            cx.state.pv.nmi_masked = true;
            exception(cx, vector::NMI, None);
        }
    }
}

/// A system call of the guest's user mode, or one that no kernel can make.
pub fn user_call(cx: &mut Context<'_>, call: Call) {
    let Callback { address, masks_events } = match call {
        Call::Syscall64 => cx.state.pv.callbacks.syscall,
        Call::Syscall32 => cx.state.pv.callbacks.syscall32,
        Call::Sysenter => cx.state.pv.callbacks.sysenter,
    };
    if address == 0 {
        // Without a callback the instruction does not exist.
        if call == Call::Sysenter {
            general_protection(cx);
        } else {
            cx.regs.rip = cx.regs.rip.wrapping_sub(SHORT_INSTRUCTION);
            exception(cx, vector::INVALID_OPCODE, None);
        }
        return;
    }
    enter(cx, Handler { address, masks_events }, Extra::None);
    cx.regs.rflags &= !rflags::DF;
}

/// The state that was to be returned to cannot be loaded.
pub fn failsafe(cx: &mut Context<'_>) {
    let Callback { address, masks_events } = cx.state.pv.callbacks.failsafe;
    let wanted = cx.state.pv.selectors;
    let extra = Extra::Selectors { ds: wanted.ds, es: wanted.es, fs: wanted.fs, gs: wanted.gs };
    enter(cx, Handler { address, masks_events }, extra);
}

/// Builds the frame, switches to the kernel, writes the frame, goes on in the handler. A guest whose kernel stack
/// cannot be written is beyond help.
fn enter(cx: &mut Context<'_>, handler: Handler, extra: Extra) {
    let assist = 1 << VMASST_TYPE_ARCHITECTURAL_IOPL;
    let architectural = cx.domain.vm_assist.load(core::sync::atomic::Ordering::Relaxed) & assist != 0;
    let state = Interrupted {
        in_kernel: cx.state.pv.in_kernel,
        kernel_sp: cx.state.pv.kernel_sp,
        upcall_mask: cx.vcpu.info.get().upcall_mask(),
        architectural_iopl: architectural.then_some(cx.state.pv.iopl),
    };
    let frame = match frame::build(cx.regs, &state, handler, extra) {
        Ok(frame) => frame,
        Err(Refused::NoHandler) => return crash::crash(cx, &"no handler for a trap"),
        Err(Refused::BadStack(sp)) => {
            return crash::crash(cx, &format_args!("the kernel stack at {sp:016x} cannot take a trap frame"));
        }
    };
    if frame.switch_to_kernel {
        mode::toggle(cx);
    }
    if guest::write(frame.sp, frame.words.as_slice()).is_err() {
        return crash::crash(cx, &format_args!("writing a trap frame to {:016x} faults", frame.sp));
    }
    frame.enter(cx.regs);
    if frame.mask_events {
        cx.vcpu.info.get().set_upcall_mask(true);
    }
}

/// Selectors that a switch of vCPUs could not load: the callback decides.
pub fn bad_selectors(cx: &mut Context<'_>) {
    failsafe(cx);
    cx.state.pv.selectors = segments::read();
}

/// What manuals call an exception.
#[must_use]
pub const fn name(vector: u8) -> &'static str {
    match vector {
        0 => "#DE",
        1 => "#DB",
        2 => "NMI",
        3 => "#BP",
        4 => "#OF",
        5 => "#BR",
        6 => "#UD",
        7 => "#NM",
        8 => "#DF",
        10 => "#TS",
        11 => "#NP",
        12 => "#SS",
        13 => "#GP",
        14 => "#PF",
        16 => "#MF",
        17 => "#AC",
        18 => "#MC",
        19 => "#XM",
        20 => "#VE",
        21 => "#CP",
        _ => "???",
    }
}
