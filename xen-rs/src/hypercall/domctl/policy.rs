//! What CPUID and a few registers tell a domain: `XEN_DOMCTL_get_cpu_policy`, `XEN_DOMCTL_set_cpu_policy`.

use alloc::boxed::Box;

use logic::{
    cpuid::policy::{Culprit, MAX_LEAVES, MAX_MSRS, Policy},
    guest::In,
};
use xen_abi::{
    arch_x86::{CpuidLeaf, MsrEntry},
    domctl::{CpuPolicy, Domctl},
    errno::Errno,
};

use super::{Reply, put};
use crate::{
    cpu::{Context, Target},
    guest::Series,
    hypercall::policy_arrays,
    trap::cpuid,
};

/// What a field says when it names no culprit.
const NONE: u32 = u32::MAX;

/// A domain's policy, or how much room one takes.
pub(super) fn get(target: &Target, arg: &CpuPolicy, raw: &mut Domctl) -> Result<Reply, Errno> {
    let policy = cpuid::with_policy(target, |policy| Box::new(policy.clone()));
    let mut reply = *arg;
    reply.nr_leaves = policy_arrays::leaves(&policy, arg.leaves, arg.nr_leaves)?;
    reply.nr_msrs = policy_arrays::msrs(&policy, arg.msrs, arg.nr_msrs)?;
    put(raw, &reply)
}

/// Changes the policy of a domain that has not run yet. `EEXIST`: it has.
pub(super) fn set(cx: &Context<'_>, target: &Target, arg: &CpuPolicy, raw: &mut Domctl) -> Result<Reply, Errno> {
    if target.id == cx.domain.id {
        return Err(Errno::EINVAL);
    }
    let mut reply = CpuPolicy { err_leaf: NONE, err_subleaf: NONE, err_msr: NONE, ..*arg };
    let mut policy = cpuid::with_policy(target, |policy| Box::new(policy.clone()));
    let most = if target.pvh().is_some() { &cpuid::policies().most_pvh } else { &cpuid::policies().most };
    let result = merge(&mut policy, arg, &mut reply).and_then(|()| {
        policy.agreed(most).map_err(|culprit| {
            match culprit {
                Culprit::Leaf(leaf, subleaf) => (reply.err_leaf, reply.err_subleaf) = (leaf, subleaf),
                Culprit::Msr(index) => reply.err_msr = index,
            }
            Errno::EINVAL
        })
    });
    let result =
        result.and_then(|agreed| if target.cpuid.choose(Box::new(agreed)) { Ok(()) } else { Err(Errno::EEXIST) });
    match result {
        Ok(()) => Ok(Reply::Nothing),
        Err(errno) => {
            put(raw, &reply)?;
            Ok(Reply::Refused(errno))
        }
    }
}

/// Takes over the caller's leaves and registers. More than any policy has: `E2BIG`.
fn merge(policy: &mut Policy, arg: &CpuPolicy, reply: &mut CpuPolicy) -> Result<(), Errno> {
    if arg.nr_leaves > MAX_LEAVES {
        return Err(Errno::E2BIG);
    }
    for (leaf, _) in Series::<CpuidLeaf, In>::new(arg.leaves).zip(0..arg.nr_leaves) {
        let leaf = leaf.read()?;
        policy.take_leaf(&leaf).map_err(|_| {
            (reply.err_leaf, reply.err_subleaf) = (leaf.leaf, leaf.subleaf);
            Errno::ERANGE
        })?;
    }
    if arg.nr_msrs > MAX_MSRS {
        return Err(Errno::E2BIG);
    }
    for (entry, _) in Series::<MsrEntry, In>::new(arg.msrs).zip(0..arg.nr_msrs) {
        let entry = entry.read()?;
        policy.take_msr(&entry).inspect_err(|_| reply.err_msr = entry.idx)?;
    }
    Ok(())
}
