//! Sleep states, which dom0's ACPI asks for by the values that it would write to the PM1 registers.

use machine::arch::x86_64::power;
use xen_abi::{errno::Errno, platform::EnterAcpiSleep};

use super::Reply;
use crate::console;

/// Off.
const S5: u32 = 5;

/// `XENPF_enter_acpi_sleep`. `EPERM`: the firmware names no PM1 registers; `EINVAL`: no such state or flag.
pub(super) fn sleep(op: &EnterAcpiSleep) -> Result<Reply, Errno> {
    if !power::can_switch_off() {
        return Err(Errno::EPERM);
    }
    if op.flags != 0 || !(1..=S5).contains(&op.sleep_state) {
        return Err(Errno::EINVAL);
    }
    if op.sleep_state != S5 {
        return Err(Errno::EOPNOTSUPP);
    }
    log::info!("Entering ACPI S5 state.");
    console::flush();
    power::power_off()
}
