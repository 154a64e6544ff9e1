//! What can be wrong with an image or with the request to lay it out. Every message names the number that is wrong.

use crate::payload::Format;

/// Why a file cannot be used as a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Neither magic was found.
    #[error("not an ELF file or bzImage")]
    NotAKernel,
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// A structure reaches past the end of the file.
    #[error("truncated: {what} needs {need} bytes, the file has {have}")]
    Truncated {
        /// The structure.
        what: &'static str,
        /// The end of the structure in the file.
        need: u64,
        /// The length of the file.
        have: u64,
    },
    /// A bzImage from before protocol 2.08 names no payload.
    #[error("bzImage boot protocol {major}.{minor} names no payload (2.08 is needed)")]
    OldBootProtocol {
        /// The protocol's major version.
        major: u8,
        /// The protocol's minor version.
        minor: u8,
    },
    /// The payload starts with unknown bytes.
    #[error("unknown compression (the payload starts with {0:02x?})")]
    UnknownCompression([u8; 4]),
    /// A known compression that is not supported.
    #[error("unsupported compression {0}")]
    UnsupportedCompression(&'static str),
    /// The compressed data is damaged.
    #[error("damaged {format} data: {what}")]
    Damaged {
        /// The compression.
        format: Format,
        /// What the decoder said.
        what: &'static str,
    },
    /// The file has a checksum of its own, and it is wrong.
    #[error("the file is damaged: the checksum at its end is wrong")]
    WrongChecksum,
    /// The output is smaller than the image said.
    #[error("damaged {format} data: it unpacks to {len} bytes, not to the {size} that it announces")]
    Short {
        /// The compression.
        format: Format,
        /// The size it has.
        len: u64,
        /// The announced size.
        size: u64,
    },
    /// The output is larger than the image said.
    #[error("the {format} payload unpacks to more than the {size} bytes it announces")]
    Overflow {
        /// The compression.
        format: Format,
        /// The announced size.
        size: u64,
    },
    /// More than the caller allows.
    #[error("too large: {size} bytes, the limit is {limit}")]
    TooLarge {
        /// The size it has.
        size: u64,
        /// The size it may have.
        limit: u64,
    },
    /// No memory for the unpacked image.
    #[error("no memory for {0} bytes of unpacked kernel")]
    OutOfMemory(u64),
    /// A 32-bit ELF, for a PV domain.
    #[error("a 32-bit kernel, which only type=\"pvh\" can run")]
    ThirtyTwoBit,
    /// An ELF of another machine.
    #[error("an ELF file for machine {0}, not x86-64 (62) or i386 (3)")]
    WrongMachine(u16),
    /// The ELF is malformed.
    #[error("malformed ELF: {0}")]
    BadElf(&'static str),
    /// A segment is out of place.
    #[error("segment {index} (paddr {paddr:#x}, {size:#x} bytes): {what}")]
    BadSegment {
        /// Its number among the program headers.
        index: usize,
        /// Its physical address.
        paddr: u64,
        /// Its size in memory.
        size: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The kernel was not built for Xen.
    #[error("no Xen notes: the kernel was not built as a Xen guest of type {0}")]
    NoXenNotes(&'static str),
    /// The notes lack a PV entry.
    #[error("no PV entry: the notes do not describe a PV guest")]
    NoPvEntry,
    /// The notes lack a PVH entry.
    #[error("no PVH entry: the notes do not describe a PVH guest")]
    NoPvhEntry,
    /// A note has a value that cannot be.
    #[error("Xen note {note}: {what}")]
    BadNote {
        /// The note's name.
        note: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// The guest asks for what cannot be given.
    #[error("the kernel requires the feature {0}, which a PV domain does not have")]
    RequiredFeature(&'static str),
}

/// Why an image cannot be laid out in a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The domain is too small.
    #[error("not enough memory: the kernel and its start-of-day region need {need} pages, the domain has {have}")]
    TooSmall {
        /// Pages needed.
        need: u64,
        /// Pages the domain has.
        have: u64,
    },
    /// The region leaves the part of the address space a guest has.
    #[error("the start-of-day region {start:#x}..{end:#x} does not fit the guest's address space")]
    AddressSpace {
        /// First address.
        start: u64,
        /// Last address.
        end: u64,
    },
    /// What a PVH domain begins with lies below 4 GiB, and there is no room.
    #[error("the kernel and the ramdisk need {need} pages below 4 GiB, where the domain has {have}")]
    NoRoomBelow4GiB {
        /// Pages that they need.
        need: u64,
        /// Pages that it has there.
        have: u64,
    },
    /// A ramdisk or a domain beyond all measure.
    #[error("{0} is too large")]
    TooLarge(&'static str),
    /// The command line does not fit `start_info`.
    #[error("the command line has {have} bytes, the limit is {limit}")]
    CommandLine {
        /// Its length.
        have: usize,
        /// The longest there can be.
        limit: usize,
    },
}
