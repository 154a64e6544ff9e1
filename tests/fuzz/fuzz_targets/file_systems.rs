//! A volume of any bytes in which a file is looked for: in ext4 and in FAT.
//!
//! The input is patches (place, length, bytes) to a small volume of one of the two kinds, so that a mutation changes one thing of a
//! file system and not its magic numbers each time.
#![no_main]
#![forbid(unsafe_code)]

use file_places::{BLOCK, Blocks, MOST, Stop, locate};
use libfuzzer_sys::fuzz_target;

const SIZE: usize = 256 << 10;
/// Paths that are looked for: a file, one in a directory, and what is none.
const PATHS: [&str; 3] = ["hello.txt", "directory/a long name.txt", "/"];

fuzz_target!(|data: &[u8]| {
    let Some((&kind, mut left)) = data.split_first() else { return };
    let mut image = vec![0; SIZE];
    // A volume without any magic number is soon done with.
    if kind % 2 == 0 {
        image[1024 + 0x38..1024 + 0x3a].copy_from_slice(&0xef53u16.to_le_bytes());
    } else {
        image[510..512].copy_from_slice(&0xaa55u16.to_le_bytes());
    }
    while let Some((&[high, middle, low, len], rest)) = left.split_first_chunk() {
        let at = usize::from(high % 4) << 16 | usize::from(middle) << 8 | usize::from(low);
        let len = usize::from(len % 64).min(rest.len()).min(SIZE - at);
        let (bytes, rest) = rest.split_at(len);
        image[at..at + len].copy_from_slice(bytes);
        left = rest;
    }
    let path = PATHS[usize::from(kind / 2) % PATHS.len()];
    let mut blocks = Blocks::default();
    loop {
        match locate(&blocks, path) {
            Err(Stop::Missing(number)) => {
                assert!(blocks.len() <= MOST);
                let from = usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(BLOCK);
                let Some(bytes) = image.get(from..(from.saturating_add(BLOCK)).min(SIZE)).filter(|b| !b.is_empty()) else {
                    return;
                };
                blocks.insert(number, bytes);
            }
            Ok((located, _)) => {
                // What is read is as long as the file says that it is: memory is set aside for that.
                let total = located.pieces.iter().try_fold(0u64, |sum, piece| sum.checked_add(piece.len));
                assert_eq!(total, Some(located.size));
                return;
            }
            Err(_) => return,
        }
    }
});
