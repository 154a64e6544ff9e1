//! Grants that are written, pinned and mapped in any order, against a list of what is in use.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::grant::{Access, EntryPage, Flushed, Mapped, Maptrack, Purpose, Table, Unmap, Via};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use xen_abi::ids::{DomId, GrantHandle, GrantRef, Mfn};

#[derive(Clone, Debug)]
struct Page(Arc<[AtomicU64]>);

impl EntryPage for Page {
    fn mfn(&self) -> Mfn {
        Mfn(1)
    }
    fn load(&self, index: usize) -> u64 {
        self.0[index].load(SeqCst)
    }
    fn store(&self, index: usize, word: u64) {
        self.0[index].store(word, SeqCst);
    }
    fn compare_exchange(&self, index: usize, old: u64, new: u64) -> Result<(), u64> {
        self.0[index].compare_exchange(old, new, SeqCst, SeqCst).map(drop)
    }
    fn and(&self, index: usize, mask: u64) {
        self.0[index].fetch_and(mask, SeqCst);
    }
}

const GRANTER: DomId = DomId(1);

fuzz_target!(|data: &[u8]| {
    let page = Page((0..512).map(|_| AtomicU64::new(0)).collect());
    let (mut table, mut track) = (Table::new(1), Maptrack::new(1));
    table.add_frame(page.clone()).unwrap();
    track.grow().unwrap();
    // What is mapped: handle, entry, by whom, writable, which ways are left.
    let mut live: Vec<(GrantHandle, u32, bool, Via)> = Vec::new();
    let mut bytes = Bytes::new(data);
    while !bytes.is_empty() {
        let (what, gref) = (bytes.u8(), u32::from(bytes.u8()));
        match what % 4 {
            // The granter writes anything, also while it is in use.
            0 => page.store(gref as usize % 512, bytes.u64()),
            1 | 2 => {
                let (flags, mapper) = (bytes.u8(), DomId(bytes.u16()));
                let access = if flags & 1 == 0 { Access::Read } else { Access::Write };
                let via = Via { host: flags & 2 == 0, device: flags & 4 != 0 };
                if !via.any() {
                    continue;
                }
                let Ok(handle) = track.reserve() else { continue };
                match table.pin(GrantRef(gref), mapper, access, via, Purpose::Map, |gfn| Ok(Mfn(gfn.0))) {
                    Ok(pinned) => {
                        let frame = pinned.frame;
                        let mapped =
                            Mapped { granter: GRANTER, gref: GrantRef(gref), frame, access, via, by_entry: false };
                        let handle = track.commit(handle, mapped);
                        assert!(live.iter().all(|other| other.0 != handle), "a handle was given out twice");
                        live.push((handle, gref, access == Access::Write, via));
                    }
                    Err(_) => track.cancel(handle),
                }
            }
            _ => {
                let wanted = Via { host: gref & 1 == 0, device: gref & 2 != 0 };
                let handle = GrantHandle(u32::from(bytes.u16() % 300));
                let known = live.iter().position(|one| one.0 == handle);
                match track.claim(Unmap { handle, via: wanted }) {
                    Ok(Some(mapping)) => {
                        let index = known.expect("nothing is mapped there");
                        let gone = mapping.via();
                        let detached = track.detach(mapping);
                        let freed = table.release(detached, &Flushed::acknowledged());
                        assert_eq!(freed.via(), gone);
                        let (_, _, write, via) = &mut live[index];
                        assert_eq!(*write, freed.access() == Access::Write);
                        (via.host, via.device) = (via.host && !gone.host, via.device && !gone.device);
                        if !via.any() {
                            live.remove(index);
                        }
                    }
                    Ok(None) => {}
                    Err(_) => assert!(known.is_none(), "a mapping was lost"),
                }
            }
        }
        assert_eq!(track.used() as usize, live.len());
        let mut used: Vec<u32> = live.iter().map(|one| one.1).collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(table.pinned() as usize, used.len());
    }
    // Everything can be taken back.
    let mut from = GrantHandle(0);
    while let Some((mapping, next)) = track.claim_next(from) {
        let detached = track.detach(mapping);
        let _ = table.release(detached, &Flushed::acknowledged());
        from = next;
    }
    assert_eq!((track.used(), table.pinned()), (0, 0));
});
