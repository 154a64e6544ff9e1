//! What the host's CPUs have, and what its domains are given of that: `XEN_SYSCTL_get_cpu_policy`,
//! `XEN_SYSCTL_get_cpu_featureset`.

use logic::{
    cpuid::{features::WORDS, policy::Policy},
    guest::Out,
};
use machine::container;
use xen_abi::{
    errno::Errno,
    sysctl::{self as abi, CpuFeatureset, CpuPolicy, Sysctl},
};

use super::{Reply, put};
use crate::{guest::Series, hypercall::policy_arrays, trap::cpuid::policies};

/// One of the policies as arrays, or how much room one takes. `EOPNOTSUPP`: it is for domains that there are none of. If only the
/// registers cannot be written, the number of leaves is told, as by Xen.
pub(super) fn policy(arg: &CpuPolicy, raw: &mut Sysctl) -> Result<Reply, Errno> {
    if arg._rsvd != 0 {
        return Err(Errno::EINVAL);
    }
    let all = policies();
    let policy: &Policy = match arg.index {
        abi::XEN_SYSCTL_CPU_POLICY_RAW | abi::XEN_SYSCTL_CPU_POLICY_HOST => &all.host,
        abi::XEN_SYSCTL_CPU_POLICY_PV_MAX => &all.most,
        abi::XEN_SYSCTL_CPU_POLICY_PV_DEFAULT => &all.guest,
        abi::XEN_SYSCTL_CPU_POLICY_HVM_MAX if container::vendor().is_some() => &all.most_pvh,
        abi::XEN_SYSCTL_CPU_POLICY_HVM_DEFAULT if container::vendor().is_some() => &all.pvh,
        abi::XEN_SYSCTL_CPU_POLICY_HVM_MAX | abi::XEN_SYSCTL_CPU_POLICY_HVM_DEFAULT => {
            return Err(Errno::EOPNOTSUPP);
        }
        _ => return Err(Errno::EINVAL),
    };
    let mut reply = *arg;
    reply.nr_leaves = policy_arrays::leaves(policy, arg.leaves, arg.nr_leaves)?;
    let told = match policy_arrays::msrs(policy, arg.msrs, arg.nr_msrs) {
        Ok(count) => {
            reply.nr_msrs = count;
            Reply::Told
        }
        Err(errno) => Reply::Refused(errno),
    };
    put(raw, &reply).map(|()| told)
}

/// The feature words of one of the policies. With room for less than all of them `ENOBUFS`, having written those.
pub(super) fn features(arg: &CpuFeatureset, raw: &mut Sysctl) -> Result<Reply, Errno> {
    let words = u32::try_from(WORDS).unwrap_or(0);
    if arg.features == 0 {
        return put(raw, &CpuFeatureset { nr_features: words, ..*arg }).map(|()| Reply::Told);
    }
    let all = policies();
    let policy = match arg.index {
        abi::XEN_SYSCTL_CPU_FEATURESET_RAW | abi::XEN_SYSCTL_CPU_FEATURESET_HOST => &all.host,
        abi::XEN_SYSCTL_CPU_FEATURESET_PV => &all.guest,
        abi::XEN_SYSCTL_CPU_FEATURESET_PV_MAX => &all.most,
        abi::XEN_SYSCTL_CPU_FEATURESET_HVM if container::vendor().is_some() => &all.pvh,
        abi::XEN_SYSCTL_CPU_FEATURESET_HVM_MAX if container::vendor().is_some() => &all.most_pvh,
        abi::XEN_SYSCTL_CPU_FEATURESET_HVM | abi::XEN_SYSCTL_CPU_FEATURESET_HVM_MAX => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EINVAL),
    };
    let room = arg.nr_features.min(words);
    let told = Series::<u32, Out>::new(arg.features);
    for ((_, word), told) in (0..room).zip(policy.features().0).zip(told) {
        told.write(&word)?;
    }
    put(raw, &CpuFeatureset { nr_features: room, ..*arg })?;
    Ok(if room < words { Reply::Refused(Errno::ENOBUFS) } else { Reply::Told })
}
