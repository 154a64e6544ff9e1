//! A domain's core in Xen's dump-core format, version 0.1 (Xen's docs/misc/dump-core-format.txt): an ELF file without program
//! headers, whose sections hold the vCPUs, the shared info page, the pages, and which page is which.

use alloc::boxed::Box;
use alloc::vec::Vec;

use xen_abi::arch_x86::VcpuGuestContext;
use xen_abi::elfnote::{
    XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION, XEN_ELFNOTE_DUMPCORE_HEADER, XEN_ELFNOTE_DUMPCORE_NONE,
    XEN_ELFNOTE_DUMPCORE_XEN_VERSION,
};
use xen_abi::ids::{Mfn, Pfn};
use zerocopy::IntoBytes;

use crate::calls::VersionInfo;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// What the domain numbers its pages by, which says what the list of them holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// Frames of the machine behind numbers of its own: a PV domain's.
    Machine,
    /// Its own memory alone: a PVH domain's.
    Own,
}

impl Numbering {
    /// `XC_CORE_MAGIC`, `XC_CORE_MAGIC_HVM`.
    const fn magic(self) -> u64 {
        match self {
            Self::Machine => 0xf00f_ebed,
            Self::Own => 0xf00f_ebee,
        }
    }

    /// The list's section.
    const fn section(self) -> &'static str {
        match self {
            Self::Machine => ".xen_p2m",
            Self::Own => ".xen_pfn",
        }
    }

    /// Bytes of an entry: `struct xen_dumpcore_p2m`, or a number.
    const fn entry(self) -> usize {
        match self {
            Self::Machine => 16,
            Self::Own => 8,
        }
    }
}

/// Format 0.1: the major number in the upper half.
const FORMAT: u64 = 1;

const EHDR: usize = 64;
const SHDR: usize = 64;
const SHT_PROGBITS: u32 = 1;
const SHT_STRTAB: u32 = 3;
const SHT_NOTE: u32 = 7;

/// What a core is made from; its pages follow.
#[derive(Debug)]
pub struct Core<'a> {
    /// The hypervisor.
    pub version: &'a VersionInfo,
    /// The vCPUs.
    pub contexts: &'a [Box<VcpuGuestContext>],
    /// The shared info page; empty for none.
    pub shared_info: &'a [u8],
    /// What the pages are numbered by.
    pub numbering: Numbering,
    /// How many there are.
    pub pages: usize,
}

struct Section {
    name: &'static str,
    kind: u32,
    offset: usize,
    size: usize,
    align: usize,
    entry: usize,
}

impl Core<'_> {
    /// All that stands before the pages.
    #[must_use]
    pub fn before_pages(&self) -> Vec<u8> {
        let (notes, sections) = (self.notes(), self.sections());
        let mut file = self.header(sections.len() + 1);
        // The first header is that of no section.
        file.resize(EHDR + SHDR, 0);
        let mut name_at = 1_usize;
        for section in &sections {
            let mut number = |value: usize, bytes: usize| {
                file.extend_from_slice(value.to_le_bytes().get(..bytes).unwrap_or_default());
            };
            number(name_at, 4);
            number(section.kind as usize, 4);
            for value in [0, 0, section.offset, section.size] {
                number(value, 8);
            }
            for value in [0, 0] {
                number(value, 4);
            }
            number(section.align, 8);
            number(section.entry, 8);
            name_at += section.name.len() + 1;
        }
        file.extend_from_slice(&notes);
        for context in self.contexts {
            file.extend_from_slice(context.as_bytes());
        }
        file.extend_from_slice(self.shared_info);
        file.resize(file.len().next_multiple_of(PAGE), 0);
        file
    }

    /// All that stands after the pages, which were in this order. `None`: there is no memory for it.
    #[must_use]
    pub fn after_pages(&self, pages: impl Iterator<Item = (Pfn, Mfn)>) -> Option<Vec<u8>> {
        let mut end = Vec::new();
        end.try_reserve_exact(self.pages * self.numbering.entry()).ok()?;
        for (pfn, mfn) in pages {
            end.extend_from_slice(&pfn.0.to_le_bytes());
            if self.numbering == Numbering::Machine {
                end.extend_from_slice(&mfn.0.to_le_bytes());
            }
        }
        end.push(0);
        for section in self.sections() {
            end.extend_from_slice(section.name.as_bytes());
            end.push(0);
        }
        Some(end)
    }

    /// `Elf64_Ehdr` for so many section headers.
    fn header(&self, sections: usize) -> Vec<u8> {
        const CORE: u16 = 4;
        const X86_64: u16 = 62;
        // Magic, 64 bits, little-endian, version 1, System V.
        let mut header = b"\x7fELF\x02\x01\x01\x00\x01".to_vec();
        header.resize(16, 0);
        for half in [CORE, X86_64, 1, 0] {
            header.extend_from_slice(&half.to_le_bytes());
        }
        for word in [0, 0, EHDR as u64] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        // No flags; sizes; no program headers; the names are in the first section.
        let count = u16::try_from(sections).unwrap_or(u16::MAX);
        for half in [0, 0, 64, 56, 0, 64, count, 1] {
            header.extend_from_slice(&half.to_le_bytes());
        }
        header
    }

    /// In the order of Xen's.
    fn sections(&self) -> Vec<Section> {
        let context = size_of::<VcpuGuestContext>();
        let count = if self.shared_info.is_empty() { 6 } else { 7 };
        let (list_name, entry) = (self.numbering.section(), self.numbering.entry());
        let names = [".shstrtab", ".note.Xen", ".xen_prstatus", ".xen_shared_info", ".xen_pages", list_name];
        let there = |name: &&str| *name != ".xen_shared_info" || !self.shared_info.is_empty();
        let names_size = 1 + names.iter().filter(|name| there(name)).map(|name| name.len() + 1).sum::<usize>();
        let notes = EHDR + count * SHDR;
        let status = notes + self.notes().len();
        let shared = status + self.contexts.len() * context;
        let pages = (shared + self.shared_info.len()).next_multiple_of(PAGE);
        let list = pages + self.pages * PAGE;
        let strings = list + self.pages * entry;
        let section = |name, kind, offset, size, align, entry| Section { name, kind, offset, size, align, entry };
        let [strtab_name, note_name, status_name, shared_name, pages_name, _] = names;
        let mut all = alloc::vec![
            section(strtab_name, SHT_STRTAB, strings, names_size, 0, 0),
            section(note_name, SHT_NOTE, notes, status - notes, 4, 0),
            section(status_name, SHT_PROGBITS, status, shared - status, 8, context),
        ];
        if !self.shared_info.is_empty() {
            all.push(section(shared_name, SHT_PROGBITS, shared, self.shared_info.len(), 8, PAGE));
        }
        all.push(section(pages_name, SHT_PROGBITS, pages, self.pages * PAGE, PAGE, PAGE));
        all.push(section(list_name, SHT_PROGBITS, list, self.pages * entry, 8, entry));
        all
    }

    fn notes(&self) -> Vec<u8> {
        let mut notes = Vec::new();
        let mut note = |kind: u32, desc: &[u8]| {
            let size = u32::try_from(desc.len()).unwrap_or(0);
            for word in [4, size, kind] {
                notes.extend_from_slice(&word.to_le_bytes());
            }
            notes.extend_from_slice(b"Xen\0");
            notes.extend_from_slice(desc);
        };
        note(XEN_ELFNOTE_DUMPCORE_NONE, &[]);
        let header = [self.numbering.magic(), self.contexts.len() as u64, self.pages as u64, PAGE as u64];
        note(XEN_ELFNOTE_DUMPCORE_HEADER, header.as_bytes());
        note(XEN_ELFNOTE_DUMPCORE_XEN_VERSION, &self.xen_version());
        note(XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION, FORMAT.as_bytes());
        notes
    }

    /// `struct xen_dumpcore_elfnote_xen_version_desc`; the lengths of the texts are those of version.h.
    fn xen_version(&self) -> Vec<u8> {
        let version = self.version;
        let mut desc = Vec::new();
        for number in [version.major, version.minor] {
            desc.extend_from_slice(&u64::from(number).to_le_bytes());
        }
        for (text, size) in [
            (&version.extra, 16),
            (&version.compiler, 64),
            (&version.compile_by, 16),
            (&version.compile_domain, 32),
            (&version.compile_date, 32),
            (&version.capabilities, 1024),
            (&version.changeset, 64),
        ] {
            let end = desc.len() + size;
            // A zero ends each.
            desc.extend(text.bytes().take(size - 1));
            desc.resize(end, 0);
        }
        desc.extend_from_slice(&version.virt_start.to_le_bytes());
        desc.extend_from_slice(&u64::from(version.page_size).to_le_bytes());
        desc
    }
}
