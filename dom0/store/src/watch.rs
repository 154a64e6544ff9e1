//! Who wants to hear of which nodes.

use crate::path;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Bound;
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

/// A watch, at the path it is kept under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    pub dom: DomId,
    pub token: Box<[u8]>,
    /// Events name nodes relative to the domain's home, as the watch itself was named.
    pub relative: bool,
}

impl Watch {
    /// A node's name in this watch's events.
    pub fn name<'a>(&self, path: &'a str) -> &'a str {
        if !self.relative {
            return path;
        }
        let below = path.strip_prefix(&*path::home(self.dom)).unwrap_or(path);
        below.strip_prefix('/').unwrap_or(below)
    }
}

/// All watches. What a change costs does not depend on how many there are elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    by_path: BTreeMap<Box<str>, Vec<Watch>>,
    /// The paths that each domain watches, and how many watches it has.
    by_domain: BTreeMap<DomId, (BTreeSet<Box<str>>, usize)>,
}

impl Watches {
    /// Does anybody watch the node, one above it or one below it?
    pub fn concern(&self, path: &str) -> bool {
        if self.by_path.is_empty() {
            return false;
        }
        let below = || {
            let places = self.by_path.range::<str, _>((Bound::Excluded(path), Bound::Unbounded));
            // Names in between (`/a-b` is between `/a` and `/a/b`) only make the answer less sharp.
            places.take_while(|(place, _)| place.starts_with(path)).next().is_some()
        };
        self.on(path, false).next().is_some() || below()
    }

    pub fn count(&self, dom: DomId) -> usize {
        self.by_domain.get(&dom).map_or(0, |&(_, count)| count)
    }

    pub fn contains(&self, path: &str, dom: DomId, token: &[u8]) -> bool {
        self.by_path.get(path).is_some_and(|all| all.iter().any(|watch| watch.dom == dom && *watch.token == *token))
    }

    pub fn add(&mut self, path: &str, watch: Watch) {
        let (paths, count) = self.by_domain.entry(watch.dom).or_default();
        paths.insert(path.into());
        *count += 1;
        self.by_path.entry(path.into()).or_default().push(watch);
    }

    pub fn remove(&mut self, path: &str, dom: DomId, token: &[u8]) -> Result<(), Errno> {
        let all = self.by_path.get_mut(path).ok_or(Errno::ENOENT)?;
        let at = all.iter().position(|watch| watch.dom == dom && *watch.token == *token).ok_or(Errno::ENOENT)?;
        all.remove(at);
        let last = !all.iter().any(|watch| watch.dom == dom);
        if all.is_empty() {
            self.by_path.remove(path);
        }
        if let Some((paths, count)) = self.by_domain.get_mut(&dom) {
            *count -= 1;
            if last {
                paths.remove(path);
            }
        }
        Ok(())
    }

    pub fn remove_all(&mut self, dom: DomId) {
        let (paths, _) = self.by_domain.remove(&dom).unwrap_or_default();
        for path in paths {
            if let Some(all) = self.by_path.get_mut(&path) {
                all.retain(|watch| watch.dom != dom);
                if all.is_empty() {
                    self.by_path.remove(&path);
                }
            }
        }
    }

    /// The watches on a node, and those above it unless only exact ones are wanted.
    pub fn on<'a>(&'a self, changed: &'a str, exact: bool) -> impl Iterator<Item = &'a Watch> {
        // The root's watches see everything below it, and that includes events.
        let root = (path::is_special(changed) && !exact).then_some("/");
        let places = path::ancestry(changed).take(if exact { 1 } else { usize::MAX }).chain(root);
        places.filter_map(|place| self.by_path.get(place)).flatten()
    }
}
