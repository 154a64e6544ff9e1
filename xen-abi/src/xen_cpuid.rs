//! The hypervisor's CPUID leaves (`arch-x86/cpuid.h`), from 0x40000000 on.
//!
//! Leaf 1: version in eax as `XENVER_VERSION`. Leaf 2: number of hypercall pages in eax, MSR to set them in ebx, features in ecx. Leaf 3:
//! time by sub-leaf. Leaf 4: HVM features in eax, vCPU id in ebx, domain id in ecx. Leaf 5: PV limits.

use crate::layout::constants;

constants! {
    /// Leaf 0: highest leaf in eax, the signature in the others.
    pub const XEN_CPUID_FIRST_LEAF: u32 = 0x4000_0000;
    pub const XEN_CPUID_SIGNATURE_EBX: u32 = 0x566e6558;
    pub const XEN_CPUID_SIGNATURE_ECX: u32 = 0x65584d4d;
    pub const XEN_CPUID_SIGNATURE_EDX: u32 = 0x4d4d566e;
    pub const XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD: u32 = 1;
    pub const XEN_HVM_CPUID_APIC_ACCESS_VIRT: u32 = 1;
    pub const XEN_HVM_CPUID_X2APIC_VIRT: u32 = 2;
    pub const XEN_HVM_CPUID_IOMMU_MAPPINGS: u32 = 4;
    pub const XEN_HVM_CPUID_VCPU_ID_PRESENT: u32 = 8;
    pub const XEN_HVM_CPUID_DOMID_PRESENT: u32 = 16;
    pub const XEN_HVM_CPUID_EXT_DEST_ID: u32 = 32;
    pub const XEN_HVM_CPUID_UPCALL_VECTOR: u32 = 64;
    pub const XEN_CPUID_MACHINE_ADDRESS_WIDTH_MASK: u32 = 255;
    pub const XEN_CPUID_MAX_NUM_LEAVES: u32 = 5;
}
