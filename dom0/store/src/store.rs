//! The store: the tree and its clients.

use crate::client::{Client, Violation};
use crate::path::{self, INTRODUCE_DOMAIN, RELEASE_DOMAIN};
use crate::permission::{Identity, Permissions, Rights};
use crate::quota::Quota;
use crate::transaction::Transaction;
use crate::tree::{self, Node};
use crate::view::{Change, Usage, View};
use crate::watch::{Watch, Watches};
use crate::wire;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

/// The number that means: at once, outside of any transaction.
pub const NO_TRANSACTION: u32 = 0;

/// Part of a list of children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Changes when the list changes; then one begins anew.
    pub generation: u64,
    /// The names of all children, each ended by a zero.
    pub names: Vec<u8>,
}

/// Xenstore. Clients are named by their domain; domain 0 is always there.
#[derive(Debug)]
pub struct Store {
    root: Arc<Node>,
    clock: u64,
    usage: Usage,
    watches: Watches,
    clients: BTreeMap<DomId, Client>,
    quota: Quota,
    on_introduce: Permissions,
    on_release: Permissions,
    /// Clients with new output.
    ready: BTreeSet<DomId>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(Quota::default())
    }
}

#[allow(clippy::missing_errors_doc, reason = "the errors are those of the protocol, see docs/misc/xenstore.txt of Xen")]
impl Store {
    /// A store with the nodes that xenstored begins with.
    #[must_use]
    pub fn new(quota: Quota) -> Self {
        let private = Permissions::private(DomId(0));
        let mut usage = Usage::default();
        usage.add(&private);
        let mut store = Self {
            root: Arc::new(Node::new(0, private.clone(), &[])),
            clock: 0,
            usage,
            watches: Watches::default(),
            clients: BTreeMap::from([(DomId(0), Client::new(Identity::of(DomId(0))))]),
            quota,
            on_introduce: private.clone(),
            on_release: private,
            ready: BTreeSet::new(),
        };
        // Nothing limits domain 0, and nothing is in the way.
        let made = store.mkdir(DomId(0), NO_TRANSACTION, b"/tool/xenstored");
        debug_assert_eq!(made, Ok(()));
        store
    }

    /// The client, or `ENOENT`.
    pub(crate) fn client(&mut self, who: DomId) -> Result<&mut Client, Errno> {
        self.clients.get_mut(&who).ok_or(Errno::ENOENT)
    }

    /// Runs an operation on the store or a transaction, and tells the watches when it changed the store.
    pub(crate) fn view<R>(
        &mut self,
        who: DomId,
        transaction: u32,
        operation: impl FnOnce(&mut View<'_>) -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        let client = self.clients.get_mut(&who).ok_or(Errno::ENOENT)?;
        let (who, quota, clock, usage) = (client.identity, &self.quota, &mut self.clock, &self.usage);
        if transaction != NO_TRANSACTION {
            let Transaction { root, touched, changes, difference, .. } =
                client.transactions.get_mut(&transaction).ok_or(Errno::ENOENT)?;
            return operation(&mut View {
                who,
                quota,
                root,
                clock,
                usage,
                difference,
                changes,
                watches: None,
                touched: Some(touched),
            });
        }
        let (mut difference, mut changes) = (Usage::default(), Vec::new());
        let root = &mut self.root;
        let result = operation(&mut View {
            who,
            quota,
            root,
            clock,
            usage,
            difference: &mut difference,
            changes: &mut changes,
            watches: Some(&self.watches),
            touched: None,
        });
        self.usage.merge(&difference);
        self.tell_all(&changes);
        result
    }

    /// A node's value.
    pub fn read(&mut self, who: DomId, transaction: u32, path: &[u8]) -> Result<Arc<[u8]>, Errno> {
        let path = path::absolute(path, who)?;
        self.view(who, transaction, |view| view.read(&path))
    }

    /// Names of a node's children, oldest first.
    pub fn directory(&mut self, who: DomId, transaction: u32, path: &[u8]) -> Result<Vec<Arc<str>>, Errno> {
        let path = path::absolute(path, who)?;
        self.view(who, transaction, |view| Ok(view.directory(&path)?.0))
    }

    /// The same as bytes, with the number that changes when they do.
    pub fn directory_part(&mut self, who: DomId, transaction: u32, path: &[u8]) -> Result<Part, Errno> {
        let path = path::absolute(path, who)?;
        let (list, generation) = self.view(who, transaction, |view| view.directory(&path))?;
        let names = list.iter().flat_map(|name| name.bytes().chain([0])).collect();
        Ok(Part { generation, names })
    }

    /// Writes a node's value, making the node and those above it where they are missing.
    pub fn write(&mut self, who: DomId, transaction: u32, path: &[u8], value: &[u8]) -> Result<(), Errno> {
        let path = path::absolute(path, who)?;
        self.view(who, transaction, |view| view.write(&path, value))
    }

    /// Makes a node where there is none.
    pub fn mkdir(&mut self, who: DomId, transaction: u32, path: &[u8]) -> Result<(), Errno> {
        let path = path::absolute(path, who)?;
        self.view(who, transaction, |view| view.mkdir(&path))
    }

    /// Removes a node and all below it.
    pub fn rm(&mut self, who: DomId, transaction: u32, path: &[u8]) -> Result<(), Errno> {
        let path = path::absolute(path, who)?;
        self.view(who, transaction, |view| view.rm(&path))
    }

    /// A node's permissions.
    pub fn permissions(&mut self, who: DomId, transaction: u32, path: &[u8]) -> Result<Permissions, Errno> {
        let path = path::absolute(path, who)?;
        self.view(who, transaction, |view| view.permissions(&path))
    }

    /// Sets a node's permissions, or those of an event.
    pub fn set_permissions(
        &mut self,
        who: DomId,
        transaction: u32,
        path: &[u8],
        permissions: &Permissions,
    ) -> Result<(), Errno> {
        if path.starts_with(b"@") {
            let identity = self.client(who)?.identity;
            let special = match core::str::from_utf8(path) {
                Ok(INTRODUCE_DOMAIN) => &mut self.on_introduce,
                Ok(RELEASE_DOMAIN) => &mut self.on_release,
                _ => return Err(Errno::EINVAL),
            };
            if !special.rights(identity).contains(Rights::WRITE | Rights::OWNER) {
                return Err(Errno::EACCES);
            }
            *special = permissions.clone();
            return Ok(());
        }
        let path = path::absolute(path, who)?;
        self.view(who, transaction, |view| view.set_permissions(&path, permissions))
    }

    /// Opens a transaction.
    pub fn start_transaction(&mut self, who: DomId) -> Result<u32, Errno> {
        let (root, limit) = (self.root.clone(), self.quota.transactions);
        let client = self.client(who)?;
        if !client.identity.is_privileged() && client.transactions.len() >= limit {
            return Err(Errno::ENOSPC);
        }
        loop {
            client.last_transaction = client.last_transaction.wrapping_add(1);
            let number = client.last_transaction;
            if number != NO_TRANSACTION && !client.transactions.contains_key(&number) {
                client.transactions.insert(number, Transaction::new(&root));
                return Ok(number);
            }
        }
    }

    /// Ends a transaction: forgets it, or makes its changes the store's.
    pub fn end_transaction(&mut self, who: DomId, transaction: u32, outcome: Outcome) -> Result<(), Errno> {
        let ended = self.client(who)?.transactions.remove(&transaction).ok_or(Errno::ENOENT)?;
        if outcome == Outcome::Abort {
            return Ok(());
        }
        for dom in ended.difference.domains() {
            let owned = self.usage.owned(dom) + ended.difference.owned(dom);
            if dom != DomId(0) && ended.difference.owned(dom) > 0 && owned > self.quota.nodes.cast_signed() {
                return Err(Errno::ENOSPC);
            }
        }
        ended.commit(&mut self.root, &mut self.clock)?;
        self.usage.merge(&ended.difference);
        self.tell_all(&ended.changes);
        Ok(())
    }

    /// Sets a watch; it fires once at once.
    pub fn watch(&mut self, who: DomId, path: &[u8], token: &[u8]) -> Result<(), Errno> {
        let relative = !path.starts_with(b"/") && !path.starts_with(b"@");
        let place = path::watchable(path, who)?;
        let quota = self.quota;
        let privileged = self.client(who)?.identity.is_privileged();
        if self.watches.contains(&place, who, token) {
            return Err(Errno::EEXIST);
        }
        if !privileged && self.watches.count(who) >= quota.watches {
            return Err(Errno::E2BIG);
        }
        self.watches.add(&place, Watch { dom: who, token: token.into(), relative });
        Ok(())
    }

    /// The event that a new watch begins with. Apart from [`Store::watch`] because it follows the answer.
    pub(crate) fn first_event(&mut self, who: DomId, path: &[u8], token: &[u8]) {
        let quota = self.quota;
        if let (Ok(name), Ok(client)) = (core::str::from_utf8(path), self.client(who)) {
            client.event(name, token, &quota);
            self.ready.insert(who);
        }
    }

    /// Removes a watch.
    pub fn unwatch(&mut self, who: DomId, path: &[u8], token: &[u8]) -> Result<(), Errno> {
        let place = path::watchable(path, who).map_err(|_| Errno::ENOENT)?;
        self.watches.remove(&place, who, token)
    }

    /// Removes all watches and transactions of a client.
    pub fn reset_watches(&mut self, who: DomId) -> Result<(), Errno> {
        self.watches.remove_all(who);
        self.client(who)?.transactions.clear();
        Ok(())
    }

    /// Begins to serve a domain. One that is served already starts from scratch.
    pub fn introduce(&mut self, dom: DomId) {
        let known = self.clients.contains_key(&dom);
        self.watches.remove_all(dom);
        self.clients.insert(dom, Client::new(Identity::of(dom)));
        if !known {
            self.tell(&Change { path: INTRODUCE_DOMAIN.into(), exact: false, before: Vec::new() });
        }
    }

    /// Stops serving a domain: it is gone. Its number may come to stand for another domain, so it is removed from all
    /// permissions.
    pub fn release(&mut self, dom: DomId) -> Result<(), Errno> {
        if dom == DomId(0) {
            return Err(Errno::EINVAL);
        }
        self.clients.remove(&dom).ok_or(Errno::ENOENT)?;
        self.watches.remove_all(dom);
        for client in self.clients.values_mut().filter(|client| client.identity.target == Some(dom)) {
            client.identity.target = None;
        }
        if self.usage.mentioned(dom) {
            self.forget(dom);
        }
        self.domain_ended();
        Ok(())
    }

    fn forget(&mut self, dom: DomId) {
        let named: Vec<Box<str>> = tree::walk(&self.root, "/")
            .into_iter()
            .filter(|(_, node)| node.permissions.mention(dom))
            .map(|(path, _)| path)
            .collect();
        for path in named {
            self.clock += 1;
            if let Some(node) = tree::get_mut(&mut self.root, &path) {
                let permissions = node.permissions.without(dom);
                self.usage.subtract(&node.permissions);
                self.usage.add(&permissions);
                node.permissions = permissions;
                node.generation = self.clock;
            }
        }
    }

    /// Tells whoever watches `@releaseDomain` that a domain shut down or died.
    pub fn domain_ended(&mut self) {
        self.tell(&Change { path: RELEASE_DOMAIN.into(), exact: false, before: Vec::new() });
    }

    /// Is the domain served?
    #[must_use]
    pub fn is_introduced(&self, dom: DomId) -> bool {
        self.clients.contains_key(&dom)
    }

    /// Gives a domain the rights of another one in addition to its own.
    pub fn set_target(&mut self, dom: DomId, target: DomId) -> Result<(), Errno> {
        self.client(target)?;
        self.client(dom)?.identity.target = Some(target);
        Ok(())
    }

    fn tell_all(&mut self, changes: &[Change]) {
        for change in changes {
            self.tell(change);
        }
    }

    /// Queues the events of a change for all who may know of it.
    fn tell(&mut self, change: &Change) {
        let Self { clients, watches, root, quota, on_introduce, on_release, ready, .. } = self;
        for watch in watches.on(&change.path, change.exact) {
            let Some(client) = clients.get_mut(&watch.dom) else {
                continue;
            };
            let readable = |permissions: &Permissions| permissions.rights(client.identity).contains(Rights::READ);
            let may_know = match &*change.path {
                INTRODUCE_DOMAIN => readable(on_introduce),
                RELEASE_DOMAIN => readable(on_release),
                path => {
                    change.before.iter().any(readable)
                        || tree::get(root, path).is_some_and(|node| {
                            let parent = path::split(path).and_then(|(parent, _)| tree::get(root, parent));
                            readable(&node.permissions) || parent.is_some_and(|parent| readable(&parent.permissions))
                        })
                }
            };
            if may_know {
                client.event(watch.name(&change.path), &watch.token, quota);
                ready.insert(watch.dom);
            }
        }
    }

    /// How many bytes of requests a client may send now: as many as are missing from its request, or none while it has
    /// to read answers first.
    #[must_use]
    pub fn wanted(&self, who: DomId) -> usize {
        self.clients.get(&who).map_or(0, |client| client.wanted(&self.quota))
    }

    /// Takes bytes of requests, at most [`Store::wanted`], and carries out the request when it is whole.
    pub fn receive(&mut self, who: DomId, bytes: &[u8]) -> Result<(), Violation> {
        let Ok(client) = self.client(who) else {
            return Ok(());
        };
        if let Some((header, payload)) = client.take(bytes)? {
            wire::serve(self, who, header, &payload);
            self.ready.insert(who);
        }
        Ok(())
    }

    /// Whether anybody got something to read that was not named yet, or `who` has something to read.
    #[must_use]
    pub fn has_news(&self, who: DomId) -> bool {
        !self.ready.is_empty() || !self.output(who).is_empty()
    }

    /// The next client that got something to read since it was named here last.
    pub fn next_ready(&mut self) -> Option<DomId> {
        self.ready.pop_first()
    }

    /// Bytes to be sent to a client next; empty when there are none.
    #[must_use]
    pub fn output(&self, who: DomId) -> &[u8] {
        self.clients.get(&who).map_or(&[], Client::output)
    }

    /// So many bytes of the output have been sent.
    pub fn sent(&mut self, who: DomId, count: usize) {
        if let Some(client) = self.clients.get_mut(&who) {
            client.sent(count);
        }
    }

    /// Takes what a client without a connection would be sent: the events of its watches, as node and token.
    pub fn take_events(&mut self, who: DomId) -> Vec<(String, Vec<u8>)> {
        let events = self.clients.get_mut(&who).map(Client::take_events).unwrap_or_default();
        events
            .iter()
            .filter_map(|payload| {
                let mut parts = payload.split(|&byte| byte == 0);
                let path = core::str::from_utf8(parts.next()?).ok()?;
                Some((path.into(), parts.next()?.to_vec()))
            })
            .collect()
    }

    /// How many nodes a domain owns.
    #[must_use]
    pub fn nodes_of(&self, dom: DomId) -> u64 {
        u64::try_from(self.usage.owned(dom)).unwrap_or(0)
    }

    /// How many nodes there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        tree::walk(&self.root, "/").len()
    }

    /// How many watches a domain has.
    #[must_use]
    pub fn watches_of(&self, dom: DomId) -> usize {
        self.watches.count(dom)
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its changes are made.
    Commit,
    /// It never was.
    Abort,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_remembers_a_node_once_however_often_it_changes() {
        let mut store = Store::new(Quota::default());
        let transaction = store.start_transaction(DomId(0)).unwrap();
        for round in 0..100 {
            store.write(DomId(0), transaction, b"/a/b", &[round]).unwrap();
            store.rm(DomId(0), transaction, b"/a").unwrap();
        }
        let open = store.clients.get(&DomId(0)).and_then(|client| client.transactions.get(&transaction)).unwrap();
        // `/a` and `/a/b`, for those who watch them and those who watch what is above.
        assert!(open.changes.len() <= 4, "{}", open.changes.len());
    }
}
