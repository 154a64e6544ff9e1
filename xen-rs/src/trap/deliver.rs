//! Enters a PV guest's handlers: exceptions, software interrupts, events, NMIs, its user mode's system calls, and
//! returns that failed. The frames themselves are built in `logic::trap::frame`.

use log::error;
use logic::guest::Out;
use logic::regs::{GuestRegs, rflags};
use logic::trap::frame::{self, Interrupted};
use logic::trap::gate::Gate;
use logic::trap::vector;
use machine::arch::x86_64::segments;
use machine::mem::guest_words::Piece;
use machine::upcall::Call;
use xen_abi::trace::{TRC_64_FLAG, TRC_PV_PAGE_FAULT, TRC_PV_TRAP};
use xen_abi::vm_assist::VMASST_TYPE_ARCHITECTURAL_IOPL;

use super::state::{Callback, PvState};
use super::{crash, mode};
use crate::cpu::{Context, Running};
use crate::domain::Domain;
use crate::guest::Handle;
use crate::trace;
use crate::vcpu_info::VcpuInfo;

/// Length of `int n`, `syscall` and `sysenter`.
const SHORT_INSTRUCTION: u64 = 2;

/// A handler to be entered.
#[derive(Clone, Copy)]
struct Handler {
    /// Where it begins; 0 means that the guest has none.
    address: u64,
    /// Whether events are masked on entry.
    masks_events: bool,
}

impl From<Gate> for Handler {
    #[inline]
    fn from(gate: Gate) -> Self {
        Self { address: gate.address, masks_events: gate.masks_events() }
    }
}

impl From<Callback> for Handler {
    #[inline]
    fn from(callback: Callback) -> Self {
        Self { address: callback.address, masks_events: callback.masks_events }
    }
}

/// Enters the handler of an exception of the guest's own making.
pub fn exception(cx: &mut Context<'_>, vector: u8, error_code: Option<u32>) {
    let gate = cx.state.pv.traps.gate(vector);
    if trace::is_on() {
        trace_exception(cx, vector, error_code);
    }
    if gate.address == 0 {
        report_unhandled(cx, vector, error_code);
    }
    let info = cx.vcpu.info.get();
    let state = interrupted(&cx.state.pv, cx.domain, info.upcall_mask());
    match error_code {
        Some(code) => enter(cx, info, &state, gate.into(), &state.with_error(cx.regs, code)),
        None => enter(cx, info, &state, gate.into(), &state.plain(cx.regs)),
    }
}

#[cold]
fn trace_exception(cx: &Context<'_>, vector: u8, error_code: Option<u32>) {
    let ([low, high], code) = (trace::halves(cx.regs.rip), error_code.unwrap_or(0));
    if vector == vector::PAGE_FAULT {
        let [address, address_high] = trace::halves(cx.state.pv.cr2);
        trace::event(TRC_PV_PAGE_FAULT | TRC_64_FLAG, || [low, high, address, address_high, code]);
    } else {
        // 15 bits of vector, whether there is a code, 16 bits of it.
        let word = u32::from(vector) | u32::from(error_code.is_some()) << 15 | code << 16;
        trace::event(TRC_PV_TRAP | TRC_64_FLAG, || [low, high, word]);
    }
}

#[cold]
fn report_unhandled(cx: &Context<'_>, vector: u8, error_code: Option<u32>) {
    error!("{} Unhandled: vec {vector}, {}[{:04x}]", crash::Name(cx.vcpu), name(vector), error_code.unwrap_or(0));
}

/// Enters the page-fault handler; the address goes where the kernel looks for it.
#[inline]
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
    if info.needs_delivery() {
        let handler = Handler { address: cx.state.pv.callbacks.event, masks_events: true };
        let state = interrupted(&cx.state.pv, cx.domain, false);
        enter(cx, info, &state, handler, &state.plain(cx.regs));
    }
}

/// Enters the NMI handler if an NMI is pending and none is being handled.
#[inline]
pub fn nmi_if_pending(cx: &mut Context<'_>) {
    if cx.vcpu.seat.ready.nmi_pending() && !cx.state.pv.nmi_masked {
        let gate = cx.state.pv.traps.gate(vector::NMI);
        // Like Xen, an NMI waits for a handler.
        if gate.address != 0 {
            cx.vcpu.seat.ready.clear_nmi();
            cx.state.pv.nmi_masked = true;
            exception(cx, vector::NMI, None);
        }
    }
}

/// A system call of the guest's user mode, or one that no kernel can make.
pub fn user_call(cx: &mut Context<'_>, call: Call) {
    let callback = match call {
        Call::Syscall64 => cx.state.pv.callbacks.syscall,
        Call::Syscall32 => cx.state.pv.callbacks.syscall32,
        Call::Sysenter => cx.state.pv.callbacks.sysenter,
    };
    if callback.address == 0 {
        // Without a callback the instruction does not exist.
        if call == Call::Sysenter {
            general_protection(cx);
        } else {
            cx.regs.rip = cx.regs.rip.wrapping_sub(SHORT_INSTRUCTION);
            exception(cx, vector::INVALID_OPCODE, None);
        }
        return;
    }
    let info = cx.vcpu.info.get();
    let state = interrupted(&cx.state.pv, cx.domain, info.upcall_mask());
    enter(cx, info, &state, callback.into(), &state.plain(cx.regs));
    cx.regs.rflags &= !rflags::DF;
}

/// The state that was to be returned to cannot be loaded.
pub fn failsafe(cx: &mut Context<'_>) {
    let wanted = cx.state.pv.selectors;
    let info = cx.vcpu.info.get();
    let state = interrupted(&cx.state.pv, cx.domain, info.upcall_mask());
    let words = state.with_selectors(cx.regs, [wanted.ds, wanted.es, wanted.fs, wanted.gs]);
    enter(cx, info, &state, cx.state.pv.callbacks.failsafe.into(), &words);
}

/// The state that a frame shows.
#[inline(always)]
fn interrupted(pv: &PvState, domain: &Domain, upcall_mask: bool) -> Interrupted {
    Interrupted {
        in_kernel: pv.in_kernel,
        kernel_sp: pv.kernel_sp,
        upcall_mask,
        iopl_shown: if domain.assists(VMASST_TYPE_ARCHITECTURAL_IOPL) { pv.iopl } else { 0 },
    }
}

/// [`event_if_pending`] of a vCPU in its kernel, to whom nothing else is to be delivered and whose stack takes the frame. False:
/// it is not like that, and nothing has been done.
#[inline(always)]
pub fn event_at_once(running: &Running, regs: &mut GuestRegs) -> bool {
    let (pv, info) = (&running.state.pv, running.vcpu.info.get());
    if !pv.in_kernel || !info.needs_delivery() {
        return false;
    }
    let state = Interrupted { in_kernel: true, ..interrupted(pv, &running.domain, false) };
    let handler = pv.callbacks.event;
    let stack = state.place(regs, frame::PLAIN);
    let Some(piece) = Piece::<{ 8 * frame::PLAIN as u64 }>::new(stack) else { return false };
    // The words are fetched in two parts, so that they fit into registers.
    if handler == 0
        || !piece.write_first_three([regs.rcx, regs.r11, regs.rip])
        || !piece.write_last_four(state.last(regs))
    {
        return false;
    }
    frame::enter(regs, handler, stack);
    info.set_upcall_mask(true);
    true
}

/// [`page_fault`] of a guest in its kernel, whose stack takes the frame and whose handler masks events. False: it is not like
/// that, and nothing has been done.
#[inline(always)]
pub fn page_fault_at_once(running: &mut Running, regs: &mut GuestRegs, address: u64, error_code: u32) -> bool {
    let (pv, info) = (&mut running.state.pv, running.vcpu.info.get());
    let gate = pv.traps.gate(vector::PAGE_FAULT);
    if !pv.in_kernel || trace::is_on() || info.is_missing() || gate.address == 0 || !gate.masks_events() {
        return false;
    }
    let state = Interrupted { in_kernel: true, ..interrupted(pv, &running.domain, info.upcall_mask()) };
    let stack = state.place(regs, frame::WITH_ERROR);
    let Some(piece) = Piece::<{ 8 * frame::WITH_ERROR as u64 }>::new(stack) else { return false };
    let code = frame::page_fault_error_code(error_code, true);
    if !piece.write_first_four([regs.rcx, regs.r11, code.into(), regs.rip]) || !piece.write_last_four(state.last(regs))
    {
        return false;
    }
    frame::enter(regs, gate.address, stack);
    info.set_upcall_mask(true);
    pv.cr2 = address;
    info.set_cr2(address);
    true
}

/// Switches to the kernel, writes the frame, goes on in the handler. A guest whose kernel stack cannot be written is
/// beyond help.
#[inline(always)]
fn enter<const N: usize>(
    cx: &mut Context<'_>,
    info: VcpuInfo<'_>,
    state: &Interrupted,
    handler: Handler,
    words: &[u64; N],
) {
    if handler.address == 0 {
        return crash::crash(cx, &"no handler for a trap");
    }
    if !state.in_kernel {
        mode::toggle(cx);
    }
    let sp = state.place(cx.regs, N);
    if Handle::<[u64; N], Out>::new(sp).write(words).is_err() {
        return crash::crash(cx, &format_args!("writing a trap frame to {sp:016x} faults"));
    }
    frame::enter(cx.regs, handler.address, sp);
    if handler.masks_events {
        info.set_upcall_mask(true);
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
