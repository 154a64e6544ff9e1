//! Transactions: a tree of one's own until the end, when it is merged if nobody else changed what was seen.

use crate::tree::{self, Node};
use crate::view::{Change, Touched, Usage};
use alloc::sync::Arc;
use alloc::vec::Vec;
use xen_abi::errno::Errno;

/// An open transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// The tree at its start.
    start: Arc<Node>,
    /// The tree as it sees it.
    pub root: Arc<Node>,
    pub touched: Touched,
    pub changes: Vec<Change>,
    /// What it made domains use more or less.
    pub difference: Usage,
}

impl Transaction {
    pub fn new(root: &Arc<Node>) -> Self {
        Self {
            start: root.clone(),
            root: root.clone(),
            touched: Touched::new(),
            changes: Vec::new(),
            difference: Usage::default(),
        }
    }

    /// Has any node it looked at or changed been changed by others?
    fn conflicts(&self, current: &Node) -> bool {
        let generation = |root, path: &str| tree::get(root, path).map(|node| node.generation);
        self.touched.keys().any(|path| generation(&self.start, path) != generation(current, path))
    }

    /// Makes the store's tree what the transaction made of it.
    ///
    /// # Errors
    /// `EAGAIN` when others were in between; the tree is as before then.
    pub fn commit(&self, current: &mut Arc<Node>, clock: &mut u64) -> Result<(), Errno> {
        if Arc::ptr_eq(&self.start, current) {
            *current = self.root.clone();
            return Ok(());
        }
        if self.conflicts(current) {
            return Err(Errno::EAGAIN);
        }
        // Parents come before their children in the order of the map: a path is less than those it is a prefix of.
        for (path, _) in self.touched.iter().filter(|(_, touch)| touch.changed) {
            *clock += 1;
            match tree::get(&self.root, path) {
                Some(ours) => {
                    if tree::get(current, path).is_none()
                        && let Some((parent, name)) = crate::path::split(path)
                        && let Some(parent) = tree::get_mut(current, parent)
                    {
                        parent.add(name, Node::new(*clock, ours.permissions.clone(), &[]));
                    }
                    if let Some(node) = tree::get_mut(current, path) {
                        node.generation = *clock;
                        node.permissions = ours.permissions.clone();
                        node.value = ours.value.clone();
                    }
                }
                None => {
                    if let Some((parent, name)) = crate::path::split(path)
                        && let Some(parent) = tree::get_mut(current, parent)
                    {
                        parent.remove(name);
                    }
                }
            }
        }
        Ok(())
    }
}
