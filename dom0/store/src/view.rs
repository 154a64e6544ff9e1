//! The operations on nodes, on the store itself or on a transaction's own tree.
//!
//! Each checks everything before it changes anything, so one that fails has done nothing.

use crate::path;
use crate::permission::{Identity, Permissions, Rights};
use crate::quota::Quota;
use crate::tree::{self, Node};
use crate::watch::Watches;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

/// How many nodes domains own, and are named in; as a sum or as a difference.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage(BTreeMap<DomId, (i64, i64)>);

impl Usage {
    /// Nodes that the domain owns.
    pub fn owned(&self, dom: DomId) -> i64 {
        self.0.get(&dom).map_or(0, |&(owned, _)| owned)
    }

    /// Is any node's permission naming the domain?
    pub fn mentioned(&self, dom: DomId) -> bool {
        self.0.get(&dom).is_some_and(|&(_, mentioned)| mentioned > 0)
    }

    fn count(&mut self, permissions: &Permissions, by: i64) {
        self.0.entry(permissions.owner()).or_default().0 += by;
        for entry in permissions.entries() {
            self.0.entry(entry.dom).or_default().1 += by;
        }
    }

    /// Counts a node with these permissions.
    pub fn add(&mut self, permissions: &Permissions) {
        self.count(permissions, 1);
    }

    /// Counts one less.
    pub fn subtract(&mut self, permissions: &Permissions) {
        self.count(permissions, -1);
    }

    /// Adds a difference.
    pub fn merge(&mut self, difference: &Self) {
        for (&dom, &(owned, mentioned)) in &difference.0 {
            let sum = self.0.entry(dom).or_default();
            *sum = (sum.0 + owned, sum.1 + mentioned);
            if *sum == (0, 0) {
                self.0.remove(&dom);
            }
        }
    }

    /// All domains with a difference.
    pub fn domains(&self) -> impl Iterator<Item = DomId> {
        self.0.keys().copied()
    }
}

/// Something that watches are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The node.
    pub path: Box<str>,
    /// Only watches on this very node are told, not those above.
    pub exact: bool,
    /// Permissions as they were: who could read one of these is told too.
    pub before: Vec<Permissions>,
}

/// What a transaction remembers of the nodes it dealt with.
pub(crate) type Touched = BTreeMap<Box<str>, Touch>;

/// What it did with one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Touch {
    /// It changed it.
    pub changed: bool,
    /// Watches will be told: those on this node alone, and those above it as well.
    told: [bool; 2],
}

/// A tree as a client sees it.
pub(crate) struct View<'a> {
    pub who: Identity,
    pub quota: &'a Quota,
    pub root: &'a mut Arc<Node>,
    /// The number of the last change anywhere.
    pub clock: &'a mut u64,
    /// What domains use in the store.
    pub usage: &'a Usage,
    /// How this view differs from that.
    pub difference: &'a mut Usage,
    pub changes: &'a mut Vec<Change>,
    /// Who is told at once; in a transaction nobody is.
    pub watches: Option<&'a Watches>,
    /// Inside a transaction.
    pub touched: Option<&'a mut Touched>,
}

impl View<'_> {
    pub(crate) fn tick(&mut self) -> u64 {
        *self.clock += 1;
        *self.clock
    }

    /// Remembers a node as read or changed.
    fn touch(&mut self, path: &str, changed: bool) -> Result<(), Errno> {
        let Some(touched) = &mut self.touched else {
            return Ok(());
        };
        if let Some(before) = touched.get_mut(path) {
            before.changed |= changed;
        } else {
            if !self.who.is_privileged() && touched.len() >= self.quota.transaction_nodes {
                return Err(Errno::ENOSPC);
            }
            touched.insert(path.into(), Touch { changed, ..Touch::default() });
        }
        Ok(())
    }

    /// Is there room for so many more nodes in a transaction's memory?
    fn check_room(&self, nodes: usize) -> Result<(), Errno> {
        match &self.touched {
            Some(touched) if !self.who.is_privileged() && touched.len() + nodes > self.quota.transaction_nodes => {
                Err(Errno::ENOSPC)
            }
            _ => Ok(()),
        }
    }

    fn check_size(&self, permissions: &Permissions, value: usize, names: usize) -> Result<(), Errno> {
        if !self.who.is_privileged() && Node::bytes(permissions, value, names) >= self.quota.node_bytes {
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    /// The node, if it is there and the client has these rights. Whoever may not see a place is not told whether
    /// there is something.
    fn look(&mut self, path: &str, need: Rights) -> Result<&Node, Errno> {
        self.touch(path, false)?;
        let root = &**self.root;
        let Some(node) = tree::get(root, path) else {
            let above = path::ancestry(path).skip(1).find_map(|path| tree::get(root, path)).unwrap_or(root);
            let visible = above.permissions.rights(self.who).intersects(need);
            return Err(if visible { Errno::ENOENT } else { Errno::EACCES });
        };
        if node.permissions.rights(self.who).contains(need) { Ok(node) } else { Err(Errno::EACCES) }
    }

    /// The node's copy in this view, to be changed.
    pub(crate) fn change(&mut self, path: &str) -> Result<&mut Node, Errno> {
        self.touch(path, true)?;
        let generation = self.tick();
        let node = tree::get_mut(self.root, path).ok_or(Errno::ENOENT)?;
        node.generation = generation;
        Ok(node)
    }

    /// May somebody want to know of changes to the node, or below it?
    pub(crate) fn concerns(&self, path: &str) -> bool {
        self.watches.is_none_or(|watches| watches.concern(path))
    }

    pub(crate) fn changed(&mut self, path: &str, before: Vec<Permissions>) {
        if self.concerns(path) {
            self.remember(Change { path: path.into(), exact: false, before });
        }
    }

    /// Keeps a change for the watches. In a transaction a node that is written twice is one event, and what it was before is
    /// what it was before the first: so there are not more of them than nodes were touched, however often.
    fn remember(&mut self, change: Change) {
        if let Some(touch) = self.touched.as_mut().and_then(|touched| touched.get_mut(&change.path)) {
            let [only_here, above] = &mut touch.told;
            if core::mem::replace(if change.exact { only_here } else { above }, true) {
                return;
            }
        }
        self.changes.push(change);
    }

    pub fn read(&mut self, path: &str) -> Result<Arc<[u8]>, Errno> {
        Ok(self.look(path, Rights::READ)?.value.clone())
    }

    /// The children's names and the node's generation.
    pub fn directory(&mut self, path: &str) -> Result<(Vec<Arc<str>>, u64), Errno> {
        let node = self.look(path, Rights::READ)?;
        Ok((node.list(), node.generation))
    }

    pub fn permissions(&mut self, path: &str) -> Result<Permissions, Errno> {
        Ok(self.look(path, Rights::READ)?.permissions.clone())
    }

    pub fn write(&mut self, path: &str, value: &[u8]) -> Result<(), Errno> {
        match self.look(path, Rights::WRITE) {
            Ok(node) => {
                let (permissions, names) = (node.permissions.clone(), node.names());
                self.check_size(&permissions, value.len(), names)?;
                self.change(path)?.value = value.into();
                self.changed(path, vec![permissions]);
                Ok(())
            }
            Err(Errno::ENOENT) => self.create(path, value),
            Err(errno) => Err(errno),
        }
    }

    pub fn mkdir(&mut self, path: &str) -> Result<(), Errno> {
        match self.look(path, Rights::WRITE) {
            Ok(_) => Ok(()),
            Err(Errno::ENOENT) => self.create(path, &[]),
            Err(errno) => Err(errno),
        }
    }

    /// Makes a node that is not there, and those above it that are not.
    fn create(&mut self, path: &str, value: &[u8]) -> Result<(), Errno> {
        // From the node itself up to, but without, the first that exists.
        let root = &**self.root;
        let mut missing: Vec<&str> = path::ancestry(path).take_while(|path| tree::get(root, path).is_none()).collect();
        missing.reverse();
        let top = missing.first().and_then(|top| path::split(top)).ok_or(Errno::EINVAL)?;
        let parent = tree::get(root, top.0).ok_or(Errno::EINVAL)?;

        let owner = if self.who.is_privileged() { parent.permissions.owner() } else { self.who.dom };
        let permissions = parent.permissions.owned_by(owner);
        let (parent_bytes, parent_names) = (parent.value.len(), parent.names() + top.1.len() + 1);
        if !self.who.is_privileged() {
            let owned = self.usage.owned(self.who.dom) + self.difference.owned(self.who.dom);
            let owned = u64::try_from(owned).unwrap_or(0) + missing.len() as u64;
            if owned > self.quota.nodes {
                return Err(Errno::ENOSPC);
            }
            self.check_size(&parent.permissions, parent_bytes, parent_names)?;
            for child in missing.iter().skip(1) {
                let name = path::split(child).map_or(0, |(_, name)| name.len() + 1);
                self.check_size(&permissions, 0, name)?;
            }
            self.check_size(&permissions, value.len(), 0)?;
        }
        self.check_room(missing.len() + 1)?;

        for &path in &missing {
            let (parent, name) = path::split(path).ok_or(Errno::EINVAL)?;
            self.touch(path, true)?;
            self.change(parent)?;
            let value = if path.len() == missing.last().map_or(0, |last| last.len()) { value } else { &[] };
            let node = Node::new(self.tick(), permissions.clone(), value);
            if let Some(parent) = tree::get_mut(self.root, parent) {
                parent.add(name, node);
            }
            self.difference.add(&permissions);
        }
        self.changed(path, Vec::new());
        Ok(())
    }

    pub fn rm(&mut self, path: &str) -> Result<(), Errno> {
        match self.look(path, Rights::WRITE) {
            Ok(_) => {}
            // What is not there need not be removed, if its parent is there.
            Err(Errno::ENOENT) => {
                let (parent, _) = path::split(path).ok_or(Errno::EINVAL)?;
                self.touch(parent, false)?;
                return tree::get(self.root, parent).map(drop).ok_or(Errno::ENOENT);
            }
            Err(errno) => return Err(errno),
        }
        let (parent, name) = path::split(path).ok_or(Errno::EINVAL)?;
        if self.touched.is_none() && !self.concerns(path) {
            let Some(node) = tree::get(self.root, path) else { return Err(Errno::ENOENT) };
            tree::each(node, |node| self.difference.subtract(&node.permissions));
            self.change(parent)?.remove(name);
            return Ok(());
        }
        let gone: Vec<_> = tree::get(self.root, path)
            .map(|node| tree::walk(node, path))
            .unwrap_or_default()
            .into_iter()
            .map(|(path, node)| (path, node.permissions.clone()))
            .collect();
        self.check_room(gone.len() + 1)?;
        // Children first; those who watch a place above the removed node hear of that node alone.
        for (below, permissions) in gone.into_iter().rev() {
            self.touch(&below, true)?;
            self.difference.subtract(&permissions);
            let exact = below.len() != path.len();
            let parent = path::split(&below).and_then(|(parent, _)| tree::get(self.root, parent));
            let before = [permissions].into_iter().chain(parent.map(|parent| parent.permissions.clone())).collect();
            self.remember(Change { path: below, exact, before });
        }
        self.change(parent)?.remove(name);
        Ok(())
    }

    pub fn set_permissions(&mut self, path: &str, permissions: &Permissions) -> Result<(), Errno> {
        let privileged = self.who.is_privileged();
        if !privileged && permissions.entries().len() > self.quota.permissions {
            return Err(Errno::ENOSPC);
        }
        let node = self.look(path, Rights::WRITE | Rights::OWNER)?;
        let (before, bytes, names) = (node.permissions.clone(), node.value.len(), node.names());
        if !privileged && before.owner() != permissions.owner() {
            return Err(Errno::EPERM);
        }
        self.check_size(permissions, bytes, names)?;
        self.change(path)?.permissions = permissions.clone();
        self.difference.subtract(&before);
        self.difference.add(permissions);
        self.changed(path, vec![before]);
        Ok(())
    }
}
