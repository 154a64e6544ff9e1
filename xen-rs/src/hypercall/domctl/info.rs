//! What there is to know about a domain: `getdomaininfo` here and `getdomaininfolist` of sysctl.

use logic::lock::Held;
use xen_abi::{
    domctl::{self as abi, Domctl},
    errno::Errno,
    ids::{DOMID_FIRST_RESERVED, DomId},
};

use super::{Reply, put};
use crate::{
    cpu::Context,
    domain::{self, Domain, Life},
    vcpu::VcpuFlags,
};

/// `XEN_DOMCTL_getdomaininfo`: of the domain, or of the next one when there is none of that number.
pub(super) fn get(cx: &mut Context<'_>, id: DomId, raw: &mut Domctl) -> Result<Reply, Errno> {
    if id.0 >= DOMID_FIRST_RESERVED {
        return Err(Errno::EINVAL);
    }
    let target = domain::next_from(id, &mut cx.held).ok_or(Errno::ESRCH)?;
    raw.domain = target.id;
    put(raw, &describe(&target, &mut cx.held))
}

/// The record of one domain.
pub fn describe(domain: &Domain, held: &mut Held<'_, 0>) -> abi::GetDomainInfo {
    let mut info = abi::GetDomainInfo::default();
    let memory = domain.memory.totals(held);
    info.domain = domain.id;
    info.tot_pages = memory.total;
    info.max_pages = memory.maximum;
    info.outstanding_pages = domain.memory.outstanding();
    let shared_info = domain.shared_info_frame();
    // By the domain's own numbers; all ones: nowhere.
    info.shared_info_frame = match domain.pvh() {
        Some(pvh) => pvh.physmap.place_of(shared_info, held).map_or(u64::MAX, |gfn| gfn.0),
        None => shared_info.0,
    };
    info.handle = domain.handle();
    info.cpupool = domain.pool.id();
    info.max_vcpu_id = abi::XEN_INVALID_MAX_VCPU_ID;
    info.gpaddr_bits = crate::topology::physical_address_bits();
    let (mut online, mut running, mut waiting) = (0, false, true);
    for vcpu in domain.vcpus() {
        info.max_vcpu_id = vcpu.id.0;
        info.cpu_time = info.cpu_time.wrapping_add(vcpu.cpu_time_ns());
        let flags = vcpu.flags();
        if !flags.contains(VcpuFlags::DOWN) {
            online += 1;
            waiting &= flags.intersects(VcpuFlags::BLOCKED | VcpuFlags::POLLING);
            running |= flags.contains(VcpuFlags::RUNNING);
        }
    }
    info.nr_online_vcpus = online;
    let mut flags = 0;
    if waiting {
        flags |= abi::XEN_DOMINF_BLOCKED;
    }
    if running {
        flags |= abi::XEN_DOMINF_RUNNING;
    }
    if domain.paused_by_controller() {
        flags |= abi::XEN_DOMINF_PAUSED;
    }
    if domain.life.get() != Life::Alive {
        flags |= abi::XEN_DOMINF_DYING;
    }
    if let Some(reason) = domain.life.shutdown() {
        flags |= abi::XEN_DOMINF_SHUTDOWN | reason.code() << abi::XEN_DOMINF_SHUTDOWNSHIFT;
    }
    if domain.pvh().is_some() {
        flags |= abi::XEN_DOMINF_HVM_GUEST | abi::XEN_DOMINF_HAP;
    }
    if domain.create_flags & abi::XEN_DOMCTL_CDF_XS_DOMAIN != 0 {
        flags |= abi::XEN_DOMINF_XS_DOMAIN;
    }
    info.flags = flags;
    info
}
