//! What several tests need.
#![allow(dead_code, reason = "not every test needs everything")]

use xen_abi::ids::DomId;
use xen_abi::xs_wire::{XS_WATCH_EVENT, XsdSockmsg};
use xenstore::permission::Permissions;
use xenstore::{NO_TRANSACTION, Store};
use zerocopy::FromBytes;

pub const D0: DomId = DomId(0);

/// A store with the parent of all homes.
pub fn store() -> Store {
    let mut store = Store::default();
    store.mkdir(D0, NO_TRANSACTION, b"/local/domain").unwrap();
    store
}

/// Introduces a guest that owns its home.
pub fn guest(store: &mut Store, dom: u16) -> DomId {
    let home = xenstore::path::home(DomId(dom));
    store.mkdir(D0, NO_TRANSACTION, home.as_bytes()).unwrap();
    store.set_permissions(D0, NO_TRANSACTION, home.as_bytes(), &Permissions::private(DomId(dom))).unwrap();
    store.introduce(DomId(dom));
    DomId(dom)
}

/// Writes a node as domain 0.
pub fn file(store: &mut Store, path: &str, value: &str) {
    store.write(D0, NO_TRANSACTION, path.as_bytes(), value.as_bytes()).unwrap();
}

/// All messages that wait for a client.
pub fn messages(store: &mut Store, who: DomId) -> Vec<(XsdSockmsg, Vec<u8>)> {
    let mut bytes = Vec::new();
    while !store.output(who).is_empty() {
        // In pieces, as over a ring.
        let piece = store.output(who).iter().take(7).copied().collect::<Vec<_>>();
        store.sent(who, piece.len());
        bytes.extend(piece);
    }
    let mut rest = &bytes[..];
    let mut found = Vec::new();
    while let Ok((header, tail)) = XsdSockmsg::read_from_prefix(rest) {
        let (payload, tail) = tail.split_at(header.len as usize);
        found.push((header, payload.to_vec()));
        rest = tail;
    }
    assert!(rest.is_empty());
    found
}

/// All events that wait for a client, as "path token".
pub fn events(store: &mut Store, who: DomId) -> Vec<String> {
    messages(store, who)
        .into_iter()
        .map(|(header, payload)| {
            assert_eq!(header.type_, XS_WATCH_EVENT);
            let text = String::from_utf8(payload).unwrap();
            let (path, token) = text.strip_suffix('\0').unwrap().split_once('\0').unwrap();
            format!("{path} {token}")
        })
        .collect()
}
