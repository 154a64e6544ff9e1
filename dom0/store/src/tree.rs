//! The persistent tree of nodes.
//!
//! Guests choose how deep it gets (a path has up to 1500 names), so nothing here recurses.

use crate::children::{Child, Children};
use crate::path;
use crate::permission::Permissions;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// A node, shared by all trees that contain it as it is.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// When its value, permissions or list of children changed last. No two changes have the same number.
    pub generation: u64,
    pub permissions: Permissions,
    pub value: Arc<[u8]>,
    children: Children,
    /// Bytes of the children's names, each with its terminator.
    names: usize,
}

impl Node {
    pub fn new(generation: u64, permissions: Permissions, value: &[u8]) -> Self {
        // Many nodes say nothing, and the default takes no memory.
        let value = if value.is_empty() { Arc::default() } else { value.into() };
        Self { generation, permissions, value, children: Children::default(), names: 0 }
    }

    /// Bytes as quotas count them: what the record of xenstored's data base has.
    pub fn bytes(permissions: &Permissions, value: usize, names: usize) -> usize {
        const HEADER: usize = 24;
        const ENTRY: usize = 8;
        HEADER + permissions.entries().len() * ENTRY + value + names
    }

    /// Bytes of the children's names, each with its terminator.
    pub fn names(&self) -> usize {
        self.names
    }

    pub fn child(&self, name: &str) -> Option<&Node> {
        self.children.get(name).map(|child| &*child.node)
    }

    /// The children's names, oldest first.
    pub fn list(&self) -> Vec<Arc<str>> {
        let mut children: Vec<_> = self.children.iter().map(|(name, child)| (child.since, name)).collect();
        children.sort_unstable();
        children.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// Adds a child that is not there yet.
    pub fn add(&mut self, name: &str, node: Node) {
        let since = node.generation;
        if self.children.insert(name.into(), Child { since, node: Arc::new(node) }) {
            self.names += name.len() + 1;
        }
    }

    /// The child of a node that is in no tree yet; it is made where there is none.
    pub fn child_or(&mut self, name: &str, make: impl FnOnce() -> Node) -> Option<&mut Node> {
        let (child, new) = self.children.child_or(name, || {
            let node = make();
            Child { since: node.generation, node: Arc::new(node) }
        })?;
        if new {
            self.names += name.len() + 1;
            self.generation = child.since;
        }
        Arc::get_mut(&mut child.node)
    }

    /// A child of a node that is in no tree yet.
    pub fn child_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.children.get_mut(name).and_then(|child| Arc::get_mut(&mut child.node))
    }

    /// The children, by name.
    pub fn children(&self) -> impl Iterator<Item = (&Arc<str>, &Node)> {
        self.children.iter().map(|(name, child)| (name, &*child.node))
    }

    /// Takes a child and all below it away.
    pub fn remove(&mut self, name: &str) {
        if self.children.remove(name) {
            self.names -= name.len() + 1;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut below = Vec::new();
        self.children.drain_into(&mut below);
        while let Some(node) = below.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                node.children.drain_into(&mut below);
            }
        }
    }
}

/// Looks a node up.
pub(crate) fn get<'a>(root: &'a Node, path: &str) -> Option<&'a Node> {
    path::names(path).try_fold(root, |node, name| node.child(name))
}

/// Looks a node up to change it: it and all above it are copied where another tree shares them.
pub(crate) fn get_mut<'a>(root: &'a mut Arc<Node>, path: &str) -> Option<&'a mut Node> {
    // Nothing is copied for a node that is not there. What nobody shares is not copied anyway.
    if Arc::get_mut(root).is_none() {
        get(root, path)?;
    }
    let mut node = Arc::make_mut(root);
    for name in path::names(path) {
        node = Arc::make_mut(&mut node.children.get_mut(name)?.node);
    }
    Some(node)
}

/// Does something for a node and all below it.
pub(crate) fn each(node: &Node, mut act: impl FnMut(&Node)) {
    let mut below = vec![node];
    while let Some(node) = below.pop() {
        act(node);
        below.extend(node.children.iter().map(|(_, child)| &*child.node));
    }
}

/// A node and all below it with their paths; parents come before their children.
pub(crate) fn walk<'a>(node: &'a Node, path: &str) -> Vec<(Box<str>, &'a Node)> {
    let mut all = vec![(Box::from(path), node)];
    let mut next = 0;
    while let Some((path, node)) = all.get(next) {
        let below: Vec<_> = node.children.iter().map(|(name, child)| (path::join(path, name), &*child.node)).collect();
        all.extend(below);
        next += 1;
    }
    all
}
