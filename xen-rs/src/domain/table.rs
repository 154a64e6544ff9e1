//! The table of all domains.

use alloc::{collections::BTreeMap, sync::Arc};

use logic::lock::{Held, rank};
use xen_abi::ids::{DOMID_FIRST_RESERVED, DomId};

use super::Domain;
use crate::sync::Lock;

static DOMAINS: Lock<BTreeMap<u16, Arc<Domain>>, { rank::DOMAIN_LIST }> = Lock::new(BTreeMap::new());

/// The domain of a number.
#[must_use]
pub fn find(id: DomId, held: &mut Held<'_, 0>) -> Option<Arc<Domain>> {
    DOMAINS.lock(held).0.get(&id.0).cloned()
}

/// The first domain whose number is not below `from`: a step of a listing.
#[must_use]
pub fn next_from(from: DomId, held: &mut Held<'_, 0>) -> Option<Arc<Domain>> {
    DOMAINS.lock(held).0.range(from.0..).next().map(|(_, domain)| domain.clone())
}

/// Calls `f` for each domain, in the order of their numbers.
pub fn for_each(held: &mut Held<'_, 0>, mut f: impl FnMut(&Arc<Domain>)) {
    let (domains, _held) = DOMAINS.lock(held);
    domains.values().for_each(&mut f);
}

/// The lowest number from 1 that is not in use.
#[must_use]
pub fn first_free_id(held: &mut Held<'_, 0>) -> Option<DomId> {
    let (domains, _held) = DOMAINS.lock(held);
    (1..DOMID_FIRST_RESERVED).find(|id| !domains.contains_key(id)).map(DomId)
}

/// Enters a domain under its number; fails when the number is taken.
pub fn insert(domain: Arc<Domain>, held: &mut Held<'_, 0>) -> bool {
    let (mut domains, _held) = DOMAINS.lock(held);
    if domains.contains_key(&domain.id.0) {
        return false;
    }
    domains.insert(domain.id.0, domain);
    true
}

/// Takes a domain out of the table.
pub fn remove(id: DomId, held: &mut Held<'_, 0>) -> Option<Arc<Domain>> {
    DOMAINS.lock(held).0.remove(&id.0)
}
