//! Grants of domains: their tables, joined to their pages.

use alloc::{sync::Arc, vec::Vec};

use logic::{
    grant::{Maptrack, Refusal, Table},
    lock::{Held, rank},
};
use machine::mem::{frame_table::frames, heap, shared::SharedPage};
use xen_abi::{
    errno::Errno,
    ids::{DomId, Gfn, GrantHandle, Mfn},
};

use crate::{
    domain::{self, Domain},
    memory,
    sync::Lock,
};

/// What a domain has for grants.
pub struct DomainGrants {
    /// What it grants.
    pub table: Lock<Table<SharedPage>, { rank::GRANT }>,
    /// What it has mapped.
    pub maptrack: Lock<Maptrack, { rank::MAPTRACK }>,
}

impl DomainGrants {
    /// A new domain's: one page of entries, as Xen gives it. `ENOMEM`.
    pub fn new(owner: DomId, frames: u32, maptrack: u32, held: &mut Held<'_, 0>) -> Result<Self, Errno> {
        let grants = Self { table: Lock::new(Table::new(frames)), maptrack: Lock::new(Maptrack::new(maptrack)) };
        grants.grow(owner, 1, held).map_err(|_| Errno::ENOMEM)?;
        Ok(grants)
    }

    /// Makes the table at least `wanted` pages long: general error above its limit or without memory.
    pub fn grow(&self, owner: DomId, wanted: u32, held: &mut Held<'_, 0>) -> Result<(), Refusal> {
        loop {
            let new = {
                let (table, _held) = self.table.lock(held);
                if table.missing(wanted)? == 0 {
                    return Ok(());
                }
                table.frames() == 0
            };
            // The hypervisor's memory must not run dry by what guests ask for.
            memory::feed_heap(held);
            if heap::is_low() && !new {
                return Err(Refusal::GeneralError);
            }
            let page = memory::shared_page(owner, held).map_err(|_| Refusal::GeneralError)?;
            let added = {
                let (mut table, _held) = self.table.lock(held);
                // Another CPU may have added the last one meanwhile.
                match table.missing(wanted) {
                    Ok(0) | Err(_) => Err(page),
                    Ok(_) => table.add_frame(page).map_err(|(page, _)| page),
                }
            };
            if let Err(page) = added {
                end(page, owner, held);
                if self.table.lock(held).0.missing(wanted)? != 0 {
                    return Err(Refusal::GeneralError);
                }
            }
        }
    }
}

/// Ends the use of a shared page of `owner` that is in no table.
fn end(page: SharedPage, owner: DomId, held: &mut Held<'_, 0>) {
    let Some(owner) = domain::find(owner, held) else { return };
    let mut deferred = Vec::new();
    memory::mmu(held.again(), &owner, &mut deferred).end_shared(page.into_frame());
}

/// The machine frame behind what a PV domain wrote into an entry: the same number, if the page is its own.
pub fn granted_frame(granter: &Domain, gfn: Gfn) -> Result<Mfn, Refusal> {
    let frame = frames().ram(Mfn(gfn.0)).ok_or(Refusal::BadPage)?;
    if frame.info().owner() == Some(granter.id) { Ok(frame.mfn()) } else { Err(Refusal::BadPage) }
}

/// Mappings given up by one step of [`release_mappings`].
const RELEASE_ROUND: usize = 64;

/// Ends the uses of other domains' grants by a domain that dies, a few at a time: true when none is left. Its page
/// tables may still hold the entries, and hold the pages until they go.
pub fn release_mappings(domain: &Arc<Domain>, held: &mut Held<'_, 0>) -> bool {
    let mut deferred = Vec::new();
    let mut from = GrantHandle(0);
    for _ in 0..RELEASE_ROUND {
        let detached = {
            let (mut track, _held) = domain.grants.maptrack.lock(held);
            let Some((mapping, next)) = track.claim_next(from) else { return true };
            from = next;
            track.detach(mapping)
        };
        let Some(granter) = domain::find(detached.granter(), held) else { continue };
        let freed = granter.grants.table.lock(held).0.forget(detached);
        memory::mmu(held.again(), domain, &mut deferred).put_freed(freed);
    }
    false
}

/// Takes the pages of the table of a domain that nobody finds any more. Uses of its grants that are still on record are of
/// entries that their domains have overwritten: their handles lead nowhere from now on.
pub fn release_table(domain: &Arc<Domain>, held: &mut Held<'_, 0>) {
    let mut deferred = Vec::new();
    loop {
        let Some(page) = domain.grants.table.lock(held).0.remove_frame() else { return };
        memory::mmu(held.again(), domain, &mut deferred).end_shared(page.into_frame());
    }
}
