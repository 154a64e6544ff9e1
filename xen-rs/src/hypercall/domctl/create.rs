//! `XEN_DOMCTL_createdomain`: a new domain, paused, without memory and vCPUs.

use xen_abi::{
    arch_x86::{XEN_X86_EMU_LAPIC, XEN_X86_MSR_RELAXED},
    domctl::{self as abi, Domctl},
    errno::Errno,
    ids::{DOMID_FIRST_RESERVED, DomId},
};

use super::{Reply, put};
use crate::{
    cpu::Context,
    domain::{self, Blueprint, Domain},
};
use logic::{access::Privilege, grant::Version};
use machine::{container, mem::heap};

/// Flags that a PV domain can be created with. `s3_integrity` and `oos_off` change nothing for it, as on Xen.
const PV_FLAGS: u32 = abi::XEN_DOMCTL_CDF_S3_INTEGRITY | abi::XEN_DOMCTL_CDF_OOS_OFF | abi::XEN_DOMCTL_CDF_XS_DOMAIN;

/// Flags that a PVH domain is created with, both of them.
const PVH_FLAGS: u32 = abi::XEN_DOMCTL_CDF_HVM | abi::XEN_DOMCTL_CDF_HAP;

/// Creates it under the number wished for, or under the next free one.
pub(super) fn create(
    cx: &mut Context<'_>,
    wish: DomId,
    config: &abi::CreateDomain,
    raw: &mut Domctl,
) -> Result<Reply, Errno> {
    let grant_version = check(config)?;
    let named = wish.0 != 0 && wish.0 < DOMID_FIRST_RESERVED;
    let id = if named { wish } else { domain::next_free_id(&mut cx.held).ok_or(Errno::ENOMEM)? };
    // The defaults are the most there can be, too.
    let limit = |wish: i32, least: u32, most: u32| {
        let limit = u32::try_from(wish).unwrap_or(most);
        if (least..=most).contains(&limit) { Ok(limit) } else { Err(Errno::EINVAL) }
    };
    let blueprint = Blueprint {
        id,
        privilege: Privilege::Guest,
        create_flags: config.flags,
        handle: config.handle,
        pool: config.cpupool_id,
        max_vcpus: config.max_vcpus,
        max_event_port: config.max_evtchn_port,
        max_grant_frames: limit(config.max_grant_frames, 1, Blueprint::DEFAULT_GRANT_FRAMES)?,
        grant_version,
        max_maptrack_frames: limit(config.max_maptrack_frames, 0, Blueprint::DEFAULT_MAPTRACK_FRAMES)?,
    };
    // The heap has just been fed, if there was anything.
    if heap::is_low() {
        return Err(Errno::ENOMEM);
    }
    let domain = Domain::new(&blueprint, &mut cx.held)?;
    if !domain::insert(domain, &mut cx.held) {
        return Err(Errno::EEXIST);
    }
    raw.domain = id;
    put(raw, config)
}

/// Refuses what a domain of its kind cannot have, with the errors of Xen's `sanitise_domain_config` and `emulation_flags_ok`.
/// Gives the highest version of its grant table.
fn check(config: &abi::CreateDomain) -> Result<Version, Errno> {
    let grant_version = config.grant_opts & abi::XEN_DOMCTL_GRANT_VERSION_MASK;
    let pvh = config.flags & abi::XEN_DOMCTL_CDF_HVM != 0;
    let flags = if pvh { PV_FLAGS | PVH_FLAGS } else { PV_FLAGS };
    let acceptable = config.flags & !flags == 0
        // Nested paging is the only kind there is.
        && (!pvh || container::vendor().is_some() && config.flags & PVH_FLAGS == PVH_FLAGS)
        && config.iommu_opts == 0
        && (1..=Blueprint::MAX_VCPUS).contains(&config.max_vcpus)
        && config.vmtrace_size == 0
        && config.grant_opts == grant_version
        && (pvh || config.arch.emulation_flags == 0)
        && config.arch.misc_flags & !XEN_X86_MSR_RELAXED == 0;
    if !acceptable {
        return Err(Errno::EINVAL);
    }
    // The local APIC and nothing else: no device model runs for a domain.
    if pvh && config.arch.emulation_flags != XEN_X86_EMU_LAPIC {
        return Err(Errno::EOPNOTSUPP);
    }
    Version::new(grant_version).ok_or(Errno::EINVAL)
}
