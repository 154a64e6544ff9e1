//! Archives in the "newc" format of cpio: a kernel's ramdisk and the files that dom0 is given.
//!
//! Source of the format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

use anyhow::{Context, Result};
use std::path::Path;

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const DEVICE: u32 = 0o020_000;

/// An archive under construction.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory.
    pub fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, FILE | 0o644, (0, 0), content)
    }

    /// Adds a file that may be run.
    pub fn program(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, FILE | 0o755, (0, 0), content)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(name, LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device.
    pub fn device(&mut self, name: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(name, DEVICE | 0o600, (major, minor), &[])
    }

    /// Adds all that is below `dir`, by names relative to it.
    pub fn tree(&mut self, dir: &Path) -> Result<()> {
        self.tree_below(dir, "")
    }

    fn tree_below(&mut self, dir: &Path, prefix: &str) -> Result<()> {
        let mut entries: Vec<_> = std::fs::read_dir(dir)
            .and_then(Iterator::collect)
            .with_context(|| format!("cannot list {}", dir.display()))?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let path = entry.path();
            // Follows links: the reader of this archive has no other tree to follow them in.
            if path.is_dir() {
                self.directory(&name)?;
                self.tree_below(&path, &format!("{name}/"))?;
            } else {
                self.file(&name, &std::fs::read(&path).with_context(|| path.display().to_string())?)?;
            }
        }
        Ok(())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.entry(TRAILER, 0, (0, 0), &[])?;
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large for an archive"))?;
        let name_size = u32::try_from(name.len() + 1).context("a name that long")?;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        // inode, mode, uid, gid, links, mtime, size, device of the file (2), device it is (2), name size, checksum
        for field in [self.entries, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        let mut archive = Archive::default();
        archive.file("ab", b"xyz").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(&bytes[..6], b"070701");
        // 110 bytes of header, "ab" and its NUL, padded to 116; then the content, padded to 120.
        assert_eq!(&bytes[54..62], b"00000003");
        assert_eq!(&bytes[94..102], b"00000003");
        assert_eq!(&bytes[110..116], b"ab\0\0\0\0");
        assert_eq!(&bytes[116..120], b"xyz\0");
        assert_eq!(&bytes[120..126], b"070701");
        assert_eq!(bytes.len() % 512, 0);
    }
}
