//! The devices that the control domain gets: all but those that the hypervisor drives.
//!
//! What it does not get is what Xen keeps from it: interrupt controllers, the interval timer, the PM timer, reset and
//! A20 lines, the console's UART, and the addresses at which messages arrive.

use alloc::sync::Arc;

use logic::lock::Held;
use machine::arch::x86_64::{acpi, guest_port};
use xen_abi::errno::Errno;

use super::Domain;
use crate::{irq, topology};

/// Ports of a PC that the hypervisor keeps, as first and last.
const KEPT_PORTS: [(u16, u16); 9] = [
    (0x20, 0x21),   // first 8259
    (0x40, 0x43),   // 8254
    (0x61, 0x61),   // its gate
    (0x92, 0x92),   // reset, A20
    (0xa0, 0xa1),   // second 8259
    (0xf0, 0xf0),   // the x87's error
    (0x4d0, 0x4d1), // trigger modes of the 8259s
    (0xcf9, 0xcf9), // reset
    (0xcfc, 0xcff), // PCI CONFIG_DATA, which takes its address along
];
/// Frames at whose addresses messages become interrupts, local APICs among them (SDM vol. 3A, 11.11.1).
const MESSAGES: core::ops::Range<u64> = 0xfee00..0xfef00;

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
    memory.permit_io(0..1 << (topology::physical_address_bits() - 12));
    memory.forbid_io(MESSAGES);
    for frame in acpi::interrupt_controllers() {
        memory.forbid_io(frame..frame + 1);
    }
    Ok(())
}
