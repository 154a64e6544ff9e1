//! Type references as values: proofs for the machine floor that a page is what it has to be.
//!
//! A [`TypeRef`] holds one general and one type reference. It cannot be copied, and it is given back by
//! [`Mmu::put_ref`], which may take long; so dropping it does not, it only keeps the page as it is for ever:
//!
//! ```compile_fail,E0382
//! # use logic::page::{TypeRef, RootTable};
//! fn twice<'f>(root: TypeRef<'f, RootTable>) -> (TypeRef<'f, RootTable>, TypeRef<'f, RootTable>) {
//!     (root, root)
//! }
//! ```
//!
//! and a page that was validated for one role does not pass for another:
//!
//! ```compile_fail,E0308
//! # use logic::page::{Descriptors, TypeRef, Writable};
//! fn write(_: &TypeRef<'_, Writable>) {}
//! fn wrong(page: &TypeRef<'_, Descriptors>) {
//!     write(page);
//! }
//! ```

use core::marker::PhantomData;

use xen_abi::Errno;
use xen_abi::ids::{DomId, Mfn};

use super::env::Env;
use super::info::Frame;
use super::refs::{Fail, Mmu};
use super::word::Kind;

/// What a page is held as.
pub trait Role {
    /// The kind in the type word.
    const KIND: Kind;
}

/// A root of a page-table tree: may be loaded into CR3.
#[derive(Debug)]
pub enum RootTable {}
/// A page of segment descriptors: may be mapped in a GDT or LDT window.
#[derive(Debug)]
pub enum Descriptors {}
/// A page that the hypervisor may write to on a guest's behalf.
#[derive(Debug)]
pub enum Writable {}

impl Role for RootTable {
    const KIND: Kind = Kind::L4;
}
impl Role for Descriptors {
    const KIND: Kind = Kind::SegDesc;
}
impl Role for Writable {
    const KIND: Kind = Kind::Writable;
}

/// A page held in a role, with a general reference.
#[derive(Debug)]
#[must_use = "the page would keep its role for ever"]
pub struct TypeRef<'f, R: Role>(Frame<'f>, PhantomData<R>);

impl<'f, R: Role> TypeRef<'f, R> {
    /// Of a frame of which both references were taken.
    #[inline(always)]
    pub(super) const fn of(frame: Frame<'f>) -> Self {
        TypeRef(frame, PhantomData)
    }

    /// The frame.
    #[inline(always)]
    #[must_use]
    pub const fn frame(&self) -> Frame<'f> {
        self.0
    }

    /// The frame's number.
    #[inline(always)]
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.0.mfn()
    }
}

impl<'f, E: Env> Mmu<'f, E> {
    /// Takes a page of `owner` in a role. On [`Fail::Again`] what was validated so far is kept for the next try.
    #[inline]
    pub fn get_ref<R: Role>(&mut self, mfn: Mfn, owner: DomId) -> Result<TypeRef<'f, R>, Fail> {
        let f = self.get_page(mfn, owner).ok_or(Fail::Refused(Errno::EINVAL))?;
        match self.get_type(f, R::KIND) {
            Ok(()) => Ok(TypeRef(f, PhantomData)),
            Err(fail) => {
                self.put_page(f);
                Err(fail)
            }
        }
    }

    /// [`Mmu::get_ref`] of a page that may be written. `None`: it has another role, or is not `owner`'s.
    #[inline(always)]
    pub fn get_writable_ref(&mut self, mfn: Mfn, owner: DomId) -> Option<TypeRef<'f, Writable>> {
        let f = self.get_page(mfn, owner)?;
        if !self.get_writable(f) {
            self.put_page(f);
            return None;
        }
        Some(TypeRef(f, PhantomData))
    }

    /// Gives a page that may be written back.
    #[inline(always)]
    pub fn put_writable_ref(&mut self, held: TypeRef<'f, Writable>) {
        self.put_mapping(held.0, true);
    }

    /// Gives a page in a role back; false when the rest of its devalidation was deferred.
    #[inline]
    pub fn put_ref<R: Role>(&mut self, held: TypeRef<'f, R>) -> bool {
        self.put_page_and_type(held.0)
    }

    /// Takes the references that a writable mapping by somebody else than `owner` needs (a grant): of a page of `owner`,
    /// to be given up by [`Mmu::put_mapping`]. `EBUSY` if the page has another role.
    #[inline(always)]
    pub fn get_mapping(&mut self, mfn: Mfn, owner: DomId, writable: bool, mapper: DomId) -> Result<Frame<'f>, Errno> {
        let f = self.get_page(mfn, owner).ok_or(Errno::EINVAL)?;
        self.map_held(f, owner, writable, mapper)
    }

    /// [`Mmu::get_mapping`] of a page on which the caller has a general reference. It is given up by the error.
    #[inline(always)]
    pub(super) fn map_held(
        &mut self,
        f: Frame<'f>,
        owner: DomId,
        writable: bool,
        mapper: DomId,
    ) -> Result<Frame<'f>, Errno> {
        if writable {
            if !self.get_writable(f) {
                self.put_page(f);
                return Err(Errno::EBUSY);
            }
            if mapper != owner {
                f.mark_foreign();
            }
        }
        Ok(f)
    }

    /// Gives up the references of a mapping.
    #[inline(always)]
    pub fn put_mapping(&mut self, f: Frame<'f>, writable: bool) {
        if writable {
            self.put_writable(f);
        }
        self.put_page(f);
    }
}
