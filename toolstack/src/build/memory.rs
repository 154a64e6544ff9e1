//! A new domain's memory: getting it, and writing to it by pseudo-physical frame.

use alloc::vec;
use alloc::vec::Vec;

use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Mfn, Pfn};
use zerocopy::IntoBytes;

use super::error::{BuildError, Doing};
use crate::calls::{Fill, XenCalls};

/// Pages of a 2 MiB extent, and its order.
const SUPERPAGE: u64 = 1 << SUPERPAGE_ORDER;
const SUPERPAGE_ORDER: u32 = 9;
/// Extents per hypercall: keeps the arrays small.
const BATCH: usize = 1024;

/// Machine frames by pseudo-physical frame.
#[derive(Clone, Copy)]
pub struct P2m<'a>(&'a [Mfn]);

impl P2m<'_> {
    /// The machine frame of `pfn`; `pfn` must be one of the domain's.
    #[inline]
    pub fn mfn(self, pfn: Pfn) -> Mfn {
        usize::try_from(pfn.0).ok().and_then(|i| self.0.get(i)).copied().unwrap_or(Mfn(u64::MAX))
    }
}

/// A new domain's memory.
pub struct Memory<'a> {
    xen: &'a mut dyn XenCalls,
    dom: DomId,
    p2m: Vec<Mfn>,
}

impl<'a> Memory<'a> {
    /// Gives the domain `pages` pages, in 2 MiB extents as far as there are any.
    pub fn populate(xen: &'a mut dyn XenCalls, dom: DomId, pages: u64) -> Result<Self, BuildError> {
        let mut this = Self { xen, dom, p2m: Vec::new() };
        let len = usize::try_from(pages).unwrap_or(usize::MAX);
        let no_memory = BuildError::Call { what: "keep the list of the domain's frames", errno: Errno::ENOMEM };
        this.p2m.try_reserve_exact(len).map_err(|_| no_memory)?;
        this.extents(SUPERPAGE_ORDER, pages / SUPERPAGE * SUPERPAGE)?;
        this.extents(0, pages)?;
        if this.p2m.len() < len {
            let missing = (len - this.p2m.len()) as u64;
            return Err(shortage(this.xen, missing));
        }
        Ok(this)
    }

    /// Populates by extents of `order` from where the list ends up to `end`; stops early where there are no more such.
    fn extents(&mut self, order: u32, end: u64) -> Result<(), BuildError> {
        loop {
            let next = self.p2m.len() as u64;
            let wanted = usize::try_from((end - next.min(end)) >> order).unwrap_or(BATCH).min(BATCH);
            if wanted == 0 {
                return Ok(());
            }
            let pfns: Vec<_> = (0..wanted as u64).map(|i| Pfn(next + (i << order))).collect();
            let mut mfns = vec![Mfn(0); wanted];
            let done = match self.xen.populate(self.dom, order, &pfns, &mut mfns) {
                Ok(done) => done.min(wanted),
                Err(Errno::ENOMEM) => 0,
                Err(errno) => return Err(BuildError::Call { what: "give the domain its memory", errno }),
            };
            for mfn in mfns.iter().take(done) {
                self.p2m.extend((0..1 << order).map(|i| Mfn(mfn.0 + i)));
            }
            if done < wanted {
                return Ok(());
            }
        }
    }

    /// The machine frame of `pfn`; `pfn` must be one of the domain's.
    pub fn mfn(&self, pfn: Pfn) -> Mfn {
        P2m(&self.p2m).mfn(pfn)
    }

    /// Writes at a guest-physical address.
    pub fn write(&mut self, addr: u64, fill: Fill<'_>) -> Result<(), BuildError> {
        if fill.is_empty() {
            return Ok(());
        }
        let outside = BuildError::Call { what: "write to the domain's memory", errno: Errno::EFAULT };
        let end = addr.checked_add(fill.len() as u64).ok_or(outside)?;
        let index = |page: u64| usize::try_from(page).unwrap_or(usize::MAX);
        let frames = self.p2m.get(index(addr >> 12)..index(end.div_ceil(4096))).ok_or(outside)?;
        self.xen.write_frames(self.dom, frames, index(addr & 0xfff), fill).doing("write to the domain's memory")
    }

    /// Writes whole pages of words from `first` on, made one by one and written in runs.
    pub fn write_pages(
        &mut self,
        first: Pfn,
        count: u64,
        mut make: impl FnMut(u64, P2m<'_>, &mut [u64; 512]),
    ) -> Result<(), BuildError> {
        const RUN: u64 = 32;
        let mut done = 0;
        let mut buffer: Vec<[u64; 512]> = Vec::new();
        while done < count {
            let run = RUN.min(count - done);
            buffer.clear();
            for i in 0..run {
                let mut page = [0; 512];
                make(done + i, P2m(&self.p2m), &mut page);
                buffer.push(page);
            }
            self.write((first.0 + done) << 12, Fill::Bytes(buffer.as_slice().as_bytes()))?;
            done += run;
        }
        Ok(())
    }

    /// The hypervisor again.
    pub fn xen(&mut self) -> &mut dyn XenCalls {
        self.xen
    }
}

/// Gives the domain `pages` pages from guest frame `first` on.
pub fn populate(xen: &mut dyn XenCalls, dom: DomId, first: u64, pages: u64) -> Result<(), BuildError> {
    let mut done = 0;
    let mut order = SUPERPAGE_ORDER;
    while done < pages {
        let wanted = usize::try_from((pages - done) >> order).unwrap_or(BATCH).min(BATCH);
        if wanted == 0 {
            order = 0;
            continue;
        }
        let pfns: Vec<_> = (0..wanted as u64).map(|i| Pfn(first + done + (i << order))).collect();
        let mut mfns = vec![Mfn(0); wanted];
        let given = match xen.populate(dom, order, &pfns, &mut mfns) {
            Ok(given) => given.min(wanted),
            Err(Errno::ENOMEM) => 0,
            Err(errno) => return Err(BuildError::Call { what: "give the domain its memory", errno }),
        };
        done += (given as u64) << order;
        match order {
            0 if given < wanted => return Err(shortage(xen, pages - done)),
            _ if given < wanted => order = 0,
            _ => {}
        }
    }
    Ok(())
}

/// What to say when `missing` pages are missing.
pub fn shortage(xen: &mut dyn XenCalls, missing: u64) -> BuildError {
    let free = xen.phys_info().map_or(0, |info| info.free_pages);
    BuildError::NoMemory { need: missing.div_ceil(256), free: free / 256 }
}
