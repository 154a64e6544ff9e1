//! The table of all domains.

use alloc::{collections::BTreeMap, sync::Arc};
use core::sync::atomic::{AtomicU16, Ordering};

use logic::lock::{Held, rank};
use xen_abi::{
    ids::{DOMID_FIRST_RESERVED, DomId},
    trace::{TRC_SCHED_DOM_ADD, TRC_SCHED_DOM_REM},
};

use super::Domain;
use crate::{sync::Lock, trace};

static DOMAINS: Lock<BTreeMap<u16, Arc<Domain>>, { rank::DOMAIN_LIST }> = Lock::new(BTreeMap::new());
/// Changed under the lock of `DOMAINS`.
static LAST_GIVEN: AtomicU16 = AtomicU16::new(0);

/// The domain of a number.
#[must_use]
pub fn find(id: DomId, held: &mut Held<'_, 0>) -> Option<Arc<Domain>> {
    DOMAINS.lock(held).0.get(&id.0).cloned()
}

/// The hardware domain: dom0, which has the devices and the console.
#[must_use]
pub fn hardware(held: &mut Held<'_, 0>) -> Option<Arc<Domain>> {
    find(DomId(0), held)
}

/// The first domain whose number is not below `from`: a step of a listing.
#[must_use]
pub fn next_from<const H: u8>(from: DomId, held: &mut Held<'_, H>) -> Option<Arc<Domain>> {
    DOMAINS.lock(held).0.range(from.0..).next().map(|(_, domain)| domain.clone())
}

/// A number that is not in use, counting on from the last one given out and starting over at the end: numbers of
/// domains that are gone come back as late as possible.
#[must_use]
pub fn next_free_id(held: &mut Held<'_, 0>) -> Option<DomId> {
    let (domains, _held) = DOMAINS.lock(held);
    let last = LAST_GIVEN.load(Ordering::Relaxed);
    let id = (last.saturating_add(1)..DOMID_FIRST_RESERVED).chain(1..=last).find(|id| !domains.contains_key(id))?;
    LAST_GIVEN.store(id, Ordering::Relaxed);
    Some(DomId(id))
}

/// Enters a domain under its number; fails when the number is taken.
pub fn insert(domain: Arc<Domain>, held: &mut Held<'_, 0>) -> bool {
    let (mut domains, _held) = DOMAINS.lock(held);
    if domains.contains_key(&domain.id.0) {
        return false;
    }
    trace::event(TRC_SCHED_DOM_ADD, || [domain.id.0.into()]);
    domains.insert(domain.id.0, domain);
    true
}

/// Takes a domain out of the table.
pub fn remove(id: DomId, held: &mut Held<'_, 0>) -> Option<Arc<Domain>> {
    trace::event(TRC_SCHED_DOM_REM, || [id.0.into()]);
    DOMAINS.lock(held).0.remove(&id.0)
}
