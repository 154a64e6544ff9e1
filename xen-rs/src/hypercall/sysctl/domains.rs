//! `XEN_SYSCTL_getdomaininfolist`.

use logic::guest::Out;
use xen_abi::{
    domctl::GetDomainInfo,
    errno::Errno,
    ids::DomId,
    sysctl::{GetDomainInfoList, Sysctl},
};

use super::put;
use crate::{cpu::Context, domain, guest::Series, hypercall::domctl::describe};

/// Domains described in one call; a caller asks on from the last one. Bounds the work, as any caller's array does not.
const MOST: u32 = 1024;

/// Describes up to `max_domains` domains from `first_domain` on into the caller's array.
pub(super) fn list(cx: &mut Context<'_>, arg: &GetDomainInfoList, raw: &mut Sysctl) -> Result<(), Errno> {
    let mut reply = *arg;
    reply.num_domains = 0;
    let mut from = arg.first_domain;
    let mut told = Series::<GetDomainInfo, Out>::new(arg.buffer);
    while reply.num_domains < arg.max_domains.min(MOST) {
        let Some(domain) = domain::next_from(from, &mut cx.held) else { break };
        let info = describe(&domain, &mut cx.held);
        told.step().write(&info)?;
        reply.num_domains += 1;
        from = DomId(domain.id.0.saturating_add(1));
    }
    put(raw, &reply)
}
