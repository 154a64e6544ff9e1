//! An unpacked kernel: its ELF segments by physical address, and its Xen notes put together.

use alloc::vec::Vec;

use elf::ElfBytes;
use elf::abi::{EM_386, EM_X86_64, PT_LOAD, PT_NOTE, SHT_NOTE};
use elf::endian::LittleEndian;
use elf::file::Class;

use crate::error::ImageError;
use crate::notes::Notes;

/// Bytes to load, and zeros after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Guest-physical address: the ELF's `p_paddr` less PADDR_OFFSET. Its virtual address is this plus VIRT_BASE;
    /// `p_vaddr` says nothing (Linux has a segment with `p_vaddr` 0).
    pub start: u64,
    /// The bytes of the file.
    pub data: &'a [u8],
    /// Bytes in memory; at least `data.len()`.
    pub size: u64,
}

/// A PV kernel that can be laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel<'a> {
    /// In the ELF's order, none empty, none wrapping.
    pub segments: Vec<Segment<'a>>,
    /// What its notes say.
    pub notes: Notes<'a>,
    /// Virtual address of pfn 0.
    pub virt_base: u64,
    /// Virtual address of the first instruction.
    pub entry: u64,
    /// Lowest guest-physical address of a segment.
    pub start: u64,
    /// End of the highest segment, guest-physical.
    pub end: u64,
}

const FEATURE_SUPERVISOR_MODE_KERNEL: u32 = 1 << 3;
const FEATURE_AUTO_TRANSLATED_PHYSMAP: u32 = 1 << 2;

impl<'a> Kernel<'a> {
    /// Reads an unpacked ELF64 kernel with Xen notes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(image: &'a [u8]) -> Result<Self, ImageError> {
        if image.starts_with(b"\x7fELF\x01") {
            return Err(ImageError::ThirtyTwoBit);
        }
        let file = open(image)?;
        let notes = read_notes(&file, image)?;
        if !notes.found {
            return Err(ImageError::NoXenNotes("PV"));
        }
        // A kernel with only the 32-bit physical entry is a PVH kernel.
        if notes.entry.is_none() && notes.phys32_entry.is_some() {
            return Err(ImageError::NoPvEntry);
        }
        if notes.required_features & FEATURE_SUPERVISOR_MODE_KERNEL != 0 {
            return Err(ImageError::RequiredFeature("supervisor_mode_kernel"));
        }
        if notes.required_features & FEATURE_AUTO_TRANSLATED_PHYSMAP != 0 {
            return Err(ImageError::RequiredFeature("auto_translated_physmap"));
        }
        let segments = read_segments(&file, image, notes.paddr_offset.unwrap_or(0))?;
        let start = segments.iter().map(|s| s.start).min().unwrap_or(0);
        let end = segments.iter().map(|s| s.start + s.size).max().unwrap_or(0);
        if segments.is_empty() {
            return Err(ImageError::BadElf("nothing to load"));
        }
        let virt_base = notes.virt_base.unwrap_or(0);
        if !virt_base.is_multiple_of(crate::PAGE_SIZE) {
            return Err(ImageError::BadNote { note: "VIRT_BASE", what: "not on a page boundary" });
        }
        let Some(virt_end) = virt_base.checked_add(end - 1) else {
            return Err(ImageError::BadNote {
                note: "VIRT_BASE",
                what: "the kernel reaches past the end of the address space",
            });
        };
        let entry = notes.entry.unwrap_or(file.ehdr.e_entry);
        let inside = virt_base + start..=virt_end;
        if !inside.contains(&entry) {
            return Err(ImageError::BadNote { note: "ENTRY", what: "outside of the kernel" });
        }
        if let Some(page) = notes.hypercall_page {
            if !page.is_multiple_of(crate::PAGE_SIZE) {
                return Err(ImageError::BadNote { note: "HYPERCALL_PAGE", what: "not on a page boundary" });
            }
            if !inside.contains(&page) {
                return Err(ImageError::BadNote { note: "HYPERCALL_PAGE", what: "outside of the kernel" });
            }
        }
        Ok(Self { segments, notes, virt_base, entry, start, end })
    }
}

/// An ELF of a 64-bit kernel, or of a 32-bit one, which only PVH domains can run.
pub(crate) fn open(image: &[u8]) -> Result<ElfBytes<'_, LittleEndian>, ImageError> {
    const CLASS: usize = 4;
    if image.is_empty() {
        return Err(ImageError::Empty);
    }
    if !image.starts_with(b"\x7fELF") {
        return Err(ImageError::NotAKernel);
    }
    match image.get(CLASS) {
        Some(1 | 2) => {}
        Some(_) => return Err(ImageError::BadElf("unknown class")),
        None => return Err(truncated("the ELF header", 64, image)),
    }
    let file = ElfBytes::<LittleEndian>::minimal_parse(image).map_err(|e| match e {
        elf::ParseError::SliceReadError((_, end)) => truncated("an ELF table", end as u64, image),
        elf::ParseError::UnsupportedElfEndianness(_) => ImageError::BadElf("big-endian"),
        elf::ParseError::UnsupportedVersion(_) => ImageError::BadElf("unknown version"),
        elf::ParseError::BadEntsize(_) => ImageError::BadElf("wrong size of a table's entries"),
        _ => ImageError::BadElf("bad header"),
    })?;
    let machine = match file.ehdr.class {
        Class::ELF64 => EM_X86_64,
        Class::ELF32 => EM_386,
    };
    if file.ehdr.e_machine != machine {
        return Err(ImageError::WrongMachine(file.ehdr.e_machine));
    }
    Ok(file)
}

const fn truncated(what: &'static str, need: u64, image: &[u8]) -> ImageError {
    ImageError::Truncated { what, need, have: image.len() as u64 }
}

fn bytes<'a>(image: &'a [u8], offset: u64, len: u64, what: &'static str) -> Result<&'a [u8], ImageError> {
    let end = offset.saturating_add(len);
    usize::try_from(offset)
        .ok()
        .zip(usize::try_from(end).ok())
        .and_then(|(from, to)| image.get(from..to))
        .ok_or(truncated(what, end, image))
}

pub(crate) fn read_notes<'a>(file: &ElfBytes<'a, LittleEndian>, image: &'a [u8]) -> Result<Notes<'a>, ImageError> {
    let mut notes = Notes::default();
    let mut left = image.len() as u64;
    let mut read = |notes: &mut Notes<'a>, offset, len, what| {
        let content = bytes(image, offset, len, what)?;
        // Each byte of the file is looked at once.
        left = left.checked_sub(len).ok_or(ImageError::BadElf("its notes overlap"))?;
        notes.read(content)
    };
    for header in file.segments().into_iter().flatten().filter(|h| h.p_type == PT_NOTE) {
        read(&mut notes, header.p_offset, header.p_filesz, "a note segment")?;
    }
    if !notes.found {
        for header in file.section_headers().into_iter().flatten().filter(|h| h.sh_type == SHT_NOTE) {
            read(&mut notes, header.sh_offset, header.sh_size, "a note section")?;
        }
    }
    Ok(notes)
}

pub(crate) fn read_segments<'a>(
    file: &ElfBytes<'a, LittleEndian>,
    image: &'a [u8],
    paddr_offset: u64,
) -> Result<Vec<Segment<'a>>, ImageError> {
    /// No x86-64 CPU has more physical address bits.
    const MAX_PADDR: u64 = 1 << 52;
    let mut segments = Vec::new();
    let (mut work, mut lowest, mut highest) = (0u64, u64::MAX, 0);
    for (index, header) in file.segments().into_iter().flatten().enumerate() {
        if header.p_type != PT_LOAD || header.p_memsz == 0 {
            continue;
        }
        let bad = |what| ImageError::BadSegment { index, paddr: header.p_paddr, size: header.p_memsz, what };
        if header.p_filesz > header.p_memsz {
            return Err(bad("has more bytes in the file than in memory"));
        }
        let Some(start) = header.p_paddr.checked_sub(paddr_offset) else {
            return Err(bad("lies below PADDR_OFFSET"));
        };
        let Some(end) = start.checked_add(header.p_memsz).filter(|end| *end <= MAX_PADDR) else {
            return Err(bad("reaches past the end of physical memory"));
        };
        work = work.saturating_add(header.p_memsz);
        (lowest, highest) = (lowest.min(start), highest.max(end));
        let data = bytes(image, header.p_offset, header.p_filesz, "a segment")?;
        segments.push(Segment { start, data, size: header.p_memsz });
    }
    // Loading takes no longer than the memory is large; Xen's libelf allows twice that, too.
    if work > highest.saturating_sub(lowest).saturating_mul(2) {
        return Err(ImageError::BadElf("its segments overlap"));
    }
    Ok(segments)
}
