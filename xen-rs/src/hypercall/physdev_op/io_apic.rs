//! The I/O APICs' registers as the control domain sees them: it may read them, and of what it writes only how a line
//! signals has an effect.

use machine::arch::x86_64::ioapic::{self, Signal};
use xen_abi::{errno::Errno, physdev::Apic};

use crate::{cpu::Context, irq};

/// First register of a line: two for each.
const FIRST_LINE: u32 = 0x10;
const LEVEL: u32 = 1 << 15;
const LOW: u32 = 1 << 13;

/// `PHYSDEVOP_apic_read`. `EINVAL`: there is no I/O APIC.
pub(super) fn read(op: &mut Apic) -> Result<(), Errno> {
    let register = u8::try_from(op.reg).map_err(|_| Errno::EINVAL)?;
    op.value = ioapic::read_register(op.apic_physbase, register).ok_or(Errno::EINVAL)?;
    Ok(())
}

/// `PHYSDEVOP_apic_write`. `EINVAL`: there is no I/O APIC, or no such line.
pub(super) fn write(cx: &mut Context<'_>, op: &Apic) -> Result<(), Errno> {
    let (first, lines) = ioapic::lines_at(op.apic_physbase).ok_or(Errno::EINVAL)?;
    // Destinations and the chip's own registers are the hypervisor's.
    let Some(pin) = op.reg.checked_sub(FIRST_LINE).filter(|at| at & 1 == 0).map(|at| at / 2) else { return Ok(()) };
    if pin >= lines {
        return Err(Errno::EINVAL);
    }
    let signal = Signal { level: op.value & LEVEL != 0, low: op.value & LOW != 0 };
    match irq::set_signal(first.0 + pin, signal, &mut cx.held) {
        // A line in use keeps how it signals, and the caller is not told.
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}
