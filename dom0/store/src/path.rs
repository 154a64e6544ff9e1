//! Names of nodes.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;
use xen_abi::xs_wire::{XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX};

/// The events that are watched like nodes.
pub const INTRODUCE_DOMAIN: &str = "@introduceDomain";
/// See [`INTRODUCE_DOMAIN`].
pub const RELEASE_DOMAIN: &str = "@releaseDomain";

/// Where a domain's relative paths begin.
#[must_use]
pub fn home(dom: DomId) -> Box<str> {
    format!("/local/domain/{}", dom.0).into_boxed_str()
}

/// Is it the name of an event?
#[must_use]
pub fn is_special(path: &str) -> bool {
    path.starts_with('@')
}

/// The absolute path of a node that `dom` named.
///
/// # Errors
/// `EINVAL` where that is no name of a node.
pub fn absolute(path: &[u8], dom: DomId) -> Result<Cow<'_, str>, Errno> {
    let path = core::str::from_utf8(path).map_err(|_| Errno::EINVAL)?;
    let path = match path.bytes().next() {
        Some(b'/') => Cow::Borrowed(path),
        Some(b'@') => return Err(Errno::EINVAL),
        _ => Cow::Owned(format!("{}/{path}", home(dom))),
    };
    if is_node(&path) { Ok(path) } else { Err(Errno::EINVAL) }
}

/// Like [`absolute`], but the name of an event will do.
///
/// # Errors
/// `EINVAL` where that is no name.
pub fn watchable(path: &[u8], dom: DomId) -> Result<Cow<'_, str>, Errno> {
    if !path.starts_with(b"@") {
        return absolute(path, dom);
    }
    let path = core::str::from_utf8(path).map_err(|_| Errno::EINVAL)?;
    if path.len() > XENSTORE_REL_PATH_MAX { Err(Errno::EINVAL) } else { Ok(path.into()) }
}

/// Is it a name, or some with slashes between: what can follow a node's path and a slash?
pub(crate) fn is_below(path: &str) -> bool {
    let mut before = b'/';
    for byte in path.bytes() {
        let fits =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@') || (byte == b'/' && before != b'/');
        if !fits {
            return false;
        }
        before = byte;
    }
    before != b'/'
}

fn is_node(path: &str) -> bool {
    if path == "/" {
        return true;
    }
    path.strip_prefix('/').is_some_and(is_below) && (path.len() <= XENSTORE_REL_PATH_MAX || is_short_enough(path))
}

fn is_short_enough(path: &str) -> bool {
    let below_home = path.strip_prefix("/local/domain/").and_then(|rest| rest.split_once('/'));
    let relative = match below_home {
        Some((dom, rest)) if dom.parse::<u16>().is_ok() => rest.len(),
        _ => 0,
    };
    path.len() <= XENSTORE_ABS_PATH_MAX && relative <= XENSTORE_REL_PATH_MAX
}

/// The names from the root to a node.
pub(crate) fn names(path: &str) -> impl Iterator<Item = &str> {
    // The library's own splitting is made for all of Unicode, and takes several times as long.
    let mut rest = path;
    core::iter::from_fn(move || {
        while let Some(below) = rest.strip_prefix('/') {
            rest = below;
        }
        let end = rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len());
        let (name, below) = rest.split_at(end);
        rest = below;
        (!name.is_empty()).then_some(name)
    })
}

/// A node's parent and its name there; `None` for the root.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/')?;
    if name.is_empty() {
        return None;
    }
    Some((if parent.is_empty() { "/" } else { parent }, name))
}

/// A node, its parent, and so on to the root.
pub(crate) fn ancestry(path: &str) -> impl Iterator<Item = &str> {
    core::iter::successors(Some(path), |path| split(path).map(|(parent, _)| parent))
}

/// The path of a child.
pub(crate) fn join(parent: &str, name: &str) -> Box<str> {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }.into_boxed_str()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn names_are_checked() {
        let absolute = |path: &str| absolute(path.as_bytes(), DomId(7)).ok().map(Cow::into_owned);
        for good in ["/", "/tool", "/local/domain/7/data-_@Z9", "/a/b"] {
            assert_eq!(absolute(good).as_deref(), Some(good));
        }
        assert_eq!(absolute("data").as_deref(), Some("/local/domain/7/data"));
        for bad in ["", "//", "/a/", "/a//b", "/a b", "/a.b", "/ä", "a/", "@releaseDomain", "/a\0b", "/*"] {
            assert_eq!(absolute(bad), None, "{bad}");
        }
        assert!(absolute(&("/".to_owned() + &"a".repeat(3071))).is_some());
        assert!(absolute(&("/".to_owned() + &"a".repeat(3072))).is_none());
        assert!(absolute(&"a".repeat(2048)).is_some());
        assert!(absolute(&"a".repeat(2049)).is_none());
    }

    use std::borrow::ToOwned;

    #[test]
    fn paths_come_apart() {
        assert_eq!(names("/a/b").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(names("/").count(), 0);
        assert_eq!(split("/a"), Some(("/", "a")));
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        assert_eq!(split("/"), None);
        assert_eq!(ancestry("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        assert_eq!(&*join("/", "a"), "/a");
        assert_eq!(&*join("/a", "b"), "/a/b");
    }
}
