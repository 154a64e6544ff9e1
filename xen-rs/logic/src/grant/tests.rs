//! Grants against a slow, obvious model, and the answers to each misuse.
#![allow(clippy::cast_possible_truncation, reason = "takes fields of words")]

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::vec::Vec;
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Gfn, GrantHandle, GrantRef, Mfn};

#[derive(Debug, Clone)]
pub(super) struct Page(u64, Arc<[AtomicU64]>);

impl EntryPage for Page {
    type Cell<'a> = &'a AtomicU64;

    fn mfn(&self) -> Mfn {
        Mfn(self.0)
    }
    fn cell(&self, index: usize) -> &AtomicU64 {
        &self.1[index]
    }
    fn is_mapped(&self) -> bool {
        false
    }
}

pub(super) fn page(mfn: u64) -> Page {
    Page(mfn, (0..ENTRIES_PER_FRAME).map(|_| AtomicU64::new(0)).collect())
}

const ME: DomId = DomId(5);

fn table() -> (Table<Page>, Page) {
    let mut table = Table::new(DomId(1), 4, Version::Two);
    let shared = page(100);
    table.add_frame(shared.clone()).unwrap();
    (table, shared)
}

fn word(flags: u16, domain: u16, frame: u32) -> u64 {
    u64::from(flags) | u64::from(domain) << 16 | u64::from(frame) << 32
}

pub(super) fn good(gfn: Gfn) -> Result<Mfn, Refusal> {
    Ok(Mfn(gfn.0 + 1000))
}

fn map(table: &mut Table<Page>, gref: u32, access: Access) -> Result<Pinned, Refusal> {
    table.pin(GrantRef(gref), ME, access, Via::HOST, Purpose::Map, good)
}

fn mapped(table: TableId, gref: u32, frame: Mfn, access: Access, via: Via) -> Mapped {
    Mapped { granter: DomId(1), table, gref: GrantRef(gref), frame, access, via, by_entry: false }
}

const PERMIT: u16 = abi::GTF_PERMIT_ACCESS;

#[test]
fn sizes_and_versions() {
    let (mut t, _) = table();
    assert_eq!((t.frames(), t.max_frames(), t.entries()), (1, 4, 512));
    assert_eq!(t.missing(0), Ok(0));
    assert_eq!(t.missing(4), Ok(3));
    assert_eq!(t.missing(5), Err(Refusal::GeneralError));
    t.add_frame(page(101)).unwrap();
    assert_eq!(t.frame(1).unwrap().mfn(), Mfn(101));
    assert_eq!(t.set_version(Version::One), Ok(()));
    assert!(t.remove_frame().is_some());
    assert_eq!(t.add_frame(page(102)).unwrap_err().1, Errno::ENOMEM, "the table goes");
    assert_eq!(t.missing(1), Err(Refusal::GeneralError));
}

#[test]
fn misuse_of_pinning() {
    let (mut t, s) = table();
    assert_eq!(map(&mut t, 512, Access::Read), Err(Refusal::BadGntref));
    assert_eq!(map(&mut t, u32::MAX, Access::Read), Err(Refusal::BadGntref));
    assert_eq!(map(&mut t, 9, Access::Read), Err(Refusal::GeneralError), "an empty entry");
    s.store(9, word(PERMIT, 6, 7));
    assert_eq!(map(&mut t, 9, Access::Read), Err(Refusal::GeneralError), "somebody else's");
    s.store(9, word(PERMIT | abi::GTF_READONLY, 5, 7));
    assert_eq!(map(&mut t, 9, Access::Write), Err(Refusal::GeneralError), "read-only");
    s.store(9, word(abi::GTF_ACCEPT_TRANSFER, 5, 7));
    assert_eq!(map(&mut t, 9, Access::Read), Err(Refusal::GeneralError));
    s.store(9, word(PERMIT | abi::GTF_SUB_PAGE, 5, 7));
    assert_eq!(map(&mut t, 9, Access::Read), Err(Refusal::GeneralError));
    s.store(9, word(PERMIT, 5, 7));
    let bad = |_| Err(Refusal::BadPage);
    assert_eq!(t.pin(GrantRef(9), ME, Access::Write, Via::HOST, Purpose::Map, bad), Err(Refusal::BadPage));
    assert_eq!(s.load(9), word(PERMIT, 5, 7), "the flags are taken back");
    assert_eq!(t.pinned(), 0);
}

#[test]
fn a_mapping_from_grant_to_revocation() {
    let (mut t, s) = table();
    let mut track = Maptrack::new(1);
    assert_eq!(track.reserve(), Err(Refusal::NoSpace), "before it has grown");
    track.grow().unwrap();
    s.store(9, word(PERMIT, 5, 7));
    let reserved = track.reserve().unwrap();
    let pinned = map(&mut t, 9, Access::Write).unwrap();
    assert_eq!(pinned.frame, Mfn(1007));
    let mapped = mapped(t.id(), 9, pinned.frame, Access::Write, Via::HOST);
    let handle = track.commit(reserved, mapped);
    assert_eq!(s.load(9), word(PERMIT | abi::GTF_READING | abi::GTF_WRITING, 5, 7));
    // The guest revokes and points the entry elsewhere: the pin keeps the frame it began with, for the same user.
    s.store(9, word(abi::GTF_READING | abi::GTF_WRITING, 5, 8));
    let second = map(&mut t, 9, Access::Read).unwrap();
    assert_eq!(second.frame, Mfn(1007));
    t.unpin(GrantRef(9), Access::Read, Via::HOST);
    let other = t.pin(GrantRef(9), DomId(6), Access::Read, Via::HOST, Purpose::Copy, good);
    assert_eq!(other, Err(Refusal::GeneralError), "pinned for another domain");

    let unmap = Unmap { handle, via: Via::HOST };
    let mapping = track.claim(unmap).unwrap().unwrap();
    assert_eq!(track.claim(unmap), Err(Refusal::BadHandle), "claimed by the first");
    track.unclaim(mapping);
    let mapping = track.claim(unmap).unwrap().unwrap();
    assert_eq!((mapping.granter(), mapping.frame()), (DomId(1), Mfn(1007)));
    let detached = track.detach(mapping);
    assert_eq!(track.claim(unmap), Err(Refusal::BadHandle));
    assert_eq!(track.used(), 0);
    let freed = t.release(detached, &Flushed::acknowledged());
    assert_eq!(freed, Freed::of(Mfn(1007), true));
    assert_eq!(s.load(9), word(0, 5, 8), "the guest sees that nobody uses it any more");
    assert_eq!(t.pinned(), 0);
}

#[test]
fn a_handle_means_the_table_that_it_was_made_for() {
    // A domain has overwritten the entry of a mapping, so that its handle outlives the domain that granted the page.
    let (mut gone, s) = table();
    let mut track = Maptrack::new(1);
    track.grow().unwrap();
    s.store(9, word(PERMIT, 5, 7));
    let reserved = track.reserve().unwrap();
    let frame = map(&mut gone, 9, Access::Write).unwrap().frame;
    let handle = track.commit(reserved, mapped(gone.id(), 9, frame, Access::Write, Via::HOST));
    drop(gone);
    // Another domain has that one's number now, and somebody else uses the same grant of it.
    let (mut next, s) = table();
    s.store(9, word(PERMIT, 6, 8));
    let _ = next.pin(GrantRef(9), DomId(6), Access::Write, Via::HOST, Purpose::Map, good).unwrap();
    let mapping = track.claim(Unmap { handle, via: Via::HOST }).unwrap().unwrap();
    let freed = next.release(track.detach(mapping), &Flushed::acknowledged());
    assert_eq!(freed, Freed::of(Mfn(1007), true), "what the entry held goes in any case");
    assert_eq!(next.pinned(), 1, "what is mapped stays in use");
    assert_eq!(s.load(9), word(PERMIT | abi::GTF_READING | abi::GTF_WRITING, 6, 8));
}

#[test]
fn handles_are_charged_and_reused() {
    let mut track = Maptrack::new(1);
    assert_eq!(track.reserve(), Err(Refusal::NoSpace), "before it has grown");
    track.grow().unwrap();
    let handles: Vec<_> = (0..256)
        .map(|n| {
            let reserved = track.reserve().unwrap();
            track.commit(reserved, mapped(table().0.id(), n, Mfn(1), Access::Read, Via::new(true, n == 3)))
        })
        .collect();
    assert_eq!(track.grow(), Err(Refusal::NoSpace), "at its limit");
    assert_eq!(track.reserve(), Err(Refusal::NoSpace));
    assert_eq!(track.claim(Unmap { handle: GrantHandle(256), via: Via::HOST }), Err(Refusal::BadHandle));
    assert_eq!(track.claim(Unmap { handle: handles[0], via: Via::NOTHING }), Ok(None));
    // Handle 3 has two ways; it is free when both are gone.
    let host = track.claim(Unmap { handle: handles[3], via: Via::HOST }).unwrap().unwrap();
    let _ = track.detach(host);
    assert_eq!(track.used(), 256);
    let rest = track.claim(Unmap { handle: handles[3], via: Via::ALL }).unwrap().unwrap();
    assert_eq!(rest.via(), Via::DEVICE);
    let _ = track.detach(rest);
    assert_eq!(track.used(), 255);
    let again = track.reserve().unwrap();
    track.cancel(again);
    let (mut count, mut rounds) = (0, 0);
    loop {
        let mut most = 100;
        rounds += 1;
        let end = loop {
            match track.claim_next(&mut most) {
                Left::Mapping(mapping) => {
                    let _ = track.detach(mapping);
                    count += 1;
                }
                end => break end,
            }
        };
        if end == Left::Nothing {
            break;
        }
    }
    assert_eq!(rounds, 3, "each handle is looked at once");
    assert_eq!((count, track.used()), (255, 0));
}

#[test]
fn counters_never_wrap() {
    let (mut t, s) = table();
    s.store(1, word(PERMIT, 5, 7));
    for _ in 0..128 {
        let _ = map(&mut t, 1, Access::Read).unwrap();
    }
    assert_eq!(map(&mut t, 1, Access::Read), Err(Refusal::GeneralError));
    let _ = map(&mut t, 1, Access::Write).unwrap();
}

#[test]
fn an_entry_that_never_stands_still() {
    struct Restless(AtomicU64);
    impl EntryCell for &Restless {
        fn load(self) -> u64 {
            self.0.load(SeqCst)
        }
        fn store(self, _: u64) {}
        fn compare_exchange(self, _: u64, _: u64) -> Result<(), u64> {
            Err(self.0.fetch_xor(u64::from(abi::GTF_PWT), SeqCst))
        }
        fn and(self, _: u64) {}
        fn or(self, _: u64) {}
    }
    impl EntryPage for Restless {
        type Cell<'a> = &'a Restless;

        fn mfn(&self) -> Mfn {
            Mfn(0)
        }
        fn cell(&self, _: usize) -> &Restless {
            self
        }
        fn is_mapped(&self) -> bool {
            false
        }
    }
    let mut t = Table::new(DomId(1), 1, Version::Two);
    assert!(t.add_frame(Restless(AtomicU64::new(word(PERMIT, 5, 7)))).is_ok());
    let got = t.pin(GrantRef(0), ME, Access::Read, Via::HOST, Purpose::Map, good);
    assert_eq!(got, Err(Refusal::GeneralError));
}

#[test]
fn swapping() {
    let (mut t, s) = table();
    s.store(1, word(PERMIT, 5, 7));
    assert_eq!(t.swap(GrantRef(1), GrantRef(512)), Err(Refusal::BadGntref));
    assert_eq!(t.swap(GrantRef(1), GrantRef(2)), Ok(()));
    assert_eq!((s.load(1), s.load(2)), (0, word(PERMIT, 5, 7)));
    let _ = map(&mut t, 2, Access::Read).unwrap();
    assert_eq!(t.swap(GrantRef(1), GrantRef(2)), Err(Refusal::Again));
    assert_eq!(t.swap(GrantRef(2), GrantRef(2)), Ok(()));
}

#[derive(Debug, Clone)]
enum Step {
    Write(u32, u64),
    Map(u32, u16, bool),
    Unmap(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![Just(0), Just(PERMIT), Just(PERMIT | abi::GTF_READONLY)];
    prop_oneof![
        (0u32..3, flags, 5u16..7).prop_map(|(gref, flags, dom)| Step::Write(gref, word(flags, dom, gref * 10))),
        (0u32..3, 5u16..7, any::<bool>()).prop_map(|(gref, dom, write)| Step::Map(gref, dom, write)),
        (0usize..8).prop_map(Step::Unmap),
    ]
}

proptest! {
    /// Status flags are exactly what the live mappings justify, and a pin is refused exactly when the entry says so.
    #[test]
    fn agrees_with_the_model(steps in prop::collection::vec(step(), 1..200)) {
        let (mut t, s) = table();
        // (entry, user, writes) of each live mapping.
        let mut live: Vec<(u32, u16, bool)> = Vec::new();
        let mut entries: BTreeMap<u32, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Write(gref, value) => {
                    let status = s.load(gref as usize) & u64::from(abi::GTF_READING | abi::GTF_WRITING);
                    s.store(gref as usize, value | status);
                    entries.insert(gref, value);
                }
                Step::Map(gref, dom, write) => {
                    let access = if write { Access::Write } else { Access::Read };
                    let got = t.pin(GrantRef(gref), DomId(dom), access, Via::HOST, Purpose::Map, good);
                    let value = entries.get(&gref).copied().unwrap_or(0);
                    let (flags, granted) = (value as u16, (value >> 16) as u16);
                    let users: Vec<_> = live.iter().filter(|m| m.0 == gref).collect();
                    let read_only = flags & abi::GTF_READONLY != 0;
                    let ok = if users.is_empty() {
                        flags & abi::GTF_TYPE_MASK == PERMIT && granted == dom && !(write && read_only)
                    } else {
                        users[0].1 == dom && (!write || users.iter().any(|m| m.2) || !read_only)
                    };
                    prop_assert_eq!(got.is_ok(), ok, "{:?}", got);
                    if ok {
                        live.push((gref, dom, write));
                    }
                }
                Step::Unmap(nth) if !live.is_empty() => {
                    let (gref, _, write) = live.remove(nth % live.len());
                    t.unpin(GrantRef(gref), if write { Access::Write } else { Access::Read }, Via::HOST);
                }
                Step::Unmap(_) => {}
            }
            for gref in 0..3u32 {
                let flags = s.load(gref as usize) as u16;
                let used = live.iter().any(|m| m.0 == gref);
                let written = live.iter().any(|m| m.0 == gref && m.2);
                prop_assert_eq!(flags & abi::GTF_READING != 0, used);
                prop_assert_eq!(flags & abi::GTF_WRITING != 0, written);
            }
            let users: std::collections::BTreeSet<_> = live.iter().map(|m| m.0).collect();
            prop_assert_eq!(t.pinned() as usize, users.len());
        }
    }
}

/// The short ways do what the long ones do, wherever they do anything.
#[test]
fn at_once_is_the_same() {
    for access in [Access::Read, Access::Write] {
        for flags in [
            0,
            PERMIT,
            PERMIT | abi::GTF_READONLY,
            PERMIT | abi::GTF_SUB_PAGE,
            PERMIT | abi::GTF_READING,
            abi::GTF_TRANSITIVE,
        ] {
            for (by, uses) in [(ME, 0), (DomId(9), 0), (ME, 1), (ME, 2)] {
                let make = || {
                    let (mut table, page) = table();
                    page.store(3, word(PERMIT, ME.0, 77));
                    for _ in 0..uses {
                        let _ = map(&mut table, 3, Access::Read).unwrap();
                    }
                    page.store(3, word(flags, ME.0, 77));
                    (table, page)
                };
                let ((mut short, short_page), (mut long, long_page)) = (make(), make());
                let page = short.pin_at_once(GrantRef(3), by, access, |gfn| good(gfn).ok());
                let Some(mfn) = page else {
                    assert_eq!(short_page.load(3), word(flags, ME.0, 77), "nothing has changed");
                    assert_eq!(short.pinned(), u32::from(uses != 0));
                    continue;
                };
                let pinned = long.pin(GrantRef(3), by, access, Via::HOST, Purpose::Map, good).unwrap();
                assert_eq!((pinned.frame, pinned.extent), (mfn, Extent::PAGE));
                assert_eq!((short_page.load(3), short.pinned()), (long_page.load(3), long.pinned()));
                assert!(short.unpin_at_once(GrantRef(3), access), "its only use");
                let _ = long.unpin(GrantRef(3), access, Via::HOST);
                assert_eq!((short_page.load(3), short.pinned()), (long_page.load(3), long.pinned()));
                assert!(!short.unpin_at_once(GrantRef(3), access), "no use is left");
            }
        }
    }
}
