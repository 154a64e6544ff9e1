//! What the CPUs remember of page tables, and when each of them last forgot.
//!
//! A clock counts flushes. A page notes the clock when its last use in a role ends ([`Stamp`]); a CPU notes it when it
//! flushes everything. Before the page takes another role, each CPU must have flushed after that moment, and most have
//! done so by themselves by then. The clock is read after a full barrier that follows the change of the page table, and
//! a flushing CPU advances it before it flushes: so a CPU whose number is above a page's has seen the change.
//!
//! User mappings of PV guests are global, so that they outlive the switch between a guest's two roots; a flush of
//! everything includes them. Where global pages are not used, each load of a root flushes everything.
//!
//! Unsafe: instructions that invalidate translations and load root tables.

use super::hypervisor_map::idle_root;
use crate::arch::x86_64::cpu::{self, Features, cr4, has};
use crate::arch::x86_64::percpu;
use crate::mailbox;
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use logic::grant::Flushed;
use logic::page::{RootTable, Stamp, TypeRef};
use logic::sched::CpuMask;
use xen_abi::ids::DomId;

/// CPUs there can be at most: one bit each in a mask.
pub const MAX_CPUS: usize = 64;

static CLOCK: AtomicU64 = AtomicU64::new(1);

/// What is known of one CPU's TLB, on a cache line of its own.
#[repr(align(64))]
struct Tlb {
    /// The clock at the beginning of its last full flush.
    flushed: AtomicU64,
    /// Whose tables are loaded: 0 for nobody's, else the id with bit 16 set.
    runs: AtomicU32,
}

static TLBS: [Tlb; MAX_CPUS] = [const { Tlb { flushed: AtomicU64::new(0), runs: AtomicU32::new(0) } }; MAX_CPUS];

const SOMEBODY: u32 = 1 << 16;

#[inline(always)]
fn here() -> &'static Tlb {
    let number = percpu::number() as usize;
    TLBS.get(number).unwrap_or(&TLBS[0])
}

/// The flush clock.
#[inline(always)]
#[must_use]
pub fn now() -> Stamp {
    Stamp::new(CLOCK.load(Ordering::Acquire))
}

/// Flushes this CPU's TLB, global entries too.
#[inline]
pub fn flush_here() {
    let begun = CLOCK.fetch_add(1, Ordering::SeqCst) + 1;
    flush_everything();
    here().flushed.store(begun, Ordering::Release);
}

/// Flushes everything.
#[inline(always)]
fn flush_everything() {
    if has(Features::GLOBAL_PAGES) {
        flush_global_pages();
    } else {
        // SAFETY: the root that is loaded.
        unsafe { cpu::write_cr3(cpu::read_cr3()) };
    }
}

/// The rest of [`flush_everything`] where a root has just been loaded.
#[inline(always)]
fn flush_after_load() {
    if has(Features::GLOBAL_PAGES) {
        flush_global_pages();
    }
}

#[inline(always)]
fn flush_global_pages() {
    if has(Features::INVPCID) {
        let descriptor = [0u64; 2];
        // SAFETY: forgetting translations changes nothing that memory safety rests on. Type 2: everything.
        unsafe { asm!("invpcid {}, [{}]", in(reg) 2u64, in(reg) &descriptor, options(nostack, preserves_flags)) };
    } else {
        let value = cpu::read_cr4();
        // SAFETY: turning global pages off and on flushes everything (SDM vol. 3A, 4.10.4.1) and changes nothing else.
        unsafe {
            cpu::write_cr4(value & !cr4::PGE);
            cpu::write_cr4(value | cr4::PGE);
        }
    }
}

/// Flushes one address from this CPU's TLB (and its paging-structure caches).
#[inline(always)]
pub fn flush_page_here(va: u64) {
    super::hypervisor_map::flush_page(va);
}

/// Loads the root of a domain, or another root of the domain that is loaded, and forgets everything of the last one.
#[inline]
pub fn load_root(root: &TypeRef<'static, RootTable>, domain: DomId) {
    let begun = CLOCK.fetch_add(1, Ordering::SeqCst) + 1;
    let tlb = here();
    // Before the switch: from here to the load no address of a guest is used.
    tlb.runs.store(SOMEBODY | u32::from(domain.0), Ordering::SeqCst);
    // SAFETY: a validated root holds the hypervisor's slots, and the reference keeps it valid.
    unsafe { cpu::write_cr3(root.mfn().0 << 12) };
    flush_after_load();
    tlb.flushed.store(begun, Ordering::Release);
}

/// Goes from one root to the other of the same vCPU: what both map for user mode stays.
#[inline(always)]
pub fn switch_mode_root(root: &TypeRef<'static, RootTable>) {
    // SAFETY: as in `load_root`.
    unsafe { cpu::write_cr3(root.mfn().0 << 12) };
}

/// Leaves the root of a vCPU that goes off this CPU: from then on the root may be given up. What the TLB holds stays to
/// be flushed by the next load, so the CPU still counts as one of the domain's.
#[inline]
pub fn leave_root() {
    // SAFETY: the hypervisor's own root.
    unsafe { cpu::write_cr3(idle_root()) };
}

/// Leaves all guests' tables: before a domain's roots are given up, or when a CPU idles for long.
pub fn load_idle_root() {
    let begun = CLOCK.fetch_add(1, Ordering::SeqCst) + 1;
    let tlb = here();
    tlb.runs.store(0, Ordering::SeqCst);
    // SAFETY: the hypervisor's own root.
    unsafe { cpu::write_cr3(idle_root()) };
    flush_after_load();
    tlb.flushed.store(begun, Ordering::Release);
}

/// Leaves all guests' tables for the container of a vCPU of this domain: the CPU counts as one of the domain's.
pub fn enter_container(domain: DomId) {
    load_idle_root();
    here().runs.store(SOMEBODY | u32::from(domain.0), Ordering::SeqCst);
}

/// The CPUs that have tables of this domain loaded.
#[must_use]
pub fn cpus_of(domain: DomId) -> u64 {
    mask_of(|tlb| tlb.runs.load(Ordering::SeqCst) == SOMEBODY | u32::from(domain.0))
}

/// The CPUs that have to flush before a page last used at `since` takes another role: those of `domain`, or all.
#[must_use]
pub fn stale_cpus(domain: Option<DomId>, since: Stamp) -> u64 {
    mask_of(|tlb| {
        let theirs = domain.is_none_or(|d| tlb.runs.load(Ordering::SeqCst) == SOMEBODY | u32::from(d.0));
        theirs && tlb.flushed.load(Ordering::SeqCst) <= since.number()
    })
}

fn mask_of(wanted: impl Fn(&Tlb) -> bool) -> u64 {
    let online = online();
    TLBS.iter()
        .take(64 - online.leading_zeros() as usize)
        .enumerate()
        .fold(0, |mask, (i, tlb)| if online >> i & 1 != 0 && wanted(tlb) { mask | 1 << i } else { mask })
}

/// What to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forget {
    /// Everything.
    All,
    /// One address.
    Page(u64),
}

/// Makes each CPU of the mask forget, this one among them if it is named; on return they all have.
#[inline]
pub fn flush(cpus: u64, what: Forget) {
    let here = 1 << percpu::number();
    if cpus & here != 0 {
        match what {
            Forget::All => flush_here(),
            Forget::Page(va) => flush_page_here(va),
        }
    }
    let others = cpus & !here & online();
    if others != 0 {
        flush_others(others, what);
    }
}

/// Makes every CPU forget that may have used `domain`'s tables: the proof that what was taken out of them is out of use.
pub fn flush_domain(domain: DomId) -> Flushed {
    flush(cpus_of(domain), Forget::All);
    Flushed::acknowledged()
}

#[cold]
fn flush_others(cpus: u64, what: Forget) {
    let (work, va): (fn(u64), u64) = match what {
        Forget::All => (|_| flush_here(), 0),
        Forget::Page(va) => (flush_page_here, va),
    };
    mailbox::call(CpuMask(cpus), work, va);
}

/// The CPUs that are up.
fn online() -> u64 {
    mailbox::online().0
}
