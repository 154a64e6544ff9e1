//! What is done about each way out of a container, but for hypercalls.

use log::error;
use logic::hvm::delivery::{self, Second};
use logic::hvm::length::{Instruction, MAX_LENGTH};
use logic::num;
use logic::regs::{GuestRegs, rflags};
use machine::arch::x86_64::{cpu, guest_registers};
use machine::container::{Access, Event, EventKind, Exit, attributes, memory};
use xen_abi::hvm::HVM_PARAM_TRIPLE_FAULT_REASON;
use xen_abi::ids::Gfn;

use super::{PvhVcpu, apic, cpuid, mmio, msr, port, upcall, vcpu::Nmis};
use crate::{cpu::Context, cpu_loop, domain::Shutdown, trap, trap::crash::Name};

/// Answers an exit.
#[inline(never)]
pub fn handle(cx: &mut Context<'_>, exit: Exit) {
    match exit {
        Exit::Cpuid => {
            if skip(cx, Instruction::Cpuid) {
                cpuid::cpuid(cx);
            }
        }
        Exit::Msr { writes } => access_msr(cx, writes),
        Exit::Hlt => {
            // The #DB of a single step ends it.
            if skip(cx, Instruction::Hlt) && cx.regs.rflags & rflags::TF == 0 {
                halt(cx);
            }
        }
        Exit::ReadTsc { with_aux } => read_tsc(cx, with_aux),
        Exit::Port(access) => port::access(cx, access),
        Exit::Xsetbv => xsetbv(cx),
        Exit::ApicWritten { number, value } => apic::written(cx, number, value),
        // They have done what they are for.
        Exit::Nmi | Exit::Debug => {}
        Exit::Interrupt | Exit::Window => before_next(cx),
        Exit::NmiWindow => {
            if let Some(pvh) = cx.state.pvh.as_deref_mut() {
                pvh.nmis = Nmis::Taken;
            }
        }
        Exit::NmiReturn => {
            if let Some(pvh) = cx.state.pvh.as_deref_mut() {
                pvh.nmis = Nmis::HeldOffAt(cx.regs.rip);
            }
        }
        // The guest's own: they come here so that none can be raised for ever within one instruction.
        Exit::Exception { vector, error } => {
            const ALIGNMENT_CHECK: u8 = 17;
            const MACHINE_CHECK: u8 = 18;
            if vector == MACHINE_CHECK {
                cpu::take_machine_check();
            }
            let error = (vector == ALIGNMENT_CHECK).then_some(error);
            inject(cx, Event { error, ..Event::exception(vector) });
        }
        Exit::Int1 => int1(cx),
        Exit::CacheFlush => {
            // No device of the guest's sees memory past the caches.
            let _skipped = skip(cx, Instruction::CacheFlush);
        }
        Exit::Undefined => inject(cx, Event::exception(6)),
        Exit::Forbidden => inject(cx, Event::general_protection()),
        Exit::NestedFault { address, access: Access::Execute } if runs_code(cx, address) => {}
        Exit::NestedFault { address, access } if is_stale(cx, address, access) => {}
        Exit::NestedFault { address, access } if !delivers(cx) && mmio::access(cx, address, access) => {}
        // By an instruction that is not carried out here. Xen's guests get the same fault.
        Exit::NestedFault { .. } => inject(cx, Event::general_protection()),
        Exit::Task => crash(cx, "a task switch"),
        // A guest that wants no machine checks shuts down by one.
        Exit::Shutdown if cpu::is_machine_checked() => cpu::take_machine_check(),
        Exit::Shutdown => triple_fault(cx),
        Exit::Refused(code) => {
            error!("{} the container refuses: {code:#x}", Name(cx.vcpu));
            crash(cx, "a state that cannot be entered");
        }
        Exit::Hypercall => {}
    }
}

/// `int1`: #DB behind it, of which DR6 says nothing.
#[cold]
fn int1(cx: &mut Context<'_>) {
    let flags = cx.regs.rflags;
    // Its own #DB takes the place of a single step's.
    cx.regs.rflags &= !rflags::TF;
    let skipped = skip(cx, Instruction::Int1);
    cx.regs.rflags |= flags & rflags::TF;
    if skipped {
        inject(cx, Event::exception(1));
    }
}

/// `rdtsc` and `rdtscp` of an emulated TSC.
#[cold]
fn read_tsc(cx: &mut Context<'_>, with_aux: bool) {
    let with_aux = with_aux || is_rdtscp(cx);
    if !skip(cx, if with_aux { Instruction::Rdtscp } else { Instruction::Rdtsc }) {
        return;
    }
    let value = cx.domain.tsc.read();
    (cx.regs.rax, cx.regs.rdx) = (value & 0xffff_ffff, value >> 32);
    if with_aux && let Some(pvh) = cx.state.pvh.as_deref() {
        cx.regs.rcx = pvh.tsc_aux.into();
    }
}

/// Whether an exit of `rdtsc` is one of `rdtscp`, as QEMU's CPU says of both.
fn is_rdtscp(cx: &Context<'_>) -> bool {
    cx.state.pvh.as_deref().is_some_and(|pvh| pvh.container.next_instruction(cx.regs.rip).is_none())
        && length(cx, Instruction::Rdtsc).is_none()
        && length(cx, Instruction::Rdtscp).is_some()
}

/// Where 64-bit code goes on behind the instruction that exited, if that can be seen at once.
#[inline(always)]
pub fn next_at_once(pvh: &PvhVcpu, regs: &GuestRegs, instruction: Instruction) -> Option<u64> {
    if pvh.container.code_attributes() & attributes::LONG == 0 {
        return None;
    }
    if let Some(next) = pvh.container.next_instruction(regs.rip) {
        return Some(next);
    }
    // Four bytes hold the longest without a prefix.
    let code = pvh.container.fetch_at_once(regs.rip)?.to_le_bytes();
    Some(regs.rip.wrapping_add(instruction.length_at_once(code)?))
}

/// Goes on there: an instruction was carried out here in the guest's place. What it held off or was resumed with is over, and if
/// it was a single step, the step is done.
#[inline(always)]
pub fn go_on(pvh: &mut PvhVcpu, regs: &mut GuestRegs, next: u64) {
    regs.rip = next;
    pvh.container.end_shadow();
    regs.rflags &= !rflags::RF;
    if regs.rflags & rflags::TF != 0 {
        pvh.container.end_step();
    }
}

/// Goes on behind the instruction that exited. False: the guest has put something else in its place meanwhile, and gets a
/// fault.
#[inline(always)]
pub fn skip(cx: &mut Context<'_>, instruction: Instruction) -> bool {
    let Some(pvh) = cx.state.pvh.as_deref_mut() else { return false };
    let next = next_at_once(pvh, cx.regs, instruction);
    skip_to(cx, instruction, next)
}

/// The same, with what [`next_at_once`] has said.
#[inline(always)]
pub fn skip_to(cx: &mut Context<'_>, instruction: Instruction, next: Option<u64>) -> bool {
    let passed = pass(cx, instruction, next);
    if passed {
        end(cx);
    }
    passed
}

/// The same where it is not known yet whether the instruction is over: then [`end`] comes behind it, or [`go_back`].
#[inline(always)]
pub fn pass(cx: &mut Context<'_>, instruction: Instruction, next: Option<u64>) -> bool {
    match (next, cx.state.pvh.as_deref_mut()) {
        (Some(next), Some(pvh)) => {
            cx.regs.rip = next;
            pvh.container.end_shadow();
            true
        }
        _ => pass_any(cx, instruction),
    }
}

#[cold]
#[inline(never)]
fn pass_any(cx: &mut Context<'_>, instruction: Instruction) -> bool {
    let Some(pvh) = cx.state.pvh.as_deref_mut() else { return false };
    let next = match pvh.container.next_instruction(cx.regs.rip) {
        Some(next) => Some(next),
        None => length(cx, instruction).map(|length| cx.regs.rip.wrapping_add(length)),
    };
    let (Some(next), Some(pvh)) = (next, cx.state.pvh.as_deref_mut()) else {
        inject(cx, Event::general_protection());
        return false;
    };
    cx.regs.rip = if pvh.container.code_attributes() & attributes::LONG != 0 { next } else { next & 0xffff_ffff };
    pvh.container.end_shadow();
    true
}

/// The instruction that [`pass`] has passed is over.
#[inline(always)]
pub fn end(cx: &mut Context<'_>) {
    cx.regs.rflags &= !rflags::RF;
    if cx.regs.rflags & rflags::TF != 0
        && let Some(pvh) = cx.state.pvh.as_deref_mut()
    {
        pvh.container.end_step();
    }
}

/// It is not: it is executed again for the rest of its work, still in the same step.
pub fn go_back(cx: &mut Context<'_>, rip: u64) {
    cx.regs.rip = rip;
    if cx.regs.rflags & rflags::TF != 0
        && let Some(pvh) = cx.state.pvh.as_deref_mut()
    {
        pvh.container.stay_in_step();
    }
}

/// Reads it. The usual form is looked for first, which seldom crosses a page.
fn length(cx: &Context<'_>, instruction: Instruction) -> Option<u64> {
    let pvh = cx.state.pvh.as_deref()?;
    let segment = pvh.container.code();
    let long_mode = segment.attributes & attributes::LONG != 0;
    let linear = if long_mode { cx.regs.rip } else { segment.base.wrapping_add(cx.regs.rip) & 0xffff_ffff };
    let mut code = [0; MAX_LENGTH];
    let usual = instruction.usual_length();
    let usual = memory::fetch(linear, code.get_mut(..usual)?);
    let found = instruction.length(code.get(..usual)?, long_mode).or_else(|| {
        let longest = memory::fetch(linear, &mut code);
        instruction.length(code.get(..longest)?, long_mode)
    })?;
    u64::try_from(found).ok()
}

/// Whether the guest can run code there after all: in a large page, where the CPU is not to run any
/// ([`Format::EptSmallCode`](logic::hvm::p2m::Format::EptSmallCode)), or in one that another vCPU has just had split.
#[cold]
fn runs_code(cx: &mut Context<'_>, address: u64) -> bool {
    let domain = cx.domain;
    let Some(pvh) = domain.pvh() else { return false };
    pvh.physmap.allow_code(domain, Gfn(address >> 12), &mut cx.held).unwrap_or_else(|_| {
        crash(cx, "its pool has no frame left for tables of code");
        true
    })
}

/// Whether the guest may make that access by now: another vCPU has changed the map since the CPU looked. Then it is made again.
fn is_stale(cx: &Context<'_>, address: u64, access: Access) -> bool {
    if cx.state.pvh.as_deref().is_some_and(|pvh| pvh.apic.offset_of(address).is_some()) {
        return false;
    }
    let tables = cx.domain.pvh().and_then(|pvh| pvh.physmap.tables());
    let found = tables.and_then(|tables| tables.lookup(Gfn(address >> 12)));
    found.is_some_and(|found| match access {
        Access::Read => true,
        Access::Write => found.access.write,
        Access::Execute => found.access.execute,
    })
}

/// Whether the exit came out of an event's delivery: then the instruction has nothing to do with it.
fn delivers(cx: &Context<'_>) -> bool {
    cx.state.pvh.as_deref().is_some_and(|pvh| pvh.container.has_pending())
}

/// Has the guest take an event at the next entry. A fault while another one is being delivered counts with that.
pub fn inject(cx: &mut Context<'_>, event: Event) {
    const DOUBLE_FAULT: Event = Event { kind: EventKind::Exception, vector: 8, error: Some(0) };
    let second = match cx.state.pvh.as_deref().and_then(|pvh| pvh.container.pending()) {
        Some((EventKind::Exception, first)) => delivery::second(first, event.vector),
        Some((first, vector)) => {
            put_back(cx, first, vector);
            Second::Delivered
        }
        None => Second::Delivered,
    };
    let event = match second {
        Second::Delivered => event,
        Second::DoubleFault => DOUBLE_FAULT,
        Second::Shutdown => return triple_fault(cx),
    };
    if let Some(pvh) = cx.state.pvh.as_deref_mut() {
        pvh.container.inject(event);
    }
}

/// An interrupt or NMI that was on its way gives precedence to a fault, and comes behind it. (An upcall by the domain's callback
/// is there as long as its event is pending.)
#[cold]
fn put_back(cx: &mut Context<'_>, kind: EventKind, vector: u8) {
    let Some(pvh) = cx.state.pvh.as_deref_mut() else { return };
    if kind == EventKind::Nmi {
        // Its delivery has begun: others, and it, are held off until the fault's handler returns.
        let _ = cx.vcpu.seat.ready.set_nmi();
    } else {
        // Whoever serves it.
        pvh.apic.put_back(vector);
        pvh.container.put_back(vector);
    }
}

/// The guest cannot go on.
#[cold]
pub fn crash(cx: &mut Context<'_>, why: &str) {
    error!("{} {why}", Name(cx.vcpu));
    show(cx);
    let domain = cx.domain.clone();
    domain.crash(&why, &mut cx.held);
}

/// Logs where a PVH guest was.
#[cold]
pub fn show(cx: &Context<'_>) {
    let regs = &*cx.regs;
    if let Some(pvh) = cx.state.pvh.as_deref() {
        let state = pvh.container.state();
        error!(
            "CS:RIP: {:04x}:{:016x}  SS:RSP: {:04x}:{:016x}",
            state.cs.selector, regs.rip, state.ss.selector, regs.rsp
        );
        error!(
            "RFLAGS: {:016x}  cr0: {:016x}  cr4: {:016x}  efer: {:x}",
            regs.rflags, state.cr0, state.cr4, state.efer
        );
        error!("cr3: {:016x}  cr2: {:016x}", state.cr3, state.cr2);
    }
    error!("rax: {:016x}   rbx: {:016x}   rcx: {:016x}", regs.rax, regs.rbx, regs.rcx);
    error!("rdx: {:016x}   rsi: {:016x}   rdi: {:016x}", regs.rdx, regs.rsi, regs.rdi);
    error!("rbp: {:016x}   r8:  {:016x}   r9:  {:016x}", regs.rbp, regs.r8, regs.r9);
    error!("r10: {:016x}   r11: {:016x}   r12: {:016x}", regs.r10, regs.r11, regs.r12);
    error!("r13: {:016x}   r14: {:016x}   r15: {:016x}", regs.r13, regs.r14, regs.r15);
}

/// The end that the toolstack has chosen for this.
#[cold]
fn triple_fault(cx: &mut Context<'_>) {
    error!("{} Triple fault", Name(cx.vcpu));
    show(cx);
    let reason = cx.domain.pvh().map_or(0, |pvh| pvh.param(HVM_PARAM_TRIPLE_FAULT_REASON));
    let domain = cx.domain.clone();
    domain.shut_down(Shutdown::new(num::uint(reason)), &mut cx.held);
}

/// An interrupt has called the guest out, or may be injected. What `sti` holds off belongs behind the next instruction, but
/// QEMU's CPU forgets about that when it leaves a container. Before a `hlt` the guest would take its interrupt too early, and
/// sleep on it; so it halts here, as it would have next.
fn before_next(cx: &mut Context<'_>) {
    let Some(pvh) = cx.state.pvh.as_deref() else { return };
    let halts = cx.regs.rflags & (rflags::IF | rflags::TF) == rflags::IF && pvh.container.cpl() == 0;
    if !cpu::has(cpu::Features::EMULATED) || !halts || delivers(cx) {
        return;
    }
    if let Some(length) = length(cx, Instruction::Hlt)
        && let Some(pvh) = cx.state.pvh.as_deref_mut()
    {
        go_on(pvh, cx.regs, cx.regs.rip.wrapping_add(length));
        halt(cx);
    }
}

/// `hlt`: waits for an interrupt. Where it takes none it is meant for ever, and a kernel's way to switch off.
fn halt(cx: &mut Context<'_>) {
    if cx.regs.rflags & rflags::IF == 0 && !takes_nmi(cx) {
        return cx.domain.take_down(cx.vcpu, &mut cx.held);
    }
    cx.vcpu.seat.ready.block();
    // Only now look: what came before the vCPU was blocked wakes nobody.
    if takes_event(cx) {
        cpu_loop::unblock(cx.vcpu, &mut cx.held);
    }
}

/// Whether an interrupt waits that the guest lets in, or an NMI.
pub fn takes_event(cx: &mut Context<'_>) -> bool {
    // The guest may have changed its priority since an exit looked.
    if let Some(pvh) = cx.state.pvh.as_deref_mut() {
        apic::sync_priority(pvh);
    }
    let lets_in = cx.regs.rflags & rflags::IF != 0;
    takes_nmi(cx) || lets_in && cx.state.pvh.as_deref().is_some_and(|pvh| upcall::is_due(pvh, cx.vcpu, cx.domain))
}

/// Whether an NMI waits, and not for the handler of another one.
fn takes_nmi(cx: &Context<'_>) -> bool {
    cx.vcpu.seat.ready.nmi_pending() && cx.state.pvh.as_deref().is_some_and(|pvh| pvh.nmis.are_taken(cx.regs.rip))
}

/// `rdmsr` and `wrmsr`.
fn access_msr(cx: &mut Context<'_>, writes: bool) {
    #[allow(clippy::cast_possible_truncation, reason = "the instructions use the low halves")]
    let number = cx.regs.rcx as u32;
    let done = if writes {
        let value = cx.regs.rdx << 32 | cx.regs.rax & 0xffff_ffff;
        msr::write(cx, number, value)
    } else {
        msr::read(cx, number).map(|value| {
            cx.regs.rax = value & 0xffff_ffff;
            cx.regs.rdx = value >> 32;
        })
    };
    match done {
        Ok(()) => {
            let _skipped = skip(cx, if writes { Instruction::Wrmsr } else { Instruction::Rdmsr });
        }
        Err(logic::msr::Fault) => inject(cx, Event::general_protection()),
    }
}

/// `xsetbv`, of which XCR0 is the only register.
fn xsetbv(cx: &mut Context<'_>) {
    #[allow(clippy::cast_possible_truncation, reason = "the instruction uses the low half")]
    let number = cx.regs.rcx as u32;
    let value = cx.regs.rdx << 32 | cx.regs.rax & 0xffff_ffff;
    let Some(pvh) = cx.state.pvh.as_deref_mut() else { return };
    let offered = trap::cpuid::policy(cx.domain).xcr0_offered();
    let allowed = number == 0 && value & 1 != 0 && value & !offered == 0 && pvh.container.cpl() == 0;
    // The CPU knows which combinations there are.
    if !allowed || !guest_registers::set_xcr0(value) {
        return inject(cx, Event::general_protection());
    }
    pvh.xcr0 = value;
    let _skipped = skip(cx, Instruction::Xsetbv);
}
