//! A CPU policy written into a toolstack's arrays.

use logic::cpuid::policy::{MAX_LEAVES, MAX_MSRS, Policy};
use xen_abi::{
    arch_x86::{CpuidLeaf, MsrEntry},
    errno::Errno,
};
use zerocopy::{Immutable, IntoBytes};

use crate::guest;

/// Writes a policy's leaves to `va`, where there is room for so many. How many there are, or may be when `va` is null;
/// `ENOBUFS`: more than that.
pub fn leaves(policy: &Policy, va: u64, room: u32) -> Result<u32, Errno> {
    if va == 0 {
        return Ok(MAX_LEAVES);
    }
    let mut count = 0;
    policy.each_leaf(|leaf| put::<CpuidLeaf>(va, room, &mut count, &leaf))?;
    Ok(count)
}

/// The same for its registers.
pub fn msrs(policy: &Policy, va: u64, room: u32) -> Result<u32, Errno> {
    if va == 0 {
        return Ok(MAX_MSRS);
    }
    let mut count = 0;
    policy.each_msr(|entry| put::<MsrEntry>(va, room, &mut count, &entry))?;
    Ok(count)
}

fn put<T: IntoBytes + Immutable>(va: u64, room: u32, count: &mut u32, value: &T) -> Result<(), Errno> {
    if *count == room {
        return Err(Errno::ENOBUFS);
    }
    guest::write(guest::element::<T>(va, (*count).into())?, value)?;
    *count += 1;
    Ok(())
}
