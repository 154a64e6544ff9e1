//! The store against a slow, obvious model: a flat map of paths that is copied whole for each transaction.

mod support;

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use support::{D0, guest, store};
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;
use xenstore::permission::{Identity, Permissions, Rights};
use xenstore::{NO_TRANSACTION, Outcome, Store};

#[derive(Clone, Debug, PartialEq)]
struct Node {
    value: Vec<u8>,
    permissions: Permissions,
    /// Children in order.
    children: Vec<String>,
    /// Which change made it so.
    version: u64,
}

type Map = BTreeMap<String, Node>;

struct Open {
    start: Map,
    map: Map,
    touched: BTreeSet<String>,
}

struct Model {
    map: Map,
    version: u64,
    open: BTreeMap<(DomId, u32), Open>,
}

fn parent(path: &str) -> Option<(String, String)> {
    let (parent, name) = path.rsplit_once('/')?;
    (!name.is_empty()).then(|| (if parent.is_empty() { "/" } else { parent }.to_owned(), name.to_owned()))
}

fn below(path: &str, above: &str) -> bool {
    path == above || path.starts_with(&format!("{above}/"))
}

/// What an operation needs: the map it works on, and what it touches.
struct At<'a> {
    map: &'a mut Map,
    version: &'a mut u64,
    touched: Option<&'a mut BTreeSet<String>>,
    who: Identity,
}

impl At<'_> {
    fn touch(&mut self, path: &str) {
        if let Some(touched) = &mut self.touched {
            touched.insert(path.to_owned());
        }
    }

    fn look(&mut self, path: &str, need: Rights) -> Result<Node, Errno> {
        self.touch(path);
        if let Some(node) = self.map.get(path) {
            return if node.permissions.rights(self.who).contains(need) {
                Ok(node.clone())
            } else {
                Err(Errno::EACCES)
            };
        }
        let mut above = path.to_owned();
        while let Some((up, _)) = parent(&above) {
            if let Some(node) = self.map.get(&up) {
                let visible = node.permissions.rights(self.who).intersects(need);
                return Err(if visible { Errno::ENOENT } else { Errno::EACCES });
            }
            above = up;
        }
        unreachable!("the root is always there")
    }

    fn bump(&mut self, path: &str) -> &mut Node {
        *self.version += 1;
        let version = *self.version;
        self.touch(path);
        let node = self.map.get_mut(path).unwrap();
        node.version = version;
        node
    }

    fn create(&mut self, path: &str, value: &[u8]) {
        let (up, name) = parent(path).unwrap();
        if !self.map.contains_key(&up) {
            self.create(&up, b"");
        }
        self.touch(path);
        let node = self.bump(&up);
        node.children.push(name);
        let above = node.permissions.clone();
        let owner = if self.who.is_privileged() { above.owner() } else { self.who.dom };
        let node = Node { value: value.to_vec(), permissions: above.owned_by(owner), children: vec![], version: 0 };
        self.map.insert(path.to_owned(), node);
        self.bump(path);
    }

    fn write(&mut self, path: &str, value: Option<&[u8]>) -> Result<(), Errno> {
        match (self.look(path, Rights::WRITE), value) {
            (Ok(_), Some(value)) => self.bump(path).value = value.to_vec(),
            (Ok(_), None) => {}
            (Err(Errno::ENOENT), value) => self.create(path, value.unwrap_or_default()),
            (Err(errno), _) => return Err(errno),
        }
        Ok(())
    }

    fn rm(&mut self, path: &str) -> Result<(), Errno> {
        match self.look(path, Rights::WRITE) {
            Err(Errno::ENOENT) => {
                let (up, _) = parent(path).unwrap();
                self.touch(&up);
                return if self.map.contains_key(&up) { Ok(()) } else { Err(Errno::ENOENT) };
            }
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
        let (up, name) = parent(path).ok_or(Errno::EINVAL)?;
        let gone: Vec<String> = self.map.keys().filter(|key| below(key, path)).cloned().collect();
        for key in gone {
            self.touch(&key);
            self.map.remove(&key);
        }
        self.bump(&up).children.retain(|child| *child != name);
        Ok(())
    }

    fn set_permissions(&mut self, path: &str, permissions: &Permissions) -> Result<(), Errno> {
        let node = self.look(path, Rights::WRITE | Rights::OWNER)?;
        if !self.who.is_privileged() && node.permissions.owner() != permissions.owner() {
            return Err(Errno::EPERM);
        }
        self.bump(path).permissions = permissions.clone();
        Ok(())
    }
}

impl Model {
    fn at(&mut self, who: DomId, transaction: u32) -> Option<At<'_>> {
        let who_is = Identity::of(who);
        if transaction == NO_TRANSACTION {
            return Some(At { map: &mut self.map, version: &mut self.version, touched: None, who: who_is });
        }
        let open = self.open.get_mut(&(who, transaction))?;
        Some(At { map: &mut open.map, version: &mut self.version, touched: Some(&mut open.touched), who: who_is })
    }

    fn end(&mut self, who: DomId, transaction: u32, outcome: Outcome) -> Result<(), Errno> {
        let open = self.open.remove(&(who, transaction)).ok_or(Errno::ENOENT)?;
        if outcome == Outcome::Abort {
            return Ok(());
        }
        let version = |map: &Map, path: &String| map.get(path).map(|node| node.version);
        if open.touched.iter().any(|path| version(&open.start, path) != version(&self.map, path)) {
            return Err(Errno::EAGAIN);
        }
        for path in open.touched {
            let changed = version(&open.start, &path) != version(&open.map, &path);
            self.version += 1;
            match open.map.get(&path) {
                Some(node) if changed => drop(self.map.insert(path, Node { version: self.version, ..node.clone() })),
                Some(_) => {}
                None => drop(self.map.remove(&path)),
            }
        }
        Ok(())
    }

    /// Reads the model's beginning from the store.
    fn of(store: &mut Store, paths: &[&str]) -> Self {
        let mut map = Map::new();
        for &path in paths {
            let bytes = path.as_bytes();
            let node = Node {
                value: store.read(D0, NO_TRANSACTION, bytes).unwrap().to_vec(),
                permissions: store.permissions(D0, NO_TRANSACTION, bytes).unwrap(),
                children: list(store, D0, NO_TRANSACTION, path).unwrap(),
                version: 0,
            };
            map.insert(path.to_owned(), node);
        }
        Self { map, version: 0, open: BTreeMap::new() }
    }
}

fn list(store: &mut Store, who: DomId, transaction: u32, path: &str) -> Result<Vec<String>, Errno> {
    Ok(store.directory(who, transaction, path.as_bytes())?.iter().map(ToString::to_string).collect())
}

#[derive(Clone, Debug)]
enum Operation {
    Read,
    List,
    Permissions,
    Write(Vec<u8>),
    Mkdir,
    Rm,
    Set(Permissions),
    Start,
    End(Outcome),
}

fn operation() -> impl Strategy<Value = Operation> {
    let letters = prop_oneof![Just(b'n'), Just(b'r'), Just(b'w'), Just(b'b')];
    let entry = (letters, 0u8..3).prop_map(|(letter, dom)| vec![letter, b'0' + dom, 0]);
    let permissions =
        proptest::collection::vec(entry, 1..4).prop_map(|entries| Permissions::parse(&entries.concat()).unwrap());
    prop_oneof![
        3 => Just(Operation::Read),
        2 => Just(Operation::List),
        1 => Just(Operation::Permissions),
        6 => proptest::collection::vec(any::<u8>(), 0..4).prop_map(Operation::Write),
        2 => Just(Operation::Mkdir),
        3 => Just(Operation::Rm),
        3 => permissions.prop_map(Operation::Set),
        3 => Just(Operation::Start),
        3 => prop_oneof![4 => Just(Outcome::Commit), 1 => Just(Outcome::Abort)].prop_map(Operation::End),
    ]
}

const PATHS: [&str; 12] = [
    "/",
    "/a",
    "/a/a",
    "/a/b",
    "/a-b",
    "/a/b/c/d",
    "/local/domain/1",
    "/local/domain/1/x",
    "/local/domain/1/x/y",
    "/local/domain/1/x-y",
    "/local/domain/2",
    "/local/domain/2/x/y",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(
        steps in proptest::collection::vec((0u16..3, 0..PATHS.len(), 0usize..3, operation()), 1..80)
    ) {
        let mut store = store();
        let (one, two) = (guest(&mut store, 1), guest(&mut store, 2));
        let mut model = Model::of(&mut store, &[
            "/", "/tool", "/tool/xenstored", "/local", "/local/domain", "/local/domain/1", "/local/domain/2",
        ]);
        let mut open: BTreeMap<DomId, Vec<u32>> = BTreeMap::new();
        for (who, path, which, operation) in steps {
            let (who, path) = (DomId(who), PATHS[path]);
            let bytes = path.as_bytes();
            // Half of the operations are in a transaction, if there is one.
            let mine = open.entry(who).or_default();
            let transaction = mine.get(which).copied().unwrap_or(NO_TRANSACTION);
            let mut at = model.at(who, transaction).unwrap();
            match operation {
                Operation::Read => prop_assert_eq!(
                    store.read(who, transaction, bytes).map(|value| value.to_vec()),
                    at.look(path, Rights::READ).map(|node| node.value)
                ),
                Operation::List => prop_assert_eq!(
                    list(&mut store, who, transaction, path),
                    at.look(path, Rights::READ).map(|node| node.children)
                ),
                Operation::Permissions => prop_assert_eq!(
                    store.permissions(who, transaction, bytes),
                    at.look(path, Rights::READ).map(|node| node.permissions)
                ),
                Operation::Write(value) =>
                    prop_assert_eq!(store.write(who, transaction, bytes, &value), at.write(path, Some(&value))),
                Operation::Mkdir => prop_assert_eq!(store.mkdir(who, transaction, bytes), at.write(path, None)),
                Operation::Rm if path == "/" => {}
                Operation::Rm => prop_assert_eq!(store.rm(who, transaction, bytes), at.rm(path)),
                Operation::Set(permissions) => prop_assert_eq!(
                    store.set_permissions(who, transaction, bytes, &permissions),
                    at.set_permissions(path, &permissions)
                ),
                Operation::Start => if mine.len() < 3 {
                    let number = store.start_transaction(who).unwrap();
                    mine.push(number);
                    let (start, map) = (model.map.clone(), model.map.clone());
                    model.open.insert((who, number), Open { start, map, touched: BTreeSet::new() });
                },
                Operation::End(outcome) => if transaction != NO_TRANSACTION {
                    mine.retain(|&number| number != transaction);
                    let expected = model.end(who, transaction, outcome);
                    prop_assert_eq!(store.end_transaction(who, transaction, outcome), expected);
                },
            }
        }
        // Everything is the same at the end, and is counted right.
        prop_assert_eq!(store.nodes(), model.map.len());
        for dom in [D0, one, two] {
            let owned = model.map.values().filter(|node| node.permissions.owner() == dom).count();
            prop_assert_eq!(store.nodes_of(dom), owned as u64);
        }
        for (path, node) in &model.map {
            prop_assert_eq!(&*store.read(D0, NO_TRANSACTION, path.as_bytes()).unwrap(), &node.value[..]);
            let listed: BTreeSet<_> = list(&mut store, D0, NO_TRANSACTION, path).unwrap().into_iter().collect();
            prop_assert_eq!(listed, node.children.iter().cloned().collect());
            prop_assert_eq!(&store.permissions(D0, NO_TRANSACTION, path.as_bytes()).unwrap(), &node.permissions);
        }
    }

    /// Whatever a client sends, the store answers or hangs up; it does not fall over.
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600), types in proptest::collection::vec(0u8..25, 8)) {
        let mut store = store();
        let one = guest(&mut store, 1);
        for (index, &type_) in types.iter().enumerate() {
            let payload = bytes.get(index * 60..).unwrap_or_default();
            let payload = &payload[..payload.len().min(60)];
            let mut message = vec![type_, 0, 0, 0, 1, 0, 0, 0, type_ % 2, 0, 0, 0, u8::try_from(payload.len()).unwrap(), 0, 0, 0];
            message.extend_from_slice(payload);
            let mut rest = &message[..];
            while store.wanted(one) > 0 && !rest.is_empty() {
                let (piece, tail) = rest.split_at(store.wanted(one).min(5).min(rest.len()));
                store.receive(one, piece).unwrap();
                rest = tail;
            }
            if !rest.is_empty() {
                return Ok(());
            }
        }
        let mut raw = &bytes[..];
        while store.wanted(one) > 0 && !raw.is_empty() {
            let (piece, rest) = raw.split_at(store.wanted(one).min(raw.len()));
            if store.receive(one, piece).is_err() {
                break;
            }
            raw = rest;
        }
    }
}
