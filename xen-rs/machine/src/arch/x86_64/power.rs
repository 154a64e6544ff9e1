//! The end of a run: stop, reboot, power off.
//!
//! Unsafe: instructions that stop the machine.

use super::port::{outb, outw};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

/// Set by `noreboot` on the command line: a stopped machine stays stopped, so that its last words can be read.
static NO_REBOOT: AtomicBool = AtomicBool::new(false);

/// Remembers the option `noreboot`.
pub fn set_no_reboot(no_reboot: bool) {
    NO_REBOOT.store(no_reboot, Ordering::Relaxed);
}

/// Whether `noreboot` was given.
#[must_use]
pub fn no_reboot() -> bool {
    NO_REBOOT.load(Ordering::Relaxed)
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        // SAFETY: with interrupts off nothing but an NMI wakes the CPU, and then it halts again.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Stops all CPUs for good.
pub fn halt_machine() -> ! {
    stop_others();
    halt()
}

#[cfg(target_os = "none")]
fn stop_others() {
    crate::mailbox::stop_others();
}

#[cfg(not(target_os = "none"))]
fn stop_others() {}

/// Restarts the machine by the ways a PC has, the gentle ones first.
pub fn reboot() -> ! {
    stop_others();
    // SAFETY: port 0xcf9 is the chipset's reset control, port 0x64 the keyboard controller's command (pulse reset);
    // losing the machine's state is the intent.
    unsafe {
        if let Some((port, value)) = super::acpi::platform().reset {
            outb(port, value);
        }
        outb(0xcf9, 0x02);
        outb(0xcf9, 0x06);
        for _ in 0..1_000_000 {
            asm!("pause", options(nomem, nostack));
        }
        outb(0x64, 0xfe);
        for _ in 0..1_000_000 {
            asm!("pause", options(nomem, nostack));
        }
        // A triple fault: no interrupt table, then an exception.
        let empty = [0u16; 5];
        asm!("lidt [{}]", "ud2", in(reg) &raw const empty, options(noreturn));
    }
}

/// Whether the firmware says how to switch the machine off.
#[must_use]
pub fn can_switch_off() -> bool {
    super::acpi::platform().power_off.is_some()
}

/// Switches the machine off, or stops it where that cannot be done.
pub fn power_off() -> ! {
    const SLEEP_ENABLE: u16 = 1 << 13;
    stop_others();
    if let Some(off) = super::acpi::platform().power_off {
        let [a, b] = off.types.map(|kind| u16::from(kind) << 10 | SLEEP_ENABLE);
        // SAFETY: the PM1 control registers that the firmware names (ACPI 6.5, 4.8.3.2); the end of all is the intent.
        unsafe {
            outw(off.pm1a, a);
            if let Some(port) = off.pm1b {
                outw(port, b);
            }
        }
    }
    super::serial::write_panic(format_args!("(XEN) the machine can be switched off now\n"));
    halt()
}

/// What happens after the last line of a fatal error: reboot, or stay, as the command line says.
pub fn stop_after_error() -> ! {
    if no_reboot() {
        super::serial::write_panic(format_args!("(XEN) machine stopped ('noreboot' is set), reset it by hand\n"));
        halt_machine()
    }
    super::serial::write_panic(format_args!("(XEN) rebooting the machine\n"));
    reboot()
}
