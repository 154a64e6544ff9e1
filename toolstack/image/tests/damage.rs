//! Damage inside packed kernels: whichever bit of the packed bytes is turned over, the kernel is refused, and never taken
//! for another one.

#[path = "support/packed.rs"]
mod packed;
mod support;

use domain_image::{Format, ImageError, Payload};
use lzma_rust2::{CheckType, FilterType, Write as _, XzOptions, XzWriter};
use packed::{crc, gzip, lz4};
use support::{bzimage, small_kernel};

const LIMIT: u64 = 1 << 24;

fn kernel() -> Vec<u8> {
    let mut kernel = small_kernel(0x10_0000, &[]);
    // Something that packs neither too well nor not at all.
    kernel.extend((0..20_000_u32).flat_map(|n| (n * n / 7).to_le_bytes()));
    kernel
}

fn xz(data: &[u8], check: CheckType) -> Vec<u8> {
    let mut options = XzOptions::with_preset(6);
    options.set_check_sum_type(check);
    let mut writer = XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(data).unwrap();
    writer.finish().unwrap()
}

/// As the kernel's build does it.
fn xz_of_code(data: &[u8]) -> Vec<u8> {
    let mut options = XzOptions::with_preset(6);
    options.set_check_sum_type(CheckType::Crc32);
    options.prepend_pre_filter(FilterType::BcjX86, 0);
    let mut writer = XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(data).unwrap();
    writer.finish().unwrap()
}

/// One of many blocks, which is not what the kernel's build makes.
fn xz_of_blocks(data: &[u8]) -> Vec<u8> {
    let mut options = XzOptions::with_preset(6);
    options.set_check_sum_type(CheckType::Crc32);
    options.set_block_size(core::num::NonZeroU64::new(20_000));
    let mut writer = XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(data).unwrap();
    writer.finish().unwrap()
}

fn bzip2(data: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    std::io::Read::read_to_end(&mut bzip2::read::BzEncoder::new(data, bzip2::Compression::best()), &mut packed)
        .unwrap();
    packed
}

fn zstd(data: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A bzImage as the kernel's build makes it: with a version, and a checksum at its end.
fn whole(payload: &[u8], size: usize, version: &str) -> Vec<u8> {
    let mut payload = payload.to_vec();
    payload.extend(u32::try_from(size).unwrap().to_le_bytes());
    let mut file = bzimage(&payload);
    file[0x20e..0x210].copy_from_slice(&0x80_u16.to_le_bytes());
    file[0x280..0x280 + version.len()].copy_from_slice(version.as_bytes());
    let end = (file.len() + 4).next_multiple_of(16);
    file[0x1f4..0x1f8].copy_from_slice(&u32::try_from(end / 16 - 64).unwrap().to_le_bytes());
    file.resize(end - 4, 0);
    let crc = crc(&file);
    file.extend(crc.to_le_bytes());
    file
}

fn unpack(file: &[u8]) -> Result<Vec<u8>, ImageError> {
    Payload::find(file)?.unpack(LIMIT).map(std::borrow::Cow::into_owned)
}

/// Turns over one bit at a time, `step` bits apart; none may go unnoticed. Fields that say nothing of the content may be
/// ignored by a decoder: then the kernel is the right one.
fn turn_over(file: &[u8], kernel: &[u8], from: usize, step: usize) -> usize {
    let mut refused = 0;
    for bit in (from * 8..file.len() * 8).step_by(step) {
        let mut bad = file.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        match unpack(&bad) {
            Err(_) => refused += 1,
            Ok(unpacked) => assert!(unpacked == kernel, "bit {bit} of {} went unnoticed", file.len() * 8),
        }
    }
    refused
}

#[test]
fn no_bit_goes_unnoticed() {
    let kernel = kernel();
    let files = [
        (Format::Gzip, gzip(&kernel)),
        (Format::Xz, xz(&kernel, CheckType::Crc32)),
        (Format::Xz, xz_of_code(&kernel)),
        (Format::Xz, xz_of_blocks(&kernel)),
        (Format::Xz, xz(&kernel, CheckType::Crc64)),
        (Format::Xz, xz(&kernel, CheckType::Sha256)),
        (Format::Zstd, zstd(&kernel)),
        (Format::Bzip2, bzip2(&kernel)),
    ];
    for (format, file) in files {
        assert_eq!(Payload::find(&file).unwrap().format, format);
        assert!(unpack(&file).unwrap() == kernel, "{format}");
        let bits = file.len() * 8;
        let turns = if format == Format::Bzip2 { 50 } else { 250 };
        let step = (bits / turns).max(1) | 1;
        let refused = turn_over(&file, &kernel, 12, step);
        assert!(refused * 100 > (bits / step) * 97, "{format}: {refused} of {}", bits / step);
    }
}

#[test]
fn formats_without_a_checksum_have_that_of_the_file() {
    let kernel = kernel();
    let file = whole(&lz4(&kernel), kernel.len(), "6.1.0-1-amd64 (somebody)");
    assert!(unpack(&file).unwrap() == kernel);
    let step = (file.len() * 8 / 3000).max(1) | 1;
    turn_over(&file, &kernel, 1040, step);
    let mut bad = file.clone();
    bad[5000] ^= 0x10;
    assert_eq!(unpack(&bad), Err(ImageError::WrongChecksum));
    assert_eq!(ImageError::WrongChecksum.to_string(), "the file is damaged: the checksum at its end is wrong");
}

#[test]
fn a_signed_kernel_is_whole() {
    let kernel = kernel();
    let mut file = whole(&lz4(&kernel), kernel.len(), "6.1.0-1-amd64 (somebody)");
    // A PE header, as the build leaves it, and the checksum that goes with that.
    file[0x3c] = 0x40;
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    file[0x58..0x5a].copy_from_slice(&[0x0b, 0x02]);
    let end = file.len() - 4;
    let sum = crc(&file[..end]);
    file[end..].copy_from_slice(&sum.to_le_bytes());
    assert!(unpack(&file).unwrap() == kernel);
    // Signed: two fields are filled in, and the signature follows.
    file[0x98..0x9c].copy_from_slice(&[1, 2, 3, 4]);
    file[0xe8..0xf0].copy_from_slice(&[5, 6, 7, 8, 9, 10, 11, 12]);
    file.extend([0x30; 1000]);
    assert!(unpack(&file).unwrap() == kernel);
    file[0x300] ^= 1;
    assert_eq!(unpack(&file), Err(ImageError::WrongChecksum));
}

#[test]
fn where_the_build_appends_no_checksum_none_is_wanted() {
    let kernel = kernel();
    for version in ["6.15.0", "7.0", "none"] {
        let mut file = whole(&lz4(&kernel), kernel.len(), version);
        let end = file.len();
        file[end - 4..].fill(0xff);
        assert!(unpack(&file).unwrap() == kernel, "{version}");
    }
}

#[test]
fn a_payload_shorter_than_announced_is_refused() {
    let kernel = kernel();
    let file = whole(&lz4(&kernel), kernel.len() + 1, "6.1");
    let message = unpack(&file).unwrap_err().to_string();
    let (len, size) = (kernel.len(), kernel.len() + 1);
    assert_eq!(message, format!("damaged lz4 data: it unpacks to {len} bytes, not to the {size} that it announces"));
}

/// Several blocks, runs of all lengths, and all bytes.
#[test]
fn all_that_bzip2_packs() {
    let mut data: Vec<u8> = (0..=255).flat_map(|byte| vec![byte; usize::from(byte) * 3]).collect();
    data.extend((0..300_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> (n % 19)).to_le_bytes()));
    for data in [&data[..], &data[..1000], &data[..1], &data[..0], &[7; 3_000_000]] {
        let packed = bzip2(data);
        let mut out = vec![0; data.len()];
        let payload = Payload { format: Format::Bzip2, data: &packed, unpacked_len: None };
        assert_eq!(payload.unpack_into(&mut out), Ok(data.len()));
        assert!(out == data);
        if let Some(shorter) = out.len().checked_sub(1) {
            let error = payload.unpack_into(&mut out[..shorter]).unwrap_err();
            assert!(matches!(error, ImageError::Overflow { .. }), "{error}");
        }
        for end in [packed.len() - 1, packed.len() / 2, 10] {
            let cut = Payload { data: &packed[..end.min(packed.len() - 1)], ..payload };
            assert!(cut.unpack_into(&mut out).is_err());
        }
    }
}
