//! The files that dom0 is booted with: an archive in cpio's "newc" format as its boot module, visible as `/files`.
//!
//! Source of the format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

use alloc::vec::Vec;

const HEADER: usize = 110;
const MAGIC: &[u8] = b"070701";
const TRAILER: &[u8] = b"TRAILER!!!";
const KIND: usize = 0o170_000;
const REGULAR: usize = 0o100_000;

/// Where the files are seen.
const ROOT: &str = "/files/";

/// An archive in memory.
#[derive(Clone, Copy, Debug)]
pub struct Archive {
    bytes: &'static [u8],
}

/// One regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name within the archive.
    pub name: &'static str,
    /// Its content.
    pub content: &'static [u8],
}

impl Archive {
    /// Takes the bytes of an archive; what cannot be read is not there.
    pub const fn new(bytes: &'static [u8]) -> Self {
        Self { bytes }
    }

    /// All regular files.
    pub fn files(self) -> Vec<File> {
        let mut files = Vec::new();
        let mut at = 0;
        while let Some(entry) = entry(self.bytes, at) {
            if entry.name == TRAILER {
                break;
            }
            let name = entry.name.strip_prefix(b"./").unwrap_or(entry.name);
            if entry.mode & KIND == REGULAR
                && let Ok(name) = core::str::from_utf8(name)
            {
                files.push(File { name, content: entry.content });
            }
            at = entry.next;
        }
        files
    }

    /// The content of a file by its name in the archive, or by its path: `/files/NAME`.
    pub fn get(self, path: &str) -> Option<&'static [u8]> {
        let name = path.strip_prefix(ROOT).unwrap_or(path).trim_start_matches('/');
        self.files().into_iter().find(|file| file.name == name).map(|file| file.content)
    }
}

struct Entry {
    mode: usize,
    name: &'static [u8],
    content: &'static [u8],
    next: usize,
}

fn entry(bytes: &'static [u8], at: usize) -> Option<Entry> {
    let header = bytes.get(at..at.checked_add(HEADER)?)?;
    if !header.starts_with(MAGIC) {
        return None;
    }
    // Thirteen numbers of eight hexadecimal digits follow the magic.
    let field = |index: usize| {
        let digits = header.get(6 + index * 8..14 + index * 8)?;
        usize::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mode, size, name_size) = (field(1)?, field(6)?, field(11)?);
    let name_at = at + HEADER;
    let name = bytes.get(name_at..name_at + name_size.checked_sub(1)?)?;
    let content_at = (name_at + name_size).next_multiple_of(4);
    let content = bytes.get(content_at..content_at + size)?;
    Some(Entry { mode, name, content, next: (content_at + size).next_multiple_of(4) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn add(bytes: &mut Vec<u8>, mode: usize, name: &str, content: &[u8]) {
        bytes.extend(MAGIC);
        for field in [0, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0] {
            bytes.extend(format!("{field:08x}").bytes());
        }
        bytes.extend(name.bytes().chain([0]));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }

    #[test]
    fn files_are_found() {
        let mut bytes = Vec::new();
        add(&mut bytes, 0o040_755, "dir", b"");
        add(&mut bytes, 0o100_644, "dir/a", b"first");
        add(&mut bytes, 0o100_644, "./.exec", b"");
        add(&mut bytes, 0, "TRAILER!!!", b"");
        add(&mut bytes, 0o100_644, "late", b"x");
        let archive = Archive::new(Vec::leak(bytes));
        let names: Vec<_> = archive.files().iter().map(|file| file.name).collect();
        assert_eq!(names, ["dir/a", ".exec"]);
        assert_eq!(archive.get("/files/dir/a"), Some(&b"first"[..]));
        assert_eq!(archive.get(".exec"), Some(&b""[..]));
        assert_eq!(archive.get("/files/none"), None);
    }

    #[test]
    fn broken_archives_are_empty() {
        let mut bytes = Vec::new();
        add(&mut bytes, 0o100_644, "a", b"content");
        for len in 0..bytes.len() {
            let cut: &'static [u8] = Vec::leak(bytes[..len].to_vec());
            assert!(Archive::new(cut).files().iter().all(|file| file.content == b"content"));
        }
        assert!(Archive::new(&[0xff; 500]).files().is_empty());
    }
}
