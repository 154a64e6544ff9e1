//! Two CPUs where it matters: one gives a page's writable mapping up and makes a table of it, the other runs a guest that
//! may have the old translation in its TLB. All interleavings, with the real state machine of the type word.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p xen-rs-logic --release --lib loom`
//!
//! Waiting is bounded (CPU 1) or blocks on a notification (CPU 0), since the model's scheduler need not be fair.
//!
//! What the machine guarantees and the model takes as given: page walks see the latest entry, locked operations are full
//! barriers. So the model reads such words by read-modify-write.

use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use loom::sync::{Arc, Notify};
use loom::thread;
use std::vec::Vec;

use xen_abi::ids::{DomId, Mfn};

use crate::page::{Deferred, Entry, Env, FrameTable, Freed, Kind, Mmu, PageInfo, Slot, Stamp, State, Table};

const OWNER: DomId = DomId(1);

/// What the two CPUs share.
struct Shared {
    info: Vec<PageInfo>,
    clock: AtomicU64,
    /// The entry that maps the page writable: 1 while it is there.
    entry: AtomicU64,
    /// When CPU 1 flushed last.
    flushed: AtomicU64,
    /// A request to CPU 1 to flush, and its answer.
    request: AtomicBool,
    /// The page is a table: nobody may write to it.
    is_table: AtomicBool,
    /// CPU 1 runs no guest any more, and has flushed.
    idle: AtomicBool,
    /// Rung by CPU 1 after an answer.
    bell: Notify,
    /// A ranked lock that both want.
    lock: AtomicBool,
}

impl Shared {
    fn new() -> Arc<Self> {
        let info = PageInfo::hole();
        info.assign(OWNER, false);
        Arc::new(Shared {
            info: Vec::from([info]),
            clock: AtomicU64::new(1),
            entry: AtomicU64::new(1),
            flushed: AtomicU64::new(0),
            request: AtomicBool::new(false),
            is_table: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            bell: Notify::new(),
            lock: AtomicBool::new(false),
        })
    }

    fn try_lock(&self) -> bool {
        !self.lock.swap(true, SeqCst)
    }

    fn unlock(&self) {
        self.lock.store(false, SeqCst);
    }
}

/// CPU 1: its TLB, and how it answers.
struct Guest<'a> {
    shared: &'a Shared,
    writable: bool,
}

impl Guest<'_> {
    fn flush(&mut self) {
        let begun = self.shared.clock.fetch_add(1, SeqCst) + 1;
        self.writable = false;
        self.shared.flushed.swap(begun, SeqCst);
    }

    fn poll(&mut self) {
        if self.shared.request.fetch_or(false, SeqCst) {
            self.flush();
            self.shared.request.swap(false, SeqCst);
            self.shared.bell.notify();
        }
    }

    /// Stops running the guest.
    fn idle(&mut self) {
        self.flush();
        self.shared.idle.swap(true, SeqCst);
        self.shared.bell.notify();
    }

    /// The guest writes to the page if it can.
    fn write(&mut self) {
        if !self.writable && self.shared.entry.fetch_add(0, SeqCst) != 0 {
            self.writable = true;
        }
        if self.writable {
            assert!(!self.shared.is_table.fetch_or(false, SeqCst), "a guest wrote to a page table");
        }
    }
}

/// CPU 0's floor above.
struct Cpu0<'a>(&'a Shared);

impl Env for Cpu0<'_> {
    fn read(&self, _: &Table<'_>, _: Slot) -> Entry {
        Entry(0)
    }
    fn swap(&mut self, _: &Table<'_>, _: Slot, _: Entry) -> Entry {
        Entry(0)
    }
    fn compare_exchange(&mut self, _: &Table<'_>, _: Slot, _: Entry, _: Entry) -> Result<(), Entry> {
        Ok(())
    }
    fn fill_root(&mut self, _: &Table<'_>, _: DomId) {}
    fn now(&self) -> Stamp {
        Stamp::new(self.0.clock.fetch_add(0, SeqCst))
    }
    fn flush(&mut self, _: DomId, _: bool, since: Stamp) {
        if self.0.flushed.fetch_add(0, SeqCst) <= since.number() {
            self.0.request.swap(true, SeqCst);
            while self.0.request.fetch_or(false, SeqCst) && !self.0.idle.fetch_or(false, SeqCst) {
                self.0.bell.wait();
            }
        }
    }
    fn relax(&mut self) {
        thread::yield_now();
    }
    fn spend(&mut self, _: u32) -> bool {
        false
    }
    fn release(&mut self, _: Freed<'_>) {}
    fn defer(&mut self, _: Deferred) {}
    fn is_read_only_io(&mut self, _: Mfn) -> bool {
        false
    }
    fn may_map_io(&mut self, _: DomId, _: Mfn) -> bool {
        false
    }
    fn may_choose_caching(&mut self, _: DomId) -> bool {
        false
    }
    fn has_nx(&self) -> bool {
        true
    }
    fn refuse_absent(&mut self, _: DomId, _: Entry) -> bool {
        false
    }
}

/// CPU 0 unmaps the page and makes a table of it, with `lock` held around the second half if asked for.
fn unmap_and_make_table(shared: &Shared, locked: bool) {
    let mut mmu = Mmu { frames: FrameTable::new(&shared.info), env: Cpu0(shared) };
    let page = mmu.get_page(Mfn(0), OWNER).unwrap();
    shared.entry.swap(0, SeqCst);
    mmu.put_type(page);
    let locked = locked && shared.try_lock();
    assert_eq!(mmu.get_type(page, Kind::L1), Ok(()));
    shared.is_table.swap(true, SeqCst);
    if locked {
        shared.unlock();
    }
    assert!(matches!(page.word().state(), State::Valid(1)));
}

fn run(locked: bool, own_flush: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(move || {
        let shared = Shared::new();
        {
            let mut mmu = Mmu { frames: FrameTable::new(&shared.info), env: Cpu0(&shared) };
            let page = mmu.get_page(Mfn(0), OWNER).unwrap();
            assert!(mmu.get_writable(page));
            // The mapping keeps its references as a number.
        }
        let other = shared.clone();
        let cpu1 = thread::spawn(move || {
            let mut guest = Guest { shared: &other, writable: false };
            guest.write();
            if own_flush {
                // A flush of its own, for whatever reason: the other CPU may then not have to ask for one.
                guest.flush();
            }
            guest.write();
            // The lock may be held by the very CPU that waits for an answer: so it is polled for.
            for _ in 0..2 {
                guest.poll();
                guest.write();
                if locked && other.try_lock() {
                    other.unlock();
                }
            }
            guest.idle();
        });
        unmap_and_make_table(&shared, locked);
        cpu1.join().unwrap();
    });
}

#[test]
fn loom_no_stale_write() {
    run(false, false);
}

#[test]
fn loom_flush_by_itself_counts() {
    run(false, true);
}

#[test]
fn loom_shootdown_under_a_lock() {
    run(true, false);
}
