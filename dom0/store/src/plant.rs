//! Whole trees at once, for the toolstack: it writes and reads the same few dozen nodes of every domain, and to look each
//! of them up from the root is most of what that costs.

use crate::path;
use crate::permission::Permissions;
use crate::store::{NO_TRANSACTION, Store};
use crate::tree::{self, Node};
use crate::view::View;
use alloc::sync::Arc;
use alloc::vec::Vec;
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

/// A child's name, and a value of it.
pub type Child = (Arc<str>, Arc<[u8]>);

/// A node of a tree to be planted.
#[derive(Clone, Debug)]
pub struct Seed<'a> {
    /// Its path below the tree's root; empty for the root.
    pub path: &'a str,
    /// Its value.
    pub value: &'a [u8],
    /// Its permissions; those of the node above it where there are none.
    pub permissions: Option<Permissions>,
}

impl Store {
    /// Puts a tree in the place of the node at `path` and all below it. The same as removing it and writing one node of
    /// `seeds` after the other. For domain 0.
    ///
    /// # Errors
    /// `EINVAL` for a path that is none, `EACCES` for a guest.
    pub fn plant<'a>(&mut self, who: DomId, path: &[u8], seeds: impl Iterator<Item = Seed<'a>>) -> Result<(), Errno> {
        let path = path::absolute(path, who)?;
        self.view(who, NO_TRANSACTION, |view| view.plant(&path, seeds))
    }

    /// Of each child of a node its name, and the value of the child's own child `key`; those without one are left out.
    ///
    /// # Errors
    /// `ENOENT` where there is no such node, `EACCES` for a guest.
    pub fn each_child(&mut self, who: DomId, path: &[u8], key: &str) -> Result<Vec<Child>, Errno> {
        let path = path::absolute(path, who)?;
        self.view(who, NO_TRANSACTION, |view| {
            if !view.who.is_privileged() {
                return Err(Errno::EACCES);
            }
            let node = tree::get(view.root, &path).ok_or(Errno::ENOENT)?;
            let value = |(name, child): (&Arc<str>, &Node)| Some((name.clone(), child.child(key)?.value.clone()));
            Ok(node.children().filter_map(value).collect())
        })
    }
}

impl View<'_> {
    fn plant<'a>(&mut self, path: &str, seeds: impl Iterator<Item = Seed<'a>>) -> Result<(), Errno> {
        if !self.who.is_privileged() {
            return Err(Errno::EACCES);
        }
        let (parent, name) = path::split(path).ok_or(Errno::EINVAL)?;
        self.mkdir(parent)?;
        let inherited = tree::get(self.root, parent).ok_or(Errno::ENOENT)?.permissions.clone();
        let mut planted = Node::new(self.tick(), inherited, &[]);
        let mut told = Vec::new();
        let tell = self.concerns(path);
        for seed in seeds {
            self.sow(&mut planted, &seed)?;
            if tell {
                let whole = if seed.path.is_empty() { path.into() } else { path::join(path, seed.path) };
                told.push(whole);
            }
        }
        self.rm(path)?;
        tree::each(&planted, |node| self.difference.add(&node.permissions));
        self.change(parent)?.add(name, planted);
        for whole in told {
            self.changed(&whole, Vec::new());
        }
        Ok(())
    }

    /// Adds one node to a tree that is nowhere yet.
    fn sow(&mut self, root: &mut Node, seed: &Seed<'_>) -> Result<(), Errno> {
        if !seed.path.is_empty() && !path::is_below(seed.path) {
            return Err(Errno::EINVAL);
        }
        let mut node = root;
        let mut names = path::names(seed.path).peekable();
        while let Some(name) = names.next() {
            // To find a name costs more than to make it, and most of those at the end of a path are new.
            if names.peek().is_some() && node.child(name).is_some() {
                node = node.child_mut(name).ok_or(Errno::ENOENT)?;
                continue;
            }
            let value = if names.peek().is_none() { seed.value } else { &[] };
            let permissions = node.permissions.clone();
            node = node.child_or(name, || Node::new(self.tick(), permissions, value)).ok_or(Errno::ENOENT)?;
        }
        if !seed.value.is_empty() && *node.value != *seed.value {
            node.value = seed.value.into();
        }
        if let Some(permissions) = &seed.permissions {
            node.permissions = permissions.clone();
        }
        Ok(())
    }
}
