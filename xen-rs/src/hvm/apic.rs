//! The local APIC of a PVH vCPU: its registers in memory and as MSRs, what it sends to others, and what others send to it.

use alloc::sync::Arc;

use logic::{
    hvm::{
        apic::{Effect, Ipi, Message, Start},
        mmio::Part,
    },
    lock::Held,
    msr::Fault,
};
use machine::container::{CpuState, Segment};

use super::{PvhVcpu, context, vcpu::Nmis};
use crate::{
    cpu::{Context, Running},
    cpu_loop,
    domain::Domain,
    vcpu::{Vcpu, VcpuFlags},
};

/// Reads bytes in the APIC's page, by their offset: 0 where they are not part of a register.
pub fn read_part(pvh: &mut PvhVcpu, domain: &Domain, offset: u32, bytes: u8) -> u32 {
    let Some(part) = Part::new(offset, bytes) else { return 0 };
    sync_priority(pvh);
    part.of(pvh.apic.read(part.register(), &domain.tsc))
}

/// Writes them. What is around them in their register is written as it is.
pub fn write_part(cx: &mut Context<'_>, offset: u32, bytes: u8, value: u32) {
    let (Some(part), Some(pvh)) = (Part::new(offset, bytes), cx.state.pvh.as_deref_mut()) else { return };
    sync_priority(pvh);
    let old = if part.is_whole() { 0 } else { pvh.apic.read(part.register(), &cx.domain.tsc) };
    let was_enabled = pvh.apic.is_enabled();
    let effect = pvh.apic.write(part.register(), part.within(old, value), &cx.domain.tsc);
    carry_out(cx, effect, was_enabled);
}

/// `rdmsr` of one of its registers.
pub fn read_msr(pvh: &mut PvhVcpu, domain: &Domain, number: u32) -> Result<u64, Fault> {
    sync_priority(pvh);
    pvh.apic.read_msr(number, &domain.tsc).ok_or(Fault)
}

/// `wrmsr`.
pub fn write_msr(cx: &mut Context<'_>, number: u32, value: u64) -> Result<(), Fault> {
    let pvh = cx.state.pvh.as_deref_mut().ok_or(Fault)?;
    sync_priority(pvh);
    let was_enabled = pvh.apic.is_enabled();
    let effect = pvh.apic.write_msr(number, value, &cx.domain.tsc).ok_or(Fault)?;
    carry_out(cx, effect, was_enabled);
    Ok(())
}

/// The guest changes its task priority by CR8 without an exit.
pub fn sync_priority(pvh: &mut PvhVcpu) {
    let cr8 = pvh.container.cr8();
    if pvh.apic.task_priority() >> 4 != cr8 {
        pvh.apic.set_task_priority(cr8 << 4);
    }
}

/// Settles who serves interrupts after the APIC's state may have changed: the hardware where it can and the APIC lets it, and
/// what the guest reads and does without an exit then.
pub fn settle(pvh: &mut PvhVcpu) {
    let PvhVcpu { apic, container, .. } = pvh;
    if apic.is_served_by_hardware() && apic.may_be_served_by_hardware() {
        return container.show_registers(&apic.mirror());
    }
    // An APIC that was reset wants nothing of what the hardware had.
    if let Some(left) = container.end_service() {
        apic.take_back(left);
    }
    container.set_cr8(apic.task_priority() >> 4);
    if container.can_serve()
        && let Some(interrupts) = apic.hand_over()
    {
        container.serve(interrupts);
        container.show_registers(&apic.mirror());
    }
}

/// A vCPU whose interrupts the hardware serves has written a register which that does not know.
#[cold]
pub fn written(cx: &mut Context<'_>, number: u32, value: u32) {
    // What the hardware has let pass is no fault any more.
    let _done = write_msr(cx, number, value.into());
}

fn carry_out(cx: &mut Context<'_>, effect: Effect, was_enabled: bool) {
    let Some(pvh) = cx.state.pvh.as_deref_mut() else { return };
    cx.vcpu.inbox.set_address(pvh.apic.address());
    // An upcall that came while it was off was not taken, and no event tells of itself twice.
    if !was_enabled && cx.vcpu.upcall_vector() != 0 && cx.vcpu.info.get().upcall_pending() {
        pvh.apic.accept(cx.vcpu.upcall_vector());
    }
    settle(pvh);
    match effect {
        Effect::None => {}
        Effect::Timer => {
            cx.state.timers.apic = pvh.apic.deadline();
            if let Some(deadline) = cx.state.timers.apic {
                cpu_loop::arm(&mut cx.cpu.sched.timer, deadline);
            }
        }
        Effect::Send(ipi) => send(cx, &ipi),
    }
}

fn send(cx: &mut Context<'_>, ipi: &Ipi) {
    let sender = cx.vcpu.id.0 * 2;
    let domain = cx.domain;
    let starts = matches!(ipi.message, Message::Init | Message::Startup(_));
    for vcpu in domain.vcpus().iter().filter(|vcpu| vcpu.inbox.is_reached(ipi.to, sender)) {
        // The boot processor takes no INIT, and of several APICs one that is on takes an interrupt.
        if vcpu.id.0 == 0 && ipi.message == Message::Init || ipi.first_only && !vcpu.inbox.is_open() {
            continue;
        }
        if vcpu.inbox.post(ipi.message) {
            cpu_loop::nudge(vcpu, &mut cx.held);
        }
        if starts {
            start_if_asked(domain, vcpu, &mut cx.held);
            cpu_loop::breathe(&mut cx.held);
        }
        if ipi.first_only {
            break;
        }
    }
}

/// A vCPU that is down does as INIT and SIPI say, once it is parked. Both who sends one and the CPU that parks it come here
/// afterwards; the later of them finds the signal and the vCPU.
#[cold]
pub fn start_if_asked(domain: &Domain, vcpu: &Arc<Vcpu>, held: &mut Held<'_, 0>) {
    if vcpu.seat.ready.is_up() {
        return;
    }
    cpu_loop::pause(vcpu);
    let start = match cpu_loop::is_parked(vcpu, held) && !vcpu.seat.ready.is_up() {
        true => vcpu.inbox.take_start(!vcpu.flags().contains(VcpuFlags::INITIALISED)),
        false => Start::Nothing,
    };
    if start != Start::Nothing {
        init(vcpu, held);
    }
    // Without memory it does not start.
    let started = matches!(start, Start::At(page) if context::start(domain, vcpu, &at_page(page), held).is_ok());
    cpu_loop::unpause(vcpu, held);
    if started {
        let (_, woken) = vcpu.seat.ready.bring_up();
        cpu_loop::wake(vcpu, woken, held);
    }
}

/// What INIT does at once to a vCPU that is parked: it has no state any more, no NMI nor a handler of one, and its APIC is as
/// after a reset (SDM vol. 3A, 10.4.7.3).
fn init(vcpu: &Vcpu, held: &mut Held<'_, 0>) {
    vcpu.clear(VcpuFlags::INITIALISED);
    vcpu.seat.ready.clear_nmi();
    let (mut parked, _held) = vcpu.parked.lock(held);
    let Some(state) = parked.as_mut() else { return };
    state.timers.apic = None;
    if let Some(pvh) = state.pvh.as_deref_mut() {
        pvh.nmis = Nmis::Taken;
        pvh.apic.init();
        settle(pvh);
        vcpu.inbox.set_address(pvh.apic.address());
    }
}

/// The state after a SIPI: real mode at a page (SDM vol. 3A, 8.4.3).
fn at_page(page: u8) -> CpuState {
    let state = CpuState::after_init();
    let selector = u16::from(page) << 8;
    CpuState { cs: Segment { selector, base: u64::from(selector) << 4, ..state.cs }, ..state }
}

/// Takes what others have sent.
#[cold]
#[inline(never)]
pub fn receive(running: &mut Running) {
    let Some(pvh) = running.state.pvh.as_deref_mut() else { return };
    let signals = pvh.apic.take(&running.vcpu.inbox);
    if signals.nmi {
        running.vcpu.seat.ready.set_nmi();
    }
    // Once it is parked, `start_if_asked` does the rest.
    if signals.init {
        let _ = running.vcpu.seat.ready.take_down();
    }
}
