//! General references and type references: how a page changes its kind.

use xen_abi::Errno;
use xen_abi::ids::{DomId, Mfn};

use super::atomic::Ordering;
use super::env::{Deferred, Env, Freed, Table};
use super::info::{Frame, FrameTable};
use super::word::{Kind, Progress, State, Word};

/// The frames and what works on them: the entry to all operations on page references and types.
#[derive(Debug)]
pub struct Mmu<'f, E> {
    /// All frames.
    pub frames: FrameTable<'f>,
    /// The floor above.
    pub env: E,
}

/// Why a type reference was not had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Somebody else works on the page; nothing has changed.
    Busy,
    /// The slice is over; what was done is kept in the page's word.
    Partial,
    /// It cannot be.
    Refused(Errno),
    /// It cannot be, and the slice was over before the work was undone: the page is in the partial state.
    RefusedPartial(Errno),
}

/// Why an operation on pages did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// The slice is over: do the same again.
    Again,
    /// It cannot be.
    Refused(Errno),
}

/// How far giving up a type reference has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is given up.
    Done,
    /// Not begun; the reference is still held.
    Busy,
    /// The reference is given up, but the page is in the partial state and somebody has to finish it.
    Partial,
}

/// What became of a page's table after some work on it.
enum Worked {
    Valid,
    Free,
    /// To go on with it.
    Rising(Progress),
    /// To go on with giving it up.
    Falling(Progress),
}

/// Takes the word from one value to another.
#[inline(always)]
pub(super) fn step(f: Frame<'_>, old: Word, new: Word) -> Result<(), Word> {
    let word = &f.info().word;
    word.compare_exchange_weak(old.0, new.0, Ordering::AcqRel, Ordering::Acquire).map(drop).map_err(Word)
}

impl<'f, E: Env> Mmu<'f, E> {
    /// Takes a general reference to a page of `owner`.
    #[inline]
    pub fn get_page(&mut self, mfn: Mfn, owner: DomId) -> Option<Frame<'f>> {
        let f = self.frames.ram(mfn)?;
        match f.info().get() {
            Some(o) if o == owner => Some(f),
            None => None,
            Some(_) => {
                self.put_page(f);
                None
            }
        }
    }

    /// Takes a general reference to a page, whoever owns it.
    #[inline]
    pub fn get_any_page(&mut self, mfn: Mfn) -> Option<(Frame<'f>, DomId)> {
        let f = self.frames.ram(mfn)?;
        let owner = f.info().get()?;
        Some((f, owner))
    }

    /// Drops a general reference.
    #[inline]
    pub fn put_page(&mut self, f: Frame<'f>) {
        if f.info().put() {
            self.release(f);
        }
    }

    #[cold]
    pub(super) fn release(&mut self, f: Frame<'f>) {
        let owner = f.info().owner();
        debug_assert!(matches!(f.word().state(), State::Free(_)), "page {:?} freed while {:?}", f.mfn(), f.word());
        let freed = Freed { frame: f, owner };
        self.env.release(freed);
    }

    /// Takes a type reference. The caller has a general reference, which the type reference does not replace.
    ///
    /// On [`Fail::Again`] the work done so far is kept in the page, and whoever asks next goes on with it.
    #[inline]
    pub fn get_type(&mut self, f: Frame<'f>, kind: Kind) -> Result<(), Fail> {
        match self.acquire(f, kind) {
            Ok(()) => Ok(()),
            Err(stop) => Err(self.settle(f, stop)),
        }
    }

    /// Turns a stop into what the caller sees; a half-undone page is remembered for later.
    #[cold]
    pub(super) fn settle(&mut self, f: Frame<'f>, stop: Stop) -> Fail {
        match stop {
            Stop::Busy | Stop::Partial => Fail::Again,
            Stop::Refused(errno) => Fail::Refused(errno),
            Stop::RefusedPartial(errno) => {
                f.info().get_more();
                self.env.defer(Deferred { mfn: f.mfn(), partial: true });
                Fail::Refused(errno)
            }
        }
    }

    /// Takes a type reference for writing. Never partial; waits at most for a flush by another CPU.
    #[inline(always)]
    pub fn get_writable(&mut self, f: Frame<'f>) -> bool {
        let word = f.word();
        let quick = if word.is_valid(Kind::Writable) {
            word.one_more()
        } else if word.is_free_of(Kind::Writable) {
            word.writable_again()
        } else {
            return self.acquire_writable(f);
        };
        step(f, word, quick).is_ok() || self.acquire_writable(f)
    }

    #[cold]
    fn acquire_writable(&mut self, f: Frame<'f>) -> bool {
        self.acquire_slowly(f, Kind::Writable).is_ok()
    }

    /// Drops a type reference for writing: always done at once.
    #[inline(always)]
    pub(super) fn put_writable(&mut self, f: Frame<'f>) {
        let word = f.word();
        let less = if word.count() > 1 { word.one_less() } else { word.written_until(self.env.now()) };
        if !word.is_valid(Kind::Writable) || step(f, word, less).is_err() {
            self.put_type_slowly(f);
        }
    }

    #[cold]
    fn put_type_slowly(&mut self, f: Frame<'f>) {
        self.put_type(f);
    }

    #[inline]
    pub(super) fn acquire(&mut self, f: Frame<'f>, kind: Kind) -> Result<(), Stop> {
        let word = f.word();
        let quick = if word.is_valid(kind) {
            word.one_more()
        } else if kind == Kind::Writable && word.is_free_of(kind) {
            Word::valid(kind, 1).with_foreign(word.was_foreign())
        } else {
            return self.acquire_slowly(f, kind);
        };
        match step(f, word, quick) {
            Ok(()) => Ok(()),
            Err(_) => self.acquire_slowly(f, kind),
        }
    }

    fn acquire_slowly(&mut self, f: Frame<'f>, kind: Kind) -> Result<(), Stop> {
        let mut word = f.word();
        loop {
            let was = word.kind();
            match word.state() {
                State::Free(_) if was == kind && !kind.is_table() => {
                    // Nobody could change it since it was of this kind: no flush, no validation.
                    let new = Word::valid(kind, 1).with_foreign(word.was_foreign());
                    match step(f, word, new) {
                        Ok(()) => return Ok(()),
                        Err(now) => word = now,
                    }
                }
                State::Free(stamp) => match step(f, word, Word::locked(kind, Progress::NONE)) {
                    Ok(()) => {
                        // TLBs and paging-structure caches may still hold the old use: writable mappings of what
                        // becomes a table, or tables of what becomes writable.
                        if was != kind
                            && was != Kind::None
                            && let Some(owner) = f.info().owner()
                        {
                            self.env.flush(owner, word.was_foreign(), stamp);
                        }
                        return self.validate(f, kind, Progress::NONE, false);
                    }
                    Err(now) => word = now,
                },
                _ if was != kind => return Err(Stop::Refused(Errno::EINVAL)),
                State::Valid(_) => match step(f, word, word.one_more()) {
                    Ok(()) => return Ok(()),
                    Err(now) => word = now,
                },
                State::Partial(at) => match step(f, word, Word::locked(kind, at)) {
                    Ok(()) => return self.validate(f, kind, at, true),
                    Err(now) => word = now,
                },
                State::Locked(_) => {
                    self.env.relax();
                    word = f.word();
                    if matches!(kind, Kind::L2 | Kind::L3 | Kind::L4) && self.env.spend(1) {
                        return Err(Stop::Busy);
                    }
                }
            }
        }
    }

    /// Validates a page whose word this CPU has locked. `held`: the partial state's own reference is ours now.
    fn validate(&mut self, f: Frame<'f>, kind: Kind, from: Progress, held: bool) -> Result<(), Stop> {
        let table = Table { frame: f, kind };
        let (worked, result) = if kind.is_table() {
            match self.promote(&table, from) {
                Ok(Some(at)) => (Worked::Rising(at), Err(Stop::Partial)),
                Ok(None) => (Worked::Valid, Ok(())),
                Err((errno, at)) => match self.demote(&table, at) {
                    Some(at) => (Worked::Falling(at), Err(Stop::RefusedPartial(errno))),
                    None => (Worked::Free, Err(Stop::Refused(errno))),
                },
            }
        } else if kind == Kind::SegDesc {
            match self.check_descriptors(&table) {
                Ok(()) => (Worked::Valid, Ok(())),
                Err(errno) => (Worked::Free, Err(Stop::Refused(errno))),
            }
        } else {
            (Worked::Valid, Ok(()))
        };
        // Whatever it was before is flushed, or it never was anything else: `None` forgets nothing.
        self.leave(f, kind, worked, held, Kind::None);
        result
    }

    /// Leaves the locked state. `after`: the kind to remember if the page is free now.
    fn leave(&mut self, f: Frame<'f>, kind: Kind, worked: Worked, held: bool, after: Kind) {
        let (word, keeps) = match worked {
            Worked::Valid => (Word::valid(kind, 1), false),
            Worked::Free => (Word::free(after, self.env.now()), false),
            Worked::Rising(at) => (Word::rising(kind, at), true),
            Worked::Falling(at) => (Word::falling(kind, at), true),
        };
        if keeps && !held {
            f.info().get_more();
        }
        f.info().word.store(word.0, Ordering::Release);
        if held && !keeps {
            self.put_page(f);
        }
    }

    /// Drops a type reference. If the page has to be devalidated and the slice ends first, the rest is deferred.
    /// The general reference stays the caller's; true when everything is done.
    #[inline]
    pub fn put_type(&mut self, f: Frame<'f>) -> bool {
        let word = f.word();
        if let State::Valid(count) = word.state()
            && count > 1
            && step(f, word, word.one_less()).is_ok()
        {
            return true;
        }
        match self.drop_type(f) {
            Put::Done => true,
            put => {
                f.info().get_more();
                self.env.defer(Deferred { mfn: f.mfn(), partial: put == Put::Partial });
                false
            }
        }
    }

    /// Drops a type reference and a general one.
    #[inline]
    pub fn put_page_and_type(&mut self, f: Frame<'f>) -> bool {
        let done = self.put_type(f);
        self.put_page(f);
        done
    }

    #[inline]
    pub(super) fn drop_type(&mut self, f: Frame<'f>) -> Put {
        let mut word = f.word();
        loop {
            let kind = word.kind();
            let new = match word.state() {
                State::Valid(count) if count > 1 => word.one_less(),
                State::Valid(_) if word.is_updating() => {
                    // Its updater is about to finish; the table must not change its kind under it.
                    self.env.relax();
                    word = f.word();
                    if self.env.spend(1) {
                        return Put::Busy;
                    }
                    continue;
                }
                State::Valid(_) if kind.is_table() => {
                    match step(f, word, Word::locked(kind, Progress::ALL)) {
                        Ok(()) => return self.devalidate(f, kind, Progress::ALL, false),
                        Err(now) => word = now,
                    }
                    continue;
                }
                State::Valid(_) => Word::free(kind, self.env.now()).with_foreign(word.was_foreign()),
                _ => {
                    debug_assert!(false, "type reference of {:?} dropped, which is {word:?}", f.mfn());
                    return Put::Done;
                }
            };
            match step(f, word, new) {
                Ok(()) => return Put::Done,
                Err(now) => word = now,
            }
        }
    }

    /// Undoes what a partial state has counted. Nothing to do if somebody else has taken the page on, and wants it valid.
    pub(super) fn drop_partial(&mut self, f: Frame<'f>) -> Put {
        self.undo(f, |word| !word.is_rising())
    }

    /// The same although somebody has wanted it valid: of a domain whose vCPUs run no more.
    pub(super) fn drop_abandoned(&mut self, f: Frame<'f>) -> Put {
        self.undo(f, |_| true)
    }

    fn undo(&mut self, f: Frame<'f>, may: impl Fn(Word) -> bool) -> Put {
        let mut word = f.word();
        while let State::Partial(at) = word.state()
            && may(word)
        {
            let kind = word.kind();
            match step(f, word, Word::locked(kind, at)) {
                Ok(()) => return self.devalidate(f, kind, at, true),
                Err(now) => word = now,
            }
        }
        Put::Done
    }

    fn devalidate(&mut self, f: Frame<'f>, kind: Kind, from: Progress, held: bool) -> Put {
        let (worked, put) = match self.demote(&Table { frame: f, kind }, from) {
            Some(at) => (Worked::Falling(at), Put::Partial),
            None => (Worked::Free, Put::Done),
        };
        self.leave(f, kind, worked, held, kind);
        put
    }

    /// Goes on with what an earlier operation deferred; what is still left, if anything.
    pub fn finish(&mut self, deferred: Deferred) -> Option<Deferred> {
        let f = self.frames.ram(deferred.mfn)?;
        let put = if deferred.partial { self.drop_partial(f) } else { self.drop_type(f) };
        match put {
            Put::Done => {
                self.put_page(f);
                None
            }
            Put::Busy => Some(deferred),
            Put::Partial => Some(Deferred { partial: true, ..deferred }),
        }
    }
}
