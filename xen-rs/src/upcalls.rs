//! The way in from the entry code: each upcall of machine goes to the room that answers it.

use logic::lock::Held;
use machine::{
    GuestRegs,
    boot_info::BootInfo,
    mem::boot_frames::BootFrames,
    upcall::{Call, Exception, Hypervisor, Stays},
};

use crate::{cpu::Cpu, cpu_loop, start, trap};

/// Who answers machine's upcalls.
pub struct Xen;

impl Hypervisor for Xen {
    type Cpu = Cpu;

    fn start(boot: BootInfo, frames: BootFrames) -> ! {
        start::start(boot, frames)
    }

    fn start_secondary(number: u32) -> ! {
        start::start_secondary(number)
    }

    #[inline(always)]
    fn call(cpu: &mut Cpu, regs: &mut GuestRegs, call: Call) {
        trap::call(cpu, regs, call, Held::entry());
    }

    #[inline(always)]
    fn exception(cpu: &mut Cpu, regs: &mut GuestRegs, exception: Exception) {
        trap::exception(cpu, regs, exception, Held::entry());
    }

    fn interrupt(cpu: &mut Cpu, vector: u8) {
        cpu_loop::interrupt(cpu, vector, Held::entry());
    }

    fn bad_return(cpu: &mut Cpu, regs: &mut GuestRegs, exception: Exception) {
        trap::bad_return(cpu, regs, exception, Held::entry());
    }

    #[inline(always)]
    fn before_guest(cpu: &mut Cpu, regs: &mut GuestRegs) -> Stays {
        cpu_loop::before_guest(cpu, regs, Held::entry())
    }
}

machine::bind!(Xen);
