//! Why the guest came back, in the words of both vendors (SDM vol. 3D, appendix C).
//!
//! Unsafe: an NMI that ended a guest's run is handed to the hypervisor's own handler.

use core::arch::asm;

use logic::regs::{GuestRegs, rflags};

use super::control_registers::{self, Fault};
use super::fields::{Field, Register, primary};
use super::state::{self, segment};
use super::vcpu::{NMI_BLOCKED, SHADOWS, SINGLE_STEP, VALID, VmxVcpu};
use super::virtual_apic;
use super::vmcs::{read, write};
use crate::arch::x86_64::cpu;
use crate::container::exit::{Access, Event, EventKind, Exit, PortAccess};
use crate::container::state::attributes;
use crate::mem::direct_map::va_of;
use logic::emulate::decode::Gpr;
use logic::hvm::walk::frame_of;

/// The reason says that the entry itself failed.
const ENTRY_FAILED: u64 = 1 << 31;

/// Sorts an exit.
#[inline(always)]
pub(super) fn exit(vcpu: &mut VmxVcpu, regs: &mut GuestRegs) -> Exit {
    if read(Field::VECTORING_EVENT) & VALID != 0 {
        interrupted_delivery(vcpu);
    }
    match vcpu.reason {
        1 => Exit::Interrupt,
        10 => Exit::Cpuid,
        12 => Exit::Hlt,
        18 => Exit::Hypercall,
        30 => port(),
        31 => Exit::Msr { writes: false },
        32 => Exit::Msr { writes: true },
        48 => nested_fault(),
        reason => rare(vcpu, regs, reason),
    }
}

/// The exit came while an event was being delivered: it is delivered again. An instruction that raised it is executed again
/// instead.
#[cold]
fn interrupted_delivery(vcpu: &mut VmxVcpu) {
    let event = read(Field::VECTORING_EVENT);
    let kind = event >> 8 & 7;
    if kind == EventKind::Interrupt as u64 || kind == EventKind::Nmi as u64 || kind == EventKind::Exception as u64 {
        // Bit 12 means nothing here.
        vcpu.pending = event & (VALID | 0xfff);
        vcpu.pending_error = read(Field::VECTORING_ERROR);
    }
    // Its delivery has begun, which holds others off, also if another event comes in its place.
    if kind == EventKind::Nmi as u64 {
        write(Field::INTERRUPTIBILITY, read(Field::INTERRUPTIBILITY) | NMI_BLOCKED);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the fields have these widths")]
fn port() -> Exit {
    let qualification = read(Field::QUALIFICATION);
    Exit::Port(PortAccess {
        port: (qualification >> 16) as u16,
        bytes: (qualification & 7) as u8 + 1,
        reads: qualification & 1 << 3 != 0,
        string: qualification & 1 << 4 != 0,
        repeated: qualification & 1 << 5 != 0,
        next: behind(read(Field::GUEST_RIP)),
    })
}

/// Where the guest goes on behind the instruction at this place. Outside 64-bit code addresses have 32 bits.
fn behind(rip: u64) -> u64 {
    let next = rip.wrapping_add(read(Field::INSTRUCTION_LENGTH));
    if next >> 32 != rip >> 32 && !in_64bit_code() { next & 0xffff_ffff } else { next }
}

fn in_64bit_code() -> bool {
    segment(Register::Cs).attributes & attributes::LONG != 0 && read(Field::GUEST_EFER) & 1 << 10 != 0
}

fn nested_fault() -> Exit {
    const WRITE: u64 = 1 << 1;
    const FETCH: u64 = 1 << 2;
    const BY_IRET: u64 = 1 << 12;
    let qualification = read(Field::QUALIFICATION);
    // An `iret` that faulted has unblocked NMIs already.
    if qualification & BY_IRET != 0 && read(Field::VECTORING_EVENT) & VALID == 0 {
        write(Field::INTERRUPTIBILITY, read(Field::INTERRUPTIBILITY) | NMI_BLOCKED);
    }
    let access = match qualification {
        _ if qualification & WRITE != 0 => Access::Write,
        _ if qualification & FETCH != 0 => Access::Execute,
        _ => Access::Read,
    };
    Exit::NestedFault { address: read(Field::GUEST_PHYSICAL), access }
}

#[cold]
#[inline(never)]
fn rare(vcpu: &mut VmxVcpu, regs: &mut GuestRegs, reason: u64) -> Exit {
    const MACHINE_CHECK: u64 = 41;
    if reason & ENTRY_FAILED != 0 {
        // It was not the guest's state.
        if reason & 0xffff == MACHINE_CHECK {
            cpu::take_machine_check();
        }
        return Exit::Refused(reason);
    }
    match reason & 0xffff {
        0 => exception(vcpu, regs),
        2 => Exit::Shutdown,
        // INIT and start-up of this CPU: nobody sends one.
        3 | 4 => Exit::Interrupt,
        // The preemption timer: interrupts are let in.
        52 => {
            state::start_stay();
            Exit::Interrupt
        }
        56 => virtual_apic::written(vcpu),
        7 => {
            vcpu.want_window(false);
            Exit::Window
        }
        8 => {
            vcpu.change_primary(primary::NMI_WINDOW, false);
            Exit::NmiWindow
        }
        9 => Exit::Task,
        13 | 54 => Exit::CacheFlush,
        16 | 51 => Exit::ReadTsc { with_aux: reason & 0xffff == 51 },
        15 => Exit::Forbidden,
        // The task priority has fallen below that of an interrupt which waits.
        43 => {
            vcpu.watch_priority(0);
            Exit::Window
        }
        // RSM, the instructions of VMX itself, MWAIT, MONITOR and what is not offered.
        11 | 17 | 19..=27 | 36 | 39 | 50 | 53 | 58..=61 | 63 | 64 => Exit::Undefined,
        28 => control_register(vcpu, regs),
        29 => {
            vcpu.take_debug_registers();
            Exit::Debug
        }
        55 => Exit::Xsetbv,
        _ => Exit::Refused(reason),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "vectors and error codes")]
fn exception(vcpu: &mut VmxVcpu, regs: &GuestRegs) -> Exit {
    const NMI: u64 = 2;
    const INT1: u64 = 5;
    const DEBUG: u64 = 1;
    /// B0 to B3, BD, BS.
    const DEBUG_CAUSES: u64 = 0x600f;
    const GENERAL_DETECT: u64 = 1 << 13;
    const BY_IRET: u64 = 1 << 12;
    let event = read(Field::EXIT_EVENT);
    if event >> 8 & 7 == INT1 {
        return Exit::Int1;
    }
    if event >> 8 & 7 == NMI {
        // SAFETY: the hypervisor's own gate, whose `iretq` lets NMIs in again.
        unsafe { asm!("int 2", options(nostack)) };
        return Exit::Nmi;
    }
    if event & BY_IRET != 0 && read(Field::VECTORING_EVENT) & VALID == 0 && event & 0xff != 8 {
        write(Field::INTERRUPTIBILITY, read(Field::INTERRUPTIBILITY) | NMI_BLOCKED);
    }
    if event & 0xff == DEBUG {
        let causes = read(Field::QUALIFICATION) & DEBUG_CAUSES;
        vcpu.add_debug_causes(causes);
        // The handler may use the registers again (SDM vol. 3B, 18.2.4), which the CPU leaves to us, too.
        if causes & GENERAL_DETECT != 0 {
            write(Field::GUEST_DR7, read(Field::GUEST_DR7) & !GENERAL_DETECT);
        }
        // The CPU has cleared it, and demands it of an entry in such a shadow (SDM vol. 3C, 27.3.1.5); delivering #DB ends both.
        if regs.rflags & rflags::TF != 0 && read(Field::INTERRUPTIBILITY) & SHADOWS != 0 {
            write(Field::PENDING_DEBUG, read(Field::PENDING_DEBUG) | SINGLE_STEP);
        }
    }
    Exit::Exception { vector: event as u8, error: read(Field::EXIT_EVENT_ERROR) as u32 }
}

/// A write to CR0 or CR4 that changes a bit of the machine's, or any access to CR8 where the CPU has no shadow of it. It is
/// carried out here.
#[allow(clippy::cast_possible_truncation, reason = "the fields have these widths")]
fn control_register(vcpu: &mut VmxVcpu, regs: &mut GuestRegs) -> Exit {
    const MOV_TO: u64 = 0;
    const MOV_FROM: u64 = 1;
    let qualification = read(Field::QUALIFICATION);
    let (number, kind, general) = (qualification & 0xf, qualification >> 4 & 3, qualification >> 8 & 0xf);
    let in_64bit_code = in_64bit_code();
    let register = Gpr(general as u8);
    let value = if in_64bit_code { register.read(regs) } else { register.read(regs) & 0xffff_ffff };
    let done = match (number, kind) {
        (0, MOV_TO) => control_registers::write_cr0(value, in_64bit_code),
        (4, MOV_TO) => control_registers::write_cr4(value),
        (8, MOV_TO) if value >> 4 == 0 => {
            vcpu.set_cr8(value as u8);
            Ok(())
        }
        (8, MOV_FROM) => {
            register.write(regs, vcpu.cr8().into());
            Ok(())
        }
        _ => Err(Fault),
    };
    if done.is_err() || !load_pointers(vcpu) {
        vcpu.inject(Event::general_protection());
        return Exit::Debug;
    }
    if number != 8 {
        vcpu.flush_linear();
    }
    regs.rip = behind(regs.rip);
    vcpu.end_shadow();
    regs.rflags &= !rflags::RF;
    if regs.rflags & rflags::TF != 0 {
        vcpu.end_step();
    }
    Exit::Debug
}

/// Loads the page-directory pointers where they are registers, as a write to CR0 or CR4 does. False: there is no memory.
pub(super) fn load_pointers(vcpu: &VmxVcpu) -> bool {
    if !control_registers::has_pointers() {
        return true;
    }
    let at = read(Field::GUEST_CR3) & 0xffff_ffe0;
    let Some(found) = vcpu.tables.lookup(frame_of(at)) else { return false };
    for i in 0..4u32 {
        let place = va_of(found.mfn) + at % 4096 + u64::from(i) * 8;
        // SAFETY: aligned, within a page of the guest's memory, which is in the direct map; the guest may write it.
        let value = unsafe { (place as *const u64).read_volatile() };
        write(Field(Field::GUEST_PDPTE0.0 + 2 * i), value);
    }
    true
}
