//! The checksum that the kernel's build appends to a bzImage (Linux, Documentation/arch/x86/boot.rst, "The image
//! checksum"). Of the payload's formats lz4's and lzma's have none of their own, so this is all that tells damage.

use crc32fast::Hasher;

/// The first version whose build appends none.
const DROPPED: (u32, u32) = (6, 15);

/// What the checksum says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It is right.
    Right,
    /// It is wrong.
    Wrong,
    /// There is none.
    None,
}

/// The state of a checksum over something that ends with its own: the kernel's build does not invert it.
const NOTHING_LEFT: u32 = !0;

/// Compares. A kernel that was signed has other bytes than when it was built in two fields of its PE header, the
/// checksum and the place of the certificates, which were zero then; the signature itself comes after what is counted.
pub fn check(file: &[u8]) -> Checksum {
    if version(file).is_none_or(|version| version >= DROPPED) {
        return Checksum::None;
    }
    let Some(counted) = counted(file) else { return Checksum::None };
    let mut crc = Hasher::new();
    let mut rest = counted;
    if let Some(fields) = signed_fields(counted) {
        for (at, length) in fields {
            let Some((before, behind)) = rest.split_at_checked(at - (counted.len() - rest.len())) else {
                return Checksum::Wrong;
            };
            crc.update(before);
            crc.update(&[0; 8][..length]);
            let Some(behind) = behind.get(length..) else { return Checksum::Wrong };
            rest = behind;
        }
    }
    crc.update(rest);
    if crc.finalize() == NOTHING_LEFT { Checksum::Right } else { Checksum::Wrong }
}

fn word(file: &[u8], at: usize) -> Option<usize> {
    let bytes = file.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

/// The part of the file that the checksum covers, itself at the end: `syssize` counts 16 bytes after the setup code.
fn counted(file: &[u8]) -> Option<&[u8]> {
    let setup_sectors = match *file.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let end = word(file, 0x1f4)?.checked_mul(16)?.checked_add((setup_sectors + 1) * 512)?;
    file.get(..end)
}

/// Where the PE header has its checksum and the directory entry of the certificates, and how long they are ("PE Format",
/// optional header of PE32+). `None` where there is no such header.
fn signed_fields(file: &[u8]) -> Option<[(usize, usize); 2]> {
    const PE32_PLUS: [u8; 2] = [0x0b, 0x02];
    let pe = word(file, 0x3c)?;
    if !file.get(pe..)?.starts_with(b"PE\0\0") {
        return None;
    }
    let optional = pe.checked_add(24)?;
    file.get(optional..)?.starts_with(&PE32_PLUS).then_some([(optional + 64, 4), (optional + 144, 8)])
}

/// The kernel's version, from the text that its header points to.
fn version(file: &[u8]) -> Option<(u32, u32)> {
    let at = file.get(0x20e..)?.first_chunk::<2>()?;
    let at = usize::from(u16::from_le_bytes(*at));
    if at == 0 {
        return None;
    }
    let text = file.get(at + 0x200..)?;
    let text = text.get(..text.iter().take(64).position(|byte| !byte.is_ascii_digit() && *byte != b'.')?)?;
    let mut numbers = core::str::from_utf8(text).ok()?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
