//! The x86 filter of the .xz format ("The .xz File Format" 5.3.2): before packing, the targets of calls and jumps were made
//! absolute, so that the same function has the same bytes wherever it is called. This makes them relative again, in place.
//! The crate that unpacks has the filter too; this one looks at eight bytes at a time where there is neither opcode.

/// Opcode and target.
const LENGTH: usize = 5;

/// Which of the four bytes before the one looked at began with an opcode that was left alone: a bit each, the last one
/// lowest. Such a byte may be a part of the target, and the packer has treated it with more care then.
type Near = u32;

/// Whether a target is changed with such neighbours.
const fn is_clear(near: Near) -> bool {
    matches!(near, 0b000 | 0b001 | 0b010 | 0b100)
}

/// The byte of the target that the farthest of the neighbours reaches.
const fn reached(near: Near) -> u32 {
    match near {
        0b000 => 0,
        0b001 => 1,
        0b010 | 0b011 => 2,
        _ => 3,
    }
}

/// A target within 16 MiB has this as its highest byte.
const fn is_sign(byte: u8) -> bool {
    matches!(byte, 0x00 | 0xff)
}

/// The next `call` (E8) or `jmp` (E9) at `from` or later.
fn next_opcode(data: &[u8], from: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    while let Some(word) = data.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        // Zero bytes where there is an opcode; the lowest one found is one for certain.
        let differs = (u64::from_le_bytes(*word) & !ONES) ^ (0xe8 * ONES);
        let found = differs.wrapping_sub(ONES) & !differs & HIGH;
        if found != 0 {
            return Some(at + (found.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    let rest = data.get(at..)?;
    rest.iter().position(|byte| byte & 0xfe == 0xe8).map(|more| at + more)
}

/// Undoes the filter on a whole stream.
pub fn undo(data: &mut [u8]) {
    let mut near: Near = 0;
    let mut last: Option<usize> = None;
    let mut at = 0;
    while let Some(opcode) = next_opcode(data, at) {
        let Some(instruction) = data.get_mut(opcode..).and_then(<[u8]>::first_chunk_mut::<LENGTH>) else { return };
        near = match last.map(|last| opcode - last) {
            Some(distance @ 1..=3) => (near << (distance - 1)) & 0b111,
            _ => 0,
        };
        last = Some(opcode);
        at = opcode + 1;
        let [_, target @ ..] = instruction;
        let [.., sign] = *target;
        let [farthest, ..] = (u32::from_le_bytes(*target) >> (24 - 8 * reached(near))).to_le_bytes();
        let hidden = near != 0 && (!is_clear(near) || is_sign(farthest));
        if hidden || !is_sign(sign) {
            near = (near << 1) | 1;
            continue;
        }
        // The filter counts modulo 2^32.
        #[expect(clippy::cast_possible_truncation)]
        let behind = (opcode + LENGTH) as u32;
        let mut absolute = u32::from_le_bytes(*target);
        let relative = loop {
            let relative = absolute.wrapping_sub(behind);
            if near == 0 {
                break relative;
            }
            let bits = 8 * reached(near);
            let [byte, ..] = (relative >> (24 - bits)).to_le_bytes();
            if !is_sign(byte) {
                break relative;
            }
            absolute = relative ^ ((1 << (32 - bits)) - 1);
        };
        // 25 bits, the highest of which is the sign.
        let extended = if relative & (1 << 24) == 0 { relative & 0x00ff_ffff } else { relative | 0xff00_0000 };
        *target = extended.to_le_bytes();
        at = opcode + LENGTH;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use lzma_rust2::Read;
    use lzma_rust2::filter::bcj::BcjReader;

    /// Many opcodes, signs and small numbers, so that all sorts of neighbourhoods come about.
    fn instructions(mut seed: u32, len: usize) -> Vec<u8> {
        let step = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [_, low, byte, choice] = seed.to_le_bytes();
            match choice % 8 {
                0 | 1 => 0xe8 + low % 2,
                2 | 3 => 0,
                4 => 0xff,
                _ => byte,
            }
        };
        core::iter::repeat_with(step).take(len).collect()
    }

    #[test]
    fn as_the_crate_does_it() {
        for seed in 0..200 {
            let packed = instructions(seed, 3000 + seed as usize);
            let mut theirs = alloc::vec![0; packed.len()];
            let mut reader = BcjReader::new_x86(packed.as_slice(), 0);
            let mut at = 0;
            while at < theirs.len() {
                at += reader.read(&mut theirs[at..]).unwrap();
            }
            let mut ours = packed.clone();
            undo(&mut ours);
            assert!(ours == theirs, "seed {seed}");
            assert!(ours != packed);
        }
    }

    #[test]
    fn short_ones_are_left_alone() {
        for len in 0..LENGTH {
            let mut data = alloc::vec![0xe8; len];
            undo(&mut data);
            assert!(data.iter().all(|byte| *byte == 0xe8));
        }
    }
}
