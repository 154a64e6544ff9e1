//! The way in from the entry code: each upcall of machine goes to the room that answers it.

use logic::lock::Held;
use machine::{
    GuestRegs,
    boot_info::BootInfo,
    mem::boot_frames::BootFrames,
    upcall::{Call, Exception, Hypervisor, Loaded, Return, ShortFrame},
};

use crate::{cpu::Cpu, cpu_loop, hypercall::iret, start, trap};

/// Who answers machine's upcalls.
pub struct Xen;

impl Hypervisor for Xen {
    type Cpu = Cpu;

    fn start(boot: BootInfo, frames: BootFrames, held: Held<'static, 0>) -> ! {
        start::start(boot, frames, held)
    }

    fn start_secondary(number: u32) -> ! {
        start::start_secondary(number)
    }

    #[inline(always)]
    fn call(cpu: &mut Cpu, regs: &mut GuestRegs, call: Call, held: Held<'static, 0>) -> Return {
        trap::call(cpu, regs, call, held)
    }

    #[inline(always)]
    fn iret(cpu: &mut Cpu, frame: &mut ShortFrame) -> Option<Loaded> {
        iret::at_once(cpu, frame)
    }

    #[inline(always)]
    fn exception(cpu: &mut Cpu, regs: &mut GuestRegs, exception: Exception, held: Held<'static, 0>) -> Return {
        trap::exception(cpu, regs, exception, held)
    }

    fn interrupt(cpu: &mut Cpu, vector: u8, held: Held<'static, 0>) {
        cpu_loop::interrupt(cpu, vector, held);
    }

    fn bad_return(cpu: &mut Cpu, regs: &mut GuestRegs, exception: Exception, held: Held<'static, 0>) -> Return {
        trap::bad_return(cpu, regs, exception, held)
    }

    #[inline(always)]
    fn before_guest(cpu: &mut Cpu, regs: &mut GuestRegs, held: Held<'static, 0>) {
        cpu_loop::before_guest(cpu, regs, held);
    }
}

machine::bind!(Xen);
