//! A disk in memory, for measurements and tests: as fast as dom0 can copy.

use crate::drivers::{Action, Done, Driver, Geometry, Request};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use xen_abi::ids::Port;

const SECTOR: u64 = 512;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    bytes: Vec<u8>,
    done: Vec<Done>,
}

impl Disk {
    /// An empty disk of so many MiB; `None` where there is not so much memory.
    pub fn new(mebibytes: usize) -> Option<Self> {
        let len = mebibytes.checked_mul(1 << 20)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).ok()?;
        bytes.resize(len, 0);
        Some(Self { bytes, done: Vec::new() })
    }

    fn range(&mut self, sector: u64, len: usize) -> &mut [u8] {
        let at = usize::try_from(sector * SECTOR).unwrap_or(usize::MAX);
        self.bytes.get_mut(at..at.saturating_add(len)).unwrap_or_default()
    }
}

impl Driver for Disk {
    fn model(&self) -> String {
        format!("memory, {} MiB", self.bytes.len() >> 20)
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            sectors: self.bytes.len() as u64 / SECTOR,
            sector_size: 512,
            physical_sector_size: 4096,
            read_only: false,
            flush: true,
            discard: true,
            segments: 256,
        }
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
            Action::Flush => {}
            Action::Discard { sector, count } => {
                let len = usize::try_from(count.saturating_mul(SECTOR)).unwrap_or(0);
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

    fn port(&self) -> Option<Port> {
        None
    }
}
