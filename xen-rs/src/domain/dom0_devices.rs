//! The devices that the control domain gets: all but those that the hypervisor drives.
//!
//! What it does not get is what Xen 4.17 keeps from it: interrupt controllers, the interval timer, the PM timer, the console's
//! UART, and the addresses at which messages arrive. (Xen lets it read the I/O APICs' registers through memory, too; here
//! `PHYSDEVOP_apic_read` is the way.)

use alloc::sync::Arc;

use logic::lock::Held;
use machine::arch::x86_64::{acpi, guest_port};
use xen_abi::errno::Errno;

use super::Domain;
use crate::{irq, topology};

/// Ports of a PC that the hypervisor keeps, as first and last.
const KEPT_PORTS: [(u16, u16); 5] = [
    (0x20, 0x21),   // first 8259
    (0x40, 0x43),   // 8254
    (0x61, 0x61),   // its gate
    (0xa0, 0xa1),   // second 8259
    (0xcfc, 0xcff), // PCI CONFIG_DATA, which takes its address along
];
/// Frames at whose addresses messages become interrupts, local APICs among them (SDM vol. 3A, 11.11.1).
const MESSAGES: core::ops::Range<u64> = 0xfee00..0xfef00;

/// First ports of the four serial lines of a PC, and their interrupts.
const SERIAL: [(u16, u32); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

/// What a control domain in a container gets: the serial lines but for the console's. Anything that reaches memory by itself
/// would meet other memory there than its driver means.
pub fn give_lines(domain: &Arc<Domain>) -> Result<(), Errno> {
    let console = guest_port::console();
    for (first, irq) in SERIAL.into_iter().filter(|(first, _)| console.is_none_or(|(kept, _)| kept != *first)) {
        domain.devices.change_ports(u32::from(first)..u32::from(first) + 8, true)?;
        domain.devices.change_irqs(irq..irq + 1, true)?;
    }
    Ok(())
}

/// Gives them.
pub fn give(domain: &Arc<Domain>, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let devices = &domain.devices;
    let ports = |first: u16, last: u16| u32::from(first)..u32::from(last) + 1;
    devices.change_ports(ports(0, u16::MAX), true)?;
    for (first, last) in KEPT_PORTS {
        devices.change_ports(ports(first, last), false)?;
    }
    if let Some((first, _)) = acpi::platform().pm_timer {
        devices.change_ports(ports(first, first.saturating_add(3)), false)?;
    }
    if let Some((first, last)) = guest_port::console() {
        devices.change_ports(ports(first, last), false)?;
    }
    // Line 0 is the interval timer's.
    devices.change_irqs(1..irq::count_of(true, held), true)?;

    let memory = &domain.memory;
    memory.change_io(&(0..1 << (topology::physical_address_bits() - 12)), true)?;
    memory.change_io(&MESSAGES, false)?;
    for frame in acpi::interrupt_controllers() {
        memory.change_io(&(frame..frame + 1), false)?;
    }
    Ok(())
}
