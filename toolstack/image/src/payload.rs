//! From a file to the bytes of an ELF: the bzImage header (Linux, Documentation/arch/x86/boot.rst) and the compression.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use crate::checksum::{self, Checksum};
use crate::error::ImageError;
use crate::unpack;

/// How the kernel is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not at all: the ELF itself.
    Elf,
    /// RFC 1952.
    Gzip,
    /// The .xz container.
    Xz,
    /// The legacy .lzma container.
    Lzma,
    /// LZ4's legacy frame, as the kernel's build uses it.
    Lz4,
    /// RFC 8878.
    Zstd,
    /// bzip2's own.
    Bzip2,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elf => "ELF",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
        })
    }
}

impl Format {
    /// Whether the format has a checksum of its own, which finds what is damaged.
    const fn is_checked(self) -> bool {
        matches!(self, Self::Gzip | Self::Xz | Self::Zstd | Self::Bzip2)
    }

    fn detect(data: &[u8]) -> Result<Self, ImageError> {
        const ELF: &[u8] = b"\x7fELF";
        const MAGICS: &[(&[u8], Format)] = &[
            (ELF, Format::Elf),
            (&[0x1f, 0x8b], Format::Gzip),
            (&[0x1f, 0x9e], Format::Gzip),
            (b"\xfd7zXZ\0", Format::Xz),
            (&[0x5d, 0x00, 0x00], Format::Lzma),
            (&[0x02, 0x21, 0x4c, 0x18], Format::Lz4),
            (&[0x28, 0xb5, 0x2f, 0xfd], Format::Zstd),
            (b"BZh", Format::Bzip2),
        ];
        for (magic, format) in MAGICS {
            if data.starts_with(magic) {
                return Ok(*format);
            }
        }
        if data.starts_with(&[0x89, b'L', b'Z', b'O']) {
            return Err(ImageError::UnsupportedCompression("lzo"));
        }
        let mut first = [0; 4];
        for (to, from) in first.iter_mut().zip(data) {
            *to = *from;
        }
        Err(ImageError::UnknownCompression(first))
    }
}

/// The packed kernel inside a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// How it is packed.
    pub format: Format,
    /// The packed bytes.
    pub data: &'a [u8],
    /// The unpacked size, where the file announces it (a bzImage always does).
    pub unpacked_len: Option<u64>,
}

impl<'a> Payload<'a> {
    /// Finds the kernel in `file`: an ELF, a bzImage, or a compressed ELF.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn find(file: &'a [u8]) -> Result<Self, ImageError> {
        if file.is_empty() {
            return Err(ImageError::Empty);
        }
        if let Some(payload) = bzimage_payload(file)? {
            let payload = Self::packed(payload, true)?;
            if !payload.format.is_checked() && checksum::check(file) == Checksum::Wrong {
                return Err(ImageError::WrongChecksum);
            }
            return Ok(payload);
        }
        Self::packed(file, false).map_err(|e| match e {
            ImageError::UnknownCompression(_) => ImageError::NotAKernel,
            other => other,
        })
    }

    fn packed(data: &'a [u8], in_bzimage: bool) -> Result<Self, ImageError> {
        let format = Format::detect(data)?;
        // The kernel's build appends the unpacked size, little-endian, to every format that has no such trailer of
        // its own; gzip's ISIZE is the same four bytes.
        let trailer = data.last_chunk::<4>().map(|b| u64::from(u32::from_le_bytes(*b)));
        Ok(match format {
            Format::Elf => Self { format, data, unpacked_len: Some(data.len() as u64) },
            Format::Gzip => Self { format, data, unpacked_len: trailer },
            _ if in_bzimage => {
                let body = data.get(..data.len().saturating_sub(4)).unwrap_or(data);
                Self { format, data: body, unpacked_len: trailer }
            }
            _ => Self { format, data, unpacked_len: None },
        })
    }

    /// Unpacks into `out` and says how many bytes that were.
    ///
    /// # Errors
    /// Damaged data, or more of it than `out` holds.
    pub fn unpack_into(&self, out: &mut [u8]) -> Result<usize, ImageError> {
        let len = self.unpack_any(out)?;
        match self.unpacked_len {
            Some(size) if size != len as u64 => Err(ImageError::Short { format: self.format, len: len as u64, size }),
            _ => Ok(len),
        }
    }

    fn unpack_any(&self, out: &mut [u8]) -> Result<usize, ImageError> {
        match self.format {
            Format::Elf => {
                let Some(to) = out.get_mut(..self.data.len()) else {
                    return Err(ImageError::Overflow { format: self.format, size: out.len() as u64 });
                };
                to.copy_from_slice(self.data);
                Ok(self.data.len())
            }
            Format::Gzip => unpack::gzip::unpack(self.data, out),
            Format::Xz => unpack::xz::unpack(self.data, out),
            Format::Lzma => unpack::lzma::unpack(self.data, out),
            Format::Lz4 => unpack::lz4::unpack(self.data, out),
            Format::Zstd => unpack::zstd::unpack(self.data, out),
            Format::Bzip2 => unpack::bzip2::unpack(self.data, out),
        }
    }

    /// Unpacks into memory of its own, of at most `limit` bytes. An ELF that is not packed is not copied.
    ///
    /// # Errors
    /// Damaged data, more than `limit` bytes, or no memory.
    pub fn unpack(&self, limit: u64) -> Result<Cow<'a, [u8]>, ImageError> {
        if let Some(size) = self.unpacked_len
            && size > limit
        {
            return Err(ImageError::TooLarge { size, limit });
        }
        if self.format == Format::Elf {
            return Ok(Cow::Borrowed(self.data));
        }
        if let Some(size) = self.unpacked_len {
            return self.unpack_vec(size).map(Cow::Owned);
        }
        // A bare compressed file announces nothing: double until it fits. Only hand-made files come this way.
        let mut size = (self.data.len() as u64).saturating_mul(4).clamp(1 << 16, limit);
        loop {
            match self.unpack_vec(size) {
                Err(ImageError::Overflow { .. }) if size < limit => size = size.saturating_mul(2).min(limit),
                Err(ImageError::Overflow { .. }) => {
                    return Err(ImageError::TooLarge { size: size + 1, limit });
                }
                other => return other.map(Cow::Owned),
            }
        }
    }

    fn unpack_vec(&self, size: u64) -> Result<Vec<u8>, ImageError> {
        let mut out = Vec::new();
        let len = usize::try_from(size).map_err(|_| ImageError::OutOfMemory(size))?;
        out.try_reserve_exact(len).map_err(|_| ImageError::OutOfMemory(size))?;
        out.resize(len, 0);
        let written = self.unpack_into(&mut out)?;
        out.truncate(written);
        Ok(out)
    }
}

/// The compressed kernel within a bzImage, or None where the file is not one.
fn bzimage_payload(file: &[u8]) -> Result<Option<&[u8]>, ImageError> {
    const BOOT_FLAG: usize = 0x1fe;
    const MAGIC: usize = 0x202;
    const HEADER_END: usize = 0x250;
    if file.get(BOOT_FLAG..BOOT_FLAG + 2) != Some(&[0x55, 0xaa]) || file.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Ok(None);
    }
    let have = file.len() as u64;
    let Some(header) = file.get(..HEADER_END) else {
        return Err(ImageError::Truncated { what: "the bzImage header", need: HEADER_END as u64, have });
    };
    let byte = |at: usize| header.get(at).copied().unwrap_or(0);
    let word = |at: usize| u64::from(u32::from_le_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]));
    let (minor, major) = (byte(0x206), byte(0x207));
    if (major, minor) < (2, 8) {
        return Err(ImageError::OldBootProtocol { major, minor });
    }
    // Zero means four, says the boot protocol.
    let setup_sectors = match byte(0x1f1) {
        0 => 4,
        n => u64::from(n),
    };
    let start = (setup_sectors + 1) * 512 + word(0x248);
    let end = start + word(0x24c);
    let range = usize::try_from(start).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX);
    match file.get(range) {
        Some(payload) => Ok(Some(payload)),
        None => Err(ImageError::Truncated { what: "the bzImage payload", need: end, have }),
    }
}
