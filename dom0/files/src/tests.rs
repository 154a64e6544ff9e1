//! File systems made by hand, whole and spoiled.

use crate::blocks::{BLOCK, Blocks, Stop};
use crate::{Located, Piece, locate};
use alloc::vec;
use alloc::vec::Vec;

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put16(image: &mut [u8], at: usize, value: u16) {
    put(image, at, &value.to_le_bytes());
}

fn put32(image: &mut [u8], at: usize, value: u32) {
    put(image, at, &value.to_le_bytes());
}

fn look(image: &[u8], path: &str) -> Result<(Located, bool), Stop> {
    let mut blocks = Blocks::default();
    loop {
        match locate(&blocks, path) {
            Err(Stop::Missing(number)) => {
                let from = usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(BLOCK);
                let Some(bytes) =
                    image.get(from..image.len().min(from.saturating_add(BLOCK))).filter(|b| !b.is_empty())
                else {
                    return Err(Stop::Broken);
                };
                blocks.insert(number, bytes);
            }
            other => return other,
        }
    }
}

/// FAT12 with clusters of a sector: `hello.txt` in clusters 2, 3 and 6 has a long name as well.
fn fat() -> Vec<u8> {
    let mut image = vec![0; 100 * 512];
    put16(&mut image, 11, 512);
    image[13] = 1;
    put16(&mut image, 14, 1);
    image[16] = 1;
    put16(&mut image, 17, 16);
    put16(&mut image, 19, 100);
    put16(&mut image, 22, 1);
    put16(&mut image, 510, 0xaa55);
    // Entries of 12 bits: 2 -> 3, 3 -> 6, 6 is the last.
    put(&mut image, 512 + 3, &[0x03, 0x60, 0x00]);
    put(&mut image, 512 + 9, &[0xff, 0x0f, 0x00]);
    let root = 1024;
    image[root] = 0x41;
    image[root + 11] = 0x0f;
    for (index, unit) in "Höllo".encode_utf16().enumerate() {
        put16(&mut image, root + 1 + index * 2, unit);
    }
    put(&mut image, root + 32, b"HELLO   TXT");
    put16(&mut image, root + 32 + 26, 2);
    put32(&mut image, root + 32 + 28, 1300);
    image
}

/// ext4 with blocks of 1024 bytes: `/d/f` has a block, a hole, two blocks.
fn ext4() -> Vec<u8> {
    let mut image = vec![0; 32 * 1024];
    for (at, value) in [(0x14, 1), (0x18, 0), (0x28, 32), (0x60, 0x42)] {
        put32(&mut image, 1024 + at, value);
    }
    put16(&mut image, 1024 + 0x38, 0xef53);
    put16(&mut image, 1024 + 0x58, 128);
    put32(&mut image, 2048 + 8, 4);
    let mut inode = |number: usize, kind: u16, size: u32, extents: &[(u32, u16, u32)]| {
        let at = 4096 + (number - 1) * 128;
        put16(&mut image, at, kind);
        put32(&mut image, at + 4, size);
        put32(&mut image, at + 0x20, 0x8_0000);
        put16(&mut image, at + 0x28, 0xf30a);
        put16(&mut image, at + 0x2a, u16::try_from(extents.len()).unwrap());
        for (index, (first, count, start)) in extents.iter().enumerate() {
            let entry = at + 0x28 + 12 + index * 12;
            put32(&mut image, entry, *first);
            put16(&mut image, entry + 4, *count);
            put32(&mut image, entry + 8, *start);
        }
    };
    inode(2, 0x4000, 1024, &[(0, 1, 10)]);
    inode(12, 0x4000, 1024, &[(0, 1, 11)]);
    inode(13, 0x8000, 3500, &[(0, 1, 20), (2, 2, 25)]);
    for (block, inode, name) in [(10, 12, "d"), (11, 13, "f")] {
        let at = block * 1024;
        put32(&mut image, at, inode);
        put16(&mut image, at + 4, 1024);
        image[at + 6] = 1;
        put(&mut image, at + 8, name.as_bytes());
    }
    image
}

fn piece(at: u64, len: u64) -> Piece {
    Piece { at: Some(at), len }
}

#[test]
fn a_file_on_fat() {
    let image = fat();
    let data = 1024 + 512;
    let expected = Located { size: 1300, pieces: vec![piece(data, 1024), piece(data + 4 * 512, 276)] };
    for name in ["HELLO.TXT", "/hello.txt", "höllo"] {
        assert_eq!(look(&image, name), Ok((expected.clone(), true)), "{name}");
    }
    assert_eq!(look(&image, "hello"), Err(Stop::NotFound));
    assert_eq!(look(&image, "hello.txt/x"), Err(Stop::WrongKind));
    assert_eq!(look(&image, ""), Err(Stop::WrongKind));
}

/// FAT32 of 2 TiB in clusters of a sector, as it says: what is kept of its circles is not as long as they are.
#[test]
fn a_chain_that_goes_in_a_circle() {
    let mut image = fat();
    put16(&mut image, 17, 0);
    put16(&mut image, 19, 0);
    put32(&mut image, 32, u32::MAX);
    // The root directory is cluster 3 alone; clusters 2 and 4 follow each other for good.
    put32(&mut image, 44, 3);
    for (cluster, next) in [(2, 4), (3, 0x0fff_ffff), (4, 2)] {
        put32(&mut image, 512 + cluster * 4, next);
    }
    let root = 1024 + 512;
    put(&mut image, root, b"HELLO   TXT");
    put16(&mut image, root + 26, 2);
    for (size, expected) in [
        (1300, Ok(vec![piece(1024, 512), piece(2048, 512), piece(1024, 276)])),
        (u32::MAX, Err(Stop::Unsupported("a file in more than 65,536 pieces"))),
    ] {
        put32(&mut image, root + 28, size);
        assert_eq!(look(&image, "hello.txt").map(|(located, _)| located.pieces), expected);
    }
    put32(&mut image, 512 + 3 * 4, 2);
    assert_eq!(look(&image, "other"), Err(Stop::NotFound), "a directory ends where there may be no more entries");
}

#[test]
fn a_file_on_ext4() {
    let mut image = ext4();
    let pieces = vec![piece(20 * 1024, 1024), Piece { at: None, len: 1024 }, piece(25 * 1024, 1452)];
    assert_eq!(look(&image, "/d/f"), Ok((Located { size: 3500, pieces }, false)));
    assert_eq!(look(&image, "d"), Err(Stop::WrongKind));
    assert_eq!(look(&image, "d/g"), Err(Stop::NotFound));
    put32(&mut image, 1024 + 0x60, 0x46);
    assert!(matches!(look(&image, "d/f"), Err(Stop::Unsupported(_))), "its journal is to be replayed");
}

/// Whatever a disk says, the look ends.
#[test]
fn spoiled_file_systems() {
    let mut seed = 1u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    for (image, path) in [(fat(), "hello.txt"), (ext4(), "d/f")] {
        // Where the numbers are.
        let places: Vec<usize> = (0..image.len()).filter(|at| image[*at] != 0).collect();
        for _ in 0..20_000 {
            let mut spoiled = image.clone();
            for _ in 0..=random(3) {
                let at = (places[random(places.len())] + random(3)).min(image.len() - 1);
                spoiled[at] = u8::try_from(random(256)).unwrap();
            }
            let _ = look(&spoiled, path);
        }
    }
}
