//! The fixed description table (ACPI 6.5, 5.2.9): the power management timer, how the machine is switched off and reset.

use super::root::{HEADER, Table};
use super::{Complaint, Platform, PowerOff};
use crate::boot::area::Physical;

/// Offsets. An address has its place in the first version of the table and a wider one in later versions.
const DSDT: (u64, u64) = (40, 140);
const PM1A_CONTROL: (u64, u64) = (64, 172);
const PM1B_CONTROL: (u64, u64) = (68, 184);
const PM_TIMER: (u64, u64) = (76, 208);
const PM_TIMER_LENGTH: u64 = 91;
const FLAGS: u64 = 112;
const RESET_REGISTER: u64 = 116;
const RESET_VALUE: u64 = 128;
/// Flags: the timer has 32 bits; the reset register is there.
const WIDE_TIMER: u32 = 1 << 8;
const CAN_RESET: u32 = 1 << 10;
/// The address space of I/O ports in a generic address (ACPI 6.5, 5.2.3.2).
const SYSTEM_IO: u8 = 1;

/// Reads the table, and of the DSDT what it takes to switch off.
pub(super) fn read<P: Physical>(platform: &mut Platform, table: Table<P>, complain: &mut impl FnMut(Complaint)) {
    let flags = u32_at(table, FLAGS);
    if table.entry(PM_TIMER_LENGTH, 1).is_some_and(|entry| entry.byte(0) == 4) {
        platform.pm_timer = port(table, PM_TIMER).map(|port| (port, flags & WIDE_TIMER != 0));
    }
    if flags & CAN_RESET != 0 {
        let value = table.entry(RESET_VALUE, 1).map(|entry| entry.byte(0));
        platform.reset = generic_port(table, RESET_REGISTER).flatten().zip(value);
    }
    let Some(pm1a) = port(table, PM1A_CONTROL) else { return };
    let dsdt = table.entry(DSDT.1, 8).map(|entry| entry.u64(0)).filter(|at| *at != 0);
    let dsdt = dsdt.unwrap_or_else(|| u64::from(u32_at(table, DSDT.0)));
    let area = table.area.follow(dsdt);
    if dsdt == 0 || !area.says(0, b"DSDT") {
        complain(Complaint::Address(*b"DSDT", dsdt));
        return;
    }
    platform.power_off = Table::at(area, *b"DSDT", complain).and_then(sleep_types).map(|types| PowerOff {
        pm1a,
        pm1b: port(table, PM1B_CONTROL),
        types,
    });
}

fn u32_at(table: Table<impl Physical>, offset: u64) -> u32 {
    table.entry(offset, 4).map_or(0, |entry| entry.u32(0))
}

/// The I/O port at a pair of places: the wider one where it holds something.
fn port(table: Table<impl Physical>, (old, new): (u64, u64)) -> Option<u16> {
    match generic_port(table, new) {
        Some(port) => port,
        None => u16::try_from(u32_at(table, old)).ok().filter(|port| *port != 0),
    }
}

/// The port of a generic address: `None` where none is given, `Some(None)` where it is not a port.
fn generic_port(table: Table<impl Physical>, offset: u64) -> Option<Option<u16>> {
    let entry = table.entry(offset, 12)?;
    let (space, address) = (entry.byte(0), entry.u64(4));
    (address != 0).then(|| u16::try_from(address).ok().filter(|_| space == SYSTEM_IO))
}

/// The sleep types of `\_S5`, which is a constant package in the DSDT: `Name (_S5_, Package () { a, b, .. })`, so that no
/// interpreter is needed (ACPI 6.5, 7.4.2.6 and 20.2.5.4).
fn sleep_types<P: Physical>(dsdt: Table<P>) -> Option<[u8; 2]> {
    const NAME: &[u8] = b"_S5_\x12";
    let end = dsdt.length.checked_sub(NAME.len() as u64)?;
    let at = (HEADER..end).find(|at| dsdt.area.says(*at, NAME))? + NAME.len() as u64;
    let byte = |offset: u64| dsdt.entry(offset, 1).map(|entry| entry.byte(0));
    // Package length: the top two bits of its first byte say how many bytes follow; then the number of elements.
    let mut at = at + u64::from(byte(at)? >> 6) + 2;
    let mut types = [0; 2];
    for value in &mut types {
        match byte(at)? {
            0x0a => (*value, at) = (byte(at + 1)?, at + 2),
            constant @ (0 | 1) => (*value, at) = (constant, at + 1),
            _ => return None,
        }
    }
    Some(types)
}
