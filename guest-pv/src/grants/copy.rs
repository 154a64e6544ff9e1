//! Bytes copied by the hypervisor between memory of ours and pages that another domain granted, which are not mapped for
//! that (`GNTTABOP_copy`).
//!
//! Unsafe: the hypervisor writes to memory that it is told of by frame numbers.

use crate::call::grant_table;
use crate::mem::{DIRECT_MAP, PAGE_SIZE, p2m};
use alloc::vec::Vec;
use xen_abi::grant_table::{
    GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GNTST_GENERAL_ERROR, GNTST_OKAY, GnttabCopy, GnttabCopyPtr,
};
use xen_abi::ids::{DomId, GrantRef, Pfn};

/// The direction of a copy, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the other domain's page.
    In,
    /// To the other domain's page.
    Out,
}

/// Some bytes to be copied.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// Which way.
    pub way: Way,
    /// The other domain's page.
    pub reference: GrantRef,
    /// Where in it, in bytes.
    pub offset: usize,
    /// Where in our memory.
    pub at: usize,
    /// How many bytes.
    pub len: usize,
    /// What came of it: `GNTST_*`.
    pub status: i16,
}

/// Copies, and keeps the memory that the list of operations takes from one time to the next.
#[derive(Debug, Default)]
pub struct Copier {
    ops: Vec<GnttabCopy>,
}

impl Copier {
    /// Carries out all of `moves` by one hypercall, between `memory` and pages of `dom`, and writes each one's status.
    ///
    /// # Panics
    /// When `memory` is none of the direct map.
    pub fn run(&mut self, dom: DomId, memory: &mut [u8], moves: &mut [Move]) {
        let (base, all) = (memory.as_mut_ptr() as u64, memory.len());
        self.ops.clear();
        for one in &mut *moves {
            let fits = one.at.checked_add(one.len).is_some_and(|end| end <= all)
                && one.offset.checked_add(one.len).is_some_and(|end| end as u64 <= PAGE_SIZE);
            one.status = if fits { GNTST_OKAY } else { GNTST_GENERAL_ERROR };
            if fits {
                self.add(dom, base, one);
            }
        }
        if self.ops.is_empty() {
            return;
        }
        // SAFETY: the destinations are pages of the other domain, or frames behind `memory`, which is borrowed for writing.
        let called = unsafe { grant_table::copy(&mut self.ops) };
        let mut ops = self.ops.iter();
        for one in moves.iter_mut().filter(|one| one.status == GNTST_OKAY) {
            let mut left = one.len;
            while left > 0 {
                let Some(op) = ops.next() else { break };
                left -= usize::from(op.len);
                if called.is_err() || op.status != GNTST_OKAY {
                    one.status = if called.is_err() { GNTST_GENERAL_ERROR } else { op.status };
                }
            }
        }
    }

    /// An operation stays within one page of ours, so a move is one or two of them.
    fn add(&mut self, dom: DomId, base: u64, one: &Move) {
        let mut done = 0;
        while done < one.len {
            let at = base + (one.at + done) as u64;
            let within = at % PAGE_SIZE;
            let len = (one.len - done).min((PAGE_SIZE - within) as usize);
            let frame = at.checked_sub(DIRECT_MAP).and_then(|at| p2m(Pfn(at / PAGE_SIZE)));
            let frame = frame.expect("memory of the direct map");
            let here = GnttabCopyPtr { u: frame.0, domid: DomId::SELF, offset: within as u16, _pad: 0 };
            let offset = (one.offset + done) as u16;
            let there = GnttabCopyPtr { u: one.reference.0.into(), domid: dom, offset, _pad: 0 };
            let (source, dest, flags) = match one.way {
                Way::In => (there, here, GNTCOPY_SOURCE_GREF),
                Way::Out => (here, there, GNTCOPY_DEST_GREF),
            };
            self.ops.push(GnttabCopy { source, dest, len: len as u16, flags, ..Default::default() });
            done += len;
        }
    }
}
