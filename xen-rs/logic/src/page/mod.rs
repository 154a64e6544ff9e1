//! The rules of PV memory: who may use a page as what.
//!
//! A PV guest's page tables are the CPU's own tables, so what a guest writes to them decides what it can reach. The
//! rule that keeps guests apart: **a page that is in use as a page table (or holds descriptors) is never writable by
//! any guest, and every entry of a table in use has been checked.** To uphold it, each frame has two counts:
//!
//! * general references: everything that would break if the frame were given to somebody else (the owner's own
//!   allocation, each entry that maps it, each root in use, each operation under way);
//! * type references: every use in one particular role ([`Kind`]). The role can change only when this count is zero,
//!   and then only after all TLBs have been flushed that may still hold the old role.
//!
//! A page that becomes a table is *validated*: each of its entries takes references to what it maps. Giving up the last
//! type reference devalidates it. Both can take long, so both stop when the slice is used up and leave the page in a
//! partial state, from which any CPU can go on; who validates may turn back what is being given up, but not the other way
//! round. The states are described at [`word`].
//!
//! The steps of that state machine have types. A table can be written only by whom it was locked for, since nothing else
//! makes a [`Locked`] or a [`Table`]:
//!
//! ```
//! use logic::page::{Changed, Entry, Env, Fail, Locked, Mmu, Owners, Replace, Slot};
//! use xen_abi::ids::{DomId, Mfn};
//! fn write<E: Env>(mm: &mut Mmu<'_, E>, table: Mfn, slot: Slot, new: Entry, who: DomId) -> Result<Changed, Fail> {
//!     let f = mm.frames.ram(table).ok_or(Fail::Again)?;
//!     let locked = mm.lock_table(f, who).ok_or(Fail::Again)?;
//!     mm.update(locked, slot, new, Replace::Whole, who, Owners { pages: who, caller: who })
//! }
//! ```
//!
//! ```compile_fail,E0308
//! # use logic::page::{Changed, Entry, Env, Fail, Mmu, Owners, Replace, Slot};
//! # use xen_abi::ids::{DomId, Mfn};
//! fn write<E: Env>(mm: &mut Mmu<'_, E>, table: Mfn, slot: Slot, new: Entry, who: DomId) -> Result<Changed, Fail> {
//!     let f = mm.frames.ram(table).ok_or(Fail::Again)?;
//!     mm.update(f, slot, new, Replace::Whole, who, Owners { pages: who, caller: who })
//! }
//! ```
//!
//! ```compile_fail,E0451
//! # use logic::page::{Frame, Kind, Table};
//! fn forge<'f>(frame: Frame<'f>) -> Table<'f> {
//!     Table { frame, kind: Kind::L1 }
//! }
//! ```
//!
//! A table above L1 may have entries that point to itself, for reading: they count nothing. Those that point to another
//! table of its own level are refused (docs/decisions/0005): so the graph of tables has no cycle but these, and locks on
//! page words are taken from the root down.
//!
//! Waiting: a CPU that waits for another's page word calls [`Env::relax`]. What it waits for needs no lock that the
//! waiting CPU holds, as long as **no ranked lock is held while an operation of [`Mmu`] is under way** except those
//! that rank below the owner's page list.

mod atomic {
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    #[cfg(not(loom))]
    pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

mod audit;
mod brief;
mod data;
pub mod entry;
mod env;
pub(crate) mod info;
mod mapping;
mod pin;
mod refs;
mod role;
mod shared;
mod steal;
mod table;
mod update;
pub mod word;

#[cfg(all(any(test, feature = "models"), not(loom)))]
pub mod tests;
#[cfg(all(test, loom))]
#[path = "tests/loom.rs"]
mod tests_under_loom;

pub use audit::{Audit, Mistake};
pub use brief::{Brief, Last};
pub use entry::Entry;
pub use env::{Deferred, Env, Freed, Slot, Table};
pub use info::{Frame, FrameTable, Owner, PageInfo};
pub use mapping::{Mapping, MappingBits};
pub use pin::pin_kind;
pub use refs::{Fail, Mmu};
pub use role::{Descriptors, Role, RootTable, TypeRef, Writable};
pub use shared::SharedFrame;
pub use steal::Stolen;
pub use update::{Changed, Locked, Owners, Replace};
pub use word::{Kind, Progress, Stamp, State, Word};
