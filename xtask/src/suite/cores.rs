//! What a domain's core must hold: its memory, each page at its place, and the registers that lead to it.

use anyhow::{Context, Result, bail, ensure};
use elf::ElfBytes;
use elf::endian::LittleEndian;
use std::collections::HashMap;

const PAGE: usize = 4096;
/// Bytes of `struct vcpu_guest_context` (public header `arch-x86/xen.h`), and where in it is what.
const CONTEXT: usize = 5168;
const RIP: usize = 648;
const CS: usize = 656;
const CR3: usize = 5008;
const GS_BASE_KERNEL: usize = 5152;

/// A core, read.
pub struct Core<'a> {
    elf: ElfBytes<'a, LittleEndian>,
    /// The pages' bytes.
    pages: &'a [u8],
}

impl<'a> Core<'a> {
    /// Reads one; all that cores of both kinds have must be there.
    pub fn read(file: &'a [u8]) -> Result<Self> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file)?;
        let core = Self { pages: section(&elf, ".xen_pages")?, elf };
        let notes = core.elf.section_header_by_name(".note.Xen")?.context("no notes")?;
        ensure!(core.elf.section_data_as_notes(&notes)?.count() == 4, "not four notes");
        ensure!(section(&core.elf, ".xen_shared_info")?.len() == PAGE, "half a shared info page");
        Ok(core)
    }

    /// How many pages it has.
    pub fn pages(&self) -> usize {
        self.pages.len() / PAGE
    }

    /// A text that is somewhere in the domain's memory.
    pub fn has(&self, text: &[u8]) -> Result<()> {
        let there = self.pages.windows(text.len()).any(|window| window == text);
        ensure!(there, "{:?} is not in its pages", String::from_utf8_lossy(text));
        Ok(())
    }

    /// A PV domain's list of pages has two numbers for each, and one vCPU was there.
    pub fn is_pv(&self) -> Result<()> {
        let list = section(&self.elf, ".xen_p2m")?;
        ensure!(self.pages() == list.len() / 16, "{} pages, {} bytes of their numbers", self.pages(), list.len());
        self.contexts(1).map(drop)
    }

    /// A PVH domain's list has a number for each page, in order, and by the registers of each vCPU its code is found in them.
    pub fn is_pvh(&self, vcpus: usize) -> Result<()> {
        ensure!(self.elf.section_header_by_name(".xen_p2m")?.is_none(), "a PVH domain with frames of the machine");
        let list = section(&self.elf, ".xen_pfn")?;
        let numbers: Vec<u64> = (0..list.len() / 8).map(|i| word(list, i * 8)).collect::<Result<_>>()?;
        ensure!(self.pages() == numbers.len(), "{} pages, {} numbers", self.pages(), numbers.len());
        ensure!(numbers.is_sorted_by(|a, b| a < b), "the numbers are not in order");
        let places: HashMap<u64, usize> = numbers.into_iter().zip(0..).collect();
        for context in self.contexts(vcpus)?.chunks(CONTEXT) {
            let (rip, root) = (word(context, RIP)?, word(context, CR3)?);
            ensure!(word(context, CS)? & 3 == 0, "a vCPU that waits is not in its kernel");
            let code = self.walk(&places, root, rip).with_context(|| format!("rip {rip:#x}, cr3 {root:#x}"))?;
            ensure!(code.iter().any(|byte| *byte != 0), "there is no code at {rip:#x}");
            let per_cpu = word(context, GS_BASE_KERNEL)?;
            if per_cpu != 0 {
                self.walk(&places, root, per_cpu).with_context(|| format!("gs {per_cpu:#x}, cr3 {root:#x}"))?;
            }
        }
        Ok(())
    }

    fn contexts(&self, vcpus: usize) -> Result<&'a [u8]> {
        let contexts = section(&self.elf, ".xen_prstatus")?;
        ensure!(contexts.len() == vcpus * CONTEXT, "{} bytes of registers", contexts.len());
        Ok(contexts)
    }

    /// The page behind an address, by four levels of page tables (SDM vol. 3A, 4.5).
    fn walk(&self, places: &HashMap<u64, usize>, root: u64, address: u64) -> Result<&'a [u8]> {
        const FRAME: u64 = 0x000f_ffff_ffff_f000;
        let page = |at: u64| -> Result<&'a [u8]> {
            let place = places.get(&(at >> 12)).with_context(|| format!("no page {at:#x}"))?;
            self.pages.get(place * PAGE..(place + 1) * PAGE).context("a page past the end")
        };
        let mut at = root & FRAME;
        for level in (0..4).rev() {
            let shift = 12 + 9 * level;
            let index = usize::try_from(address >> shift & 511)?;
            let entry = word(page(at)?, index * 8)?;
            if entry & 1 == 0 {
                bail!("nothing is mapped there at level {level}");
            }
            at = entry & FRAME;
            if level > 0 && entry & 1 << 7 != 0 {
                let inside = (1 << shift) - 1;
                return page(at & !inside | address & inside);
            }
        }
        page(at)
    }
}

fn section<'a>(elf: &ElfBytes<'a, LittleEndian>, name: &str) -> Result<&'a [u8]> {
    let header = elf.section_header_by_name(name)?.with_context(|| format!("no section {name}"))?;
    Ok(elf.section_data(&header)?.0)
}

fn word(bytes: &[u8], at: usize) -> Result<u64> {
    let bytes = bytes.get(at..at + 8).context("past the end")?;
    Ok(u64::from_le_bytes(bytes.try_into()?))
}
