//! What there is to say about the physical CPUs.

use machine::arch::x86_64::{acpi, cpu::cpuid, smp};

/// Width of physical addresses in bits (CPUID 0x80000008, eax 7:0).
#[must_use]
pub fn physical_address_bits() -> u8 {
    let [bits, ..] = cpuid(0x8000_0008, 0).eax.to_le_bytes();
    bits
}

/// How many CPUs are up. Their numbers are dense.
#[must_use]
pub fn online() -> u32 {
    machine::mailbox::online().0.count_ones()
}

/// The highest number of a CPU.
#[must_use]
pub fn highest() -> u32 {
    online().saturating_sub(1)
}

/// How the firmware calls a CPU.
#[derive(Clone, Copy, Debug)]
pub struct CpuIds {
    /// By its APIC.
    pub apic: u32,
    /// In its tables.
    pub acpi: u32,
}

/// How the firmware calls the CPU of a number, if it is up.
#[must_use]
pub fn ids(cpu: u32) -> Option<CpuIds> {
    let apic = smp::apic_id(cpu)?;
    let platform = acpi::platform();
    let at = platform.apic_ids.iter().position(|id| *id == apic);
    let acpi = at.and_then(|at| platform.processor_ids.get(at)).copied().unwrap_or(cpu);
    Some(CpuIds { apic, acpi })
}

/// What CPUID says of the maker and the model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Model {
    /// Maker.
    pub vendor: [u8; 12],
    /// Family, the extended one added.
    pub family: u32,
    /// Model, the extended one in front.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// Highest basic leaf.
    pub highest_leaf: u32,
}

/// The CPUs' model: all are of one kind.
#[must_use]
pub fn model() -> Model {
    let first = cpuid(0, 0);
    let signature = cpuid(1, 0).eax;
    let mut vendor = [0; 12];
    for (to, from) in vendor.chunks_exact_mut(4).zip([first.ebx, first.edx, first.ecx]) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    // SDM vol. 2A, CPUID: the extended fields count in some families only.
    let base = signature >> 8 & 0xf;
    let family = if base == 0xf { base + (signature >> 20 & 0xff) } else { base };
    let extended = if base == 0xf || base == 6 { signature >> 16 & 0xf } else { 0 };
    let model = extended << 4 | signature >> 4 & 0xf;
    Model { vendor, family, model, stepping: signature & 0xf, highest_leaf: first.eax }
}

/// The CPUs' name (CPUID 0x80000002 to 0x80000004).
#[must_use]
pub fn brand() -> [u8; 64] {
    let mut text = [0; 64];
    for (part, leaf) in text.chunks_exact_mut(16).zip(0x8000_0002..=0x8000_0004) {
        let leaf = cpuid(leaf, 0);
        for (to, from) in part.chunks_exact_mut(4).zip([leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]) {
            to.copy_from_slice(&from.to_le_bytes());
        }
    }
    text
}

/// The CPU's feature words in the order of Xen's `hw_cap`: leaf 1 edx and ecx, 0x80000001 edx and ecx, 0xd.1 eax,
/// leaf 7 ebx and ecx, 0x80000007 edx.
#[must_use]
pub fn feature_words() -> [u32; 8] {
    let (basic, extended, structured) = (cpuid(1, 0), cpuid(0x8000_0001, 0), cpuid(7, 0));
    [
        basic.edx,
        basic.ecx,
        extended.edx,
        extended.ecx,
        cpuid(0xd, 1).eax,
        structured.ebx,
        structured.ecx,
        cpuid(0x8000_0007, 0).edx,
    ]
}
