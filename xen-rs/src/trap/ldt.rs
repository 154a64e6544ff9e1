//! The LDT of a PV guest. The guest names it by addresses of its own; a page of it is looked up, checked and shown to the CPU
//! when a selector first needs it.

use arrayvec::ArrayVec;
use machine::arch::x86_64::descriptors;
use machine::mem::{layout::PAGE_SHIFT, pv_pte};

use logic::num;
use logic::page::{Descriptors, TypeRef, entry::bit};
use logic::trap::{is_canonical, vector};

use xen_abi::ids::Mfn;

use super::deliver;
use crate::{
    cpu::Context,
    memory::{self, Mm},
};

/// Pages of the largest LDT: 8192 descriptors.
const PAGES: usize = 16;

/// A selector's index, and the bit that says that it is one of the LDT's, in an error code (SDM vol. 3A, 6.13).
const INDEX: u32 = 0xfff8;
const TABLE_INDICATOR: u32 = 1 << 2;

/// The guest's LDT.
#[derive(Debug, Default)]
pub struct Ldt {
    /// Its address in the kernel's address space, on a page.
    pub base: u64,
    /// Number of descriptors, 0 for none.
    pub entries: u32,
    /// The pages that were needed so far.
    pages: ArrayVec<(u32, TypeRef<'static, Descriptors>), PAGES>,
}

impl Ldt {
    /// An LDT of which nothing has been looked up.
    #[must_use]
    pub fn new(base: u64, entries: u32) -> Self {
        Self { base, entries, pages: ArrayVec::new() }
    }

    /// Makes it this CPU's.
    #[inline]
    pub fn load(&self) {
        descriptors::load_ldt(self.entries);
        for (page, frame) in &self.pages {
            descriptors::map_ldt(*page, frame);
        }
    }

    /// The frames of the pages that were needed so far.
    pub fn frames(&self) -> impl Iterator<Item = Mfn> {
        self.pages.iter().map(|(_, page)| page.mfn())
    }

    /// Gives the pages up. No CPU may show them any more.
    pub fn release(&mut self, mm: &mut Mm<'_>) {
        for (_, frame) in self.pages.drain(..) {
            mm.put_ref(frame);
        }
    }
}

/// The vCPU's LDT becomes another one, or the same one when its addresses mean something else now.
pub fn replace(cx: &mut Context<'_>, base: u64, entries: u32) {
    descriptors::load_ldt(entries);
    let mut mm = memory::mmu(cx.held.again(), cx.domain, &mut cx.state.paging.deferred);
    cx.state.pv.ldt.release(&mut mm);
    cx.state.pv.ldt = Ldt::new(base, entries);
}

/// A page fault in the window through which the CPU sees the LDT. False: it hit somewhere else.
#[inline]
pub fn fault(cx: &mut Context<'_>, address: u64, error_code: u32) -> bool {
    // The CPU looks descriptors up as ring 0 does; whoever reads there by itself gets a fault of its own.
    const USER: u32 = 1 << 2;
    if error_code & USER != 0 {
        return false;
    }
    let Some(page) = descriptors::ldt_fault(address) else { return false };
    if !show(cx, page) {
        // The guest sees the fault where its table lies.
        let offset = page << PAGE_SHIFT | num::uint(address) & ((1 << PAGE_SHIFT) - 1);
        let at = cx.state.pv.ldt.base.wrapping_add(offset.into());
        if is_canonical(at) {
            deliver::page_fault(cx, at, error_code);
        } else {
            deliver::exception(cx, vector::GENERAL_PROTECTION, Some(offset & INDEX | TABLE_INDICATOR));
        }
    }
    true
}

/// The LDT is named by addresses of the guest, which mean something else in another root: its pages are looked up again.
pub fn forget(cx: &mut Context<'_>) {
    let (base, entries) = (cx.state.pv.ldt.base, cx.state.pv.ldt.entries);
    if entries != 0 {
        replace(cx, base, entries);
    }
}

/// Looks a page up in the guest's tables and shows it; false if it cannot be an LDT.
#[cold]
fn show(cx: &mut Context<'_>, page: u32) -> bool {
    let ldt = &mut cx.state.pv.ldt;
    if let Some((_, frame)) = ldt.pages.iter().find(|(shown, _)| *shown == page) {
        descriptors::map_ldt(page, frame);
        return true;
    }
    let va = ldt.base.wrapping_add(u64::from(page) << PAGE_SHIFT);
    // The address is one of the kernel's, which the tables of user mode need not have.
    let in_user = !cx.state.pv.in_kernel;
    if in_user {
        cx.state.paging.switch_mode(true);
    }
    let found = pv_pte::walk(va);
    if in_user {
        cx.state.paging.switch_mode(false);
    }
    let Some((_, _, mapping)) = found else { return false };
    if mapping.0 & bit::PRESENT == 0 {
        return false;
    }
    let mut mm = memory::mmu(cx.held.again(), cx.domain, &mut cx.state.paging.deferred);
    let Ok(frame) = mm.get_ref::<Descriptors>(mapping.mfn(), cx.domain.id) else { return false };
    descriptors::map_ldt(page, &frame);
    match ldt.pages.try_push((page, frame)) {
        Ok(()) => true,
        Err(extra) => {
            // Sixteen pages are all there are.
            mm.put_ref(extra.element().1);
            false
        }
    }
}
