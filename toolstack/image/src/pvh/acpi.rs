//! The ACPI tables of a PVH domain: RSDP, XSDT, FADT (hardware-reduced: there is no PM timer, no SCI, no 8042, no RTC),
//! MADT with a local APIC for each vCPU, and a DSDT that names the processors (ACPI 6.5, 5.2).

use alloc::format;
use alloc::vec::Vec;

use acpi_tables::Aml;
use acpi_tables::aml::{Device, Name, Path, Scope};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::madt::{EnabledStatus, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use super::LAPIC_BASE;

const OEM: [u8; 6] = *b"Xen\0\0\0";
const TABLE: [u8; 8] = *b"PVH\0\0\0\0\0";
const REVISION: u32 = 1;
/// The number of a vCPU's local APIC: Xen's are twice the vCPU's, so that no two look like threads of one core.
#[must_use]
pub const fn apic_id(vcpu: u32) -> u32 {
    vcpu * 2
}

/// The tables as they lie in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// All of them, one after the other.
    pub bytes: Vec<u8>,
    /// Address of the RSDP.
    pub rsdp: u64,
}

impl Tables {
    /// The tables for a domain with so many vCPUs, to lie at `at`.
    #[must_use]
    pub fn new(at: u64, max_vcpus: u32) -> Self {
        let mut this = Self { bytes: Vec::new(), rsdp: 0 };
        let dsdt = this.append(at, &dsdt(max_vcpus));
        let fadt = this.append(at, &fadt(dsdt));
        let madt = this.append(at, &madt(max_vcpus));
        let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
        xsdt.add_entry(fadt);
        xsdt.add_entry(madt);
        let xsdt = this.append(at, &xsdt);
        this.rsdp = this.append(at, &Rsdp::new(OEM, xsdt));
        this
    }

    /// Appends a table at the next multiple of 16; its address.
    fn append(&mut self, at: u64, table: &dyn Aml) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let address = at + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    /// IA-PC boot architecture (ACPI 6.5, table 5.11): no VGA, no MSI forbidden, no CMOS clock.
    const NO_VGA: u16 = 1 << 2;
    const NO_RTC: u16 = 1 << 5;
    // Hardware-reduced machines have no buttons in fixed registers.
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::HwReducedAcpi)
        .dsdt_64(dsdt);
    fadt.iapc_boot_arch = (NO_VGA | NO_RTC).into();
    fadt.finalize()
}

/// All vCPUs are enabled, also those that the domain is to have only later: xenstore (`cpu/N/availability`) says which of them it may use,
/// and a Linux knows no other way to learn of one. (libacpi's are disabled: Linux 6.1 brings none of those up.)
fn madt(max_vcpus: u32) -> MADT {
    let base = u32::try_from(LAPIC_BASE).unwrap_or(0);
    let mut madt = MADT::new(OEM, TABLE, REVISION, LocalInterruptController::Address(base));
    for vcpu in 0..max_vcpus {
        // A domain has 128 at most (Xen's HVM_MAX_VCPUS), so both numbers fit.
        if let (Ok(uid), Ok(id)) = (u8::try_from(vcpu), u8::try_from(apic_id(vcpu))) {
            madt.add_structure(ProcessorLocalApic::new(uid, id, EnabledStatus::Enabled));
        }
    }
    madt
}

/// `\_SB` with one device for each vCPU, so that the numbers in the MADT stand for something.
fn dsdt(max_vcpus: u32) -> Sdt {
    let mut code = Vec::new();
    for vcpu in 0..max_vcpus {
        let (id, uid) = (Name::new(Path::new("_HID"), &"ACPI0007"), Name::new(Path::new("_UID"), &vcpu));
        let name = format!("C{vcpu:03X}");
        Device::new(Path::new(&name), alloc::vec![&id, &uid]).to_aml_bytes(&mut code);
    }
    let code = Scope::raw(Path::new("\\_SB_"), code);
    const HEADER: u32 = 36;
    // Revision 2: integers of 64 bits.
    let mut table = Sdt::new(*b"DSDT", HEADER, 2, OEM, TABLE, REVISION);
    table.append_slice(&code);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// The table at an address, by its own length, with its checksum checked.
    fn table(tables: &Tables, at: u64) -> &[u8] {
        let from = usize::try_from(at - 0x1000).unwrap();
        let len = u32::from_le_bytes(tables.bytes[from + 4..from + 8].try_into().unwrap()) as usize;
        let bytes = &tables.bytes[from..from + len];
        assert_eq!(sum(bytes), 0, "{:?}", core::str::from_utf8(&bytes[..4]));
        bytes
    }

    #[test]
    fn they_lead_to_each_other() {
        let tables = Tables::new(0x1000, 3);
        let rsdp = &tables.bytes[usize::try_from(tables.rsdp - 0x1000).unwrap()..];
        assert!(rsdp.starts_with(b"RSD PTR "));
        assert_eq!((rsdp.len(), sum(&rsdp[..20]), sum(rsdp), tables.rsdp % 16), (36, 0, 0, 0));
        let xsdt = table(&tables, word(rsdp, 24));
        assert_eq!((&xsdt[..4], xsdt.len()), (&b"XSDT"[..], 36 + 16));
        let fadt = table(&tables, word(xsdt, 36));
        assert_eq!(&fadt[..4], b"FACP");
        let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
        assert_eq!(flags & (1 << 20), 1 << 20, "hardware-reduced");
        assert_eq!(flags & 0x30, 0x30, "no fixed buttons");
        assert!(table(&tables, word(fadt, 140)).starts_with(b"DSDT"));
        let madt = table(&tables, word(xsdt, 44));
        assert_eq!((&madt[..4], &madt[36..40]), (&b"APIC"[..], &0xfee0_0000u32.to_le_bytes()[..]));
        // Type, length, processor, APIC, flags: enabled.
        let entries: Vec<_> = madt[44..].chunks(8).map(|e| (e[0], e[1], e[2], e[3], e[4])).collect();
        assert_eq!(entries, [(0, 8, 0, 0, 1), (0, 8, 1, 2, 1), (0, 8, 2, 4, 1)]);
    }
}
