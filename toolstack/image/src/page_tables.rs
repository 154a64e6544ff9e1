//! The initial page tables of a PV domain: where each table lies and what its 512 entries are.
//!
//! L1 entries of page-table frames are read-only (Xen pins nothing that is mapped writable); upper levels are always
//! writable and user, since a PV kernel runs in ring 3.

use xen_abi::ids::{Mfn, Pfn};

use crate::PAGE_SHIFT;
use crate::layout::{Plan, Span};

/// Page-table entry bits (SDM vol. 3A, table 4-20).
pub const PRESENT: u64 = 1 << 0;
/// Writable.
pub const WRITABLE: u64 = 1 << 1;
/// Accessible in ring 3.
pub const USER: u64 = 1 << 2;
/// Was used.
pub const ACCESSED: u64 = 1 << 5;
/// Was written.
pub const DIRTY: u64 = 1 << 6;

const LEAF: u64 = PRESENT | WRITABLE | USER | ACCESSED;
const TABLE: u64 = PRESENT | WRITABLE | USER | ACCESSED | DIRTY;

const VA_MASK: u64 = (1 << 48) - 1;

/// A run of virtual pages mapped to a run of frames, and the tables that map it: consecutive frames, highest level
/// first (Linux gives them back in that order).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Virtual page number of the first page, without the sign extension.
    vpn: u64,
    /// Its frame.
    pub first: Pfn,
    /// How many pages.
    pub pages: u64,
    /// Frame of the first table.
    tables: Pfn,
    /// The highest level that is the area's own: 4 for the one that has the root, 3 for one hung into it.
    top: u8,
}

impl Area {
    /// Maps `pages` (at least one) pages from `virt`, which is the frame `first`, by tables from the frame `tables` on.
    #[must_use]
    pub const fn new(virt: u64, first: Pfn, pages: u64, tables: Pfn, top: u8) -> Self {
        Self { vpn: (virt & VA_MASK) >> PAGE_SHIFT, first, pages, tables, top }
    }

    /// The frames of the tables.
    #[must_use]
    pub const fn tables(&self) -> Span {
        Span { first: self.tables, pages: self.table_offset(0) }
    }

    /// Index among all tables of `level` (of the address space) of the one that maps page `vpn`; for level 0, the page.
    const fn index(vpn: u64, level: u8) -> u64 {
        vpn >> (9 * level as u32)
    }

    const fn first_index(&self, level: u8) -> u64 {
        Self::index(self.vpn, level)
    }

    const fn last_index(&self, level: u8) -> u64 {
        Self::index(self.vpn + self.pages - 1, level)
    }

    /// How many tables lie before those of `level`.
    const fn table_offset(&self, level: u8) -> u64 {
        let mut before = 0;
        let mut l = self.top;
        while l > level {
            before += self.last_index(l) - self.first_index(l) + 1;
            l -= 1;
        }
        before
    }

    /// The frame that entry `index` (of the address space) of a table one level up refers to.
    fn child(&self, level: u8, index: u64) -> Option<Pfn> {
        if level > self.top || index < self.first_index(level) || index > self.last_index(level) {
            return None;
        }
        let ordinal = index - self.first_index(level);
        Some(match level {
            0 => Pfn(self.first.0 + ordinal),
            _ => Pfn(self.tables.0 + self.table_offset(level) + ordinal),
        })
    }

    /// Level and address-space index of table number `ordinal`.
    fn table(&self, mut ordinal: u64) -> Option<(u8, u64)> {
        for level in (1..=self.top).rev() {
            let count = self.last_index(level) - self.first_index(level) + 1;
            if ordinal < count {
                return Some((level, self.first_index(level) + ordinal));
            }
            ordinal -= count;
        }
        None
    }
}

/// One table of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// The frame it lies in.
    pub pfn: Pfn,
    /// 4 for the root, 1 for what maps pages.
    pub level: u8,
    /// Its number among all tables of its level in the address space.
    index: u64,
}

impl Plan {
    /// All page tables, the root first.
    pub fn tables(&self) -> impl Iterator<Item = Table> + '_ {
        let areas = core::iter::once(self.main).chain(self.p2m.own);
        areas.flat_map(|area| {
            (0..area.tables().pages).filter_map(move |ordinal| {
                let (level, index) = area.table(ordinal)?;
                Some(Table { pfn: Pfn(area.tables().first.0 + ordinal), level, index })
            })
        })
    }

    /// The entries of `table`. `mfn` says which machine frame a pfn of this domain is.
    pub fn fill_table<F: FnMut(Pfn) -> Mfn>(&self, table: &Table, mut mfn: F, entries: &mut [u64; 512]) {
        entries.fill(0);
        let (level, base) = (table.level - 1, table.index * 512);
        let tables = [Some(self.main.tables()), self.p2m.own.map(|own| own.tables())];
        let is_page_table = |pfn| tables.iter().flatten().any(|span| span.contains(pfn));
        // Most tables are nearly empty. The main area comes last: what it maps counts.
        for area in [self.p2m.own, Some(self.main)].into_iter().flatten() {
            let (first, last) = (area.first_index(level).max(base), area.last_index(level).min(base + 511));
            let skip = usize::try_from(first - base).unwrap_or(usize::MAX);
            for (index, entry) in (first..=last).zip(entries.iter_mut().skip(skip)) {
                let Some(pfn) = area.child(level, index) else { continue };
                let flags = match level {
                    0 if is_page_table(pfn) => LEAF & !WRITABLE,
                    0 => LEAF,
                    _ => TABLE,
                };
                *entry = (mfn(pfn).0 << PAGE_SHIFT) | flags;
            }
        }
    }
}
