//! The cache of unpacked kernels: what is kept, and for how long.

mod support;

use std::borrow::Cow;

use domain_image::ImageError;
use support::kernels::small_kernel;
use toolstack::images::{Image, Images};

/// A kernel packed by gzip's format, with stored blocks.
fn packed(mark: u8) -> (Vec<u8>, Vec<u8>) {
    let mut kernel = small_kernel(0x20_1000, &[]);
    kernel.extend([mark; 100]);
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks = kernel.chunks(0xffff).count();
    for (index, block) in kernel.chunks(0xffff).enumerate() {
        let len = u16::try_from(block.len()).unwrap();
        file.push(u8::from(index + 1 == blocks));
        file.extend(len.to_le_bytes());
        file.extend((!len).to_le_bytes());
        file.extend(block);
    }
    file.extend(crc32fast::hash(&kernel).to_le_bytes());
    file.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
    (file, kernel)
}

fn same(a: &Image, b: &Image) -> bool {
    core::ptr::eq(&raw const **a, &raw const **b)
}

#[test]
fn the_second_of_a_kernel_is_not_unpacked_again() {
    let mut images = Images::new(64 << 20);
    let (file, kernel) = packed(1);
    let first = images.unpack(Cow::Owned(file.clone())).unwrap();
    assert_eq!(*first, *kernel);
    assert!(same(&first, &images.unpack(Cow::Owned(file.clone())).unwrap()));
    // The same bytes elsewhere are the same kernel.
    let leaked: &'static [u8] = file.clone().leak();
    assert!(same(&first, &images.unpack(Cow::Borrowed(leaked)).unwrap()));
    assert_eq!(images.usage(), (1, file.len() + kernel.len()));
    // And other bytes in files of one length are another.
    let (other, kernel) = packed(2);
    assert_eq!(other.len(), file.len());
    assert_eq!(*images.unpack(Cow::Owned(other)).unwrap(), *kernel);
    assert_eq!(images.usage().0, 2);
}

#[test]
fn files_that_are_there_for_good_take_no_room() {
    let mut images = Images::new(64 << 20);
    let (file, kernel) = packed(1);
    let file: &'static [u8] = file.leak();
    images.unpack(Cow::Borrowed(file)).unwrap();
    assert_eq!(images.usage(), (1, kernel.len()));
    let plain: &'static [u8] = kernel.leak();
    let image = images.unpack(Cow::Borrowed(plain)).unwrap();
    assert!(core::ptr::eq(&raw const *image, plain));
    assert_eq!(images.usage().0, 1);
}

#[test]
fn it_stays_within_its_limit() {
    let files: Vec<&'static [u8]> = (0..4).map(|mark| &*packed(mark).0.leak()).collect();
    let size = packed(0).1.len();
    let mut images = Images::new(2 * size);
    let mut get = |index: usize| (images.unpack(Cow::Borrowed(files[index])).unwrap(), images.usage());
    let (zero, _) = get(0);
    let (one, usage) = get(1);
    assert_eq!(usage, (2, 2 * size));
    // Used again, so it outlives the other.
    assert!(same(&zero, &get(0).0));
    assert_eq!(get(2).1, (2, 2 * size));
    assert!(same(&zero, &get(0).0));
    assert!(!same(&one, &get(1).0));
    let mut none = Images::new(size - 1);
    none.unpack(Cow::Borrowed(files[0])).unwrap();
    assert_eq!(none.usage(), (0, 0));
}

#[test]
fn what_cannot_be_unpacked_is_not_kept() {
    let mut images = Images::new(64 << 20);
    let (mut file, _) = packed(1);
    // A block's length no longer agrees with its complement.
    file[11] ^= 1;
    assert!(images.unpack(Cow::Owned(file)).is_err());
    assert!(matches!(images.unpack(Cow::Borrowed(b"")), Err(ImageError::Empty)));
    assert_eq!(images.usage(), (0, 0));
}
