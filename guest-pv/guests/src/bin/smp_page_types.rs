//! Several vCPUs and the types of the same pages: each vCPU maps them, pins them as tables, and points entries of its
//! tables to them, as chance has it.
//!
//! A vCPU announces what it holds: a page mapped writable, or a page that is a table because of a pin or an entry of
//! its own. An announcement is made after the hypervisor's consent and withdrawn before the hold is given up. So
//! whoever sees the same announcement before and after an operation knows that it was true during all of it, and that
//! the operation must have been refused if it contradicts. Holds of writable mappings are given up without a flush:
//! the hypervisor has to see to it that no vCPU can write to a page that becomes a table.
#![allow(
    clippy::cast_possible_truncation,
    reason = "what is counted in 64-bit words here are four vCPUs and their pages"
)]
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use guest_pv::mem::table::{READ_ONLY, READ_WRITE, TABLE};
use guest_pv::mem::{Access, Frame, Mapping};
use guest_pv::smp::{self, Barrier};
use guest_pv::tap::Tap;
use guest_pv::time;
use guests::smp::{COUNT, Random, VCPUS, Watch, on_all};
use guests::{
    entry_of, load, make_read_only, make_writable, mmu_update, mmuext, page, store, trap_of, update_va_mapping,
};
use spin::Once;
use xen_abi::Errno;
use xen_abi::mmu::{
    MMUEXT_CLEAR_PAGE, MMUEXT_PIN_L1_TABLE, MMUEXT_UNPIN_TABLE, UVMF_ALL, UVMF_INVLPG, UVMF_NONE, UVMF_TLB_FLUSH,
};

guest_pv::test!(run);

const PAGES: usize = 10;
/// Windows of each vCPU.
const SLOTS: usize = 4;
/// Steps of each vCPU, and how long they may take (ns) on a slow machine.
const STEPS: u32 = 1500;
const PATIENCE: u64 = 4_000_000_000;

/// Rounds of [`hand_over`].
const HAND_OVERS: usize = 24;

/// What a vCPU can hold of a page, as the index of an announcement.
const WRITABLE: usize = 0;
const AS_TABLE: usize = 1;

struct Stage {
    pages: [Frame; PAGES],
    windows: [[Mapping; SLOTS]; VCPUS],
    /// A frame whose appearance in a table would be a catastrophe: the hypervisor's own kind of entry, to a live table.
    poison: u64,
}

/// By vCPU, page and kind: a count of changes, times 8, and the level of a table (1 for a writable page) or 0.
type Announcements = [[[AtomicU64; 2]; PAGES]; VCPUS];

static STAGE: Once<Stage> = Once::new();
static HOLDS: Announcements = [const { [const { [const { AtomicU64::new(0) }; 2] }; PAGES] }; VCPUS];
static START: Barrier = Barrier::new(COUNT);
/// Of [`hand_over`]: three per round.
static TURN: AtomicU64 = AtomicU64::new(0);
static WATCH: Watch = Watch::new();
static PINNED: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
static REFUSED: AtomicU64 = AtomicU64::new(0);
static MAPPED: AtomicU64 = AtomicU64::new(0);
static POINTED: AtomicU64 = AtomicU64::new(0);

fn stage() -> &'static Stage {
    STAGE.get().expect("set up first of all")
}

fn run(tap: &mut Tap) {
    let pages: [Frame; PAGES] = core::array::from_fn(|_| page());
    let window = || Mapping::own(&[pages[0].mfn().0], Access::ReadOnly).expect("own memory can be mapped");
    let windows = core::array::from_fn(|_| core::array::from_fn(|_| window()));
    pages.iter().for_each(make_read_only);
    let poison = guest_pv::mem::table::root().0 << 12 | TABLE;
    STAGE.call_once(|| Stage { pages, windows, poison });
    on_all(hand_over);
    WATCH.verdict(tap, "what a TLB remembers does not outlive the page's use as an ordinary one");
    for round in 0..2 {
        on_all(steps);
        WATCH.verdict(tap, "what the hypervisor consented to stayed true");
        let counts: [u64; 5] = core::array::from_fn(|level| PINNED[level].load(SeqCst));
        tap.note(format_args!("mapped {MAPPED:?}, pointed {POINTED:?}, refused {REFUSED:?}, pinned {counts:?}"));
        tap.ok(all_happened(), "and it consented and refused");
        happenings().for_each(|count| count.store(0, SeqCst));
        let stage = stage();
        let mut free = true;
        for page in &stage.pages {
            free &= mmuext(MMUEXT_UNPIN_TABLE, page.mfn()) == Err(Errno::EINVAL);
            free &= make_writable(page) == Ok(());
            free &= trap_of(|| (0..512).for_each(|word| store(page.address() + word * 8, word))).is_none();
            free &= (0..512).all(|word| load(page.address() + word * 8) == word);
            (0..512).for_each(|word| store(page.address() + word * 8, 0));
        }
        tap.ok(free, "in the end every page is an ordinary one");
        if round == 0 {
            stage.pages.iter().for_each(make_read_only);
        }
    }
}

/// What has to happen at least once: mappings, entries, refusals, pins of each level.
fn happenings() -> impl Iterator<Item = &'static AtomicU64> {
    [&MAPPED, &POINTED, &REFUSED].into_iter().chain(&PINNED[1..])
}

fn all_happened() -> bool {
    happenings().all(|count| count.load(SeqCst) > 0)
}

/// What everybody holds of a page.
fn look(page: usize, kind: usize) -> [u64; VCPUS] {
    core::array::from_fn(|vcpu| HOLDS[vcpu][page][kind].load(SeqCst))
}

/// One vCPU writes to a page and takes its mapping away without a flush; another makes the page a table; then the first
/// one tries again to write.
fn hand_over() {
    let (me, stage) = (smp::index(), stage());
    let await_stage = |wanted| {
        while TURN.load(SeqCst) != wanted {
            smp::relax();
        }
    };
    START.wait();
    for round in 0..HAND_OVERS {
        let (writer, pinner) = (round % VCPUS, (round + 1 + round / VCPUS % (VCPUS - 1)) % VCPUS);
        let (page, level) = (&stage.pages[round % PAGES], 2 + round as u32 % 3);
        let turn = round as u64 * 3;
        if me == writer {
            let va = stage.windows[me][0].address();
            let frame = page.mfn().0 << 12;
            let mapped = update_va_mapping(va, frame | READ_WRITE, UVMF_INVLPG);
            WATCH.check(mapped.is_ok(), format_args!("round {round}: not mapped: {mapped:?}"));
            store(va, 0);
            let rest = if round % 2 == 0 { 0 } else { frame | READ_ONLY };
            let unmapped = update_va_mapping(va, rest, UVMF_NONE);
            WATCH.check(unmapped.is_ok(), format_args!("round {round}: not unmapped: {unmapped:?}"));
            TURN.store(turn + 1, SeqCst);
            await_stage(turn + 2);
            let trap = trap_of(|| store(va, 0)).map(|(vector, _)| vector);
            WATCH.check(trap == Some(14), format_args!("round {round}: wrote to an L{level} table"));
            TURN.store(turn + 3, SeqCst);
        } else if me == pinner {
            await_stage(turn + 1);
            let pinned = mmuext(MMUEXT_PIN_L1_TABLE + level - 1, page.mfn());
            WATCH.check(pinned.is_ok(), format_args!("round {round}: not pinned as L{level}: {pinned:?}"));
            TURN.store(turn + 2, SeqCst);
            await_stage(turn + 3);
            let unpinned = mmuext(MMUEXT_UNPIN_TABLE, page.mfn());
            WATCH.check(unpinned.is_ok(), format_args!("round {round}: not unpinned: {unpinned:?}"));
            let cleared = mmuext(MMUEXT_CLEAR_PAGE, page.mfn());
            WATCH.check(cleared.is_ok(), format_args!("round {round}: not cleared: {cleared:?}"));
        }
        START.wait();
    }
}

/// What the two entries of a pinned table show: a page and a kind each.
type Entries = [Option<(usize, usize)>; 2];

/// One vCPU's part.
struct Actor {
    me: usize,
    random: Random,
    /// By page and kind, how many holds there are.
    counts: [[u32; 2]; PAGES],
    /// What each window shows: a page, and whether writable.
    slots: [Option<(usize, bool)>; SLOTS],
    /// The pages, as bits, that a window has shown as writable and that the TLB may still know.
    stale: [u32; SLOTS],
    /// The level that a page is pinned as, and what its entries point to (page, kind).
    pins: [Option<(u32, Entries)>; PAGES],
}

/// The entries of a table that are used: at both ends of what a guest may write in an L4 table's lower half.
const ENTRIES: [u64; 2] = [0, 255];

fn steps() {
    let me = smp::index();
    let mut actor = Actor {
        me,
        random: Random::new(me as u64 + 1),
        counts: [[0; 2]; PAGES],
        slots: [Some((0, false)); SLOTS],
        stale: [0; SLOTS],
        pins: [None; PAGES],
    };
    // The windows show whatever the last run left; take that away first.
    (0..SLOTS).for_each(|slot| actor.show(slot, None, UVMF_INVLPG));
    let end = time::now() + PATIENCE;
    START.wait();
    for _ in 0..STEPS {
        actor.step();
        let now = time::now();
        if now > end && all_happened() || now > end + PATIENCE * 4 {
            break;
        }
    }
    (0..SLOTS).for_each(|slot| actor.show(slot, None, UVMF_INVLPG));
    (0..PAGES).for_each(|page| actor.unpin(page));
    START.wait();
    // Nobody holds anything now. Pages that were L4 tables have entries of the hypervisor left.
    if me == 0 {
        for page in 0..PAGES {
            let cleared = mmuext(MMUEXT_CLEAR_PAGE, stage().pages[page].mfn());
            WATCH.check(cleared.is_ok(), format_args!("page {page} could not be cleared in the end: {cleared:?}"));
        }
    }
    START.wait();
}

impl Actor {
    fn mfn(page: usize) -> xen_abi::ids::Mfn {
        stage().pages[page].mfn()
    }

    /// Runs an operation that needs `page` to be of a kind (and level), and compares its result with what others hold.
    fn attempt(&mut self, page: usize, kind: usize, level: u32, operation: impl FnOnce() -> Result<(), Errno>) -> bool {
        let other = 1 - kind;
        let before = (look(page, other), look(page, kind));
        let result = operation();
        let after = (look(page, other), look(page, kind));
        if result.is_err() {
            REFUSED.fetch_add(1, SeqCst);
            return false;
        }
        for vcpu in 0..VCPUS {
            let steady = before.0[vcpu] == after.0[vcpu] && !before.0[vcpu].is_multiple_of(8);
            WATCH.check(!steady, format_args!("page {page} as {kind}/{level} although vCPU {vcpu} has it as {other}"));
            let (was, is) = (before.1[vcpu], after.1[vcpu]);
            let differs = was == is && was % 8 != 0 && was % 8 != u64::from(level);
            WATCH.check(!differs, format_args!("page {page} as L{level} although vCPU {vcpu} has it as L{}", was % 8));
        }
        true
    }

    fn hold(&mut self, page: usize, kind: usize, level: u32) {
        self.counts[page][kind] += 1;
        if self.counts[page][kind] == 1 {
            let word = &HOLDS[self.me][page][kind];
            word.store((word.load(SeqCst) / 8 + 1) * 8 + u64::from(level), SeqCst);
        }
    }

    fn unhold(&mut self, page: usize, kind: usize) {
        self.counts[page][kind] -= 1;
        if self.counts[page][kind] == 0 {
            let word = &HOLDS[self.me][page][kind];
            word.store((word.load(SeqCst) / 8 + 1) * 8, SeqCst);
        }
    }

    fn step(&mut self) {
        let (page, slot) = (self.random.below(PAGES), self.random.below(SLOTS));
        match self.random.below(16) {
            0..=2 => {
                let flush = [UVMF_NONE, UVMF_NONE, UVMF_INVLPG, UVMF_TLB_FLUSH | UVMF_ALL][self.random.below(4)];
                let writable = self.random.below(3) != 0;
                self.show(slot, Some((page, writable)), flush);
                if writable {
                    // Now the TLB knows it.
                    self.write(slot);
                }
            }
            3..=4 => self.show(slot, None, UVMF_NONE),
            5..=7 => {
                // Rather where there may be a stale translation.
                let stale = |at: &usize| self.stale[*at] != 0 && !matches!(self.slots[*at], Some((_, true)));
                let slot = (0..SLOTS).map(|ahead| (slot + ahead) % SLOTS).find(stale).unwrap_or(slot);
                self.write(slot);
            }
            8..=9 => {
                let level = 1 + self.random.below(4) as u32;
                self.pin(page, level);
            }
            10..=11 => {
                if let Some(table) = self.own_table(page) {
                    self.unpin(table);
                }
            }
            12..=14 => {
                if let Some(table) = self.own_table(page) {
                    self.point(table);
                }
            }
            _ => {
                // A page that is being cleared is written to.
                let _ = self.attempt(page, WRITABLE, 1, || mmuext(MMUEXT_CLEAR_PAGE, Self::mfn(page)));
            }
        }
    }

    /// A page that we have pinned, from `page` on.
    fn own_table(&self, page: usize) -> Option<usize> {
        (0..PAGES).map(|ahead| (page + ahead) % PAGES).find(|&at| self.pins[at].is_some())
    }

    /// Changes what a window shows.
    fn show(&mut self, slot: usize, what: Option<(usize, bool)>, flush: u64) {
        let va = stage().windows[self.me][slot].address();
        let entry =
            what.map_or(0, |(page, writable)| Self::mfn(page).0 << 12 | if writable { READ_WRITE } else { READ_ONLY });
        let set = || update_va_mapping(va, entry, flush);
        let old = self.slots[slot];
        // If all goes well the old mapping is gone within the call, so its hold ends before.
        if let Some((page, true)) = old {
            self.unhold(page, WRITABLE);
            self.stale[slot] |= 1 << page;
        }
        let done = match what {
            Some((page, true)) => self.attempt(page, WRITABLE, 1, set),
            _ => {
                let result = set();
                WATCH.check(result.is_ok(), format_args!("a harmless mapping was refused: {result:?}"));
                result.is_ok()
            }
        };
        if done {
            self.slots[slot] = what;
            if flush != UVMF_NONE {
                self.stale[slot] = 0;
            }
        }
        if let Some((page, true)) = self.slots[slot] {
            self.hold(page, WRITABLE, 1);
            if done {
                MAPPED.fetch_add(1, SeqCst);
            }
        }
    }

    /// Writes through a window, something that must never become an entry.
    fn write(&mut self, slot: usize) {
        let at = stage().windows[self.me][slot].address() + ENTRIES[self.random.below(2)] * 8;
        let poison = stage().poison;
        let shown = self.slots[slot].and_then(|(page, writable)| writable.then_some(page));
        let within = self.stale[slot] | shown.map_or(0, |page| 1 << page);
        let attempt = || {
            trap_of(|| {
                store(at, poison);
                store(at, 0);
            })
        };
        let before: [_; PAGES] = core::array::from_fn(|page| look(page, AS_TABLE));
        // A TLB may remember less than what is mapped now, until it has faulted.
        let trap = if shown.is_some() { attempt().and_then(|_| attempt()) } else { attempt() };
        let after: [_; PAGES] = core::array::from_fn(|page| look(page, AS_TABLE));
        if let Some((vector, error)) = trap {
            let what = format_args!("window {slot} is writable, but there was trap {vector}, error {error:#x}");
            return WATCH.check(vector == 14 && shown.is_none(), what);
        }
        let table = |page: usize| {
            (0..VCPUS).any(|of| before[page][of] == after[page][of] && !before[page][of].is_multiple_of(8))
        };
        let allowed = (0..PAGES).any(|page| within >> page & 1 != 0 && !table(page));
        WATCH.check(allowed, format_args!("wrote through window {slot} to one of pages {within:#b}, which are tables"));
    }

    fn pin(&mut self, page: usize, level: u32) {
        let pinned = self.attempt(page, AS_TABLE, level, || mmuext(MMUEXT_PIN_L1_TABLE + level - 1, Self::mfn(page)));
        if !pinned {
            return;
        }
        PINNED[level as usize].fetch_add(1, SeqCst);
        WATCH.check(self.pins[page].is_none(), format_args!("page {page} was pinned twice"));
        self.hold(page, AS_TABLE, level);
        self.pins[page] = Some((level, [None; 2]));
        // An L1 table may be written to, by emulation: but not this.
        let (direct, poison) = (stage().pages[page].address(), stage().poison);
        WATCH.check(trap_of(|| store(direct, poison)).is_some(), format_args!("wrote to page {page}, an L{level}"));
    }

    fn unpin(&mut self, page: usize) {
        let Some((level, entries)) = self.pins[page] else {
            return;
        };
        for (index, _) in ENTRIES.into_iter().enumerate().filter(|&(index, _)| entries[index].is_some()) {
            self.set(page, index, None);
        }
        self.pins[page] = None;
        self.unhold(page, AS_TABLE);
        let result = mmuext(MMUEXT_UNPIN_TABLE, Self::mfn(page));
        WATCH.check(result.is_ok(), format_args!("page {page} could not be unpinned: {result:?}"));
        if level == 4 {
            // The hypervisor's entries are still in the page, and nothing but a root may have them.
            let _ = self.attempt(page, WRITABLE, 1, || mmuext(MMUEXT_CLEAR_PAGE, Self::mfn(page)));
        }
    }

    /// Points an entry of a table of ours to a page, or clears it.
    fn point(&mut self, table: usize) {
        let index = self.random.below(ENTRIES.len());
        let what = if self.random.below(3) == 0 { None } else { Some(self.random.below(PAGES)) };
        self.set(table, index, what);
    }

    fn set(&mut self, table: usize, index: usize, what: Option<usize>) {
        let Some((level, mut entries)) = self.pins[table] else {
            return;
        };
        let slot = entry_of(&stage().pages[table], ENTRIES[index]);
        let kind = if level == 1 { WRITABLE } else { AS_TABLE };
        if let Some((page, kind)) = entries[index] {
            self.unhold(page, kind);
        }
        let done = match what {
            Some(page) => {
                let entry = Self::mfn(page).0 << 12 | if level == 1 { READ_WRITE } else { TABLE };
                self.attempt(page, kind, (level - 1).max(1), || mmu_update(slot, entry))
            }
            None => {
                let result = mmu_update(slot, 0);
                WATCH.check(result.is_ok(), format_args!("an entry could not be cleared: {result:?}"));
                result.is_ok()
            }
        };
        if done {
            entries[index] = what.map(|page| (page, kind));
            POINTED.fetch_add(u64::from(what.is_some()), SeqCst);
        }
        if let Some((page, kind)) = entries[index] {
            self.hold(page, kind, (level - 1).max(1));
        }
        self.pins[table] = Some((level, entries));
    }
}
