//! Who may do what with a node.

use alloc::sync::Arc;
use alloc::vec::Vec;
use bitflags::bitflags;
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

bitflags! {
    /// What may be done with a node.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rights: u8 {
        /// Read its value, its children's names and its permissions.
        const READ = 1;
        /// Change its value, make and remove children, remove it.
        const WRITE = 2;
        /// Change its permissions.
        const OWNER = 4;
    }
}

/// A client, as permissions see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The domain.
    pub dom: DomId,
    /// The domain it works for (XS_SET_TARGET): it has that domain's rights too.
    pub target: Option<DomId>,
}

impl Identity {
    /// A domain that works for itself.
    #[must_use]
    pub const fn of(dom: DomId) -> Self {
        Self { dom, target: None }
    }

    /// Does every permission and no limit apply to it?
    #[must_use]
    pub const fn is_privileged(&self) -> bool {
        self.dom.0 == 0
    }

    fn is(&self, dom: DomId) -> bool {
        self.dom == dom || self.target == Some(dom)
    }
}

/// One entry: a domain and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The domain.
    pub dom: DomId,
    /// [`Rights::READ`] and [`Rights::WRITE`], or none.
    pub rights: Rights,
}

/// A node's permissions: the first entry names the owner and says what all those may do who are not named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions(Arc<[Entry]>);

impl Permissions {
    /// Owned by a domain, closed to all others (but domain 0).
    #[must_use]
    pub fn private(owner: DomId) -> Self {
        Self(Arc::new([Entry { dom: owner, rights: Rights::empty() }]))
    }

    /// The permissions with these entries.
    ///
    /// # Errors
    /// `EINVAL` when there is none.
    pub fn new(entries: &[Entry]) -> Result<Self, Errno> {
        if entries.is_empty() { Err(Errno::EINVAL) } else { Ok(Self(entries.into())) }
    }

    /// Reads `r1`, `b2` and so on, each ended by a zero.
    ///
    /// # Errors
    /// `EINVAL` for anything else.
    pub fn parse(text: &[u8]) -> Result<Self, Errno> {
        let text = text.strip_suffix(&[0]).ok_or(Errno::EINVAL)?;
        let entries = text.split(|&byte| byte == 0).map(parse_entry).collect::<Result<Vec<_>, _>>()?;
        Self::new(&entries)
    }

    /// Writes what [`Permissions::parse`] reads.
    #[must_use]
    pub fn to_wire(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for entry in self.entries() {
            let letter = match (entry.rights.contains(Rights::READ), entry.rights.contains(Rights::WRITE)) {
                (false, false) => b'n',
                (true, false) => b'r',
                (false, true) => b'w',
                (true, true) => b'b',
            };
            text.push(letter);
            text.extend(alloc::format!("{}\0", entry.dom.0).bytes());
        }
        text
    }

    /// All entries, the owner's first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The owner.
    #[must_use]
    pub fn owner(&self) -> DomId {
        self.0.first().map_or(DomId(0), |entry| entry.dom)
    }

    /// The same entries with another owner.
    #[must_use]
    pub fn owned_by(&self, owner: DomId) -> Self {
        if self.owner() == owner {
            return self.clone();
        }
        let mut entries = self.0.to_vec();
        if let Some(first) = entries.first_mut() {
            first.dom = owner;
        }
        Self(entries.into())
    }

    /// Is the domain named at all?
    #[must_use]
    pub fn mention(&self, dom: DomId) -> bool {
        self.0.iter().any(|entry| entry.dom == dom)
    }

    /// The entries without a domain that is gone: domain 0 owns what it owned.
    #[must_use]
    pub fn without(&self, dom: DomId) -> Self {
        let owner = if self.owner() == dom { DomId(0) } else { self.owner() };
        let first = self.0.iter().take(1).map(|entry| Entry { dom: owner, ..*entry });
        let others = self.0.iter().skip(1).filter(|entry| entry.dom != dom).copied();
        Self(first.chain(others).collect())
    }

    /// What a client may do.
    #[must_use]
    pub fn rights(&self, who: Identity) -> Rights {
        let Some((first, others)) = self.0.split_first() else {
            return Rights::empty();
        };
        if who.is_privileged() || who.is(first.dom) {
            return Rights::all();
        }
        others.iter().find(|entry| who.is(entry.dom)).unwrap_or(first).rights
    }
}

fn parse_entry(text: &[u8]) -> Result<Entry, Errno> {
    let (letter, number) = text.split_first().ok_or(Errno::EINVAL)?;
    let rights = match letter {
        b'n' => Rights::empty(),
        b'r' => Rights::READ,
        b'w' => Rights::WRITE,
        b'b' => Rights::READ | Rights::WRITE,
        _ => return Err(Errno::EINVAL),
    };
    let number = core::str::from_utf8(number).map_err(|_| Errno::EINVAL)?;
    Ok(Entry { dom: DomId(number.parse().map_err(|_| Errno::EINVAL)?), rights })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_read_and_written() {
        let text = b"n0\0r5\0w1\0b65535\0";
        let parsed = Permissions::parse(text).unwrap();
        assert_eq!(parsed.to_wire(), text);
        assert_eq!(parsed.owner(), DomId(0));
        for bad in [&b""[..], b"\0", b"n0", b"x0\0", b"n\0", b"n65536\0", b"n-1\0", b"n1 \0", b"n0\0\0"] {
            assert_eq!(Permissions::parse(bad), Err(Errno::EINVAL));
        }
    }

    #[test]
    fn the_first_entry_that_fits_counts() {
        let permissions = Permissions::parse(b"r1\0n2\0b2\0w3\0").unwrap();
        let rights = |dom| permissions.rights(Identity::of(DomId(dom)));
        assert_eq!(rights(0), Rights::all());
        assert_eq!(rights(1), Rights::all());
        assert_eq!(rights(2), Rights::empty());
        assert_eq!(rights(3), Rights::WRITE);
        assert_eq!(rights(4), Rights::READ);
        assert_eq!(permissions.rights(Identity { dom: DomId(4), target: Some(DomId(1)) }), Rights::all());
        assert_eq!(permissions.without(DomId(1)).to_wire(), b"r0\0n2\0b2\0w3\0");
        assert_eq!(permissions.without(DomId(2)).to_wire(), b"r1\0w3\0");
    }
}
