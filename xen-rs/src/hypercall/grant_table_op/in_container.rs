//! Grants that a PVH domain maps: at a guest frame, in place of what it has there.
//!
//! It has no page tables of ours, so no entry is found for its mappings as for a PV domain's; only then this is asked, and PV
//! domains do not pay for it.

use logic::{
    grant::{Access, GrantMapping, Refusal, Via},
    hvm::p2m::{self, Use},
};
use xen_abi::ids::{DomId, Gfn, Mfn};

use super::{By, map, unmap::Request};
use crate::memory;

const PAGE: u64 = 4096;

const fn allowed(access: Access) -> p2m::Access {
    match access {
        Access::Write => p2m::Access::DATA,
        Access::Read => p2m::Access::READ,
    }
}

/// Enters a page of `owner`'s that is pinned. `refusal`: the answer to a PV domain.
#[cold]
pub(super) fn enter(
    by: &mut By<'_>,
    (address, frame): (u64, Mfn),
    owner: DomId,
    (access, via): (Access, Via),
    refusal: Refusal,
) -> Result<(), Refusal> {
    let Some(pvh) = by.domain.pvh().filter(|_| via.host()) else { return Err(refusal) };
    if !address.is_multiple_of(PAGE) {
        return Err(Refusal::GeneralError);
    }
    let caller = by.domain.id;
    // What a device's use of it holds.
    let device = if via.device() {
        let mut mm = memory::mmu(by.held.again(), by.domain, by.deferred);
        Some(map::hold(&mut mm, frame, owner, access == Access::Write, caller)?)
    } else {
        None
    };
    let (place, how) = ((Gfn(address / PAGE), frame, 0), (allowed(access), Use::Grant));
    let entered = pvh.physmap.enter(by.domain, place, owner, how, &mut by.held);
    let mut mm = memory::mmu(by.held.again(), by.domain, by.deferred);
    match (entered, device) {
        (Ok(()), Some(mapping)) => mm.leave_mapping(mapping),
        (Err(_), Some(mapping)) => mm.drop_mapping(mapping),
        (_, None) => {}
    }
    entered.map_err(|_| Refusal::GeneralError)
}

/// Takes the mapping out. `refusal`: the answer to a PV domain.
#[cold]
pub(super) fn remove(
    by: &mut By<'_>,
    request: &Request,
    mapping: &GrantMapping,
    refusal: Refusal,
) -> Result<(), Refusal> {
    let Some(pvh) = by.domain.pvh() else { return Err(refusal) };
    if request.new_address != 0 || !request.host_address.is_multiple_of(PAGE) {
        return Err(Refusal::GeneralError);
    }
    let what = (mapping.frame(), allowed(mapping.access()));
    let removed = pvh.physmap.remove_grant(Gfn(request.host_address / PAGE), what, &mut by.held);
    removed.map_err(|_| Refusal::GeneralError)
}
