//! The store as a guest sees it over its ring: reading, writing, transactions, watches. For a domain that has a ring page;
//! in the initial domain there is nothing to try.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::alloc::format;
use guest_pv::alloc::string::String;
use guest_pv::alloc::vec;
use guest_pv::tap::Tap;
use guest_pv::xenstore::{Error, Transaction, Xenstore};

guest_pv::test!(run);

const NONE: Transaction = Transaction::NONE;

fn refused(errno: &str) -> Error {
    Error::Refused(String::from(errno))
}

fn run(tap: &mut Tap) {
    let Some(mut store) = Xenstore::connect() else {
        tap.skip("the store", "no ring page");
        return;
    };
    let store = &mut store;
    let domid = store.read_text(NONE, "domid").unwrap_or_default();
    tap.ok(domid.parse::<u16>().is_ok_and(|domid| domid > 0), "the domain's own number, by a relative path");
    let home = format!("/local/domain/{domid}");
    tap.is(store.read_text(NONE, &format!("{home}/domid")), Ok(domid.clone()), "and by an absolute one");
    tap.ok(store.read_text(NONE, "name").is_ok_and(|name| !name.is_empty()), "it has a name");
    tap.is(store.read(NONE, "missing"), Err(refused("ENOENT")), "a node that is not there");
    tap.is(store.write(NONE, "/tool/mine", b"1"), Err(refused("EACCES")), "a node of somebody else");
    tap.is(store.read(NONE, "a//b"), Err(refused("EINVAL")), "a path that is none");

    tap.is(store.write(NONE, "data/test", b"value"), Ok(()), "a value is written");
    tap.is(store.read(NONE, "data/test"), Ok(b"value".to_vec()), "and read");
    tap.is(store.write(NONE, "data/test", b""), Ok(()), "it is emptied");
    tap.is(store.read(NONE, "data/test"), Ok(vec![]), "and empty");
    tap.is(store.mkdir(NONE, "data/dir/sub"), Ok(()), "a node with a missing parent is made");
    let names = store.directory(NONE, "data").map(|mut names| {
        names.sort();
        names
    });
    tap.is(names, Ok(vec![String::from("dir"), String::from("test")]), "both are listed");
    let long = vec![b'x'; 2000];
    tap.is(store.write(NONE, "data/long", &long), Ok(()), "2000 bytes go through a ring of 1024");
    tap.ok(store.read(NONE, "data/long") == Ok(long), "and come back");
    tap.is(store.write(NONE, "data/long", &[b'x'; 3000]), Err(refused("ENOSPC")), "3000 are more than a node may have");
    tap.is(store.remove(NONE, "data/dir"), Ok(()), "a subtree is removed");
    tap.is(store.read(NONE, "data/dir/sub"), Err(refused("ENOENT")), "all of it");

    transactions(tap, store);
    watches(tap, store, &home);
    for name in ["test", "long", "seen"] {
        let _ = store.remove(NONE, &format!("data/{name}"));
    }
}

fn transactions(tap: &mut Tap, store: &mut Xenstore) {
    let first = store.begin().unwrap_or(NONE);
    tap.ok(first != NONE, "a transaction");
    tap.is(store.write(first, "data/seen", b"1"), Ok(()), "writes");
    tap.is(store.read(first, "data/seen"), Ok(b"1".to_vec()), "sees its writes");
    tap.is(store.read(NONE, "data/seen"), Err(refused("ENOENT")), "which are its own");
    tap.is(store.abort(first), Ok(()), "given up");
    tap.is(store.read(NONE, "data/seen"), Err(refused("ENOENT")), "they are gone");
    let second = store.begin().unwrap_or(NONE);
    tap.is(store.write(second, "data/seen", b"2"), Ok(()), "another one writes");
    tap.is(store.commit(second), Ok(()), "and is committed");
    tap.is(store.read(NONE, "data/seen"), Ok(b"2".to_vec()), "which shows its writes");
    tap.is(store.commit(second), Err(refused("ENOENT")), "it is over");
    let third = store.begin().unwrap_or(NONE);
    tap.is(store.read(third, "data/seen"), Ok(b"2".to_vec()), "a third one reads");
    tap.is(store.write(NONE, "data/seen", b"3"), Ok(()), "while somebody else writes");
    tap.is(store.write(third, "data/seen", b"4"), Ok(()), "then it writes too");
    tap.is(store.commit(third), Err(refused("EAGAIN")), "and has to try again");
    tap.is(store.read(NONE, "data/seen"), Ok(b"3".to_vec()), "nothing of it is left");
}

fn watches(tap: &mut Tap, store: &mut Xenstore, home: &str) {
    tap.is(store.watch("data", "token"), Ok(()), "a watch");
    let event = store.wait_event().map(|event| (event.path, event.token));
    tap.is(event, Ok((String::from("data"), String::from("token"))), "fires at once");
    tap.is(store.watch("data", "token"), Err(refused("EEXIST")), "the same one is refused");
    tap.is(store.write(NONE, "data/test", b"x"), Ok(()), "a write below it");
    let event = store.wait_event().map(|event| event.path);
    tap.is(event, Ok(String::from("data/test")), "fires, by a relative path as it was set");
    let absolute = format!("{home}/data");
    tap.is(store.watch(&absolute, "other"), Ok(()), "an absolute watch");
    tap.is(store.wait_event().map(|event| event.path), Ok(absolute.clone()), "fires at once too");
    tap.is(store.unwatch("data", "token"), Ok(()), "the first one ends");
    tap.is(store.unwatch("data", "token"), Err(refused("ENOENT")), "but once");
    tap.is(store.write(NONE, "data/test", b"y"), Ok(()), "a write");
    tap.is(store.wait_event().map(|event| event.token), Ok(String::from("other")), "is told to the other one");
    tap.is(store.event(), Ok(None), "and to nobody else");
    tap.is(store.unwatch(&absolute, "other"), Ok(()), "which ends too");
}
