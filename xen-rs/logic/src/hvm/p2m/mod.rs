//! The physical map of a domain in a hardware container: which frame is behind each of its guest frame numbers.
//!
//! The map *is* the nested page tables that the CPU walks, in the format of either vendor ([`Format`]); there is no second
//! list that could say something else. As with a PV guest's page tables and with grant mappings, **an entry holds what
//! it gives a guest the use of**: a general reference of each frame, and a type reference where the guest may write.
//! These references travel as a [`Page`], which only [`Page::take`] makes:
//!
//! ```
//! use logic::hvm::p2m::{Physmap, Page, Refused, TableMemory};
//! use xen_abi::ids::Gfn;
//! fn map<'f, M: TableMemory>(map: &mut Physmap<M>, gfn: Gfn, page: Page<'f>) -> Result<(), (Refused, Page<'f>)> {
//!     map.map(gfn, page)
//! }
//! ```
//!
//! ```compile_fail,E0308
//! # use logic::hvm::p2m::{Physmap, Page, Refused, TableMemory};
//! # use xen_abi::ids::{Gfn, Mfn};
//! fn map<'f, M: TableMemory>(map: &mut Physmap<M>, gfn: Gfn, mfn: Mfn) -> Result<(), (Refused, Page<'f>)> {
//!     map.map(gfn, mfn)
//! }
//! ```
//!
//! An entry that is taken out gives a [`Stale`] page: CPUs may still translate by it, so its references cannot be given
//! up before a flush.
//!
//! ```
//! use logic::{grant::Flushed, hvm::p2m::Stale, page::{Env, Mmu}};
//! fn drop<'f, E: Env>(mm: &mut Mmu<'f, E>, stale: Stale<'f>, flushed: &Flushed) {
//!     stale.flushed(flushed).give_up(mm);
//! }
//! ```
//!
//! ```compile_fail,E0599
//! # use logic::{hvm::p2m::Stale, page::{Env, Mmu}};
//! fn drop<'f, E: Env>(mm: &mut Mmu<'f, E>, stale: Stale<'f>) {
//!     stale.give_up(mm);
//! }
//! ```
//!
//! A PVH domain's memory comes in extents of 2 MiB. Where they lie side by side, 1 GiB of them becomes one entry
//! ([`Physmap::join`]) as long as the domain has not run; a part of it that goes splits it again.
//!
//! Only memory can be mapped: device memory is refused, since no domain in a container is given any.
//!
//! Who walks the tables without the lock of the map (the CPUs, and the hypervisor on behalf of a running vCPU of the
//! domain) never meets a freed one: a table stays until [`Physmap::take_apart`], which begins when no vCPU runs any more.

mod format;
mod page;
mod physmap;
mod walk;

#[cfg(all(any(test, feature = "models"), not(loom)))]
pub mod tests;

pub use format::Format;
pub use page::{Page, Stale};
pub use physmap::{Physmap, Refused};
pub use walk::{Found, Node, TableMemory, Walker};

use crate::page::Slot;
use xen_abi::ids::Gfn;

/// How much one entry maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Order {
    /// 4 KiB.
    Page = 0,
    /// 2 MiB.
    Large = 9,
    /// 1 GiB.
    Huge = 18,
}

impl Order {
    /// The sizes, from the largest.
    pub const ALL: [Order; 3] = [Order::Huge, Order::Large, Order::Page];

    /// Number of frames.
    #[inline(always)]
    #[must_use]
    pub const fn frames(self) -> u64 {
        1 << self as u8
    }

    /// The level of the tables whose entries have this size, from 0.
    #[inline(always)]
    const fn level(self) -> u8 {
        self as u8 / 9
    }

    const fn of_level(level: u8) -> Option<Order> {
        match level {
            0 => Some(Order::Page),
            1 => Some(Order::Large),
            2 => Some(Order::Huge),
            _ => None,
        }
    }

    /// The next smaller size.
    const fn smaller(self) -> Order {
        match self {
            Order::Huge => Order::Large,
            Order::Large | Order::Page => Order::Page,
        }
    }

    /// The largest size that fits both numbers and is no longer than `frames`.
    #[must_use]
    pub fn fitting(gfn: Gfn, mfn: u64, frames: u64, largest: Order) -> Order {
        let fits = |order: &Order| {
            *order <= largest && (gfn.0 | mfn).is_multiple_of(order.frames()) && order.frames() <= frames
        };
        Self::ALL.into_iter().find(fits).unwrap_or(Order::Page)
    }
}

/// What a guest may do with a page besides reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Write to it.
    pub write: bool,
    /// Run code in it.
    pub execute: bool,
}

impl Access {
    /// Everything: ordinary memory.
    pub const ALL: Access = Access { write: true, execute: true };
    /// Data, as a page of another domain.
    pub const DATA: Access = Access { write: true, execute: false };
    /// Data that it only reads.
    pub const READ: Access = Access { write: false, execute: false };

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn includes(self, other: Access) -> bool {
        (self.write || !other.write) && (self.execute || !other.execute)
    }
}

/// What a page is in the map as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Use {
    /// The domain's own memory.
    Ram = 0,
    /// A page of the hypervisor's that the domain asked for: `shared_info`, grant table frames (`XENMEM_add_to_physmap`).
    Shared = 1,
    /// A grant of another domain.
    Grant = 2,
    /// Another domain's page that a builder maps.
    Foreign = 3,
}

/// One more than the highest guest frame number that tables of four levels reach.
pub const END: Gfn = Gfn(1 << 36);

/// The root's level.
const TOP: u8 = 3;

/// The slot for a guest frame in a table of a level.
#[allow(clippy::cast_possible_truncation, reason = "masked by Slot::new")]
const fn slot(gfn: u64, level: u8) -> Slot {
    Slot::new((gfn >> (9 * level) & 511) as u16)
}
