//! A guest revokes a grant while another domain pins it, in all interleavings: either the guest sees that it is in use,
//! or the pin fails.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};
use loom::thread;
use xen_abi::ids::{DomId, GrantRef, Mfn};

use super::{Access, EntryPage, Purpose, Refusal, Table, Version, Via, abi};

#[derive(Clone)]
struct Page(Arc<AtomicU64>);

impl EntryPage for Page {
    type Cell<'a> = &'a AtomicU64;

    fn mfn(&self) -> Mfn {
        Mfn(0)
    }
    fn cell(&self, _: usize) -> &AtomicU64 {
        &self.0
    }
    fn is_mapped(&self) -> bool {
        false
    }
}

const MAPPER: DomId = DomId(5);
const IN_USE: u64 = (abi::GTF_READING | abi::GTF_WRITING) as u64;

/// What Linux does to end access: clears the flags unless they say that the grant is in use.
fn revoke(word: &AtomicU64) -> bool {
    let mut seen = word.load(SeqCst);
    loop {
        if seen & IN_USE != 0 {
            return false;
        }
        match word.compare_exchange(seen, seen & !0xffff, SeqCst, SeqCst) {
            Ok(_) => return true,
            Err(now) => seen = now,
        }
    }
}

#[test]
fn revoking_races_with_pinning() {
    for access in [Access::Read, Access::Write] {
        loom::model(move || {
            let granted = u64::from(abi::GTF_PERMIT_ACCESS) | u64::from(MAPPER.0) << 16 | 7 << 32;
            let word = Arc::new(AtomicU64::new(granted));
            let guest = {
                let word = word.clone();
                thread::spawn(move || revoke(&word))
            };
            let mut table = Table::new(DomId(1), 1, Version::Two);
            assert!(table.add_frame(Page(word.clone())).is_ok());
            let frame = |gfn: xen_abi::ids::Gfn| Ok::<_, Refusal>(Mfn(gfn.0));
            let pinned = table.pin(GrantRef(0), MAPPER, access, Via::HOST, Purpose::Map, frame);
            let revoked = guest.join().unwrap();
            assert!(revoked != pinned.is_ok(), "revoked {revoked}, pinned {pinned:?}");
            if pinned.is_ok() {
                assert_ne!(word.load(SeqCst) & IN_USE, 0);
                table.unpin(GrantRef(0), access, Via::HOST);
            }
            assert_eq!(word.load(SeqCst) & IN_USE, 0);
            assert!(!pinned.is_ok() || revoke(&word));
        });
    }
}
