//! A node's children, by name. Few are a map; more are shared out among maps by their names' hashes, so that a tree which
//! shares most of them with another copies a bounded number of entries when one changes, however many there are.

use crate::tree::Node;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

/// More than these in one map are shared out.
const FEW: usize = 32;
/// How many maps they are shared out among: as many as four bits of a hash tell apart.
const WAYS: usize = 16;
/// How often that can be done with the bits of one hash. Names that are alike in all of them stay in one map; a domain has
/// not more of them than its quota of nodes.
const LEVELS: u32 = 16;

/// A child, and when it was made: they are listed in that order.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    pub since: u64,
    pub node: Arc<Node>,
}

/// The children of a node, or those of them whose hashes begin alike.
#[derive(Debug)]
pub(crate) enum Children {
    Few(BTreeMap<Arc<str>, Child>),
    Many(Box<[Arc<Children>; WAYS]>),
}

impl Default for Children {
    fn default() -> Self {
        Self::Few(BTreeMap::new())
    }
}

impl Clone for Children {
    fn clone(&self) -> Self {
        #[cfg(test)]
        tests::COPIED.with(|copied| copied.set(copied.get() + self.width()));
        match self {
            Self::Few(map) => Self::Few(map.clone()),
            Self::Many(parts) => Self::Many(parts.clone()),
        }
    }
}

/// FNV-1a, stirred so that all bits depend on the last character.
fn hash(name: &str) -> u64 {
    let sum = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (sum ^ (sum >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
}

/// Which of the maps at a level.
fn way(hash: u64, level: u32) -> usize {
    usize::try_from(hash.wrapping_shr(level * WAYS.ilog2())).unwrap_or(0) % WAYS
}

impl Children {
    pub fn get(&self, name: &str) -> Option<&Child> {
        let mut at = self;
        let mut hashed = None;
        for level in 0.. {
            match at {
                Self::Few(map) => return map.get(name),
                Self::Many(parts) => at = parts.get(way(*hashed.get_or_insert_with(|| hash(name)), level))?,
            }
        }
        None
    }

    /// To change it: the map that has it is copied where another tree shares it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Child> {
        let mut at = self;
        let mut hashed = None;
        for level in 0.. {
            match at {
                Self::Few(map) => return map.get_mut(name),
                Self::Many(parts) => {
                    let part = parts.get_mut(way(*hashed.get_or_insert_with(|| hash(name)), level))?;
                    at = Arc::make_mut(part);
                }
            }
        }
        None
    }

    /// Adds a child, in the place of one of that name; says whether there was none.
    pub fn insert(&mut self, name: Arc<str>, child: Child) -> bool {
        let mut at = self;
        let mut hashed = None;
        let mut level = 0;
        while let Self::Many(parts) = at {
            let Some(part) = parts.get_mut(way(*hashed.get_or_insert_with(|| hash(&name)), level)) else {
                return false;
            };
            at = Arc::make_mut(part);
            level += 1;
        }
        let Self::Few(map) = at else { return false };
        let new = map.insert(name, child).is_none();
        if map.len() > FEW && level < LEVELS {
            *at = share_out(mem::take(map), level);
        }
        new
    }

    /// The child of this name, made where there is none; says whether it was.
    pub fn child_or(&mut self, name: &str, make: impl FnOnce() -> Child) -> Option<(&mut Child, bool)> {
        // Most nodes have few children, which are found or made in one search.
        if self.is_small() {
            let Self::Few(map) = self else { return None };
            return Some(match map.entry(name.into()) {
                Entry::Occupied(child) => (child.into_mut(), false),
                Entry::Vacant(place) => (place.insert(make()), true),
            });
        }
        let new = self.get(name).is_none();
        if new {
            self.insert(name.into(), make());
        }
        self.get_mut(name).map(|child| (child, new))
    }

    /// Whether one more is no reason to share them out.
    fn is_small(&self) -> bool {
        matches!(self, Self::Few(map) if map.len() < FEW)
    }

    /// Takes a child away; says whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        if self.get(name).is_none() {
            return false;
        }
        let mut at = &mut *self;
        for level in 0.. {
            match at {
                Self::Few(map) => {
                    map.remove(name);
                    break;
                }
                Self::Many(parts) => {
                    let Some(part) = parts.get_mut(way(hash(name), level)) else { break };
                    at = Arc::make_mut(part);
                }
            }
        }
        // What has become empty needs no room.
        if let Self::Many(parts) = self
            && parts.iter().all(|part| part.is_empty())
        {
            *self = Self::default();
        }
        true
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(map) => map.is_empty(),
            Self::Many(parts) => parts.iter().all(|part| part.is_empty()),
        }
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Child)> {
        let mut maps = Vec::new();
        let mut all = Vec::new();
        let first = match self {
            Self::Few(map) => Some(map.iter()),
            Self::Many(_) => {
                maps.push(self);
                None
            }
        };
        while let Some(children) = maps.pop() {
            match children {
                Self::Few(map) => all.extend(map),
                Self::Many(parts) => maps.extend(parts.iter().map(|part| &**part)),
            }
        }
        all.sort_unstable_by_key(|(name, _)| *name);
        first.into_iter().flatten().chain(all)
    }

    /// Adds the nodes of all of them to `nodes`, but for those of maps that others have, too; empty afterwards.
    pub fn drain_into(&mut self, nodes: &mut Vec<Arc<Node>>) {
        // Nearly every node has few, or none: that takes no memory.
        let mut maps = Vec::new();
        let mut next = Some(mem::take(self));
        while let Some(children) = next {
            match children {
                Self::Few(map) => nodes.extend(map.into_values().map(|child| child.node)),
                Self::Many(parts) => maps.extend(parts.into_iter().filter_map(Arc::into_inner)),
            }
            next = maps.pop();
        }
    }

    /// How many entries a copy of this one map has.
    #[cfg(test)]
    fn width(&self) -> usize {
        match self {
            Self::Few(map) => map.len(),
            Self::Many(parts) => parts.len(),
        }
    }
}

/// The children of a map that has become too large, among maps by their hashes at a level.
fn share_out(map: BTreeMap<Arc<str>, Child>, level: u32) -> Children {
    let mut parts: [BTreeMap<Arc<str>, Child>; WAYS] = Default::default();
    for (name, child) in map {
        if let Some(part) = parts.get_mut(way(hash(&name), level)) {
            part.insert(name, child);
        }
    }
    Children::Many(Box::new(parts.map(|part| Arc::new(Children::Few(part)))))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::permission::Permissions;
    use crate::{NO_TRANSACTION as NOW, Outcome, Quota, Store};
    use alloc::collections::BTreeMap;
    use alloc::format;
    use alloc::string::String;
    use core::cell::Cell;
    use proptest::prelude::*;
    use xen_abi::errno::Errno;
    use xen_abi::ids::DomId;

    std::thread_local! {
        /// Entries that copies of maps had.
        pub static COPIED: Cell<usize> = const { Cell::new(0) };
    }

    fn child(since: u64) -> Child {
        Child { since, node: Arc::new(Node::new(since, Permissions::parse(b"n0\0").unwrap(), b"")) }
    }

    fn contents(children: &Children) -> Vec<(String, u64)> {
        children.iter().map(|(name, child)| (String::from(&**name), child.since)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// They are a map, also where copies are kept, which do not change.
        #[test]
        fn they_are_a_map(steps in prop::collection::vec((0_u16..300, 0_u8..8), 0..900)) {
            let (mut children, mut model) = (Children::default(), BTreeMap::new());
            let mut kept = Vec::new();
            for (number, (name, what)) in (0_u64..).zip(steps) {
                let name = format!("{name}");
                match what {
                    0..4 => {
                        let new = children.insert(name.as_str().into(), child(number));
                        prop_assert_eq!(new, model.insert(name, number).is_none());
                    }
                    4 => prop_assert_eq!(children.remove(&name), model.remove(&name).is_some()),
                    5 => {
                        let found = children.get_mut(&name).map(|child| child.since);
                        prop_assert_eq!(found, model.get(&name).copied());
                    }
                    6 => {
                        let (found, new) = children.child_or(&name, || child(number)).unwrap();
                        prop_assert_eq!(new, !model.contains_key(&name));
                        prop_assert_eq!(found.since, *model.entry(name).or_insert(number));
                    }
                    _ if kept.len() < 3 => kept.push((children.clone(), model.clone())),
                    _ => {}
                }
            }
            kept.push((children, model));
            for (children, model) in &kept {
                prop_assert_eq!(contents(children), model.clone().into_iter().collect::<Vec<_>>());
                prop_assert!(model.iter().all(|(name, since)| children.get(name).is_some_and(|c| c.since == *since)));
            }
            for (mut children, model) in kept {
                let len = model.len();
                for name in model.into_keys() {
                    prop_assert!(children.remove(&name));
                }
                prop_assert!(matches!(children, Children::Few(map) if map.is_empty()) || len == 0);
            }
        }
    }

    /// What a transaction copies that reads and writes some nodes of a domain while another one is written to, so that it is
    /// merged at its end; in a store with so many domains, each with so many nodes in one directory.
    fn copied_by_a_transaction(domains: u16, nodes: u16) -> usize {
        let mut store = Store::new(Quota::default());
        let zero = DomId(0);
        for dom in 1..=domains {
            for node in 0..nodes {
                let path = format!("/local/domain/{dom}/data/{node}");
                store.write(zero, NOW, path.as_bytes(), b"value").unwrap();
            }
        }
        let before = COPIED.with(Cell::get);
        let transaction = store.start_transaction(zero).unwrap();
        for node in 0..5 {
            let path = format!("/local/domain/1/data/{node}");
            store.read(zero, transaction, path.as_bytes()).unwrap();
            store.write(zero, transaction, path.as_bytes(), b"other").unwrap();
        }
        store.write(zero, transaction, b"/local/domain/1/new", b"").unwrap();
        store.rm(zero, transaction, b"/local/domain/1/data/1").unwrap();
        store.write(zero, NOW, format!("/local/domain/{domains}/data/7").as_bytes(), b"others'").unwrap();
        store.end_transaction(zero, transaction, Outcome::Commit).unwrap();
        assert_eq!(&*store.read(zero, NOW, b"/local/domain/1/data/4").unwrap(), b"other");
        assert_eq!(store.read(zero, NOW, b"/local/domain/1/data/1"), Err(Errno::ENOENT));
        COPIED.with(Cell::get) - before
    }

    #[test]
    fn what_a_transaction_copies_does_not_depend_on_the_number_of_nodes_and_domains() {
        // Eight nodes change; on the way to each are some maps of these sizes.
        const BOUND: usize = 8 * 2 * (FEW + 2 * WAYS);
        let few = copied_by_a_transaction(30, 30);
        assert!(few > 60, "{few}: a copy of a map is counted");
        for (domains, nodes) in [(100, 100), (5000, 10), (10, 5000)] {
            let many = copied_by_a_transaction(domains, nodes);
            assert!(many <= BOUND, "{many} with {domains} domains of {nodes} nodes, {few} with few");
        }
    }
}
