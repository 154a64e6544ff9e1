//! A guest's bitmap of its vCPUs, as the CPUs whose TLBs have to do with them.

use logic::guest::In;
use machine::mem::tlb;
use xen_abi::errno::Errno;

use crate::{cpu::Context, guest::Series};

/// The CPUs that a bitmap of the caller's vCPUs at `bitmap` stands for.
///
/// A CPU that still has the domain's tables loaded but runs none of its vCPUs counts as well: a named vCPU may have run
/// there last.
pub fn cpus(cx: &Context<'_>, bitmap: u64) -> Result<u64, Errno> {
    let vcpus = cx.domain.vcpus();
    let mut named = 0;
    let mut unnamed = 0;
    for (first, word) in (0..vcpus.len()).step_by(64).zip(Series::<u64, In>::new(bitmap)) {
        let bits = word.read()?;
        for (vcpu, bit) in vcpus.iter().skip(first).take(64).zip(0..) {
            let cpu = 1u64.checked_shl(vcpu.processor()).unwrap_or(0);
            if bits >> bit & 1 != 0 {
                named |= cpu;
            } else if vcpu.flags().contains(crate::vcpu::VcpuFlags::RUNNING) {
                unnamed |= cpu;
            }
        }
    }
    Ok(tlb::cpus_of(cx.domain.id) & (named | !unnamed))
}
