//! Grants of domains: their tables, joined to their pages.

use alloc::{sync::Arc, vec::Vec};

use logic::{
    grant::{Left, Maptrack, Refusal, Table, Version},
    lock::{Held, rank},
};
use machine::mem::{frame_table::frames, heap, shared::SharedPage};
use xen_abi::{
    errno::Errno,
    ids::{DomId, Gfn, Mfn},
};

use crate::{
    cpu_loop::breathe,
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

/// What a table needs before it is as long as wanted.
enum Need {
    Nothing,
    /// A page of entries.
    Entries,
    /// A page of status (version 2), which comes first.
    Status,
}

impl DomainGrants {
    /// A new domain's: one page of entries, as Xen gives it. `ENOMEM`.
    pub fn new(
        owner: DomId,
        frames: u32,
        maptrack: u32,
        version: Version,
        held: &mut Held<'_, 0>,
    ) -> Result<Self, Errno> {
        let mut table = Table::new(owner, frames, version);
        let page = memory::shared_page(owner, held)?;
        // The heap has room for what is behind one page, or the machine cannot go on anyway.
        table.add_frame(page).map_err(|(_, errno)| errno)?;
        Ok(Self { table: Lock::new(table), maptrack: Lock::new(Maptrack::new(maptrack)) })
    }

    fn need(&self, wanted: u32, version: Version, held: &mut Held<'_, 0>) -> Result<Need, Refusal> {
        let (table, _held) = self.table.lock(held);
        let missing = table.missing(wanted)?;
        let two = table.version().max(version) == Version::Two;
        Ok(if two && table.missing_status(wanted.max(table.frames())) != 0 {
            Need::Status
        } else if missing != 0 {
            Need::Entries
        } else {
            Need::Nothing
        })
    }

    /// Makes the table at least `wanted` pages long, with the status pages that it needs in `version` or the version in
    /// force: general error above its limit or without memory, and for a domain that is gone.
    pub fn grow(
        &self,
        domain: &Arc<Domain>,
        wanted: u32,
        version: Version,
        held: &mut Held<'_, 0>,
    ) -> Result<(), Refusal> {
        loop {
            breathe(held);
            let need = self.need(wanted, version, held)?;
            if matches!(need, Need::Nothing) {
                return Ok(());
            }
            // The hypervisor's memory must not run dry by what guests ask for.
            memory::feed_heap(held);
            if heap::is_low() {
                return Err(Refusal::GeneralError);
            }
            let page = memory::shared_page(domain.id, held).map_err(|_| Refusal::GeneralError)?;
            let added = {
                let (mut table, _held) = self.table.lock(held);
                // Another CPU may have added the last one meanwhile.
                match need {
                    Need::Entries if table.missing(wanted).is_ok_and(|missing| missing != 0) => table.add_frame(page),
                    Need::Status if table.missing_status(wanted.max(table.frames())) != 0 => table.add_status(page),
                    _ => Err((page, Errno::EEXIST)),
                }
            };
            match added {
                Ok(()) => {}
                Err((page, errno)) => {
                    let mut deferred = Vec::new();
                    memory::mmu(held.again(), domain, &mut deferred).end_shared(page.into_frame());
                    if errno != Errno::EEXIST {
                        return Err(Refusal::GeneralError);
                    }
                }
            }
        }
    }

    /// `GNTTABOP_set_version`.
    pub fn set_version(&self, domain: &Arc<Domain>, number: u32, held: &mut Held<'_, 0>) -> Result<(), Errno> {
        let version = self.table.lock(held).0.wanted_version(number)?;
        // Another CPU may make the table longer in between.
        for _ in 0..4 {
            let frames = self.table.lock(held).0.frames();
            self.grow(domain, frames, version, held).map_err(|_| Errno::ENOMEM)?;
            match self.table.lock(held).0.set_version(version) {
                Err(Errno::ENOMEM) => {}
                result => return result,
            }
        }
        Err(Errno::ENOMEM)
    }
}

/// The frame behind what a domain wrote into an entry, if the page is its own: for a PV domain the same number, for a PVH
/// domain what its physical map has there.
#[inline]
pub fn granted_frame<const H: u8>(granter: &Domain, gfn: Gfn, held: &mut Held<'_, H>) -> Result<Mfn, Refusal> {
    match frames().ram(Mfn(gfn.0)) {
        // Nobody's for a PVH domain, so that other domains do not pay for asking.
        Some(frame) if frame.info().is_of(granter.frames_by_number) => Ok(frame.mfn()),
        _ => mapped_frame(granter, gfn, held),
    }
}

#[cold]
fn mapped_frame<const H: u8>(granter: &Domain, gfn: Gfn, held: &mut Held<'_, H>) -> Result<Mfn, Refusal> {
    let found = granter.pvh().and_then(|pvh| pvh.physmap.find(gfn, held)).ok_or(Refusal::BadPage)?;
    let frame = frames().ram(found.mfn).ok_or(Refusal::BadPage)?;
    if frame.info().is_owned_by(granter.id) { Ok(frame.mfn()) } else { Err(Refusal::BadPage) }
}

/// Handles looked at by one step of [`release_mappings`].
const RELEASE_ROUND: u32 = 256;

/// Ends the uses of other domains' grants by a domain that dies, a few at a time: true when none is left. Its page
/// tables may still hold the entries, and hold the pages until they go.
pub fn release_mappings(domain: &Arc<Domain>, held: &mut Held<'_, 0>) -> bool {
    let mut deferred = Vec::new();
    let mut most = RELEASE_ROUND;
    loop {
        let detached = {
            let (mut track, _held) = domain.grants.maptrack.lock(held);
            match track.claim_next(&mut most) {
                Left::Mapping(mapping) => track.detach(mapping),
                Left::Unknown => return false,
                Left::Nothing => return true,
            }
        };
        let Some(granter) = domain::find(detached.granter(), held) else { continue };
        let freed = granter.grants.table.lock(held).0.forget(detached);
        memory::mmu(held.again(), domain, &mut deferred).put_freed(freed);
    }
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
