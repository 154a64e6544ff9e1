//! The store by its operations: permissions, errors, quotas, transactions, watches, the life of a domain.

mod support;

use support::{D0, events, file, guest, store};
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;
use xenstore::permission::Permissions;
use xenstore::{NO_TRANSACTION as NOW, Outcome, Quota, Store};

fn names(store: &mut Store, who: DomId, path: &str) -> Vec<String> {
    store.directory(who, NOW, path.as_bytes()).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn nodes_are_made_listed_and_removed() {
    let mut store = store();
    assert_eq!(names(&mut store, D0, "/"), ["tool", "local"]);
    store.write(D0, NOW, b"/b/z", b"1").unwrap();
    store.mkdir(D0, NOW, b"/b/a").unwrap();
    store.write(D0, NOW, b"/b/m", b"").unwrap();
    assert_eq!(names(&mut store, D0, "/b"), ["z", "a", "m"], "oldest first");
    assert_eq!(&*store.read(D0, NOW, b"/b/z").unwrap(), b"1");
    store.mkdir(D0, NOW, b"/b/z").unwrap();
    assert_eq!(&*store.read(D0, NOW, b"/b/z").unwrap(), b"1", "mkdir leaves what is there");
    store.rm(D0, NOW, b"/b").unwrap();
    assert_eq!(store.read(D0, NOW, b"/b/z"), Err(Errno::ENOENT));
    assert_eq!(store.rm(D0, NOW, b"/b"), Ok(()), "its parent is there");
    assert_eq!(store.rm(D0, NOW, b"/b/z"), Err(Errno::ENOENT), "its parent is not");
    assert_eq!(store.rm(D0, NOW, b"/"), Err(Errno::EINVAL));
    assert_eq!(store.read(D0, NOW, b"//"), Err(Errno::EINVAL));
}

#[test]
fn guests_are_kept_to_what_they_may() {
    let mut store = store();
    let (one, two) = (guest(&mut store, 1), guest(&mut store, 2));
    assert_eq!(store.write(one, NOW, b"data/x", b"v"), Ok(()));
    assert_eq!(store.read(D0, NOW, b"/local/domain/1/data/x").as_deref(), Ok(&b"v"[..]));
    assert_eq!(store.permissions(one, NOW, b"data/x").unwrap().to_wire(), b"n1\0");
    assert_eq!(store.read(two, NOW, b"/local/domain/1/data/x"), Err(Errno::EACCES));
    assert_eq!(store.read(two, NOW, b"/local/domain/1/data/none"), Err(Errno::EACCES), "not even that it is missing");
    assert_eq!(store.read(one, NOW, b"data/none"), Err(Errno::ENOENT));
    assert_eq!(store.write(one, NOW, b"/local/domain/2/x", b""), Err(Errno::EACCES));
    assert_eq!(store.write(one, NOW, b"/x", b""), Err(Errno::EACCES));

    let share = |text: &[u8]| Permissions::parse(text).unwrap();
    assert_eq!(store.set_permissions(one, NOW, b"data/x", &share(b"n1\0r2\0")), Ok(()));
    assert_eq!(store.read(two, NOW, b"/local/domain/1/data/x").as_deref(), Ok(&b"v"[..]));
    assert_eq!(store.write(two, NOW, b"/local/domain/1/data/x", b"w"), Err(Errno::EACCES));
    assert_eq!(store.set_permissions(two, NOW, b"/local/domain/1/data/x", &share(b"n2\0")), Err(Errno::EACCES));
    assert_eq!(store.set_permissions(one, NOW, b"data/x", &share(b"n2\0")), Err(Errno::EPERM), "owners stay");
    assert_eq!(store.set_permissions(one, NOW, b"data/x", &share(b"b1\0")), Ok(()));
    // A node that a guest makes in another's place is its own.
    assert_eq!(store.write(two, NOW, b"/local/domain/1/data/x/y", b""), Ok(()));
    assert_eq!(store.permissions(two, NOW, b"/local/domain/1/data/x/y").unwrap().to_wire(), b"b2\0");
    assert_eq!(store.rm(two, NOW, b"/local/domain/1/data/x"), Ok(()), "writing a node includes removing it");
}

#[test]
fn a_target_lends_its_rights() {
    let mut store = store();
    let (one, two) = (guest(&mut store, 1), guest(&mut store, 2));
    store.write(one, NOW, b"x", b"v").unwrap();
    store.set_target(two, one).unwrap();
    assert!(store.read(two, NOW, b"/local/domain/1/x").is_ok());
    store.release(one).unwrap();
    assert_eq!(store.read(two, NOW, b"/local/domain/1/x"), Err(Errno::EACCES));
}

#[test]
fn quotas_hold_for_guests() {
    let mut store =
        Store::new(Quota { nodes: 10, watches: 3, transactions: 2, transaction_nodes: 6, ..Quota::default() });
    let one = guest(&mut store, 1);
    assert_eq!(store.nodes_of(one), 1);
    store.write(one, NOW, b"a/b/c/d/e/f/g", b"").unwrap();
    assert_eq!(store.nodes_of(one), 8);
    assert_eq!(store.write(one, NOW, b"x/y/z", b""), Err(Errno::ENOSPC));
    assert_eq!(store.nodes_of(one), 8, "what fails has done nothing");
    assert_eq!(store.read(one, NOW, b"x"), Err(Errno::ENOENT));
    store.write(one, NOW, b"x/y", b"").unwrap();
    assert_eq!(store.mkdir(one, NOW, b"z"), Err(Errno::ENOSPC));
    assert_eq!(store.mkdir(D0, NOW, b"/local/domain/1/z"), Ok(()), "domain 0 is not limited");
    store.rm(one, NOW, b"a").unwrap();
    assert_eq!(store.nodes_of(one), 4);

    assert_eq!(store.write(one, NOW, b"x", &[0; 2048]), Err(Errno::ENOSPC));
    assert_eq!(store.write(one, NOW, b"x", &[0; 2000]), Ok(()));
    assert_eq!(store.write(one, NOW, b"x/a-longer-name", b""), Err(Errno::ENOSPC), "names count in the parent");
    let many = Permissions::parse(b"n1\0r2\0r3\0r4\0r5\0r6\0").unwrap();
    assert_eq!(store.set_permissions(one, NOW, b"x", &many), Err(Errno::ENOSPC));

    for token in [b"1", b"2", b"3"] {
        store.watch(one, b"x", token).unwrap();
    }
    assert_eq!(store.watch(one, b"x", b"4"), Err(Errno::E2BIG));
    assert_eq!(store.watch(one, b"x", b"3"), Err(Errno::EEXIST));

    let first = store.start_transaction(one).unwrap();
    store.start_transaction(one).unwrap();
    assert_eq!(store.start_transaction(one), Err(Errno::ENOSPC));
    for name in [b"n1", b"n2", b"n3", b"n4", b"n5", b"n6"] {
        assert_eq!(store.read(one, first, name), Err(Errno::ENOENT));
    }
    assert_eq!(store.read(one, first, b"n7"), Err(Errno::ENOSPC), "a transaction's memory is limited too");
}

#[test]
fn deep_trees_do_no_harm() {
    let mut store = Store::new(Quota::default());
    let one = guest(&mut store, 1);
    let deep = "a/".repeat(990) + "a";
    store.write(one, NOW, deep.as_bytes(), b"").unwrap();
    let transaction = store.start_transaction(one).unwrap();
    store.release(one).unwrap();
    assert_eq!(store.read(D0, transaction, b"/"), Err(Errno::ENOENT));
    store.rm(D0, NOW, b"/local/domain/1").unwrap();
    assert_eq!(store.nodes_of(one), 0);
}

#[test]
fn transactions_are_all_or_nothing() {
    let mut store = store();
    store.write(D0, NOW, b"/x", b"1").unwrap();
    let t = store.start_transaction(D0).unwrap();
    store.write(D0, t, b"/x", b"2").unwrap();
    store.write(D0, t, b"/y/z", b"3").unwrap();
    assert_eq!(store.read(D0, t, b"/x").as_deref(), Ok(&b"2"[..]));
    assert_eq!(store.read(D0, NOW, b"/x").as_deref(), Ok(&b"1"[..]));
    store.end_transaction(D0, t, Outcome::Abort).unwrap();
    assert_eq!(store.read(D0, NOW, b"/y"), Err(Errno::ENOENT));
    assert_eq!(store.end_transaction(D0, t, Outcome::Commit), Err(Errno::ENOENT));
    assert_eq!(store.read(D0, t, b"/x"), Err(Errno::ENOENT));

    let t = store.start_transaction(D0).unwrap();
    store.write(D0, t, b"/y/z", b"3").unwrap();
    store.rm(D0, t, b"/x").unwrap();
    store.end_transaction(D0, t, Outcome::Commit).unwrap();
    assert_eq!(store.read(D0, NOW, b"/y/z").as_deref(), Ok(&b"3"[..]));
    assert_eq!(store.read(D0, NOW, b"/x"), Err(Errno::ENOENT));
}

#[test]
fn transactions_that_met_fail_and_others_merge() {
    let mut store = store();
    store.write(D0, NOW, b"/a/x", b"1").unwrap();
    store.write(D0, NOW, b"/b/x", b"1").unwrap();
    let (first, second) = (store.start_transaction(D0).unwrap(), store.start_transaction(D0).unwrap());
    store.write(D0, first, b"/a/x", b"2").unwrap();
    store.write(D0, first, b"/a/new", b"2").unwrap();
    store.write(D0, second, b"/b/x", b"3").unwrap();
    store.rm(D0, second, b"/b").unwrap();
    store.mkdir(D0, second, b"/b/y").unwrap();
    assert_eq!(store.end_transaction(D0, first, Outcome::Commit), Ok(()));
    assert_eq!(store.end_transaction(D0, second, Outcome::Commit), Ok(()), "they touched different nodes");
    assert_eq!(names(&mut store, D0, "/a"), ["x", "new"]);
    assert_eq!(names(&mut store, D0, "/b"), ["y"]);

    let t = store.start_transaction(D0).unwrap();
    assert_eq!(store.read(D0, t, b"/a/x").as_deref(), Ok(&b"2"[..]));
    store.write(D0, NOW, b"/a/x", b"3").unwrap();
    assert_eq!(store.read(D0, t, b"/a/x").as_deref(), Ok(&b"2"[..]), "it sees what was at its start");
    store.write(D0, t, b"/c", b"from old news").unwrap();
    assert_eq!(store.end_transaction(D0, t, Outcome::Commit), Err(Errno::EAGAIN));
    assert_eq!(store.read(D0, NOW, b"/c"), Err(Errno::ENOENT));

    let t = store.start_transaction(D0).unwrap();
    assert_eq!(store.read(D0, t, b"/late"), Err(Errno::ENOENT));
    store.write(D0, NOW, b"/late", b"").unwrap();
    assert_eq!(store.end_transaction(D0, t, Outcome::Commit), Err(Errno::EAGAIN), "missing is a state too");
}

#[test]
fn watches_fire() {
    let mut store = store();
    let one = guest(&mut store, 1);
    events(&mut store, one);
    store.watch(one, b"dir", b"tok").unwrap();
    store.watch(one, b"/local/domain/1/dir", b"abs").unwrap();
    store.write(D0, NOW, b"/local/domain/1/dir/x", b"").unwrap();
    assert_eq!(events(&mut store, one), ["dir/x tok", "/local/domain/1/dir/x abs"]);
    store.write(D0, NOW, b"/local/domain/1/directory", b"").unwrap();
    assert!(events(&mut store, one).is_empty(), "a longer name is another node");
    store.mkdir(D0, NOW, b"/local/domain/1/dir").unwrap();
    assert!(events(&mut store, one).is_empty(), "nothing changed");
    store.rm(D0, NOW, b"/local/domain/1").unwrap();
    assert_eq!(events(&mut store, one), ["dir tok", "/local/domain/1/dir abs"], "each removed node by itself");
    store.unwatch(one, b"dir", b"tok").unwrap();
    assert_eq!(store.unwatch(one, b"dir", b"tok"), Err(Errno::ENOENT));
    store.reset_watches(one).unwrap();
    file(&mut store, "/local/domain/1/dir", "1");
    assert!(events(&mut store, one).is_empty());
    assert_eq!(store.watches_of(one), 0);
}

#[test]
fn watches_tell_nothing_to_those_who_may_not_know() {
    let mut store = store();
    let (one, two) = (guest(&mut store, 1), guest(&mut store, 2));
    store.watch(two, b"/", b"all").unwrap();
    store.write(one, NOW, b"secret/x", b"").unwrap();
    assert!(events(&mut store, two).is_empty());
    store.set_permissions(one, NOW, b"secret/x", &Permissions::parse(b"r1\0").unwrap()).unwrap();
    assert_eq!(events(&mut store, two), ["/local/domain/1/secret/x all"]);
    store.set_permissions(one, NOW, b"secret/x", &Permissions::parse(b"n1\0").unwrap()).unwrap();
    assert_eq!(events(&mut store, two), ["/local/domain/1/secret/x all"], "it hears that it was shut out");
    store.write(one, NOW, b"secret/x", b"").unwrap();
    store.rm(one, NOW, b"secret/x").unwrap();
    assert!(events(&mut store, two).is_empty());
}

#[test]
fn transactions_fire_at_their_end() {
    let mut store = store();
    store.watch(D0, b"/a", b"t").unwrap();
    let t = store.start_transaction(D0).unwrap();
    store.write(D0, t, b"/a/b", b"1").unwrap();
    store.write(D0, t, b"/a/b", b"2").unwrap();
    store.write(D0, t, b"/a/c", b"2").unwrap();
    store.rm(D0, t, b"/a/c").unwrap();
    assert!(events(&mut store, D0).is_empty());
    store.end_transaction(D0, t, Outcome::Commit).unwrap();
    assert_eq!(events(&mut store, D0), ["/a/b t"], "once, and nothing of what never was");
}

#[test]
fn domains_come_and_go() {
    let mut store = store();
    store.watch(D0, b"@introduceDomain", b"in").unwrap();
    store.watch(D0, b"@releaseDomain", b"out").unwrap();
    let one = guest(&mut store, 1);
    assert!(store.is_introduced(one));
    store.watch(one, b"@releaseDomain", b"curious").unwrap();
    let two = guest(&mut store, 2);
    assert_eq!(events(&mut store, D0), ["@introduceDomain in"], "one that waits already is not repeated");
    store.set_permissions(one, NOW, b"/local/domain/1", &Permissions::parse(b"n1\0r2\0").unwrap()).unwrap();
    store.release(two).unwrap();
    assert_eq!(store.release(two), Err(Errno::ENOENT));
    assert_eq!(events(&mut store, D0), ["@releaseDomain out"]);
    assert!(events(&mut store, one).is_empty(), "only who may read the event");
    // Whoever gets the number next inherits nothing.
    assert_eq!(store.permissions(one, NOW, b"/local/domain/1").unwrap().to_wire(), b"n1\0");
    assert_eq!(store.permissions(D0, NOW, b"/local/domain/2").unwrap().to_wire(), b"n0\0");
    assert_eq!(store.nodes_of(two), 0);
    assert_eq!(store.release(D0), Err(Errno::EINVAL));

    let open = Permissions::parse(b"r0\0").unwrap();
    assert_eq!(store.set_permissions(one, NOW, b"@releaseDomain", &open), Err(Errno::EACCES));
    assert_eq!(store.set_permissions(D0, NOW, b"@nothing", &open), Err(Errno::EINVAL));
    store.set_permissions(D0, NOW, b"@releaseDomain", &open).unwrap();
    store.domain_ended();
    assert_eq!(events(&mut store, one), ["@releaseDomain curious"]);
}

#[test]
fn a_client_that_does_not_listen_costs_no_more() {
    let mut store = Store::new(Quota { waiting_bytes_hard: 1000, ..Quota::default() });
    let one = guest(&mut store, 1);
    store.watch(one, b"", b"t").unwrap_err();
    store.watch(one, b"/local/domain/1", b"t").unwrap();
    for index in 0..500 {
        file(&mut store, &format!("/local/domain/1/n{index}"), "");
    }
    assert!(events(&mut store, one).len() < 40);
    file(&mut store, "/local/domain/1/later", "");
    assert_eq!(events(&mut store, one), ["/local/domain/1/later t"], "it hears again once it has listened");
}

/// What is planted is what writing it node by node makes, and watches are told of each node.
#[test]
fn a_tree_is_planted() {
    let private = || Some(Permissions::private(DomId(1)));
    let seeds = [
        ("", "", None),
        ("name", "x", None),
        ("data", "", private()),
        ("data/a/b", "v", None),
        ("data/a", "w", private()),
    ];
    let mut store = store();
    let one = guest(&mut store, 1);
    file(&mut store, "/local/domain/1/old", "gone");
    store.watch(D0, b"/local/domain/1", b"t").unwrap();
    store.watch(one, b"data/a", b"own").unwrap();
    let before = store.nodes();
    let seed = |(path, value, permissions): &(&'static str, &'static str, Option<Permissions>)| xenstore::Seed {
        path,
        value: value.as_bytes(),
        permissions: permissions.clone(),
    };
    let all: Vec<_> = seeds.iter().map(seed).collect();
    assert_eq!(store.plant(one, b"/local/domain/1", all.clone().into_iter()), Err(Errno::EACCES));
    assert_eq!(store.plant(D0, b"/local/domain/1", all.clone().into_iter()), Ok(()));
    assert_eq!(store.read(D0, NOW, b"/local/domain/1/old"), Err(Errno::ENOENT));
    assert_eq!(&*store.read(D0, NOW, b"/local/domain/1/data/a/b").unwrap(), b"v");
    assert_eq!(&*store.read(one, NOW, b"data/a").unwrap(), b"w");
    assert_eq!(names(&mut store, D0, "/local/domain/1"), ["name", "data"]);
    assert_eq!(store.nodes(), before - 1 + 4);
    assert_eq!(store.nodes_of(one), 3, "its data, and below it");
    let told = events(&mut store, D0);
    for path in ["", "/name", "/data", "/data/a/b", "/data/a"] {
        let line = format!("/local/domain/1{path} t");
        assert!(told.contains(&line), "{line} in {told:?}");
    }
    assert_eq!(events(&mut store, one), ["data/a/b own", "data/a own"]);
    assert_eq!(store.each_child(D0, b"/local/domain", "name").unwrap(), [("1".into(), b"x"[..].into())]);
    assert_eq!(store.each_child(one, b"/local/domain", "name"), Err(Errno::EACCES));

    // Nobody watches elsewhere, and nothing is lost there either.
    assert_eq!(store.plant(D0, b"/vm/u", all.into_iter()), Ok(()));
    assert_eq!(&*store.read(D0, NOW, b"/vm/u/data/a/b").unwrap(), b"v");
    assert_eq!(store.nodes_of(one), 6);
    store.rm(D0, NOW, b"/vm").unwrap();
    assert_eq!(store.nodes_of(one), 3);
    store.rm(D0, NOW, b"/local/domain/1").unwrap();
    assert_eq!((store.nodes(), store.nodes_of(one)), (before - 2, 0));
    for path in ["/local/domain/1//x", "x/", "/"] {
        let seeds = [xenstore::Seed { path, value: b"", permissions: None }];
        assert_eq!(store.plant(D0, b"/local/domain/1", seeds.into_iter()), Err(Errno::EINVAL), "{path}");
    }
}
