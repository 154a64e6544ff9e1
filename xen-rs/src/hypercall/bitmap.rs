//! Sets of CPUs in a toolstack's memory (`struct xenctl_bitmap`).

use logic::sched::CpuMask;
use xen_abi::{domctl::Bitmap, errno::Errno};

use crate::guest;

/// Bytes of a bitmap that hold CPUs there can be.
fn length(map: &Bitmap) -> usize {
    usize::try_from(map.nr_bits.div_ceil(8)).map_or(8, |bytes| bytes.min(8))
}

/// Reads a set; bits beyond the map are off.
pub fn read(map: &Bitmap) -> Result<CpuMask, Errno> {
    let mut bytes = [0_u8; 8];
    for (index, byte) in (0..).zip(bytes.iter_mut().take(length(map))) {
        *byte = guest::read(guest::element::<u8>(map.bitmap, index)?)?;
    }
    let valid = if map.nr_bits >= 64 { u64::MAX } else { (1 << map.nr_bits) - 1 };
    Ok(CpuMask(u64::from_le_bytes(bytes) & valid))
}

/// Writes as much of a set as the map holds.
pub fn write(map: &Bitmap, mask: CpuMask) -> Result<(), Errno> {
    for (index, byte) in (0..).zip(mask.0.to_le_bytes().iter().take(length(map))) {
        guest::write(guest::element::<u8>(map.bitmap, index)?, byte)?;
    }
    Ok(())
}
