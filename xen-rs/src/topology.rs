//! What there is to say about the physical CPUs.

use machine::arch::x86_64::cpu::cpuid;

/// Width of physical addresses in bits (CPUID 0x80000008, eax 7:0).
#[must_use]
pub fn physical_address_bits() -> u8 {
    let [bits, ..] = cpuid(0x8000_0008, 0).eax.to_le_bytes();
    bits
}

/// CPUs that are up.
#[must_use]
pub const fn online() -> u32 {
    1
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
