//! A CPU policy written into a toolstack's arrays.

use logic::{
    cpuid::policy::{MAX_LEAVES, MAX_MSRS, Policy},
    guest::Out,
};
use xen_abi::{
    arch_x86::{CpuidLeaf, MsrEntry},
    errno::Errno,
};
use zerocopy::{Immutable, IntoBytes};

use crate::guest::Series;

/// A caller's array: what goes there next, how many are there, and how many there is room for.
struct Array<T> {
    rest: Series<T, Out>,
    count: u32,
    room: u32,
}

/// Writes a policy's leaves to `va`, where there is room for so many. How many there are, or may be when `va` is null;
/// `ENOBUFS`: more than that.
pub fn leaves(policy: &Policy, va: u64, room: u32) -> Result<u32, Errno> {
    if va == 0 {
        return Ok(MAX_LEAVES);
    }
    let mut array = Array::<CpuidLeaf>::new(va, room);
    policy.each_leaf(|leaf| array.put(&leaf))?;
    Ok(array.count)
}

/// The same for its registers.
pub fn msrs(policy: &Policy, va: u64, room: u32) -> Result<u32, Errno> {
    if va == 0 {
        return Ok(MAX_MSRS);
    }
    let mut array = Array::<MsrEntry>::new(va, room);
    policy.each_msr(|entry| array.put(&entry))?;
    Ok(array.count)
}

impl<T: IntoBytes + Immutable> Array<T> {
    const fn new(va: u64, room: u32) -> Self {
        Array { rest: Series::new(va), count: 0, room }
    }

    fn put(&mut self, value: &T) -> Result<(), Errno> {
        if self.count == self.room {
            return Err(Errno::ENOBUFS);
        }
        self.rest.step().write(value)?;
        self.count += 1;
        Ok(())
    }
}
