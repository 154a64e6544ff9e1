//! FAT12, FAT16 and FAT32 (Microsoft's specification 1.03), as far as to find a file and to say where its clusters lie. Files
//! keep their place while their size stays, so they can be written too.

use super::blocks::{Blocks, Stop};
use super::{Located, Piece, add, cut};
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of an entry of a directory, and what its first byte says of those that are none.
const ENTRY: u64 = 32;
const LAST: u8 = 0;
const FREE: u8 = 0xe5;
/// Attributes: a directory; a volume's name; part of a long name.
const DIRECTORY: u8 = 0x10;
const LABEL: u8 = 0x08;
const LONG: u8 = 0x0f;
/// Entries of a directory, at most.
const ENTRIES: u64 = 65_536;

struct Fat<'a> {
    blocks: &'a Blocks,
    /// Where the first table begins, in bytes as all places.
    table: u64,
    /// Bits of an entry of the table.
    bits: u64,
    cluster_bytes: u64,
    clusters: u64,
    data: u64,
    /// Where the root directory lies: in a place of its own, or from this cluster on.
    root: Result<Piece, u64>,
}

/// A file or a directory.
struct Found {
    cluster: u64,
    size: u64,
    is_directory: bool,
}

/// Whether it is one: the boot sector's numbers make sense.
pub fn is_one(blocks: &Blocks) -> Result<bool, Stop> {
    let (sector, [per_cluster]) = (blocks.u16(11)?, blocks.array(13)?);
    let ([tables], signature) = (blocks.array(16)?, blocks.u16(510)?);
    Ok(signature == 0xaa55
        && matches!(sector, 512 | 1024 | 2048 | 4096)
        && per_cluster.is_power_of_two()
        && (1..=2).contains(&tables))
}

/// Where a file lies.
pub fn locate(blocks: &Blocks, path: &str) -> Result<Located, Stop> {
    let fat = Fat::new(blocks)?;
    let mut found: Option<Found> = None;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let pieces = match &found {
            None => match fat.root {
                Ok(place) => Vec::from([place]),
                Err(cluster) => fat.pieces(cluster, ENTRIES * ENTRY)?,
            },
            Some(directory) if directory.is_directory => fat.pieces(directory.cluster, ENTRIES * ENTRY)?,
            Some(_) => return Err(Stop::WrongKind),
        };
        found = Some(fat.find(&pieces, name)?);
    }
    let file = found.filter(|found| !found.is_directory).ok_or(Stop::WrongKind)?;
    let mut pieces = if file.size == 0 { Vec::new() } else { fat.pieces(file.cluster, file.size)? };
    if cut(&mut pieces, file.size) > 0 { Err(Stop::Broken) } else { Ok(Located { size: file.size, pieces }) }
}

impl<'a> Fat<'a> {
    fn new(blocks: &'a Blocks) -> Result<Self, Stop> {
        let sector = u64::from(blocks.u16(11)?);
        let ([per_cluster], [tables]) = (blocks.array(13)?, blocks.array(16)?);
        let (reserved, root_entries) = (u64::from(blocks.u16(14)?), u64::from(blocks.u16(17)?));
        let or = |short: u16, long: u32| if short == 0 { u64::from(long) } else { u64::from(short) };
        let total = or(blocks.u16(19)?, blocks.u32(32)?);
        let table_sectors = or(blocks.u16(22)?, blocks.u32(36)?);
        let table = reserved * sector;
        let root = table + u64::from(tables) * table_sectors * sector;
        let root_bytes = (root_entries * ENTRY).next_multiple_of(sector);
        let (data, cluster_bytes) = (root + root_bytes, u64::from(per_cluster) * sector);
        let clusters = (total * sector).checked_sub(data).ok_or(Stop::Broken)? / cluster_bytes;
        // The number of clusters alone says which of the three it is.
        let bits = match clusters {
            0..4085 => 12,
            4085..65_525 => 16,
            _ => 32,
        };
        let root =
            if bits == 32 { Err(u64::from(blocks.u32(44)?)) } else { Ok(Piece { at: Some(root), len: root_bytes }) };
        Ok(Self { blocks, table, bits, cluster_bytes, clusters, data, root })
    }

    /// The cluster after this one; `None` at the end.
    fn next(&self, cluster: u64) -> Result<Option<u64>, Stop> {
        let at = self.table + cluster * self.bits / 8;
        let value = match self.bits {
            12 => u32::from(self.blocks.u16(at)? >> (cluster % 2 * 4) & 0xfff),
            16 => self.blocks.u16(at)?.into(),
            _ => self.blocks.u32(at)? & 0x0fff_ffff,
        };
        let end = (1u32 << self.bits.min(28)) - 8;
        Ok((value < end).then_some(value.into()))
    }

    /// Where the clusters from one on lie, until there are as many bytes as are wanted: a chain may go in a circle.
    fn pieces(&self, first: u64, wanted: u64) -> Result<Vec<Piece>, Stop> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut cluster = first;
        for _ in 0..wanted.div_ceil(self.cluster_bytes).min(self.clusters) {
            let index = cluster.checked_sub(2).filter(|index| *index < self.clusters).ok_or(Stop::Broken)?;
            add(&mut pieces, Piece { at: Some(self.data + index * self.cluster_bytes), len: self.cluster_bytes })?;
            match self.next(cluster)? {
                Some(next) => cluster = next,
                None => break,
            }
        }
        Ok(pieces)
    }

    /// What has a name, long or short, in a directory; letters are alike whether large or small.
    fn find(&self, pieces: &[Piece], name: &str) -> Result<Found, Stop> {
        let mut long: Vec<u16> = Vec::new();
        let places = pieces.iter().filter_map(|piece| Some((piece.at?, piece.len)));
        for at in places.flat_map(|(at, len)| (0..len / ENTRY).map(move |index| at + index * ENTRY)).take(entries()) {
            let entry: [u8; 32] = self.blocks.array(at)?;
            let half = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
            match (entry[0], entry[11]) {
                (LAST, _) => break,
                (FREE, _) => long.clear(),
                (_, LONG) => {
                    // The last part of a long name comes first.
                    let places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
                    let mut part: Vec<u16> = places.map(half).into_iter().take_while(|unit| *unit != 0).collect();
                    part.append(&mut long);
                    long = part;
                    long.truncate(260);
                }
                (_, attributes) if attributes & LABEL != 0 => long.clear(),
                (_, attributes) => {
                    let names = [String::from_utf16_lossy(&long), short_name(&entry)];
                    long.clear();
                    if names.iter().any(|this| this.eq_ignore_ascii_case(name)) {
                        let cluster = u64::from(half(26)) | if self.bits == 32 { u64::from(half(20)) << 16 } else { 0 };
                        let size = u64::from(half(28)) | u64::from(half(30)) << 16;
                        return Ok(Found { cluster, size, is_directory: attributes & DIRECTORY != 0 });
                    }
                }
            }
        }
        Err(Stop::NotFound)
    }
}

fn entries() -> usize {
    usize::try_from(ENTRIES).unwrap_or(usize::MAX)
}

/// Eight letters and three, filled up with spaces.
fn short_name(entry: &[u8; 32]) -> String {
    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned();
    let (base, extension) = (part(&entry[..8]), part(&entry[8..11]));
    if extension.is_empty() { base } else { base + "." + &extension }
}
