//! What the firmware's ACPI tables say about the machine, read at boot while the first page tables still show the low 4 GiB
//! (tables above are as if they were not there), then kept as plain numbers.

use logic::boot::acpi::{self, Physical};
use spin::Once;

pub use logic::boot::acpi::{ConfigRegion, IoApic, Override, Platform, PowerOff};

static PLATFORM: Once<Platform> = Once::new();

/// The machine as the firmware describes it.
#[must_use]
pub fn platform() -> &'static Platform {
    PLATFORM.call_once(Platform::default)
}

/// Frames of the local and the I/O APICs, which are the hypervisor's alone.
pub fn interrupt_controllers() -> impl Iterator<Item = u64> {
    let platform = platform();
    let io_apics = platform.io_apics.iter().map(|io_apic| io_apic.phys);
    core::iter::once(platform.local_apic).chain(io_apics).map(|phys| phys >> 12)
}

/// Reads the tables, from the root pointer on, which is looked for where a BIOS puts it unless the loader knows better.
pub(super) fn init(root: Option<u64>, memory: impl Physical) {
    let platform = acpi::read(root, memory, |complaint| log::warn!("ACPI: {complaint}"));
    log::debug!("{platform:?}");
    PLATFORM.call_once(|| platform);
}
