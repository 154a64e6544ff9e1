//! Pointers of a guest, as it put them into registers and structures.
//!
//! A [`Handle`] is not a pointer: nothing can be done with it but to copy what it names, once, in the direction that it
//! is for. The copy is what gets checked and used; a second look at the guest's memory could find something else.
//!
//! ```
//! # use logic::guest::doc::{Handle, InOut};
//! let handle = Handle::<u32, InOut>::new(0x1000);
//! let (value, answer) = handle.read().unwrap();
//! answer.write(&(value + 1)).unwrap();
//! ```
//!
//! Reading twice does not compile:
//!
//! ```compile_fail,E0382
//! # use logic::guest::doc::{Handle, In};
//! let handle = Handle::<u32, In>::new(0x1000);
//! let checked = handle.read();
//! let used = handle.read();
//! ```
//!
//! nor does writing to what is only for reading:
//!
//! ```compile_fail,E0599
//! # use logic::guest::doc::{Handle, In};
//! Handle::<u32, In>::new(0x1000).write(&1);
//! ```
//!
//! nor writing something with padding in it, which would tell the guest what was on the stack:
//!
//! ```compile_fail,E0277
//! # use logic::guest::doc::{Handle, Out};
//! #[repr(C)]
//! struct Reply {
//!     status: u16,
//!     value: u64, // six bytes before it are nobody's
//! }
//! Handle::<Reply, Out>::new(0x1000).write(&Reply { status: 0, value: 1 });
//! ```
//!
//! Of an array the whole range is checked before there is a handle, and each element is had once:
//!
//! ```
//! # use logic::guest::doc::{Elements, In};
//! let numbers: Result<Vec<u32>, _> = Elements::<u32, In>::new(0x1000, 4).unwrap().map(|one| one.read()).collect();
//! assert_eq!(numbers.unwrap().len(), 4);
//! assert!(Elements::<u32, In>::new(0x1000, u64::MAX).is_err());
//! ```

use core::marker::PhantomData;

use xen_abi::errno::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Read only: the hypervisor never writes there.
#[derive(Debug)]
pub enum In {}
/// Written only.
#[derive(Debug)]
pub enum Out {}
/// Read once, then written once.
#[derive(Debug)]
pub enum InOut {}

/// How a guest's memory is reached. Everything is copied; a fault is `EFAULT`.
pub trait GuestMemory {
    /// Copies a value in.
    fn read<T: FromBytes + IntoBytes>(address: u64) -> Result<T, Errno>;

    /// Copies a value out.
    fn write<T: IntoBytes + Immutable>(address: u64, value: &T) -> Result<(), Errno>;

    /// Whether all of a range may be a guest's.
    fn is_guests(address: u64, length: u64) -> bool;
}

/// One value of type `T` in memory of the kind `M`, to be copied in direction `D`.
#[derive(Debug)]
#[repr(transparent)]
pub struct Handle<T, D, M>(u64, PhantomData<Names<T, D, M>>);

/// It holds none of them.
type Names<T, D, M> = fn() -> (T, D, M);

impl<T, D, M> Handle<T, D, M> {
    /// What a guest's number names.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: u64) -> Self {
        Handle(address, PhantomData)
    }

    /// Whether the guest named nothing.
    #[inline(always)]
    #[must_use]
    pub const fn is_null(&self) -> bool {
        self.0 == 0
    }
}

impl<T: FromBytes + IntoBytes, M: GuestMemory> Handle<T, In, M> {
    /// Copies the value in.
    #[inline(always)]
    pub fn read(self) -> Result<T, Errno> {
        M::read(self.0)
    }
}

impl<T: FromBytes + IntoBytes, M: GuestMemory> Handle<T, InOut, M> {
    /// Copies the value in; what it becomes goes back through the second half.
    #[inline(always)]
    pub fn read(self) -> Result<(T, Handle<T, Out, M>), Errno> {
        M::read(self.0).map(|value| (value, Handle::new(self.0)))
    }
}

impl<T, M: GuestMemory> Handle<T, Out, M> {
    /// Copies the value out.
    #[inline(always)]
    pub fn write(self, value: &T) -> Result<(), Errno>
    where
        T: IntoBytes + Immutable,
    {
        M::write(self.0, value)
    }
}

/// Values of type `T` one after another.
#[derive(Debug)]
pub struct Elements<T, D, M> {
    next: u64,
    left: u64,
    kind: PhantomData<Names<T, D, M>>,
}

impl<T, D, M: GuestMemory> Elements<T, D, M> {
    /// `count` of them from `address` on: `EFAULT` unless all may be a guest's.
    #[inline]
    pub fn new(address: u64, count: u64) -> Result<Self, Errno> {
        let length = count.checked_mul(size_of::<T>() as u64).ok_or(Errno::EFAULT)?;
        if length != 0 && !M::is_guests(address, length) {
            return Err(Errno::EFAULT);
        }
        Ok(Elements { next: address, left: count, kind: PhantomData })
    }
}

impl<T, D, M> Iterator for Elements<T, D, M> {
    type Item = Handle<T, D, M>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let handle = Handle::new(self.next);
        self.next = self.next.wrapping_add(size_of::<T>() as u64);
        Some(handle)
    }
}

/// For the examples above: a memory that reads as zeroes.
#[doc(hidden)]
pub mod doc {
    use super::{Errno, FromBytes, GuestMemory, Immutable, IntoBytes};

    pub use super::{In, InOut, Out};

    #[derive(Debug)]
    pub enum Zeroes {}

    impl GuestMemory for Zeroes {
        fn read<T: FromBytes + IntoBytes>(_: u64) -> Result<T, Errno> {
            Ok(T::new_zeroed())
        }
        fn write<T: IntoBytes + Immutable>(_: u64, _: &T) -> Result<(), Errno> {
            Ok(())
        }
        fn is_guests(address: u64, length: u64) -> bool {
            address.checked_add(length).is_some_and(|end| end < 1 << 47)
        }
    }

    pub type Handle<T, D> = super::Handle<T, D, Zeroes>;
    pub type Elements<T, D> = super::Elements<T, D, Zeroes>;
}
