//! A client of xenstore that sends whatever it likes, beside one that behaves.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use xen_abi::ids::DomId;
use xenstore::{NO_TRANSACTION, Quota, Store};

const GUEST: DomId = DomId(7);
const OTHER: DomId = DomId(8);

fuzz_target!(|data: &[u8]| {
    let quota = Quota::default();
    let mut store = Store::new(quota);
    store.introduce(GUEST);
    store.introduce(OTHER);
    store.write(DomId(0), NO_TRANSACTION, b"/local/domain/8/secret", b"private").unwrap();
    let mut left = data;
    while !left.is_empty() {
        let take = store.wanted(GUEST).min(left.len());
        if take == 0 {
            let waiting = store.output(GUEST).len();
            assert!(waiting > 0, "it neither listens nor talks");
            store.sent(GUEST, waiting);
            continue;
        }
        let (piece, rest) = left.split_at(take);
        if store.receive(GUEST, piece).is_err() {
            break;
        }
        left = rest;
    }
    let secret = store.read(DomId(0), NO_TRANSACTION, b"/local/domain/8/secret").unwrap();
    assert_eq!(&*secret, b"private", "another domain's node was changed");
    assert!(store.read(OTHER, NO_TRANSACTION, b"/local/domain/8/secret").is_err() || !secret.is_empty());
});
