//! What PVH domains need beside what all domains do.

use alloc::vec;
use alloc::vec::Vec;

use guest_pv::alloc;
use guest_pv::call::domctl;
use toolstack::calls::CpuPolicy;
use xen_abi::arch_x86::{CpuidLeaf, MsrEntry};
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

/// Room for CPUID leaves and MSRs, more than any policy has (sysctl `get_cpu_policy` would say how many).
const LEAVES: usize = 256;
const MSRS: usize = 64;

pub fn context(dom: DomId) -> Result<Vec<u8>, Errno> {
    let size = domctl::get_hvm_context(dom, &mut [])?;
    let mut records = vec![0; size];
    let size = domctl::get_hvm_context(dom, &mut records)?;
    records.truncate(size);
    Ok(records)
}

pub fn cpu_policy(dom: DomId) -> Result<CpuPolicy, Errno> {
    let (mut leaves, mut msrs) = (vec![CpuidLeaf::default(); LEAVES], vec![MsrEntry::default(); MSRS]);
    let (leaf_count, msr_count) = domctl::get_cpu_policy(dom, &mut leaves, &mut msrs)?;
    leaves.truncate(leaf_count);
    msrs.truncate(msr_count);
    Ok(CpuPolicy { leaves, msrs })
}
