//! What the firmware's ACPI tables say about the machine: processors, interrupt controllers, clocks, how to switch it off.
//! Read at boot while the first page tables still show the low 4 GiB, then kept as plain numbers.
//!
//! Unsafe: firmware tables are read where they lie.

use super::boot::EARLY_MAPPED;
use crate::mem::direct_map::va_of_phys;
use acpi::address::AddressSpace;
use acpi::fadt::Fadt;
use acpi::madt::{Madt, MadtEntry};
use acpi::mcfg::Mcfg;
use acpi::{AcpiHandler, AcpiTables, HpetInfo, PhysicalMapping};
use alloc::vec::Vec;
use core::ptr::NonNull;
use spin::Once;

/// An I/O APIC.
#[derive(Clone, Copy, Debug)]
pub struct IoApic {
    /// Physical address of its registers.
    pub phys: u64,
    /// Global system interrupt of its first pin.
    pub first_gsi: u32,
}

/// An ISA interrupt that does not have the line and the signal one would expect.
#[derive(Clone, Copy, Debug)]
pub struct Override {
    /// ISA interrupt number.
    pub isa: u8,
    /// Its global system interrupt.
    pub gsi: u32,
    /// Level triggered.
    pub level: bool,
    /// Active low.
    pub low: bool,
}

/// Memory that leads to the configuration space of PCI buses.
#[derive(Clone, Debug)]
pub struct ConfigRegion {
    /// Physical address of bus 0, were it among them.
    pub phys: u64,
    /// PCI segment.
    pub segment: u16,
    /// Its buses.
    pub buses: core::ops::RangeInclusive<u8>,
}

/// How to switch the machine off.
#[derive(Clone, Copy, Debug)]
pub struct PowerOff {
    /// I/O port of the PM1a control register.
    pub pm1a: u16,
    /// I/O port of PM1b, if there is one.
    pub pm1b: Option<u16>,
    /// Sleep types of S5 for both.
    pub types: [u8; 2],
}

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct Platform {
    /// APIC ids of the usable processors in the tables' order.
    pub apic_ids: Vec<u32>,
    /// Their numbers in the tables, in the same order.
    pub processor_ids: Vec<u32>,
    /// Physical address of the local APICs.
    pub local_apic: u64,
    /// I/O APICs.
    pub io_apics: Vec<IoApic>,
    /// ISA interrupts out of the ordinary.
    pub overrides: Vec<Override>,
    /// Memory that leads to PCI configuration space.
    pub config_regions: Vec<ConfigRegion>,
    /// I/O port of the ACPI PM timer and whether it has 32 bits (else 24).
    pub pm_timer: Option<(u16, bool)>,
    /// Physical address of the HPET.
    pub hpet: Option<u64>,
    /// How to switch off.
    pub power_off: Option<PowerOff>,
    /// Port and value that reset the machine.
    pub reset: Option<(u16, u8)>,
}

static PLATFORM: Once<Platform> = Once::new();

/// The machine as the firmware describes it.
#[must_use]
pub fn platform() -> &'static Platform {
    PLATFORM.call_once(|| Platform { local_apic: 0xfee0_0000, ..Platform::default() })
}

/// Frames of the local and the I/O APICs, which are the hypervisor's alone.
pub fn interrupt_controllers() -> impl Iterator<Item = u64> {
    let platform = platform();
    let io_apics = platform.io_apics.iter().map(|io_apic| io_apic.phys);
    core::iter::once(platform.local_apic).chain(io_apics).map(|phys| phys >> 12)
}

/// Maps by the direct map of the first page tables.
#[derive(Clone)]
struct EarlyMap;

impl AcpiHandler for EarlyMap {
    unsafe fn map_physical_region<T>(&self, phys: usize, size: usize) -> PhysicalMapping<Self, T> {
        assert!(phys as u64 + size as u64 <= EARLY_MAPPED, "ACPI table above 4 GiB");
        let va = va_of_phys(phys as u64) as *mut T;
        let Some(va) = NonNull::new(va) else { panic!("the direct map is not at 0") };
        // SAFETY: the first page tables map all of the low 4 GiB there.
        unsafe { PhysicalMapping::new(phys, va, size, size, self.clone()) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}

/// Reads the tables, from the root pointer on, which is looked for where a BIOS puts it unless the loader knows better.
///
/// # Safety
/// The first page tables are in use; `rsdp` is from the loader.
pub(crate) unsafe fn init(rsdp: Option<u64>) {
    let tables = match rsdp {
        // SAFETY: the loader's root pointer.
        Some(at) => unsafe { AcpiTables::from_rsdp(EarlyMap, at as usize) },
        // SAFETY: the search looks at the BIOS area alone.
        None => unsafe { AcpiTables::search_for_rsdp_bios(EarlyMap) },
    };
    match tables {
        Ok(tables) => {
            let platform = read(&tables);
            log::debug!("{platform:?}");
            PLATFORM.call_once(|| platform);
        }
        Err(error) => log::warn!("no ACPI tables: {error:?}"),
    }
}

fn read(tables: &AcpiTables<EarlyMap>) -> Platform {
    let mut platform = Platform { local_apic: 0xfee0_0000, ..Platform::default() };
    if let Ok(madt) = tables.find_table::<Madt>() {
        platform.local_apic = u64::from(madt.get().local_apic_address);
        for entry in madt.get().entries() {
            read_madt_entry(&mut platform, entry);
        }
    }
    if let Ok(fadt) = tables.find_table::<Fadt>() {
        platform.pm_timer = fadt
            .pm_timer_block()
            .ok()
            .flatten()
            .filter(|block| block.address_space == AddressSpace::SystemIo && block.address != 0)
            .and_then(|block| Some((u16::try_from(block.address).ok()?, { fadt.flags }.pm_timer_is_32_bit())));
        platform.power_off = power_off(&fadt);
        platform.reset = fadt
            .reset_register()
            .ok()
            .filter(|register| {
                { fadt.flags }.supports_system_reset_via_fadt() && register.address_space == AddressSpace::SystemIo
            })
            .and_then(|register| Some((u16::try_from(register.address).ok()?, fadt.reset_value)));
    }
    if let Ok(mcfg) = tables.find_table::<Mcfg>() {
        platform.config_regions.extend(mcfg.get().entries().iter().map(|entry| ConfigRegion {
            phys: entry.base_address,
            segment: entry.pci_segment_group,
            buses: entry.bus_number_start..=entry.bus_number_end,
        }));
    }
    platform.hpet = HpetInfo::new(tables).ok().map(|hpet| hpet.base_address as u64);
    platform
}

fn read_madt_entry(platform: &mut Platform, entry: MadtEntry<'_>) {
    const ENABLED: u32 = 1;
    match entry {
        MadtEntry::LocalApic(cpu) if cpu.flags & ENABLED != 0 => {
            platform.apic_ids.push(u32::from(cpu.apic_id));
            platform.processor_ids.push(u32::from(cpu.processor_id));
        }
        MadtEntry::LocalX2Apic(cpu) if cpu.flags & ENABLED != 0 => {
            platform.apic_ids.push(cpu.x2apic_id);
            platform.processor_ids.push(cpu.processor_uid);
        }
        MadtEntry::IoApic(io) => platform
            .io_apics
            .push(IoApic { phys: u64::from(io.io_apic_address), first_gsi: io.global_system_interrupt_base }),
        MadtEntry::InterruptSourceOverride(entry) => platform.overrides.push(Override {
            isa: entry.irq,
            gsi: entry.global_system_interrupt,
            level: entry.flags >> 2 & 3 == 3,
            low: entry.flags & 3 == 3,
        }),
        MadtEntry::LocalApicAddressOverride(entry) => platform.local_apic = entry.local_apic_address,
        _ => {}
    }
}

/// The control registers and the sleep types of `\_S5`, which is a constant package in the DSDT: `Name (_S5_, Package ()
/// { a, b, .. })`, so that no interpreter is needed (ACPI 6.5, 7.4.2.6 and 20.2.5.4).
fn power_off(fadt: &Fadt) -> Option<PowerOff> {
    let pm1a = u16::try_from(fadt.pm1a_control_block().ok()?.address).ok()?;
    let pm1b = fadt.pm1b_control_block().ok().flatten().and_then(|block| u16::try_from(block.address).ok());
    let dsdt = fadt.dsdt_address().ok()? as u64;
    // SAFETY: a table's header is 36 bytes, its length at offset 4; within the low 4 GiB on the first page tables.
    let aml = unsafe {
        let length = ((va_of_phys(dsdt) + 4) as *const u32).read_unaligned();
        if dsdt + u64::from(length) > EARLY_MAPPED {
            return None;
        }
        core::slice::from_raw_parts(va_of_phys(dsdt) as *const u8, length as usize)
    };
    let at = aml.windows(5).position(|bytes| bytes == b"_S5_\x12")?;
    let mut rest = aml.get(at + 5..)?;
    // Package length: the top two bits of its first byte say how many bytes follow; then the number of elements.
    let extra = usize::from(rest.first()? >> 6);
    rest = rest.get(extra + 2..)?;
    let mut types = [0; 2];
    for value in &mut types {
        match rest {
            [0x0a, byte, tail @ ..] => (*value, rest) = (*byte, tail),
            [byte @ (0 | 1), tail @ ..] => (*value, rest) = (*byte, tail),
            _ => return None,
        }
    }
    Some(PowerOff { pm1a, pm1b, types })
}
