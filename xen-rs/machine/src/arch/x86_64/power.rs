//! The end of a run: stop, reboot, power off.
//!
//! Unsafe: instructions that stop the machine.

use super::port::{outb, outw};
use crate::command_line::CommandLine;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Set by `noreboot` on the command line: a stopped machine stays stopped, so that its last words can be read.
static NO_REBOOT: AtomicBool = AtomicBool::new(false);

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

/// A way to restart the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Way {
    /// ACPI's reset register.
    Acpi,
    /// The chipset's reset control, port 0xcf9.
    Pci,
    /// The keyboard controller's reset line.
    Keyboard,
    /// An exception that cannot be delivered.
    TripleFault,
}

impl Way {
    const ALL: [Self; 4] = [Self::Acpi, Self::Pci, Self::Keyboard, Self::TripleFault];

    /// By its letter in `reboot=`.
    fn of(letter: u8) -> Option<Self> {
        match letter {
            b'a' => Some(Self::Acpi),
            b'p' => Some(Self::Pci),
            b'k' => Some(Self::Keyboard),
            b't' => Some(Self::TripleFault),
            _ => None,
        }
    }

    /// Tries it; returns if it does not work.
    fn go(self) {
        super::serial::write_panic(format_args!("(XEN) Resetting by {self:?}\n"));
        // SAFETY: registers that reset the machine, by the firmware's word (ACPI 6.5, 4.8.3.6) or as every PC has them;
        // losing the machine's state is the intent.
        unsafe {
            match self {
                Self::Acpi => {
                    if let Some((port, value)) = super::acpi::platform().reset {
                        outb(port, value);
                    }
                }
                Self::Pci => {
                    outb(0xcf9, 0x02);
                    outb(0xcf9, 0x06);
                }
                Self::Keyboard => outb(0x64, 0xfe),
                Self::TripleFault => {
                    // No interrupt table, then an exception.
                    let empty = [0u16; 5];
                    asm!("lidt [{}]", "ud2", in(reg) &raw const empty, options(noreturn));
                }
            }
        }
        super::tsc::delay_us(100_000);
    }
}

/// The way that `reboot=` asks for.
static FIRST_WAY: AtomicU8 = AtomicU8::new(b'-');

/// Reads `reboot=`: the first letter of a way, or `no`; `warm` and `cold` make no difference to these ways.
pub(crate) fn set_reboot(line: CommandLine<'_>) {
    let mut no_reboot = line.flag("noreboot", false);
    for word in line.value("reboot").unwrap_or_default().split(',') {
        match word.bytes().next() {
            Some(b'n') => no_reboot = true,
            Some(letter) if Way::of(letter).is_some() => FIRST_WAY.store(letter, Ordering::Relaxed),
            _ => {}
        }
    }
    NO_REBOOT.store(no_reboot, Ordering::Relaxed);
}

/// Restarts the machine by the ways a PC has, the gentle ones first unless `reboot=` names another.
pub fn reboot() -> ! {
    stop_others();
    for way in Way::of(FIRST_WAY.load(Ordering::Relaxed)).into_iter().chain(Way::ALL) {
        way.go();
    }
    halt()
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
    // The power does not fail at once.
    super::tsc::delay_us(1_000_000);
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
