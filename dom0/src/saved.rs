//! Files that dom0 makes itself, in its memory: cores of domains. They are read with `cat`, from the host as well, and are
//! gone with dom0.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use xen_abi::errno::Errno;

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many zeros.
    Zeros(usize),
    /// Other bytes.
    Bytes(Vec<u8>),
}

/// The files by their names.
#[derive(Debug)]
pub struct Saved {
    files: BTreeMap<String, Vec<Piece>>,
    /// The one that is being written.
    open: Option<String>,
    /// Bytes other than zeros that they may hold.
    limit: usize,
    held: usize,
}

impl Saved {
    /// None, and room for so many bytes.
    pub const fn new(limit: usize) -> Self {
        Self { files: BTreeMap::new(), open: None, limit, held: 0 }
    }

    /// How many bytes there is room for.
    pub const fn room(&self) -> usize {
        self.limit.saturating_sub(self.held)
    }

    /// Begins a file, in place of one of this name.
    pub fn begin(&mut self, name: &str) -> Result<(), Errno> {
        if !name.starts_with('/') || name.ends_with('/') {
            return Err(Errno::EINVAL);
        }
        self.remove(name);
        self.files.insert(name.to_owned(), Vec::new());
        self.open = Some(name.to_owned());
        Ok(())
    }

    /// Adds to it. Where there is no room nothing is left of it: false.
    pub fn add(&mut self, bytes: &[u8]) -> bool {
        let Some(name) = self.open.take() else { return false };
        let added = self.files.get_mut(&name).is_some_and(|pieces| add(pieces, bytes, self.limit - self.held));
        if !added {
            self.remove(&name);
            return false;
        }
        if !is_zero(bytes) {
            self.held += bytes.len();
        }
        self.open = Some(name);
        true
    }

    /// Takes a file away; false when there is none.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(pieces) = self.files.remove(name) else { return false };
        self.held -= pieces.iter().map(Piece::held).sum::<usize>();
        true
    }

    /// A file's parts.
    pub fn get(&self, name: &str) -> Option<&[Piece]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// Names and lengths.
    pub fn list(&self) -> impl Iterator<Item = (&str, usize)> {
        self.files.iter().map(|(name, pieces)| (name.as_str(), pieces.iter().map(Piece::len).sum()))
    }
}

impl Piece {
    fn held(&self) -> usize {
        if let Self::Bytes(bytes) = self { bytes.len() } else { 0 }
    }

    fn len(&self) -> usize {
        match self {
            Self::Zeros(count) => *count,
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn add(pieces: &mut Vec<Piece>, bytes: &[u8], room: usize) -> bool {
    if is_zero(bytes) {
        match pieces.last_mut() {
            Some(Piece::Zeros(count)) => *count += bytes.len(),
            _ => pieces.push(Piece::Zeros(bytes.len())),
        }
        return true;
    }
    let mut copy = Vec::new();
    if bytes.len() > room || pieces.try_reserve(1).is_err() || copy.try_reserve_exact(bytes.len()).is_err() {
        return false;
    }
    copy.extend_from_slice(bytes);
    pieces.push(Piece::Bytes(copy));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_and_go() {
        let mut saved = Saved::new(10);
        assert_eq!(saved.begin("x"), Err(Errno::EINVAL));
        assert!(!saved.add(b"a"), "none is begun");
        assert_eq!(saved.begin("/x"), Ok(()));
        for bytes in [&b"abc"[..], &[0; 4], &[0; 3], b"de"] {
            assert!(saved.add(bytes));
        }
        let whole = [Piece::Bytes(b"abc".to_vec()), Piece::Zeros(7), Piece::Bytes(b"de".to_vec())];
        assert_eq!((saved.get("/x"), saved.room()), (Some(&whole[..]), 5));
        assert_eq!(saved.begin("/y"), Ok(()));
        assert!(saved.add(b"12345"));
        assert!(!saved.add(b"6") && saved.get("/y").is_none(), "there is no room");
        assert!(!saved.add(b"6"));
        assert_eq!((saved.room(), saved.list().collect::<Vec<_>>()), (5, alloc::vec![("/x", 12)]));
        assert_eq!(saved.begin("/x"), Ok(()));
        assert_eq!((saved.room(), saved.get("/x")), (10, Some(&[][..])));
        assert!(saved.remove("/x") && !saved.remove("/x"));
    }
}
