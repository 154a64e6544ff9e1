//! Pages that the hypervisor reads and writes while a guest has them mapped: `shared_info`, grant tables, `vcpu_info`.

use xen_abi::ids::{DomId, Mfn};

use super::env::Env;
use super::info::{Frame, FrameTable};
use super::refs::Mmu;
use crate::frames::Block;

/// Proof that a frame is ordinary data for as long as this exists: the hypervisor's own page that a domain may map, or
/// a guest's page on which a general reference and a writable type reference are held. So it may be written, by single
/// atomic accesses, at any moment.
#[derive(Debug)]
#[must_use = "the page would be lost"]
pub struct SharedFrame<'f> {
    frame: Frame<'f>,
    own: bool,
}

impl SharedFrame<'_> {
    /// Its number.
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.frame.mfn()
    }

    /// Whether it is the hypervisor's own page.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.own
    }
}

impl Block {
    /// [`Block::share`] of a single frame. Gives the block back if it is more than one.
    pub fn share_page<'f>(self, table: FrameTable<'f>, owner: DomId) -> Result<SharedFrame<'f>, Block> {
        match (self.order(), table.ram(self.mfn())) {
            (0, Some(frame)) => {
                let _ = self.share(table, owner);
                Ok(SharedFrame { frame, own: true })
            }
            _ => Err(self),
        }
    }
}

impl<'f, E: Env> Mmu<'f, E> {
    /// Takes a guest's page for shared use: `None` if it is not `owner`'s or not to be written.
    pub fn hold_writable(&mut self, mfn: Mfn, owner: DomId) -> Option<SharedFrame<'f>> {
        let frame = self.get_page(mfn, owner)?;
        if self.get_writable(frame) {
            return Some(SharedFrame { frame, own: false });
        }
        self.put_page(frame);
        None
    }

    /// Ends the shared use: no CPU accesses the page any more. An own page loses the reference of its allocation and is
    /// freed when its owner has unmapped it.
    pub fn end_shared(&mut self, shared: SharedFrame<'f>) {
        // An own page was born with a writable type reference: it never becomes a table of the domain that maps it.
        if !shared.own || shared.frame.info().take_allocated() {
            self.put_type(shared.frame);
            self.put_page(shared.frame);
        }
    }
}
