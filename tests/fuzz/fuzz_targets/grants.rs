//! Grants that are written, pinned, mapped, copied from and moved between versions in any order, against a list of what is
//! in use.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::grant::{
    Access, Claim, EntryPage, Flushed, Left, Mapped, Maptrack, Purpose, Refusal, Table, Unmap, Version, Via,
};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use xen_abi::ids::{DomId, Gfn, GrantHandle, GrantRef, Mfn};

#[derive(Clone, Debug)]
struct Page(Arc<[AtomicU64]>);

impl Page {
    fn new() -> Self {
        Page((0..512).map(|_| AtomicU64::new(0)).collect())
    }
}

impl EntryPage for Page {
    type Cell<'a> = &'a AtomicU64;

    fn mfn(&self) -> Mfn {
        Mfn(1)
    }
    fn cell(&self, index: usize) -> &AtomicU64 {
        &self.0[index]
    }
    fn is_mapped(&self) -> bool {
        false
    }
}

const GRANTER: DomId = DomId(1);
/// Who grants what [`GRANTER`] passes on, and maps and copies.
const OTHERS: [DomId; 2] = [DomId(2), DomId(3)];

/// A mapping.
struct Live {
    handle: GrantHandle,
    gref: u32,
    write: bool,
    via: Via,
}

/// A copy that has not come to its end.
struct Copying {
    gref: u32,
    access: Access,
}

fn found(gfn: Gfn) -> Result<Mfn, Refusal> {
    if gfn.0 % 16 == 15 { Err(Refusal::BadPage) } else { Ok(Mfn(gfn.0)) }
}

fuzz_target!(|data: &[u8]| {
    let (entries, status) = (Page::new(), Page::new());
    let (mut table, mut track) = (Table::new(GRANTER, 1, Version::Two), Maptrack::new(1));
    table.add_frame(entries.clone()).unwrap();
    table.add_status(status.clone()).unwrap();
    track.grow().unwrap();
    let mut live: Vec<Live> = Vec::new();
    let mut copying: Vec<Copying> = Vec::new();
    let mut bytes = Bytes::new(data);
    while !bytes.is_empty() {
        let (what, gref) = (bytes.u8(), u32::from(bytes.u8()));
        match what % 8 {
            // The granter writes anything, also while it is in use, and also over the status.
            0 => entries.store((gref as usize * 2 + usize::from(what >> 7)) % 512, bytes.u64()),
            1 => {
                let page = if what >> 7 == 0 { &entries } else { &status };
                page.store(gref as usize, bytes.u64());
            }
            2 | 3 => {
                let (flags, mapper) = (bytes.u8(), OTHERS[usize::from(bytes.u8()) % 2]);
                let access = if flags & 1 == 0 { Access::Read } else { Access::Write };
                let via = Via::new(flags & 2 == 0, flags & 4 != 0);
                if !via.any() {
                    continue;
                }
                let Ok(handle) = track.reserve() else { continue };
                match table.pin(GrantRef(gref), mapper, access, via, Purpose::Map, found) {
                    Ok(pinned) => {
                        let frame = pinned.frame;
                        let mapped = Mapped {
                            granter: GRANTER,
                            table: table.id(),
                            gref: GrantRef(gref),
                            frame,
                            access,
                            via,
                            by_entry: false,
                        };
                        let handle = track.commit(handle, mapped);
                        assert!(live.iter().all(|other| other.handle != handle), "a handle was given out twice");
                        live.push(Live { handle, gref, write: access == Access::Write, via });
                    }
                    Err(_) => track.cancel(handle),
                }
            }
            4 => {
                let wanted = Via::new(gref & 1 == 0, gref & 2 != 0);
                let handle = GrantHandle(u32::from(bytes.u16() % 300));
                let known = live.iter().position(|one| one.handle == handle);
                match track.claim(Unmap { handle, via: wanted }) {
                    Ok(Some(mapping)) => {
                        let index = known.expect("nothing is mapped there");
                        let gone = mapping.via();
                        let detached = track.detach(mapping);
                        let freed = table.release(detached, &Flushed::acknowledged());
                        assert_eq!(freed.via(), gone);
                        let Live { write, via, .. } = &mut live[index];
                        assert_eq!(*write, freed.access() == Access::Write);
                        *via = via.without(gone);
                        if !via.any() {
                            live.remove(index);
                        }
                    }
                    Ok(None) => {}
                    Err(_) => assert!(known.is_none(), "a mapping was lost"),
                }
            }
            5 => {
                let access = if what & 0x40 == 0 { Access::Read } else { Access::Write };
                let by = OTHERS[usize::from(what >> 7)];
                match table.claim(GrantRef(gref), by, access, found) {
                    Ok(Claim::Pinned(pinned)) => {
                        assert!(pinned.extent.covers(0, 0) || pinned.extent.is_part);
                        copying.push(Copying { gref, access });
                    }
                    Ok(Claim::PassedOn(passed_on)) => {
                        assert_ne!(passed_on.domain, GRANTER, "a domain passes on what it grants itself");
                        let page = logic::grant::Pinned { frame: Mfn(77), extent: logic::grant::Extent::PAGE };
                        if bytes.u8() & 1 == 0 {
                            table.give_up(GrantRef(gref), access);
                        } else if table.pin_passed_on(GrantRef(gref), by, access, passed_on, page).is_ok() {
                            copying.push(Copying { gref, access });
                        }
                    }
                    Err(_) => {}
                }
            }
            6 => {
                if let Some(Copying { gref, access }) = copying.pop() {
                    let _ = table.unpin(GrantRef(gref), access, Via::HOST);
                }
            }
            _ => {
                let wanted = table.wanted_version(1 + gref % 2).unwrap();
                let beyond =
                    live.iter().map(|one| one.gref).chain(copying.iter().map(|one| one.gref)).any(|gref| gref >= 8);
                let before = table.version();
                let result = table.set_version(wanted);
                assert!(wanted == before || result.is_err() || !beyond, "the layout changed under a use");
                let _ = table.swap(GrantRef(gref), GrantRef(bytes.u8().into()));
            }
        }
        assert_eq!(track.used() as usize, live.len());
        let mut used: Vec<u32> = live.iter().map(|one| one.gref).chain(copying.iter().map(|one| one.gref)).collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(table.pinned() as usize, used.len());
    }
    // Everything can be taken back.
    for Copying { gref, access } in copying {
        let _ = table.unpin(GrantRef(gref), access, Via::HOST);
    }
    let mut most = 1000;
    loop {
        match track.claim_next(&mut most) {
            Left::Mapping(mapping) => {
                let detached = track.detach(mapping);
                let _ = table.release(detached, &Flushed::acknowledged());
            }
            Left::Unknown => panic!("more handles than there can be"),
            Left::Nothing => break,
        }
    }
    assert_eq!((track.used(), table.pinned()), (0, 0));
});
