//! Kernels that no hypervisor can boot, each for one reason: input for the suites boot and toolstack.

use anyhow::{Context, Result, bail};

/// What can be wrong with a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An ELF file for i386, as PV kernels of old were.
    ThirtyTwoBit,
    /// Its memory does not fit in any domain of the tests' machines.
    TooLarge,
    /// The first half of a file.
    Truncated,
    /// One bit of it is another one.
    Corrupted,
}

impl Fault {
    /// By the name that stands behind `spoiled:`.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "32-bit" => Ok(Self::ThirtyTwoBit),
            "too-large" => Ok(Self::TooLarge),
            "truncated" => Ok(Self::Truncated),
            "corrupted" => Ok(Self::Corrupted),
            other => bail!("spoiled:{other}: only 32-bit, too-large, truncated and corrupted are known"),
        }
    }

    /// The part that it is made from.
    pub const fn good(self) -> &'static str {
        match self {
            Self::ThirtyTwoBit | Self::TooLarge => "guest:hello",
            Self::Truncated | Self::Corrupted => "kernel:cloud",
        }
    }

    /// A kernel with that fault, out of a good one.
    pub fn kernel(self, good: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::ThirtyTwoBit => Ok(thirty_two_bit()),
            Self::TooLarge => too_large(good).context("a kernel to spoil"),
            Self::Truncated => Ok(good.get(..good.len() / 2).unwrap_or_default().to_vec()),
            Self::Corrupted => {
                let mut file = good.to_vec();
                *file.get_mut(good.len() / 2).context("nothing to spoil")? ^= 0x10;
                Ok(file)
            }
        }
    }
}

/// A whole ELF32 file (System V ABI, "ELF Header", "Program Header"): one segment with one `ret`.
fn thirty_two_bit() -> Vec<u8> {
    const HEADER: u16 = 52;
    const PROGRAM_HEADER: u16 = 32;
    const BASE: u32 = 0x10_0000;
    let code = HEADER + PROGRAM_HEADER;
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // Executable, for an i386.
    [2_u16, 3].iter().for_each(|half| file.extend(half.to_le_bytes()));
    let entry = BASE + u32::from(code);
    // Version, entry, program headers, section headers, flags.
    [1, entry, HEADER.into(), 0, 0].iter().for_each(|word: &u32| file.extend(word.to_le_bytes()));
    [HEADER, PROGRAM_HEADER, 1, 40, 0, 0].iter().for_each(|half| file.extend(half.to_le_bytes()));
    let size = u32::from(code) + 1;
    // Loaded, from the file's first byte, virtual and physical address, sizes, readable and executable, alignment.
    [1, 0, BASE, BASE, size, size, 5, 0x1000].iter().for_each(|word: &u32| file.extend(word.to_le_bytes()));
    file.push(0xc3);
    file
}

/// The same kernel with 8 GiB of zeroes behind its last segment.
fn too_large(good: &[u8]) -> Result<Vec<u8>> {
    const PT_LOAD: u32 = 1;
    let word = |at: usize| Some(u64::from_le_bytes(good.get(at..at + 8)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_le_bytes(good.get(at..at + 2)?.try_into().ok()?));
    let headers = (|| Some((usize::try_from(word(32)?).ok()?, usize::from(half(54)?), usize::from(half(56)?))))();
    let (first, size, count) = headers.context("no ELF64 header")?;
    let last = (0..count)
        .map(|index| first + index * size)
        .filter(|&at| good.get(at..at + 4) == Some(&PT_LOAD.to_le_bytes()))
        .max_by_key(|&at| word(at + 24))
        .context("no segment to load")?;
    let mut file = good.to_vec();
    // p_memsz.
    file.get_mut(last + 40..last + 48).context("a cut program header")?.copy_from_slice(&(8_u64 << 30).to_le_bytes());
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_where_the_standard_has_them() {
        let file = thirty_two_bit();
        assert_eq!(file.len(), 52 + 32 + 1);
        assert_eq!(file.get(24..28), Some(&0x10_0054_u32.to_le_bytes()[..]));
        assert!(too_large(b"nothing").is_err());
    }
}
