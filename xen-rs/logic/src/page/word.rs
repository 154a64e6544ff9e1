//! The type word of a page: one 64-bit state machine.
//!
//! | bits  | meaning |
//! |-------|---------|
//! | 0..48 | Free: flush timestamp; Locked, Partial: progress through the entries; Valid: number of type references |
//! | 48..51| kind: what the page is, becomes, or was last |
//! | 52..54| state |
//! | 56    | one CPU is changing entries of this table |
//! | 57    | pinned: the domain itself holds one type reference |
//! | 58    | a domain other than the owner has had a writable mapping since the last flush of all CPUs |
//! | 59    | Partial: whoever worked on it last wants it valid, else given up |
//!
//! A count of 48 bits cannot overflow: each reference is an entry of 8 bytes in memory or a field in a structure, and
//! the direct map ends at 5 TiB.

/// What a page is used as. A page has at most one use at a time; a writable page can never be a table as well.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Nothing that excludes anything else: read-only mappings at most.
    None = 0,
    /// Lowest level of page table.
    L1 = 1,
    /// Second level.
    L2 = 2,
    /// Third level.
    L3 = 3,
    /// Root of a page-table tree.
    L4 = 4,
    /// Holds segment descriptors that the CPU loads.
    SegDesc = 5,
    /// Somebody may write to it.
    Writable = 6,
}

impl Kind {
    /// The level if this is a page table: 1 to 4.
    #[inline(always)]
    #[must_use]
    pub const fn is_table(self) -> bool {
        matches!(self, Kind::L1 | Kind::L2 | Kind::L3 | Kind::L4)
    }

    /// What the entries of this table point to: the next lower table.
    #[inline]
    #[must_use]
    pub const fn below(self) -> Kind {
        match self {
            Kind::L4 => Kind::L3,
            Kind::L3 => Kind::L2,
            Kind::L2 => Kind::L1,
            _ => Kind::None,
        }
    }

    #[inline(always)]
    const fn from_bits(bits: u64) -> Kind {
        match bits {
            1 => Kind::L1,
            2 => Kind::L2,
            3 => Kind::L3,
            4 => Kind::L4,
            5 => Kind::SegDesc,
            6 => Kind::Writable,
            _ => Kind::None,
        }
    }
}

/// A moment on the machine's flush clock, 48 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

impl Stamp {
    /// The moment with this number; at a million flushes per second the clock lasts nine years.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Stamp(number & LOW)
    }

    /// The number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// How far the validation of a table has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Entries `0..done` are counted.
    pub done: u16,
    /// Entry number `done` holds a general reference to a table that is itself partly validated.
    pub partial_entry: bool,
}

impl Progress {
    /// No entry is counted.
    pub const NONE: Progress = Progress { done: 0, partial_entry: false };
    /// Every entry is counted.
    pub const ALL: Progress = Progress { done: ENTRIES, partial_entry: false };

    const fn bits(self) -> u64 {
        self.done as u64 | ((self.partial_entry as u64) << 15)
    }

    #[allow(clippy::cast_possible_truncation, reason = "masked to 10 bits")]
    const fn from_bits(bits: u64) -> Self {
        Progress { done: (bits & 0x3ff) as u16, partial_entry: bits & (1 << 15) != 0 }
    }
}

/// Entries of a page table.
pub const ENTRIES: u16 = 512;

const LOW: u64 = (1 << 48) - 1;
const KIND_SHIFT: u32 = 48;
const KIND: u64 = 7 << KIND_SHIFT;
const STATE: u64 = 3 << 52;
const FREE: u64 = 0;
const LOCKED: u64 = 1 << 52;
const PARTIAL: u64 = 2 << 52;
const VALID: u64 = 3 << 52;
const UPDATING: u64 = 1 << 56;
const PINNED: u64 = 1 << 57;
const FOREIGN: u64 = 1 << 58;
const RISING: u64 = 1 << 59;

/// One value of a page's type word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Word(pub(super) u64);

/// The states of a type word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No type reference. The last one was dropped at this moment; TLBs not flushed since may still use the old kind.
    Free(Stamp),
    /// One CPU alone changes the type (flushing, validating or devalidating).
    Locked(Progress),
    /// Part of the entries are counted and nobody works on it. The state itself holds a general reference. Whoever wants it
    /// valid may turn it; whoever gives up leaves it alone then ([`Word::is_rising`]), or the two would undo each other's work.
    Partial(Progress),
    /// In use as its kind, so many times.
    Valid(u64),
}

impl Word {
    /// A page that has no use: as it comes from the allocator.
    pub const NEW: Word = Word(0);

    #[inline(always)]
    pub(super) const fn free(kind: Kind, stamp: Stamp) -> Word {
        Word(FREE | (kind as u64) << KIND_SHIFT | stamp.0)
    }

    #[inline(always)]
    pub(super) const fn locked(kind: Kind, at: Progress) -> Word {
        Word(LOCKED | (kind as u64) << KIND_SHIFT | at.bits())
    }

    /// Given up so far.
    #[inline(always)]
    pub(super) const fn falling(kind: Kind, at: Progress) -> Word {
        Word(PARTIAL | (kind as u64) << KIND_SHIFT | at.bits())
    }

    /// Validated so far.
    #[inline(always)]
    pub(super) const fn rising(kind: Kind, at: Progress) -> Word {
        Word(Self::falling(kind, at).0 | RISING)
    }

    /// Whether somebody wants the partial page valid.
    #[inline(always)]
    pub(super) const fn is_rising(self) -> bool {
        self.0 & RISING != 0
    }

    #[inline(always)]
    pub(super) const fn valid(kind: Kind, count: u64) -> Word {
        Word(VALID | (kind as u64) << KIND_SHIFT | count)
    }

    /// The kind.
    #[inline(always)]
    #[must_use]
    pub const fn kind(self) -> Kind {
        Kind::from_bits((self.0 & KIND) >> KIND_SHIFT)
    }

    /// The state.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> State {
        let low = self.0 & LOW;
        match self.0 & STATE {
            FREE => State::Free(Stamp(low)),
            LOCKED => State::Locked(Progress::from_bits(low)),
            PARTIAL => State::Partial(Progress::from_bits(low)),
            _ => State::Valid(low),
        }
    }

    /// Whether this is a page in use as `kind`.
    #[inline(always)]
    #[must_use]
    pub const fn is_valid(self, kind: Kind) -> bool {
        self.0 & (STATE | KIND) == VALID | (kind as u64) << KIND_SHIFT
    }

    /// Whether this is a table in use as `kind` of which no CPU is changing entries.
    #[inline(always)]
    pub(super) const fn is_quiet(self, kind: Kind) -> bool {
        self.0 & (STATE | KIND | UPDATING) == VALID | (kind as u64) << KIND_SHIFT
    }

    /// A writable page of which the last such reference goes at `stamp`: it remembers who may have stale mappings.
    #[inline(always)]
    pub(super) const fn written_until(self, stamp: Stamp) -> Word {
        Word(self.0 & FOREIGN | Word::free(Kind::Writable, stamp).0)
    }

    /// A free page that was writable before: it is so again.
    #[inline(always)]
    pub(super) const fn writable_again(self) -> Word {
        Word(self.0 & FOREIGN | Word::valid(Kind::Writable, 1).0)
    }

    /// Whether no reference is held and the last use, if any, was `kind`.
    #[inline(always)]
    pub(super) const fn is_free_of(self, kind: Kind) -> bool {
        self.0 & (STATE | KIND) == FREE | (kind as u64) << KIND_SHIFT
    }

    /// Number of type references of a valid page.
    #[inline(always)]
    #[must_use]
    pub const fn count(self) -> u64 {
        self.0 & LOW
    }

    /// Whether one CPU is changing entries of this table.
    #[inline(always)]
    #[must_use]
    pub const fn is_updating(self) -> bool {
        self.0 & UPDATING != 0
    }

    /// Whether the page is pinned.
    #[inline(always)]
    #[must_use]
    pub const fn is_pinned(self) -> bool {
        self.0 & PINNED != 0
    }

    /// Whether another domain than the owner may have stale writable translations.
    #[inline(always)]
    #[must_use]
    pub const fn was_foreign(self) -> bool {
        self.0 & FOREIGN != 0
    }

    #[inline(always)]
    pub(super) const fn one_more(self) -> Word {
        Word(self.0 + 1)
    }

    #[inline(always)]
    pub(super) const fn one_less(self) -> Word {
        Word(self.0 - 1)
    }

    #[inline(always)]
    pub(super) const fn with_foreign(self, foreign: bool) -> Word {
        Word(self.0 | if foreign { FOREIGN } else { 0 })
    }

    /// The mask of the bit that marks an update, for `fetch_or` and `fetch_and`.
    pub(super) const UPDATING: u64 = UPDATING;
    /// The mask of the pin.
    pub(super) const PINNED: u64 = PINNED;
}

impl core::fmt::Debug for Word {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} {:?}", self.kind(), self.state())?;
        for (bit, name) in [(UPDATING, " updating"), (PINNED, " pinned"), (FOREIGN, " foreign")] {
            if self.0 & bit != 0 {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for kind in [Kind::None, Kind::L1, Kind::L2, Kind::L3, Kind::L4, Kind::SegDesc, Kind::Writable] {
            for done in [0, 1, 511, 512] {
                for partial_entry in [false, true] {
                    let at = Progress { done, partial_entry };
                    assert_eq!(Word::locked(kind, at).state(), State::Locked(at));
                    for (word, rises) in [(Word::falling(kind, at), false), (Word::rising(kind, at), true)] {
                        assert_eq!((word.state(), word.kind()), (State::Partial(at), kind));
                        assert_eq!(word.is_rising(), rises);
                    }
                }
            }
            let stamp = Stamp::new(u64::MAX);
            assert_eq!(Word::free(kind, stamp).state(), State::Free(stamp));
            assert_eq!(Word::valid(kind, 7).one_more().count(), 8);
            assert!(Word::valid(kind, 7).is_valid(kind));
            assert!(!Word::locked(kind, Progress::NONE).is_valid(kind));
        }
        assert_eq!(Word::NEW.state(), State::Free(Stamp::default()));
    }
}
