//! Entries of version 2, and the change between versions.
#![allow(clippy::cast_possible_truncation, reason = "takes fields of words")]

use super::tests::{Page, good, page};
use super::*;
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Gfn, GrantRef, Mfn};

const OWN: DomId = DomId(1);
const ME: DomId = DomId(5);
const PERMIT: u16 = abi::GTF_PERMIT_ACCESS;
const READ: u16 = abi::GTF_READING;
const BOTH: u16 = abi::GTF_READING | abi::GTF_WRITING;

struct Two {
    table: Table<Page>,
    entries: Page,
    status: Page,
}

fn two() -> Two {
    let mut table = Table::new(OWN, 4, Version::Two);
    let (entries, status) = (page(100), page(200));
    table.add_frame(entries.clone()).unwrap();
    assert_eq!(table.set_version(Version::Two), Err(Errno::ENOMEM), "without pages of status");
    assert_eq!(table.missing_status(1), 1);
    table.add_status(status.clone()).unwrap();
    assert_eq!(table.set_version(Version::Two), Ok(()));
    Two { table, entries, status }
}

impl Two {
    fn set(&self, gref: usize, flags: u16, domain: DomId, upper: (u16, u16), second: u64) {
        self.entries.store(gref * 2 + 1, second);
        let upper = u64::from(upper.0) << 32 | u64::from(upper.1) << 48;
        self.entries.store(gref * 2, u64::from(flags) | u64::from(domain.0) << 16 | upper);
    }

    fn status(&self, gref: usize) -> u16 {
        (self.status.load(gref / 4) >> (gref % 4 * 16)) as u16
    }

    fn map(&mut self, gref: u32, access: Access) -> Result<Pinned, Refusal> {
        self.table.pin(GrantRef(gref), ME, access, Via::HOST, Purpose::Map, good)
    }
}

#[test]
fn sizes() {
    let Two { mut table, .. } = two();
    assert_eq!((table.frames(), table.entries(), table.status_frames()), (1, 256, 1));
    assert_eq!(table.status_frame(0).map(EntryPage::mfn), Some(Mfn(200)));
    assert!(table.status_frame(1).is_none());
    assert_eq!([1, 4, 8, 9, 64].map(super::version2::status_frames), [1, 1, 1, 2, 8]);
    (0..3).for_each(|number| table.add_frame(page(101 + number)).unwrap());
    assert_eq!(table.entries(), 1024);
    assert_eq!(table.wanted_version(3), Err(Errno::EINVAL));
    assert_eq!(Table::<Page>::new(OWN, 4, Version::One).wanted_version(2), Err(Errno::ENOSYS));
}

#[test]
fn whole_pages() {
    let mut t = two();
    t.set(9, PERMIT, ME, (0, 0), 1 << 33);
    let pinned = t.map(9, Access::Read).unwrap();
    assert_eq!((pinned.frame, pinned.extent), (Mfn((1 << 33) + 1000), Extent::PAGE));
    assert_eq!((t.status(9), t.status(8), t.status(10)), (READ, 0, 0));
    assert!(t.map(9, Access::Write).is_ok());
    assert_eq!(t.status(9), BOTH);
    assert_eq!(t.table.unpin(GrantRef(9), Access::Write, Via::HOST), None);
    assert_eq!(t.status(9), READ);
    assert_eq!(t.table.unpin(GrantRef(9), Access::Read, Via::HOST), None);
    assert_eq!((t.status(9), t.table.pinned()), (0, 0));
    assert_eq!(t.map(256, Access::Read), Err(Refusal::BadGntref));
    t.set(9, PERMIT | abi::GTF_READONLY, ME, (0, 0), 7);
    assert_eq!(t.map(9, Access::Write), Err(Refusal::GeneralError));
    t.set(9, PERMIT, DomId(6), (0, 0), 7);
    assert_eq!(t.map(9, Access::Read), Err(Refusal::GeneralError));
    assert_eq!(t.status(9), 0);
}

#[test]
fn parts_of_pages_are_for_copies() {
    let mut t = two();
    t.set(9, PERMIT | abi::GTF_SUB_PAGE, ME, (100, 50), 7);
    assert_eq!(t.map(9, Access::Read), Err(Refusal::GeneralError));
    let Ok(Claim::Pinned(pinned)) = t.table.claim(GrantRef(9), ME, Access::Read, good) else { panic!("a page") };
    assert_eq!(pinned.extent, Extent { start: 100, length: 50, is_part: true });
    assert!(pinned.extent.covers(100, 50) && pinned.extent.covers(120, 0));
    assert!(!pinned.extent.covers(99, 2) && !pinned.extent.covers(149, 2) && !pinned.extent.covers(u16::MAX, u16::MAX));
    t.set(9, PERMIT, ME, (0, 0), 7);
    assert_eq!(t.map(9, Access::Read), Err(Refusal::GeneralError), "in use as a part");
    let _ = t.table.unpin(GrantRef(9), Access::Read, Via::HOST);
    assert!(t.map(9, Access::Read).is_ok());
}

#[test]
fn grants_are_passed_on_once() {
    let mut t = two();
    t.set(9, abi::GTF_TRANSITIVE, ME, (3, 0), 77);
    assert_eq!(t.map(9, Access::Read), Err(Refusal::GeneralError), "for copies only");
    assert_eq!(t.status(9), 0);
    let Ok(Claim::PassedOn(passed)) = t.table.claim(GrantRef(9), ME, Access::Write, good) else { panic!("passed on") };
    assert_eq!((passed.domain, passed.gref, t.status(9)), (DomId(3), GrantRef(77), BOTH));
    let found = Pinned { frame: Mfn(4), extent: Extent::PAGE };
    let pinned = t.table.pin_passed_on(GrantRef(9), ME, Access::Write, passed, found).unwrap();
    assert!(pinned.extent.is_part);
    assert_eq!(
        t.table.pin_passed_on(GrantRef(9), ME, Access::Write, passed, found),
        Err(Refusal::Again),
        "its uses have changed"
    );
    let Ok(Claim::PassedOn(again)) = t.table.claim(GrantRef(9), ME, Access::Write, good) else { panic!("passed on") };
    let other = Pinned { frame: Mfn(5), extent: Extent::PAGE };
    assert_eq!(t.table.pin_passed_on(GrantRef(9), ME, Access::Write, again, other), Err(Refusal::Again));
    assert_eq!(t.table.unpin(GrantRef(9), Access::Write, Via::HOST), Some((DomId(3), GrantRef(77))));
    assert_eq!((t.status(9), t.table.pinned()), (0, 0));
    t.set(9, abi::GTF_TRANSITIVE, ME, (OWN.0, 0), 77);
    assert_eq!(t.table.claim(GrantRef(9), ME, Access::Read, good), Err(Refusal::GeneralError), "its own");
    t.set(9, abi::GTF_TRANSITIVE, ME, (3, 0), 77);
    assert!(t.table.claim(GrantRef(9), ME, Access::Read, good).is_ok());
    t.table.give_up(GrantRef(9), Access::Read);
    assert_eq!(t.status(9), 0);
}

#[test]
fn the_first_entries_survive_a_change_of_version() {
    let mut t = two();
    t.table.grant(GrantRef(1), DomId(0), 55).unwrap();
    t.set(9, PERMIT, ME, (0, 0), 7);
    let _ = t.table.pin(GrantRef(1), DomId(0), Access::Write, Via::HOST, Purpose::Map, good).unwrap();
    let _ = t.map(9, Access::Read).unwrap();
    assert_eq!(t.table.set_version(Version::One), Err(Errno::EBUSY));
    let _ = t.table.unpin(GrantRef(9), Access::Read, Via::HOST);
    assert_eq!(t.table.set_version(Version::One), Ok(()));
    assert_eq!((t.table.version(), t.table.status_frames()), (Version::One, 0));
    assert_eq!(t.entries.load(1), u64::from(PERMIT | BOTH) | 55 << 32);
    assert_eq!(t.entries.load(9), 0, "all others are empty");
    assert_eq!(t.table.set_version(Version::Two), Ok(()));
    assert_eq!((t.entries.load(2), t.entries.load(3), t.status(1)), (u64::from(PERMIT), 55, BOTH));
    assert_eq!(t.table.unpin(GrantRef(1), Access::Write, Via::HOST), None);
    assert_eq!(t.status(1), 0);
    t.set(2, PERMIT, ME, (0, 0), 1 << 32);
    assert_eq!(t.table.set_version(Version::One), Err(Errno::ERANGE), "a frame too high");
    t.set(2, abi::GTF_TRANSITIVE, ME, (3, 0), 7);
    assert_eq!(t.table.set_version(Version::One), Err(Errno::ERANGE), "what is passed on");
    t.set(2, abi::GTF_ACCEPT_TRANSFER, ME, (0, 0), 7);
    assert_eq!(t.table.set_version(Version::One), Ok(()));
    assert_eq!(t.entries.load(2), 0);
}

#[test]
fn entries_are_swapped_whole() {
    let mut t = two();
    t.set(9, PERMIT, ME, (0, 0), 7);
    t.set(10, PERMIT | abi::GTF_SUB_PAGE, ME, (1, 2), 8);
    let before = [18, 19, 20, 21].map(|word| t.entries.load(word));
    assert_eq!(t.table.swap(GrantRef(9), GrantRef(10)), Ok(()));
    assert_eq!([20, 21, 18, 19].map(|word| t.entries.load(word)), before);
    let _ = t.map(10, Access::Read).unwrap();
    assert_eq!(t.table.swap(GrantRef(9), GrantRef(10)), Err(Refusal::Again));
    let nothing = |_: Gfn| Err(Refusal::BadPage);
    assert_eq!(t.table.claim(GrantRef(9), ME, Access::Read, nothing), Err(Refusal::BadPage));
    assert_eq!(t.status(9), 0);
}
