//! Typed access to the memory of the guest that runs on this CPU, by its own virtual addresses.
//!
//! Everything is copied: no reference to a guest's memory exists. A page fault inside a copy is `EFAULT`. There is no way here
//! to copy from a number: it takes a [`Handle`], which says of what type it is and goes when it is used.

use logic::guest::GuestMemory;
use machine::mem::{guest_copy, guest_words};
use xen_abi::errno::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Whether all of a range may be the guest's: for what is looked at without being copied.
pub use machine::mem::guest_copy::is_guest_range;

/// The memory of the guest that runs on this CPU.
pub enum Caller {}

impl GuestMemory for Caller {
    #[inline(always)]
    fn read<T: FromBytes + IntoBytes>(address: u64) -> Result<T, Errno> {
        guest_copy::read(address)
    }

    fn read_bytes(address: u64, into: &mut [u8]) -> Result<(), Errno> {
        guest_copy::copy_in(address, into).map_err(|_| Errno::EFAULT)
    }

    #[inline(always)]
    fn read_at_once(address: u64) -> Option<u32> {
        guest_words::read_at_once(address)
    }

    #[inline(always)]
    fn write<T: IntoBytes + Immutable>(address: u64, value: &T) -> Result<(), Errno> {
        guest_copy::write(address, value)
    }

    fn write_bytes(address: u64, from: &[u8]) -> Result<(), Errno> {
        guest_copy::copy_out(address, from).map_err(|_| Errno::EFAULT)
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
