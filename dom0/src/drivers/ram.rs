//! A disk in memory, for measurements and tests: as fast as dom0 can copy.

use crate::drivers::{Action, Done, Driver, Geometry, Request};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use guest_pv::mem::PAGE_BYTES;
use xen_abi::ids::Port;

const SECTOR: u64 = 512;
/// A discard is a hint, so of a longer one the beginning is done: dom0 clears memory itself, and others wait meanwhile.
const DISCARDED: usize = 1 << 20;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    bytes: Vec<u8>,
    /// Where the disk begins in them: a page begins there, so that a guest's page is copied in one piece.
    start: usize,
    done: Vec<Done>,
}

impl Disk {
    /// An empty disk of so many MiB; `None` where there is not so much memory.
    pub fn new(mebibytes: usize) -> Option<Self> {
        let len = mebibytes.checked_mul(1 << 20)?.checked_add(PAGE_BYTES)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).ok()?;
        bytes.resize(len, 0);
        let start = bytes.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        Some(Self { bytes, start, done: Vec::new() })
    }

    /// Its size in bytes.
    fn len(&self) -> usize {
        self.bytes.len() - PAGE_BYTES
    }

    fn memory(&mut self) -> &mut [u8] {
        let len = self.len();
        self.bytes.get_mut(self.start..self.start + len).unwrap_or_default()
    }

    fn range(&mut self, sector: u64, len: usize) -> &mut [u8] {
        let at = usize::try_from(sector * SECTOR).unwrap_or(usize::MAX);
        self.memory().get_mut(at..at.saturating_add(len)).unwrap_or_default()
    }
}

impl Driver for Disk {
    fn model(&self) -> String {
        format!("memory, {} MiB", self.len() >> 20)
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            sectors: self.len() as u64 / SECTOR,
            sector_size: 512,
            physical_sector_size: 4096,
            read_only: false,
            flush: true,
            discard: true,
            segments: 256,
        }
    }

    fn bytes(&mut self) -> Option<&mut [u8]> {
        Some(self.memory())
    }

    fn is_dead(&self) -> bool {
        false
    }

    fn submit(&mut self, request: Request) -> Option<Request> {
        match &request.action {
            Action::Read { sector, segments } => {
                let mut sector = *sector;
                for segment in segments {
                    segment.write(0, self.range(sector, segment.len()));
                    sector += segment.len() as u64 / SECTOR;
                }
            }
            Action::Write { sector, segments } => {
                let mut sector = *sector;
                for segment in segments {
                    segment.read(0, self.range(sector, segment.len()));
                    sector += segment.len() as u64 / SECTOR;
                }
            }
            Action::Flush | Action::Look => {}
            Action::Discard { sector, count } => {
                let len = usize::try_from(count.saturating_mul(SECTOR)).unwrap_or(0).min(DISCARDED);
                self.range(*sector, len).fill(0);
            }
        }
        self.done.push(Done { tag: request.tag, result: Ok(()) });
        None
    }

    fn kick(&mut self) {}

    fn collect(&mut self, done: &mut Vec<Done>) {
        done.append(&mut self.done);
    }

    fn expire(&mut self, _: u64, _: &mut Vec<Done>) {}

    fn ports(&self) -> &[Port] {
        &[]
    }
}
