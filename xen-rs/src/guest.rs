//! Typed access to the memory of the guest that runs on this CPU, by its own virtual addresses.
//!
//! Everything is copied: no reference to a guest's memory exists. A page fault inside a copy is `EFAULT`.

use logic::guest::GuestMemory;
use machine::mem::{guest_copy, guest_words};
use xen_abi::errno::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The memory of the guest that runs on this CPU.
pub enum Caller {}

impl GuestMemory for Caller {
    #[inline(always)]
    fn read<T: FromBytes + IntoBytes>(address: u64) -> Result<T, Errno> {
        read(address)
    }

    fn read_into<T: FromBytes + IntoBytes>(address: u64, into: &mut T) -> Result<(), Errno> {
        guest_copy::copy_in(address, into.as_mut_bytes()).map_err(|_| Errno::EFAULT)
    }

    #[inline(always)]
    fn write<T: IntoBytes + Immutable>(address: u64, value: &T) -> Result<(), Errno> {
        write(address, value)
    }

    #[inline(always)]
    fn is_guests(address: u64, length: u64) -> bool {
        guest_copy::is_guest_range(address, length)
    }
}

/// A pointer of the caller's.
pub type Handle<T, D> = logic::guest::Handle<T, D, Caller>;
/// A pointer of the caller's to several of a kind.
pub type Elements<T, D> = logic::guest::Elements<T, D, Caller>;

/// The caller's values one after another, each checked when it is its turn.
pub type Series<T, D> = logic::guest::Series<T, D, Caller>;

/// Copies one value in.
#[inline(always)]
pub fn read<T: FromBytes + IntoBytes>(va: u64) -> Result<T, Errno> {
    guest_copy::read(va)
}

/// Copies 32 bits in, if that goes without a fault; where not, [`read`] says whether it can be done at all.
#[inline(always)]
#[must_use]
pub fn read_at_once(va: u64) -> Option<u32> {
    guest_words::read_at_once(va)
}

/// Copies one value out.
#[inline(always)]
pub fn write<T: IntoBytes + Immutable + ?Sized>(va: u64, value: &T) -> Result<(), Errno> {
    guest_copy::copy_out(va, value.as_bytes()).map_err(|_| Errno::EFAULT)
}

/// The address of element `index` of an array of `T` at `va`; `EFAULT` when it wraps around.
pub fn element<T>(va: u64, index: u64) -> Result<u64, Errno> {
    let size = size_of::<T>() as u64;
    index.checked_mul(size).and_then(|offset| va.checked_add(offset)).ok_or(Errno::EFAULT)
}
