//! Pages that a guest granted, mapped for as long as somebody needs them.
//!
//! A front end that keeps its grants (`feature-persistent`) gets its pages mapped once: most of what a request costs
//! otherwise is mapping and unmapping. The pages stay until the front end goes.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use dom0_hal::dma::Memory;
use guest_pv::grants::{self, GrantError};
use guest_pv::mem::Access;
use xen_abi::ids::{DomId, GrantRef};

/// Pages that are kept of one device, at most: what Linux's back end keeps.
pub const MOST: usize = 1056;

/// A page: which of some that are mapped side by side.
#[derive(Clone, Debug)]
pub struct Page {
    pub memory: Rc<Memory>,
    pub index: usize,
}

/// The pages of one device.
#[derive(Debug)]
pub struct Pages {
    dom: DomId,
    persistent: bool,
    kept: BTreeMap<GrantRef, Page>,
}

impl Pages {
    /// Of a guest that keeps its grants, or not.
    pub fn new(dom: DomId, persistent: bool) -> Self {
        Self { dom, persistent, kept: BTreeMap::new() }
    }

    /// The pages of these references, in order. They stay mapped as long as the answer lives at least.
    pub fn get(&mut self, references: &[GrantRef], access: Access) -> Result<Vec<Page>, GrantError> {
        // What is kept may be needed for the other direction next.
        let access = if self.persistent { Access::ReadWrite } else { access };
        let mut missing: Vec<GrantRef> =
            references.iter().copied().filter(|reference| !self.kept.contains_key(reference)).collect();
        missing.sort_unstable();
        missing.dedup();
        let mut fresh = BTreeMap::new();
        if !missing.is_empty() {
            let memory = Rc::new(Memory::Granted(grants::map(self.dom, &missing, access)?));
            for (index, &reference) in missing.iter().enumerate() {
                let page = Page { memory: memory.clone(), index };
                if self.persistent && self.kept.len() < MOST {
                    self.kept.insert(reference, page.clone());
                }
                fresh.insert(reference, page);
            }
        }
        let page = |reference| fresh.get(reference).or_else(|| self.kept.get(reference)).cloned();
        Ok(references.iter().filter_map(page).collect())
    }
}
