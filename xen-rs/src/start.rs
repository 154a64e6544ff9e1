//! Where machine hands over: the start of the hypervisor, and the upcalls from the entry code.

use crate::cpu::Cpu;
use machine::GuestRegs;
use machine::boot_info::BootInfo;
use machine::upcall::{Call, Exception, Hypervisor};

/// Who answers machine's upcalls.
struct Xen;

impl Hypervisor for Xen {
    type Cpu = Cpu;

    fn start(boot: BootInfo, frames: machine::mem::boot_frames::BootFrames) -> ! {
        log::info!("{} modules, {} bytes free", boot.modules.len(), frames.free_bytes());
        panic!("nothing to run");
    }

    fn call(_cpu: &mut Cpu, _regs: &mut GuestRegs, _call: Call) {}

    fn exception(_cpu: &mut Cpu, _regs: &mut GuestRegs, _exception: Exception) {}

    fn interrupt(_cpu: &mut Cpu, _vector: u8) {}

    fn bad_return(_cpu: &mut Cpu, _regs: &mut GuestRegs, _exception: Exception) {}

    fn before_guest(_cpu: &mut Cpu, _regs: &mut GuestRegs) {}
}

machine::bind!(Xen);
