//! Sets of CPUs in a toolstack's memory (`struct xenctl_bitmap`).

use logic::{
    guest::{In, Out},
    sched::CpuMask,
};
use xen_abi::{domctl::Bitmap, errno::Errno};

use crate::guest::Series;

/// Bytes of a bitmap that hold CPUs there can be.
fn length(map: &Bitmap) -> usize {
    usize::try_from(map.nr_bits.div_ceil(8)).map_or(8, |bytes| bytes.min(8))
}

/// Reads a set; bits beyond the map are off.
pub fn read(map: &Bitmap) -> Result<CpuMask, Errno> {
    let mut bytes = [0_u8; 8];
    Series::<u8, In>::new(map.bitmap).read_into(bytes.get_mut(..length(map)).unwrap_or_default())?;
    let valid = if map.nr_bits >= 64 { u64::MAX } else { (1 << map.nr_bits) - 1 };
    Ok(CpuMask(u64::from_le_bytes(bytes) & valid))
}

/// Writes as much of a set as the map holds.
pub fn write(map: &Bitmap, mask: CpuMask) -> Result<(), Errno> {
    Series::<u8, Out>::new(map.bitmap).write_from(mask.0.to_le_bytes().get(..length(map)).unwrap_or_default())
}
