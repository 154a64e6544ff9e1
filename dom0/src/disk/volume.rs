//! Volumes: a disk, a part of one, or several parts one after the other.

use crate::drivers::Action;
use alloc::string::String;
use alloc::vec::Vec;
use dom0_hal::dma::Segment;

/// Sectors of the interface to drivers.
const SECTOR: u64 = 512;

/// Sectors of a disk: the first, and how many.
pub type Part = (u64, u64);

/// Whether sectors are among the first `all`.
pub fn within(first: u64, count: u64, all: u64) -> bool {
    first.checked_add(count).is_some_and(|end| end <= all)
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its path: `/dev/vda1`.
    pub path: String,
    pub(super) disk: usize,
    /// Where it lies, in sectors of 512 bytes.
    pub(super) parts: Vec<Part>,
    /// It takes no writes, whatever its disk does.
    pub(super) read_only: bool,
}

impl Volume {
    /// One part of a disk.
    pub fn new(path: String, disk: usize, part: Part) -> Self {
        Self { path, disk, parts: Vec::from([part]), read_only: false }
    }

    /// Its size in sectors of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.parts.iter().map(|(_, count)| count).sum()
    }

    /// Whether it is in one piece, and so can be told what is not needed any more.
    pub fn is_whole(&self) -> bool {
        self.parts.len() == 1
    }

    /// Whether it shares sectors with another one.
    pub fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: &Part, b: &Part| a.0 < b.0 + b.1 && b.0 < a.0 + a.1;
        self.disk == other.disk && self.parts.iter().any(|a| other.parts.iter().any(|b| meet(a, b)))
    }

    /// Some sectors of it: where they lie on the disk.
    pub fn place(&self, first: u64, count: u64) -> Vec<Part> {
        let (mut skip, mut left) = (first, count);
        let mut all = Vec::new();
        for &(start, sectors) in &self.parts {
            let from = skip.min(sectors);
            let some = left.min(sectors - from);
            if some > 0 {
                all.push((start + from, some));
            }
            (skip, left) = (skip - from, left - some);
        }
        all
    }

    /// An action on it as what its disk is to do.
    pub fn actions(&self, action: Action) -> Vec<Action> {
        match action {
            Action::Flush | Action::Look => Vec::from([action]),
            Action::Read { sector, segments } => {
                self.moved(sector, segments, |sector, segments| Action::Read { sector, segments })
            }
            Action::Write { sector, segments } => {
                self.moved(sector, segments, |sector, segments| Action::Write { sector, segments })
            }
            Action::Discard { sector, count } => {
                let parts = self.place(sector, count).into_iter();
                parts.map(|(sector, count)| Action::Discard { sector, count }).collect()
            }
        }
    }

    fn moved(&self, sector: u64, segments: Vec<Segment>, action: impl Fn(u64, Vec<Segment>) -> Action) -> Vec<Action> {
        let bytes: usize = segments.iter().map(Segment::len).sum();
        let parts = self.place(sector, bytes as u64 / SECTOR);
        // Nearly always.
        if let [(start, _)] = parts.as_slice() {
            return Vec::from([action(*start, segments)]);
        }
        let mut rest = segments.into_iter();
        let mut current: Option<Segment> = None;
        let mut all = Vec::new();
        for (start, count) in parts {
            let mut left = usize::try_from(count * SECTOR).unwrap_or(0);
            let mut taken = Vec::new();
            while left > 0 {
                let Some(segment) = current.take().or_else(|| rest.next()) else {
                    break;
                };
                let some = segment.len().min(left);
                if some < segment.len() {
                    current = Some(segment.rest(some));
                }
                taken.push(segment.shortened(some));
                left -= some;
            }
            all.push(action(start, taken));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_of_a_volume_in_pieces() {
        let volume = Volume { parts: Vec::from([(100, 8), (50, 4), (200, 8)]), ..Volume::new("a".into(), 0, (0, 0)) };
        assert_eq!(volume.sectors(), 20);
        assert_eq!(volume.place(0, 20), [(100, 8), (50, 4), (200, 8)]);
        assert_eq!(volume.place(7, 2), [(107, 1), (50, 1)]);
        assert_eq!(volume.place(8, 4), [(50, 4)]);
        assert_eq!(volume.place(19, 5), [(207, 1)]);
        let other = |part| Volume::new("b".into(), 0, part);
        assert!(volume.overlaps(&other((53, 1))) && !volume.overlaps(&other((54, 40))));
        assert!(!volume.overlaps(&Volume::new("c".into(), 1, (0, 1000))));
    }
}
