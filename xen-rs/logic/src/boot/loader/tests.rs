//! Loaders' structures as the specifications draw them, and as no loader would leave them.

use super::*;
use crate::boot::memory_map::MemoryKind;
use proptest::prelude::*;

/// Memory that begins at [`BASE`].
const BASE: u64 = 0x1_0000;

impl Physical for &[u8] {
    fn byte(self, at: u64) -> u8 {
        let offset = at.checked_sub(BASE).and_then(|offset| usize::try_from(offset).ok());
        offset.and_then(|offset| self.get(offset)).copied().unwrap_or(0)
    }
}

/// Places words and strings.
struct Image(Vec<u8>);

impl Image {
    fn new() -> Self {
        Image(alloc::vec![0; 0x1000])
    }

    fn word(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    fn long(mut self, offset: usize, value: u64) -> Self {
        self.0[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        self
    }

    fn text(mut self, offset: usize, text: &str) -> Self {
        self.0[offset..offset + text.len()].copy_from_slice(text.as_bytes());
        self
    }
}

const AT: u32 = 0x1_0000;

#[test]
fn multiboot_1() {
    let image = Image::new()
        .word(0, 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9)
        .word(16, AT + 0x100)
        .word(20, 1)
        .word(24, AT + 0x200)
        .word(44, 48)
        .word(48, AT + 0x300)
        .word(64, AT + 0x400)
        .text(0x100, "/boot/xen-rs  console=com1 ")
        .word(0x200, 0x20_0000)
        .word(0x204, 0x30_0000)
        .word(0x208, AT + 0x500)
        .word(0x300, 20)
        .long(0x304, 0x10_0000)
        .long(0x30c, 0x700_0000)
        .word(0x314, 1)
        .word(0x318, 20)
        .long(0x31c, 0)
        .long(0x324, 0x9_f000)
        .word(0x32c, 1)
        .text(0x400, "qemu")
        .text(0x500, "vmlinuz root=/dev/xvda");
    let told = read(0x2bad_b002, BASE, &image.0[..]).unwrap();
    assert_eq!((&*told.command_line, &*told.loader), ("console=com1", "qemu"));
    let module = Module { command_line: "root=/dev/xvda".into(), phys: 0x20_0000..0x30_0000 };
    assert_eq!(told.modules, [module]);
    let ram = |start, end| MemoryRange { start, end, kind: MemoryKind::Ram };
    assert_eq!(told.memory_map, [ram(0, 0x9_f000), ram(0x10_0000, 0x710_0000)]);
    // GRUB 2 puts no name in front.
    let image = image.text(0x400, "GRUB 2.06");
    assert_eq!(read(0x2bad_b002, BASE, &image.0[..]).unwrap().command_line, "/boot/xen-rs  console=com1");
}

#[test]
fn multiboot_2() {
    let image = Image::new()
        .word(0, 0x100)
        // A command line of five bytes.
        .word(8, 1)
        .word(12, 13)
        .text(16, "a=b c")
        .word(24, 3)
        .word(28, 20)
        .word(32, 0x20_0000)
        .word(36, 0x30_0000)
        .text(40, "mod")
        .word(48, 6)
        .word(52, 40)
        .word(56, 24)
        .long(64, 0x10_0000)
        .long(72, 0x100_0000)
        .word(80, 1)
        .word(88, 14)
        .word(92, 28)
        .word(120, 15)
        .word(124, 44)
        .word(168, 0)
        .word(172, 8);
    let told = read(0x36d7_6289, BASE, &image.0[..]).unwrap();
    assert_eq!(told.command_line, "a=b c");
    assert_eq!(told.modules, [Module { command_line: "mod".into(), phys: 0x20_0000..0x30_0000 }]);
    assert_eq!(told.memory_map, [MemoryRange { start: 0x10_0000, end: 0x110_0000, kind: MemoryKind::Ram }]);
    assert_eq!(told.rsdp, Some(BASE + 128), "the newer copy");
}

#[test]
fn nobody() {
    assert_eq!(read(0x1234, BASE, &[][..]), None);
    assert_eq!(read(PVH_MAGIC, BASE, &[0; 64][..]), None, "the structure has another magic number");
}

proptest! {
    /// Whatever is there: it comes to an end, and what is found is little and in order.
    #[test]
    fn anything(bytes in prop::collection::vec(any::<u8>(), 0..600), magic in 0..3usize) {
        let magic = [0x2bad_b002, 0x36d7_6289, PVH_MAGIC][magic];
        let mut bytes = bytes;
        if magic == PVH_MAGIC && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&magic.to_le_bytes());
        }
        if let Some(told) = read(magic, BASE, &bytes[..]) {
            prop_assert!(told.modules.len() <= MAX_ENTRIES && told.memory_map.len() <= 2 * MAX_ENTRIES);
            prop_assert!(told.memory_map.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
