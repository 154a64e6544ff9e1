//! The store by its bytes.

mod support;

use support::{D0, file, guest, messages, store};
use xen_abi::ids::DomId;
use xen_abi::xs_wire::*;
use xenstore::{Store, Violation};
use zerocopy::IntoBytes;

fn bytes(type_: u32, tx_id: u32, payload: &[u8]) -> Vec<u8> {
    let header = XsdSockmsg { type_, req_id: 77, tx_id, len: u32::try_from(payload.len()).unwrap() };
    [header.as_bytes(), payload].concat()
}

/// Sends in pieces of what is wanted.
fn send(store: &mut Store, who: DomId, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = store.wanted(who).min(bytes.len());
        assert!(count > 0, "the store does not listen");
        let (piece, rest) = bytes.split_at(count.div_ceil(2));
        store.receive(who, piece).unwrap();
        bytes = rest;
    }
}

/// A request and its only answer.
fn ask(store: &mut Store, who: DomId, type_: u32, tx_id: u32, payload: &[u8]) -> (u32, Vec<u8>) {
    send(store, who, &bytes(type_, tx_id, payload));
    let mut all = messages(store, who);
    assert_eq!(all.len(), 1);
    let (header, payload) = all.remove(0);
    assert_eq!((header.req_id, header.tx_id), (77, tx_id));
    (header.type_, payload)
}

fn error(name: &str) -> (u32, Vec<u8>) {
    (XS_ERROR, format!("{name}\0").into_bytes())
}

fn ok(type_: u32) -> (u32, Vec<u8>) {
    (type_, b"OK\0".to_vec())
}

#[test]
fn requests_are_answered() {
    let mut store = store();
    let one = guest(&mut store, 1);
    assert_eq!(ask(&mut store, one, XS_WRITE, 0, b"a/b\0x\0y"), ok(XS_WRITE));
    assert_eq!(ask(&mut store, one, XS_READ, 0, b"a/b\0"), (XS_READ, b"x\0y".to_vec()));
    assert_eq!(ask(&mut store, one, XS_MKDIR, 0, b"a/c\0"), ok(XS_MKDIR));
    assert_eq!(ask(&mut store, one, XS_DIRECTORY, 0, b"a\0"), (XS_DIRECTORY, b"b\0c\0".to_vec()));
    assert_eq!(ask(&mut store, one, XS_DIRECTORY, 0, b"a/c\0"), (XS_DIRECTORY, Vec::new()));
    assert_eq!(ask(&mut store, one, XS_GET_PERMS, 0, b"a\0"), (XS_GET_PERMS, b"n1\0".to_vec()));
    assert_eq!(ask(&mut store, one, XS_SET_PERMS, 0, b"a\0n1\0r0\0"), ok(XS_SET_PERMS));
    assert_eq!(ask(&mut store, one, XS_RM, 0, b"a\0"), ok(XS_RM));
    assert_eq!(ask(&mut store, one, XS_READ, 0, b"a/b\0"), error("ENOENT"));
    assert_eq!(ask(&mut store, one, XS_READ, 0, b"/tool\0"), error("EACCES"));
    assert_eq!(
        ask(&mut store, one, XS_GET_DOMAIN_PATH, 0, b"5\0"),
        (XS_GET_DOMAIN_PATH, b"/local/domain/5\0".to_vec())
    );
}

#[test]
fn bad_requests_are_refused() {
    let mut store = store();
    let one = guest(&mut store, 1);
    for (type_, payload) in [
        (XS_READ, &b""[..]),
        (XS_READ, b"a"),
        (XS_READ, b"a\0b\0"),
        (XS_READ, b"a b\0"),
        (XS_READ, b"@releaseDomain\0"),
        (XS_WRITE, b"a"),
        (XS_WATCH, b"a\0"),
        (XS_WATCH, b"a\0b\0c\0"),
        (XS_WATCH, b"a//b\0t\0"),
        (XS_SET_PERMS, b"a\0"),
        (XS_SET_PERMS, b"a\0q1\0"),
        (XS_TRANSACTION_END, b"X\0"),
        (XS_GET_DOMAIN_PATH, b"one\0"),
        (XS_DIRECTORY_PART, b"/\0"),
    ] {
        assert_eq!(ask(&mut store, one, type_, 0, payload), error("EINVAL"), "{type_} {payload:?}");
    }
    for type_ in [XS_CONTROL, XS_INTRODUCE, XS_RELEASE, XS_IS_DOMAIN_INTRODUCED, XS_RESUME, XS_SET_TARGET] {
        assert_eq!(ask(&mut store, one, type_, 0, b"0\0"), error("EACCES"));
    }
    for type_ in [XS_WATCH_EVENT, XS_ERROR, 20, XS_TYPE_COUNT, u32::MAX] {
        assert_eq!(ask(&mut store, one, type_, 0, b"\0"), error("ENOSYS"));
    }
    assert_eq!(ask(&mut store, one, XS_READ, 9, b"a\0"), error("ENOENT"), "no such transaction");
    assert_eq!(ask(&mut store, one, XS_TRANSACTION_END, 0, b"T\0"), error("ENOENT"));
    assert_eq!(ask(&mut store, one, XS_UNWATCH, 0, b"a\0b\0"), error("ENOENT"));
}

#[test]
fn transactions_go_over_the_wire() {
    let mut store = store();
    let one = guest(&mut store, 1);
    assert_eq!(ask(&mut store, one, XS_TRANSACTION_START, 0, b"\0"), (XS_TRANSACTION_START, b"1\0".to_vec()));
    assert_eq!(ask(&mut store, one, XS_TRANSACTION_START, 1, b"\0"), error("EBUSY"));
    assert_eq!(ask(&mut store, one, XS_WRITE, 1, b"x\0y"), ok(XS_WRITE));
    assert_eq!(ask(&mut store, one, XS_READ, 0, b"x\0"), error("ENOENT"));
    file(&mut store, "/local/domain/1/x", "first");
    assert_eq!(ask(&mut store, one, XS_TRANSACTION_END, 1, b"T\0"), error("EAGAIN"));
    assert_eq!(ask(&mut store, one, XS_READ, 0, b"x\0"), (XS_READ, b"first".to_vec()));
}

#[test]
fn a_watch_is_answered_before_its_first_event() {
    let mut store = store();
    let one = guest(&mut store, 1);
    send(&mut store, one, &bytes(XS_WATCH, 0, b"device\0token\0"));
    let all = messages(&mut store, one);
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].0.type_, &all[0].1[..]), (XS_WATCH, &b"OK\0"[..]));
    assert_eq!((all[1].0.type_, &all[1].1[..]), (XS_WATCH_EVENT, &b"device\0token\0"[..]));
    assert_eq!((all[1].0.req_id, all[1].0.tx_id), (0, 0));
    assert_eq!(ask(&mut store, one, XS_RESET_WATCHES, 0, b"\0"), ok(XS_RESET_WATCHES));
    assert_eq!(ask(&mut store, one, XS_UNWATCH, 0, b"device\0token\0"), error("ENOENT"));
}

#[test]
fn long_lists_come_in_parts() {
    let mut store = store();
    for index in 0..1000 {
        file(&mut store, &format!("/many/name-{index}"), "");
    }
    assert_eq!(ask(&mut store, D0, XS_DIRECTORY, 0, b"/many\0"), error("E2BIG"));
    let (mut names, mut generation) = (Vec::new(), None);
    loop {
        let request = format!("/many\0{}\0", names.len());
        let (type_, answer) = ask(&mut store, D0, XS_DIRECTORY_PART, 0, request.as_bytes());
        assert_eq!(type_, XS_DIRECTORY_PART);
        assert!(answer.len() <= XENSTORE_PAYLOAD_MAX);
        let end = answer.iter().position(|&byte| byte == 0).unwrap();
        assert_eq!(*generation.get_or_insert(answer[..end].to_vec()), answer[..end]);
        let rest = &answer[end + 1..];
        if let Some(last) = rest.strip_suffix(b"\0\0") {
            names.extend_from_slice(last);
            break;
        }
        names.extend_from_slice(rest);
    }
    assert_eq!(names.split(|&byte| byte == 0).count(), 1000);
    let beyond = ask(&mut store, D0, XS_DIRECTORY_PART, 0, b"/many\099999\0").1;
    assert!(beyond.ends_with(b"\0\0"));
}

#[test]
fn too_long_a_payload_ends_the_conversation() {
    let mut store = store();
    let one = guest(&mut store, 1);
    let header = XsdSockmsg { type_: XS_WRITE, len: 4097, ..Default::default() };
    assert_eq!(store.receive(one, header.as_bytes()), Err(Violation { len: 4097 }));
    let (two, longest) = (guest(&mut store, 2), [b"x\0".as_slice(), &[0; 4094]].concat());
    assert_eq!(ask(&mut store, two, XS_WRITE, 0, &longest), error("ENOSPC"));
}

#[test]
fn requests_wait_while_answers_do() {
    let mut store = store();
    let one = guest(&mut store, 1);
    file(&mut store, "/local/domain/1/x", &"v".repeat(4000));
    let request = bytes(XS_READ, 0, b"x\0");
    let mut answered = 0;
    while store.wanted(one) > 0 {
        send(&mut store, one, &request);
        answered += 1;
        assert!(answered < 10);
    }
    assert_eq!(messages(&mut store, one).len(), answered);
    assert_eq!(store.wanted(one), size_of::<XsdSockmsg>());
}
