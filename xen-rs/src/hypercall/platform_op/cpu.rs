//! Physical CPUs: which there are, and that they stay.

use xen_abi::{errno::Errno, platform as abi};

use super::{Reply, put};
use crate::topology;

/// `XENPF_get_cpuinfo`: a number beyond the CPUs is marked, not refused.
pub(super) fn info(mut op: abi::PcpuInfo, raw: &mut abi::PlatformOp) -> Result<Reply, Errno> {
    op.max_present = topology::highest();
    match topology::ids(op.xen_cpuid) {
        Some(ids) => (op.flags, op.apic_id, op.acpi_id) = (abi::XEN_PCPU_FLAGS_ONLINE, ids.apic, ids.acpi),
        None => op.flags = abi::XEN_PCPU_FLAGS_INVALID,
    }
    put(raw, &op)
}

/// `XENPF_get_cpu_version`: zeros for a number beyond the CPUs.
pub(super) fn version(mut op: abi::PcpuVersion, raw: &mut abi::PlatformOp) -> Result<Reply, Errno> {
    op.max_present = topology::highest();
    let model = topology::ids(op.xen_cpuid).map(|_| topology::model()).unwrap_or_default();
    (op.vendor_id, op.family, op.model, op.stepping) = (model.vendor, model.family, model.model, model.stepping);
    put(raw, &op)
}

/// `XENPF_cpu_online`.
pub(super) fn bring_up(op: &abi::CpuOl) -> Result<Reply, Errno> {
    topology::ids(op.cpuid).map(|_| Reply::Nothing).ok_or(Errno::EINVAL)
}

/// `XENPF_cpu_offline`: Xen keeps CPU 0, and here all CPUs stay.
pub(super) fn take_down(op: &abi::CpuOl) -> Result<Reply, Errno> {
    Err(if topology::ids(op.cpuid).is_some() { Errno::EOPNOTSUPP } else { Errno::EINVAL })
}

/// `XENPF_core_parking`.
pub(super) fn park(mut op: abi::CoreParking, raw: &mut abi::PlatformOp) -> Result<Reply, Errno> {
    match op.type_ {
        abi::XEN_CORE_PARKING_GET => {
            op.idle_nums = 0;
            put(raw, &op)
        }
        abi::XEN_CORE_PARKING_SET => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::EINVAL),
    }
}
