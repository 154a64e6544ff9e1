//! Privileged instructions of a PV guest: fetched, judged by `logic::emulate`, carried out here.

use core::sync::atomic::Ordering;

use logic::emulate::control::{self, cr4};
use logic::emulate::decode::{CodeSize, Gpr, MAX_LENGTH, Op, Undecoded, decode};
use logic::emulate::privilege::{Privilege, Verdict};
use logic::guest::In;
use logic::page::{Fail, entry::bit};
use logic::regs::rflags;
use logic::trap::{debug::DR6_SINGLE_STEP, is_canonical, selector, vector};
use machine::arch::x86_64::{cpu, guest_registers, segments};
use machine::mem::{guest_copy, guest_words};
use xen_abi::ids::Mfn;
use xen_abi::vm_assist::VMASST_TYPE_ARCHITECTURAL_IOPL;

use super::state::PvState;
use super::{cpuid, deliver, io, msr, segments as vcpu_segments};
use crate::cpu::Context;
use crate::{guest::Handle, memory};

/// Page-fault error code of a fetch (SDM vol. 3A, 4.7).
const FETCH: u32 = 1 << 4;

/// How an instruction ends.
pub(super) enum Done {
    /// Step over it.
    Step,
    /// Its effect included the instruction pointer, or it is to be tried again.
    Stay,
    /// #GP(0).
    Fault,
    /// #UD.
    Undefined,
    /// A page fault on its memory operand.
    PageFault {
        /// Where.
        address: u64,
        /// On writing.
        write: bool,
    },
}

/// Tries to emulate the instruction at the guest's instruction pointer. False: it is not one of those; the guest gets
/// its own fault.
pub fn emulate(cx: &mut Context<'_>) -> bool {
    let Some(size) = code_size(cx.regs.cs) else {
        return false;
    };
    let mut code = [0; MAX_LENGTH + 1];
    let missing = fetch(cx.regs.rip, &mut code);
    let code = code.get(..MAX_LENGTH - missing).unwrap_or_default();
    let instruction = match decode(code, size) {
        Ok(instruction) => instruction,
        Err(Undecoded::Locked) => {
            deliver::exception(cx, vector::INVALID_OPCODE, None);
            return true;
        }
        Err(Undecoded::Truncated) if missing != 0 => {
            let at = cx.regs.rip.wrapping_add(code.len() as u64);
            if !is_canonical(at) {
                return false;
            }
            // The rest of it lies where nothing can be fetched.
            let fetch = if cpu::has(cpu::Features::NX) { FETCH } else { 0 };
            deliver::page_fault(cx, at, fetch);
            return true;
        }
        Err(Undecoded::Truncated | Undecoded::Foreign) => return false,
    };
    let privilege = privilege(cx);
    #[allow(clippy::cast_possible_truncation, reason = "DX")]
    let dx = cx.regs.rdx as u16;
    // The CPU does not see breakpoints on ports.
    let ports = instruction.op.ports(dx);
    let hits = ports.map_or(0, |(port, bytes)| cx.state.pv.debug.io_hits(port, bytes));
    let performs = match privilege.judge(instruction.op, ports) {
        Verdict::Skip => false,
        Verdict::Perform => true,
        Verdict::AskBitmap { port, bytes } if io::bitmap_allows(cx, port, bytes) => true,
        Verdict::AskBitmap { .. } | Verdict::Refuse => return false,
    };
    // The one place that performs: there it stands in line.
    let done = if performs { perform(cx, instruction.op) } else { Done::Step };
    match done {
        Done::Step => step_with(cx, instruction.length, hits),
        Done::Stay => {}
        Done::Fault => deliver::general_protection(cx),
        Done::Undefined => deliver::exception(cx, vector::INVALID_OPCODE, None),
        Done::PageFault { address, write } => deliver::page_fault(cx, address, u32::from(write) << 1),
    }
    true
}

/// Reads what may be an instruction; how many bytes of the longest one could not be read.
#[inline(always)]
fn fetch(rip: u64, code: &mut [u8; MAX_LENGTH + 1]) -> usize {
    if let Some([low, high]) = guest_words::read_2_at_once(rip) {
        *code = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
        return 0;
    }
    code.get_mut(..MAX_LENGTH).map_or(MAX_LENGTH, |code| guest_copy::copy_in_up_to(rip, code))
}

/// Steps over an emulated instruction; a single step becomes the guest's #DB.
pub fn step(cx: &mut Context<'_>, length: u8) {
    step_with(cx, length, 0);
}

/// The same after an instruction that has hit breakpoints, given as bits of DR6.
fn step_with(cx: &mut Context<'_>, length: u8, hits: u64) {
    cx.regs.rip = cx.regs.rip.wrapping_add(length.into());
    cx.regs.rflags &= !rflags::RF;
    let stepped = if cx.regs.rflags & rflags::TF != 0 { DR6_SINGLE_STEP } else { 0 };
    if stepped | hits != 0 {
        cx.state.pv.debug.dr6 |= stepped | hits;
        deliver::exception(cx, vector::DEBUG, None);
    }
}

/// How the guest's code decodes; `None` for 16-bit code.
fn code_size(cs: u64) -> Option<CodeSize> {
    const LONG: u32 = 1 << 21;
    const WIDE: u32 = 1 << 22;
    match cs & 0xffff {
        selector::FLAT_CODE64 => Some(CodeSize::Long),
        selector::FLAT_CODE32 => Some(CodeSize::Compat),
        #[allow(clippy::cast_possible_truncation, reason = "masked")]
        other => match segments::attributes(other as u16)? {
            found if found & LONG != 0 => Some(CodeSize::Long),
            found if found & WIDE != 0 => Some(CodeSize::Compat),
            _ => None,
        },
    }
}

fn privilege(cx: &Context<'_>) -> Privilege {
    let assist = 1 << VMASST_TYPE_ARCHITECTURAL_IOPL;
    Privilege {
        in_kernel: cx.state.pv.in_kernel,
        iopl: cx.state.pv.iopl,
        architectural_iopl: cx.domain.vm_assist.load(Ordering::Relaxed) & assist != 0,
        tsc_disabled: cx.state.pv.cr4 & cr4::TSD != 0,
    }
}

fn perform(cx: &mut Context<'_>, op: Op) -> Done {
    match op {
        Op::ReadCr { cr, into } => read_control(cx, cr, into),
        Op::WriteCr { cr, from } => write_control(cx, cr, from.read(cx.regs)),
        Op::ReadDr { dr, into } => match cx.state.pv.debug.read(dr.into(), cx.state.pv.cr4) {
            Ok(value) => {
                into.write(cx.regs, value);
                Done::Step
            }
            Err(_) => Done::Undefined,
        },
        Op::WriteDr { dr, from } => {
            use logic::trap::debug::Refused;
            match write_debug_register(cx, dr.into(), from.read(cx.regs)) {
                Ok(()) => Done::Step,
                Err(Refused::NoRegister) => Done::Undefined,
                Err(_) => Done::Fault,
            }
        }
        Op::Clts => {
            set_task_switched(&mut cx.state.pv, false);
            Done::Step
        }
        Op::WriteBack => {
            if cx.domain.is_control() {
                guest_registers::write_back_caches();
            }
            Done::Step
        }
        Op::Rdmsr => rdmsr(cx),
        Op::Wrmsr => wrmsr(cx),
        Op::Cpuid => {
            cpuid::cpuid(cx, false);
            Done::Step
        }
        Op::Rdtsc | Op::Rdtscp => {
            set_pair(cx, cx.domain.tsc.read());
            if op == Op::Rdtscp {
                cx.regs.rcx = cx.state.pv.tsc_aux.into();
            }
            Done::Step
        }
        Op::Xsetbv => xsetbv(cx),
        Op::In { port, width } => io::input(cx, port, width),
        Op::Out { port, width } => io::output(cx, port, width),
        Op::Ins(string) => io::string_input(cx, string),
        Op::Outs(string) => io::string_output(cx, string),
        Op::InterruptFlag => Done::Step,
    }
}

fn read_control(cx: &mut Context<'_>, number: u8, into: Gpr) -> Done {
    let pv = &cx.state.pv;
    let value = match number {
        0 => control::read_cr0(guest_registers::read_cr0(), pv.task_switched),
        2 => pv.cr2,
        3 => cx.state.paging.kernel_mfn().map_or(0, |mfn| mfn.0 << 12),
        4 => pv.cr4,
        _ => return Done::Fault,
    };
    into.write(cx.regs, value);
    Done::Step
}

fn write_control(cx: &mut Context<'_>, number: u8, value: u64) -> Done {
    match number {
        0 => match control::write_cr0(guest_registers::read_cr0(), value) {
            Ok(set) => {
                set_task_switched(&mut cx.state.pv, set);
                Done::Step
            }
            Err(_) => {
                log::debug!("{} Attempt to change unmodifiable CR0 flags", super::crash::Name(cx.vcpu));
                Done::Fault
            }
        },
        2 => {
            cx.state.pv.cr2 = value;
            cx.vcpu.info.get().set_cr2(value);
            Done::Step
        }
        // The bits below the frame number choose how the table is cached: not the guest's business.
        3 => match memory::set_kernel_root(cx, Mfn((value & bit::ADDRESS) >> 12)) {
            Ok(()) if memory::finish_deferred(cx) => Done::Step,
            // Not finished: the guest executes the instruction again.
            Ok(()) | Err(Fail::Again) => Done::Stay,
            Err(Fail::Refused(_)) => Done::Fault,
        },
        4 => {
            cx.state.pv.cr4 = guest_cr4(cx.domain, value);
            guest_registers::set_guest_cr4(vcpu_segments::real_cr4(&cx.state.pv, cx.domain));
            Done::Step
        }
        _ => Done::Fault,
    }
}

/// The CR4 that a guest of the domain gets for a wanted value.
#[inline(never)]
pub fn guest_cr4(domain: &crate::domain::Domain, wanted: u64) -> u64 {
    use logic::cpuid::features::{DE, FSGSBASE, TSC, XSAVE};
    let features = cpuid::with_policy(domain, logic::cpuid::policy::Policy::features);
    let allowed =
        control::cr4_allowed(features.has(TSC), features.has(DE), features.has(FSGSBASE), features.has(XSAVE));
    control::fix_cr4(wanted, allowed, cpu::read_cr4())
}

/// Sets the guest's CR0.TS, for `clts`, `mov cr0` and `fpu_taskswitch`.
#[inline(always)]
pub fn set_task_switched(state: &mut PvState, set: bool) {
    if state.task_switched != set {
        state.task_switched = set;
        guest_registers::set_task_switched(set);
    }
}

/// Writes a debug register of the running vCPU, for `mov` and `set_debugreg`.
pub fn write_debug_register(cx: &mut Context<'_>, index: u64, value: u64) -> Result<(), logic::trap::debug::Refused> {
    let pv = &mut cx.state.pv;
    let was_active = pv.debug.active();
    pv.debug.write(index, value, pv.cr4)?;
    if pv.debug.active() {
        vcpu_segments::load_debug_registers(pv);
    } else if was_active {
        guest_registers::set_debug_control(0);
    }
    Ok(())
}

fn rdmsr(cx: &mut Context<'_>) -> Done {
    #[allow(clippy::cast_possible_truncation, reason = "ECX")]
    let index = cx.regs.rcx as u32;
    match msr::read(cx, index) {
        Ok(value) => set_pair(cx, value),
        Err(_) => {
            let handler = cx.state.pv.traps.gate(vector::GENERAL_PROTECTION).address;
            if handler != 0 || !msr::exists_on_host(index) {
                return Done::Fault;
            }
            set_pair(cx, 0);
        }
    }
    Done::Step
}

fn wrmsr(cx: &mut Context<'_>) -> Done {
    #[allow(clippy::cast_possible_truncation, reason = "ECX")]
    let index = cx.regs.rcx as u32;
    match msr::write(cx, index, pair(cx)) {
        Ok(()) => Done::Step,
        Err(_) => Done::Fault,
    }
}

fn xsetbv(cx: &mut Context<'_>) -> Done {
    if cx.state.pv.cr4 & cr4::OSXSAVE == 0 {
        return Done::Undefined;
    }
    let value = pair(cx);
    let offered = cpuid::policy(cx.domain).xcr0_offered();
    let index = cx.regs.rcx & 0xffff_ffff;
    if index != 0 || !logic::cpuid::xstate::xcr0_is_valid(value, offered) || !guest_registers::set_xcr0(value) {
        return Done::Fault;
    }
    cx.state.pv.xcr0 = value;
    Done::Step
}

/// EDX:EAX.
fn pair(cx: &Context<'_>) -> u64 {
    cx.regs.rdx << 32 | cx.regs.rax & 0xffff_ffff
}

fn set_pair(cx: &mut Context<'_>, value: u64) {
    cx.regs.rax = value & 0xffff_ffff;
    cx.regs.rdx = value >> 32;
}

/// For string instructions: copies to or from the guest in its own width. A fault is at the first byte that is not there.
pub(super) fn copy_element(address: u64, bytes: &mut [u8], write: bool) -> Result<(), Done> {
    use machine::mem::guest_copy::{copy_in_up_to, copy_out_up_to};
    let missing = if write { copy_out_up_to(address, bytes) } else { copy_in_up_to(address, bytes) };
    if missing == 0 {
        return Ok(());
    }
    Err(Done::PageFault { address: address.wrapping_add((bytes.len() - missing) as u64), write })
}

/// Reads the two bytes of the I/O bitmap that decide about a port; if one of them cannot be read, they are all ones.
pub(super) fn bitmap_word(va: u64) -> u16 {
    Handle::<[u8; 2], In>::new(va).read().map_or(u16::MAX, u16::from_le_bytes)
}
