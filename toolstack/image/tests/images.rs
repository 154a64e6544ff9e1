//! Files as they come: good ones, damaged ones, and, where `XEN_RS_TEST_KERNELS` names some (separated by colons), real ones.

#[path = "support/packed.rs"]
mod packed;
mod support;

use domain_image::{Format, ImageError, Kernel, LayoutError, Payload, Plan, Request, Role, pvh};
use packed::{gzip, lz4};
use support::{Load, bzimage, elf, elf_32, linux_notes, small_kernel};

const LIMIT: u64 = 1 << 30;

fn load_error(file: &[u8]) -> ImageError {
    let unpacked = match Payload::find(file).and_then(|p| p.unpack(1 << 24).map(std::borrow::Cow::into_owned)) {
        Ok(unpacked) => unpacked,
        Err(e) => return e,
    };
    Kernel::parse(&unpacked).unwrap_err()
}

fn with_size(mut payload: Vec<u8>, size: usize) -> Vec<u8> {
    payload.extend(u32::try_from(size).unwrap().to_le_bytes());
    payload
}

#[test]
fn plain_and_packed() {
    let kernel = small_kernel(0x10_0000, &[]);
    for (file, format) in [
        (kernel.clone(), Format::Elf),
        (gzip(&kernel), Format::Gzip),
        (lz4(&kernel), Format::Lz4),
        (bzimage(&gzip(&kernel)), Format::Gzip),
        (bzimage(&with_size(lz4(&kernel), kernel.len())), Format::Lz4),
    ] {
        let payload = Payload::find(&file).unwrap();
        assert_eq!(payload.format, format);
        assert_eq!(payload.unpack(LIMIT).unwrap(), kernel);
    }
}

#[test]
fn notes() {
    let image = small_kernel(0x10_0000, &[]);
    let kernel = Kernel::parse(&image).unwrap();
    assert_eq!(kernel.notes.guest_os, "linux");
    assert_eq!(kernel.notes.loader, "generic");
    assert_eq!(kernel.notes.l1_mfn_valid, Some((1, 1)));
    assert_eq!(kernel.notes.supported_features, 0x8811);
    assert_eq!(kernel.notes.required_features, 1);
    assert!(kernel.notes.mod_start_pfn && kernel.notes.hypercall_page.is_none());
    assert_eq!((kernel.start, kernel.end), (0x10_0000, 0x20_0000));
    assert_eq!(kernel.segments[0].data.len(), 16384);
}

#[test]
fn messages() {
    let kernel = small_kernel(0x10_0000, &[]);
    let load = |paddr, memsz| vec![Load { paddr, data: vec![0; 16], memsz }];
    let mut narrow = kernel.clone();
    narrow[4] = 1;
    let mut arm = kernel.clone();
    arm[18] = 183;
    let mut old = bzimage(&gzip(&kernel));
    old[0x206] = 7;
    let damaged = bzimage(&with_size(vec![0x02, 0x21, 0x4c, 0x18, 4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], 100));
    let short = bzimage(&with_size(lz4(&kernel), 100));
    let huge = bzimage(&with_size(lz4(&kernel), 0x7000_0000));
    let table: &[(&[u8], &str)] = &[
        (b"", "the file is empty"),
        (b"#!/bin/sh\n", "not an ELF file or bzImage"),
        (&bzimage(b"abcdefgh"), "unknown compression (the payload starts with [61, 62, 63, 64])"),
        (&bzimage(&[0x89, b'L', b'Z', b'O']), "unsupported compression lzo"),
        (&bzimage(&with_size(b"BZh91AY".to_vec(), 100)), "damaged bzip2 data: the stream ends early"),
        (&old, "bzImage boot protocol 2.7 names no payload (2.08 is needed)"),
        (&bzimage(&gzip(&kernel))[..1200], "truncated: the bzImage payload needs"),
        (&damaged, "damaged lz4 data: bad block"),
        (&short, "the lz4 payload unpacks to more than the 100 bytes it announces"),
        (&huge, "too large: 1879048192 bytes, the limit is 16777216"),
        (&kernel[..40], "truncated: an ELF table needs"),
        (&kernel[..kernel.len() - 400], "truncated: a note segment needs"),
        (&narrow, "a 32-bit kernel"),
        (&arm, "an ELF file for machine 183, not x86-64"),
        (&elf(&load(0x10_0000, 4096), &[]), "no Xen notes"),
        (&elf(&[], &linux_notes(&[])), "malformed ELF: nothing to load"),
        (
            &elf(&load(0x10_0000, 8), &linux_notes(&[])),
            "segment 0 (paddr 0x100000, 0x8 bytes): has more bytes in the file",
        ),
        (
            &elf(&load(u64::MAX - 5, 4096), &linux_notes(&[])),
            "segment 0 (paddr 0xfffffffffffffffa, 0x1000 bytes): reaches past",
        ),
        (&elf(&load(0x20_0000, 4096), &linux_notes(&[])), "Xen note ENTRY: outside of the kernel"),
        (&elf(&load(1 << 40, 4096), &linux_notes(&[])), "Xen note VIRT_BASE: the kernel reaches past"),
    ];
    for (file, want) in table {
        let got = load_error(file).to_string();
        assert!(got.starts_with(want), "got {got:?}, want {want:?}");
    }
}

/// Loading a kernel takes as long as it is large, and its notes are read once, whatever its headers say.
#[test]
fn headers_that_overlap_are_refused() {
    let load = |paddr| Load { paddr, data: vec![0x90; 16], memsz: 0x10_0000 };
    let some = |count: usize| elf(&(0..count).map(|_| load(0x10_0000)).collect::<Vec<_>>(), &linux_notes(&[]));
    let overlap = ImageError::BadElf("its segments overlap");
    assert_eq!(Kernel::parse(&some(2)).map(|kernel| kernel.segments.len()), Ok(2));
    assert_eq!(Kernel::parse(&some(3)), Err(overlap));
    assert_eq!(pvh::Kernel::parse(&some(3)), Err(overlap));
    let mut notes = small_kernel(0x10_0000, &[]);
    // The segment becomes a second header of notes that covers the file.
    let len = notes.len() as u64;
    let header = &mut notes[64..64 + 56];
    header[..4].copy_from_slice(&4u32.to_le_bytes());
    header[8..16].fill(0);
    header[32..40].copy_from_slice(&len.to_le_bytes());
    assert_eq!(pvh::Kernel::parse(&notes), Err(ImageError::BadElf("its notes overlap")));
}

#[test]
fn a_32_bit_kernel_is_for_pvh_alone() {
    let load = [Load { paddr: 0x10_0000, data: vec![0x90; 16], memsz: 4096 }];
    let image = elf_32(&load, &linux_notes(&[]), 3);
    let kernel = pvh::Kernel::parse(&image).unwrap();
    assert_eq!((kernel.entry, kernel.end, kernel.segments.len()), (0x10_0040, 0x10_1000, 1));
    assert_eq!((kernel.segments[0].data, kernel.segments[0].size), (&[0x90; 16][..], 4096));
    assert_eq!(Kernel::parse(&image), Err(ImageError::ThirtyTwoBit));
    assert_eq!(pvh::Kernel::parse(&elf_32(&load, &linux_notes(&[]), 62)), Err(ImageError::WrongMachine(62)), "x32");
    let high = [Load { paddr: 0xffff_f000, data: vec![], memsz: 8192 }];
    assert!(matches!(pvh::Kernel::parse(&elf_32(&high, &linux_notes(&[]), 3)), Err(ImageError::BadSegment { .. })));
}

#[test]
fn a_pvh_domain_has_its_start_info_right_behind_the_kernel() {
    const PAGE: u64 = 4096;
    let image = small_kernel(0x10_0123, &[]);
    let kernel = pvh::Kernel::parse(&image).unwrap();
    let request =
        pvh::Request { pages: 0x1_0000, ramdisk_len: 5 << 20, cmdline: b"console=hvc0", max_vcpus: 4, flags: 0 };
    let plan = pvh::Plan::new(&kernel, &request).unwrap();
    assert_eq!(kernel.end, 0x20_0123);
    assert_eq!(plan.start_info, 0x20_1000);
    let end = plan.start_info + plan.start_info_bytes.len() as u64;
    assert_eq!(plan.ramdisk, Some((end.next_multiple_of(PAGE), 5 << 20)));
    // What a longer command line takes, the ramdisk gives way to.
    let long = pvh::Request { cmdline: &[b'x'; 5000], ..request };
    let moved = pvh::Plan::new(&kernel, &long).unwrap();
    assert_eq!(moved.start_info_bytes.len() - plan.start_info_bytes.len(), 5000 - request.cmdline.len());
    assert_eq!(moved.ramdisk, Some((0x20_3000, 5 << 20)));
    let need = (0x20_3000 + (5 << 20)) / PAGE;
    let small = pvh::Request { pages: need - 1, ..long };
    assert_eq!(pvh::Plan::new(&kernel, &small), Err(LayoutError::TooSmall { need, have: need - 1 }));
    assert!(pvh::Plan::new(&kernel, &pvh::Request { pages: need, ..long }).is_ok());
    let large = pvh::Request { pages: 0x20_0000, ramdisk_len: 4 << 30, ..request };
    let refused = pvh::Plan::new(&kernel, &large).unwrap_err();
    assert!(matches!(refused, LayoutError::NoRoomBelow4GiB { have: 0xf_c000, .. }), "{refused}");
}

#[test]
fn damage_never_panics() {
    // Every byte of the headers and notes, every value of a few kinds; and every length.
    let kernel = small_kernel(0x10_0000, &[]);
    let interesting: Vec<usize> = (0..240).chain(kernel.len() - 300..kernel.len()).collect();
    let attempt = |image: &[u8]| {
        if let Ok(kernel) = Kernel::parse(image) {
            let _ = Plan::new(&kernel, &Request { pages: 0x1_0000, ramdisk_len: 12345, role: Role::DomU });
        }
    };
    for at in interesting {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut bad = kernel.clone();
            bad[at] = value;
            attempt(&bad);
        }
    }
    for len in (0..400).chain(kernel.len() - 400..kernel.len()) {
        attempt(&kernel[..len]);
    }
    let packed = bzimage(&gzip(&kernel));
    for at in (0x1f0..0x260).chain(1040..1200) {
        for value in [0x00, 0x7f, 0xff] {
            let mut bad = packed.clone();
            bad[at] = value;
            let _ = Payload::find(&bad).and_then(|p| p.unpack(1 << 22).map(|_| ()));
        }
    }
}

#[test]
fn real_kernels() {
    let Ok(list) = std::env::var("XEN_RS_TEST_KERNELS") else {
        return;
    };
    for path in list.split(':') {
        let file = std::fs::read(path).unwrap();
        let payload = Payload::find(&file).unwrap();
        let started = std::time::Instant::now();
        let image = payload.unpack(LIMIT).unwrap();
        let kernel = Kernel::parse(&image).unwrap();
        let plan = Plan::new(&kernel, &Request { pages: 192 << 8, ramdisk_len: 3_000_000, role: Role::DomU }).unwrap();
        println!("{path}: {} {} -> {} in {:?}", payload.format, file.len(), image.len(), started.elapsed());
        println!("{:#x?}\n{plan:#x?}", kernel.notes);
        assert_eq!(kernel.notes.loader, "generic");
    }
}
