//! One file per compression. Each unpacks a slice into a slice; the output is never larger than the slice.

pub mod bzip2;
pub mod gzip;
pub mod lz4;
pub mod lzma;
mod x86_calls;
pub mod xz;
pub mod zstd;

/// The largest dictionary or window a decoder may allocate: what Linux's own build uses at most (128 MiB), so that a
/// crafted header cannot ask for gigabytes.
const WINDOW_LIMIT: u64 = 128 << 20;
