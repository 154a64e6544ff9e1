//! ext4 (Linux's Documentation/filesystems/ext4), as far as to find a file and to say where its blocks lie. Crates that read
//! ext4 do not tell the latter.

use super::blocks::{Blocks, Stop};
use super::{Located, Piece, add, cut};
use alloc::vec::Vec;
use core::cell::Cell;

/// The superblock's place, its magic's and its value.
const SUPERBLOCK: u64 = 1024;
const MAGIC_AT: u64 = SUPERBLOCK + 0x38;
const MAGIC: u16 = 0xef53;

/// Features without which it cannot be read (`INCOMPAT_*`): those that are known. Names have types, extents, 64 bits, groups
/// together, the seed of checksums, multiple mount protection.
const KNOWN: u32 = 0x2 | 0x40 | 0x80 | 0x100 | 0x200 | 0x2000;
const RECOVER: u32 = 0x4;
const WIDE: u32 = 0x80;

/// Numbers and flags of inodes.
const ROOT: u32 = 2;
const EXTENTS: u32 = 0x8_0000;
const KIND: u16 = 0xf000;
const DIRECTORY: u16 = 0x4000;
const REGULAR: u16 = 0x8000;

const EXTENT_MAGIC: u16 = 0xf30a;
/// Levels below the root of a tree of extents.
const DEPTH: u16 = 5;
/// Nodes of such trees that one look goes through: a disk may say that they hold each other.
const NODES: u32 = 4096;
/// Bytes of a directory, at most.
const DIRECTORY_BYTES: u64 = 1 << 20;

struct Ext4<'a> {
    blocks: &'a Blocks,
    block_size: u64,
    inodes_per_group: u32,
    inode_size: u64,
    descriptors: u64,
    descriptor_size: u64,
    nodes: Cell<u32>,
}

/// An inode: its place, its kind, its size.
struct Inode {
    at: u64,
    kind: u16,
    size: u64,
}

/// Whether it is one.
pub fn is_one(blocks: &Blocks) -> Result<bool, Stop> {
    Ok(blocks.u16(MAGIC_AT)? == MAGIC)
}

/// Where a file lies.
pub fn locate(blocks: &Blocks, path: &str) -> Result<Located, Stop> {
    let file_system = Ext4::new(blocks)?;
    let mut inode = file_system.inode(ROOT)?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        inode = file_system.inode(file_system.find(&inode, name)?)?;
    }
    if inode.kind != REGULAR {
        return Err(Stop::WrongKind);
    }
    Ok(Located { size: inode.size, pieces: file_system.pieces(&inode)? })
}

impl<'a> Ext4<'a> {
    fn new(blocks: &'a Blocks) -> Result<Self, Stop> {
        let exponent = blocks.u32(SUPERBLOCK + 0x18)?;
        let features = blocks.u32(SUPERBLOCK + 0x60)?;
        if features & RECOVER != 0 {
            return Err(Stop::Unsupported("it is in use or was not unmounted: its journal is to be replayed first"));
        }
        if features & !KNOWN != 0 || exponent > 6 {
            return Err(Stop::Unsupported("the file system has features that are not known"));
        }
        let block_size = 1024u64 << exponent;
        let (inodes_per_group, inode_size) = (blocks.u32(SUPERBLOCK + 0x28)?, blocks.u16(SUPERBLOCK + 0x58)?);
        let descriptor_size = if features & WIDE != 0 { blocks.u16(SUPERBLOCK + 0xfe)?.max(32) } else { 32 };
        if inodes_per_group == 0 || inode_size < 128 {
            return Err(Stop::Broken);
        }
        let first = u64::from(blocks.u32(SUPERBLOCK + 0x14)?);
        Ok(Self {
            blocks,
            block_size,
            inodes_per_group,
            inode_size: inode_size.into(),
            descriptors: (first + 1) * block_size,
            descriptor_size: descriptor_size.into(),
            nodes: Cell::new(NODES),
        })
    }

    fn inode(&self, number: u32) -> Result<Inode, Stop> {
        let index = number.checked_sub(1).ok_or(Stop::Broken)?;
        let (group, index) = (index / self.inodes_per_group, index % self.inodes_per_group);
        let descriptor = self.descriptors + u64::from(group) * self.descriptor_size;
        let high = if self.descriptor_size >= 64 { self.blocks.u32(descriptor + 0x28)? } else { 0 };
        let table = u64::from(self.blocks.u32(descriptor + 0x8)?) | u64::from(high) << 32;
        let table = table.checked_mul(self.block_size).ok_or(Stop::Broken)?;
        let at = table.checked_add(u64::from(index) * self.inode_size).ok_or(Stop::Broken)?;
        let kind = self.blocks.u16(at)? & KIND;
        if self.blocks.u32(at + 0x20)? & EXTENTS == 0 {
            return Err(Stop::Unsupported("files without extents: ext2 or ext3"));
        }
        let size = u64::from(self.blocks.u32(at + 0x4)?) | u64::from(self.blocks.u32(at + 0x6c)?) << 32;
        Ok(Inode { at, kind, size })
    }

    /// The file of a name in a directory. Its index, where it has one, looks like entries without a name.
    fn find(&self, directory: &Inode, name: &str) -> Result<u32, Stop> {
        if directory.kind != DIRECTORY {
            return Err(Stop::WrongKind);
        }
        if directory.size > DIRECTORY_BYTES {
            return Err(Stop::Unsupported("a directory that is too large"));
        }
        for piece in self.pieces(directory)? {
            let mut at = piece.at.ok_or(Stop::Broken)?;
            let end = at.saturating_add(piece.len);
            while at < end {
                let (inode, len) = (self.blocks.u32(at)?, u64::from(self.blocks.u16(at + 4)?));
                let [name_len] = self.blocks.array(at + 6)?;
                if len < 8 || len % 4 != 0 || u64::from(name_len) + 8 > len {
                    return Err(Stop::Broken);
                }
                if inode != 0 && usize::from(name_len) == name.len() {
                    let mut bytes = alloc::vec![0; name_len.into()];
                    self.blocks.read(at + 8, &mut bytes)?;
                    if bytes == name.as_bytes() {
                        return Ok(inode);
                    }
                }
                at += len;
            }
        }
        Err(Stop::NotFound)
    }

    /// Where a file's blocks lie, in order, holes included; as many bytes as the file has.
    fn pieces(&self, inode: &Inode) -> Result<Vec<Piece>, Stop> {
        let mut pieces = Vec::new();
        let mut next = 0;
        self.extents(inode.at + 0x28, 60, DEPTH, &mut |first: u64, start: Option<u64>, count: u64| {
            if first < next {
                return Err(Stop::Broken);
            }
            if first > next {
                add(&mut pieces, Piece { at: None, len: (first - next) * self.block_size })?;
            }
            let at = start.map(|start| start.checked_mul(self.block_size).ok_or(Stop::Broken)).transpose()?;
            next = first + count;
            add(&mut pieces, Piece { at, len: count * self.block_size })
        })?;
        let left = cut(&mut pieces, inode.size);
        if left > 0 {
            add(&mut pieces, Piece { at: None, len: left })?;
        }
        Ok(pieces)
    }

    /// Goes through a node of the tree of extents.
    fn extents(
        &self,
        node: u64,
        bytes: u64,
        depth: u16,
        each: &mut dyn FnMut(u64, Option<u64>, u64) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        /// An extent that is longer is allocated and was never written.
        const WRITTEN: u16 = 0x8000;
        self.nodes.set(self.nodes.get().checked_sub(1).ok_or(Stop::Broken)?);
        let (magic, entries, level) = (self.blocks.u16(node)?, self.blocks.u16(node + 2)?, self.blocks.u16(node + 6)?);
        if magic != EXTENT_MAGIC || 12 + u64::from(entries) * 12 > bytes || level > depth {
            return Err(Stop::Broken);
        }
        for entry in (0..u64::from(entries)).map(|index| node + 12 + index * 12) {
            let first = u64::from(self.blocks.u32(entry)?);
            if level == 0 {
                let count = self.blocks.u16(entry + 4)?;
                let start = u64::from(self.blocks.u32(entry + 8)?) | u64::from(self.blocks.u16(entry + 6)?) << 32;
                let (start, count) = if count > WRITTEN { (None, count - WRITTEN) } else { (Some(start), count) };
                each(first, start, count.into())?;
            } else {
                let below = u64::from(self.blocks.u32(entry + 4)?) | u64::from(self.blocks.u16(entry + 8)?) << 32;
                let below = below.checked_mul(self.block_size).ok_or(Stop::Broken)?;
                self.extents(below, self.block_size, level - 1, each)?;
            }
        }
        Ok(())
    }
}
