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
//!
//! Where a call may end in the middle of an array, as many of Xen's do, each element is checked when it is its turn
//! ([`Series`]); several of them go in one copy, and answers in place of what was read:
//!
//! ```
//! # use logic::guest::doc::{InOut, Series};
//! let mut numbers = Series::<u64, InOut>::new(0x1000);
//! let mut chunk = [0; 8];
//! let mut answers = numbers.read_into(&mut chunk).unwrap();
//! answers.write_from(&chunk).unwrap();
//! ```
//!
//! Of a structure that was read a part can be written, of the type that it has there:
//!
//! ```
//! # use logic::{field, guest::doc::{Handle, InOut}};
//! #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
//! #[repr(C)]
//! struct Request {
//!     port: u32,
//!     status: i32,
//! }
//! let (_request, answer) = Handle::<Request, InOut>::new(0x1000).read().unwrap();
//! answer.part(field!(Request, status)).write(&-1i32).unwrap();
//! ```
//!
//! ```compile_fail,E0308
//! # use logic::{field, guest::doc::{Handle, InOut}};
//! # #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
//! # #[repr(C)]
//! # struct Request {
//! #     port: u32,
//! #     status: i32,
//! # }
//! # let (_request, answer) = Handle::<Request, InOut>::new(0x1000).read().unwrap();
//! answer.part(field!(Request, status)).write(&-1i64).unwrap();
//! ```

use alloc::boxed::Box;
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

    /// Copies bytes in, in place of others.
    fn read_bytes(address: u64, into: &mut [u8]) -> Result<(), Errno>;

    /// Copies 32 bits in, if that goes without a fault; where not, [`GuestMemory::read`] says whether it can be done at all.
    fn read_at_once(address: u64) -> Option<u32>;

    /// Copies a value out.
    fn write<T: IntoBytes + Immutable>(address: u64, value: &T) -> Result<(), Errno>;

    /// Copies bytes out.
    fn write_bytes(address: u64, from: &[u8]) -> Result<(), Errno>;

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

    /// Its number again, for a quicker way to do what it allows. It is used up.
    #[inline(always)]
    #[must_use]
    pub const fn into_address(self) -> u64 {
        self.0
    }
}

/// A part of type `F` of a structure `T`: [`field!`](crate::field).
#[derive(Debug)]
pub struct Field<T, F>(u64, PhantomData<fn(&T) -> &F>);

impl<T, F> Field<T, F> {
    /// The part at an offset; the second argument is its type alone.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(offset: usize, _: fn(&T) -> &F) -> Self {
        Field(offset as u64, PhantomData)
    }
}

/// The field of a structure, by their names.
#[macro_export]
macro_rules! field {
    ($structure:ty, $name:ident) => {
        $crate::guest::Field::new(::core::mem::offset_of!($structure, $name), |whole: &$structure| &whole.$name)
    };
}

impl<T: FromBytes + IntoBytes, M: GuestMemory> Handle<T, In, M> {
    /// Copies the value in.
    #[inline(always)]
    pub fn read(self) -> Result<T, Errno> {
        M::read(self.0)
    }

    /// Copies a value in that is too large for the stack.
    pub fn read_boxed(self) -> Result<Box<T>, Errno> {
        let mut value = Box::new(T::new_zeroed());
        M::read_bytes(self.0, value.as_mut_bytes()).map(|()| value)
    }

    /// Copies 32 bits in, in a register, if that goes without a fault. Where not, nothing has been seen, and the handle comes
    /// back.
    #[inline(always)]
    pub fn read_at_once(self) -> Result<T, Self> {
        const { assert!(size_of::<T>() == size_of::<u32>()) };
        M::read_at_once(self.0).and_then(|word| T::read_from_bytes(word.as_bytes()).ok()).ok_or(self)
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
    /// A part of it, in its place.
    #[inline(always)]
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "it has no more than a number")]
    pub const fn part<F>(self, field: Field<T, F>) -> Handle<F, Out, M> {
        Handle::new(self.0.wrapping_add(field.0))
    }

    /// What comes right behind it.
    #[inline(always)]
    #[must_use]
    pub const fn behind<F>(self) -> Handle<F, Out, M> {
        Handle::new(self.0.wrapping_add(size_of::<T>() as u64))
    }

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

/// Values of type `T` one after another, without an end: each is checked when it is copied, as in Xen where a call may end
/// in the middle. Over the end of the address space they go on at its beginning, as Xen's pointers do.
#[derive(Debug)]
pub struct Series<T, D, M> {
    next: u64,
    kind: PhantomData<Names<T, D, M>>,
}

impl<T, D, M> Series<T, D, M> {
    /// Those from `address` on.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: u64) -> Self {
        Series { next: address, kind: PhantomData }
    }

    /// Those after the first `count`, which earlier rounds of a call were about.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, count: u64) -> Self {
        Series::new(self.next.wrapping_add(count.wrapping_mul(size_of::<T>() as u64)))
    }

    /// The next one.
    #[inline(always)]
    pub const fn step(&mut self) -> Handle<T, D, M> {
        let handle = Handle::new(self.next);
        self.next = self.next.wrapping_add(size_of::<T>() as u64);
        handle
    }

    /// Where a call that ends here goes on.
    #[inline(always)]
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.next
    }
}

impl<T: FromBytes + IntoBytes, M: GuestMemory> Series<T, In, M> {
    /// Copies the next ones in, in place of what is there. After a fault some of them may be; the series stays where it is.
    pub fn read_into(&mut self, into: &mut [T]) -> Result<(), Errno> {
        M::read_bytes(self.next, into.as_mut_bytes())?;
        self.next = self.next.wrapping_add(size_of_val(into) as u64);
        Ok(())
    }
}

impl<T: FromBytes + IntoBytes, M: GuestMemory> Series<T, InOut, M> {
    /// Copies the next ones in; what they become goes back through the series that this is.
    pub fn read_into(&mut self, into: &mut [T]) -> Result<Series<T, Out, M>, Errno> {
        let answers = Series::new(self.next);
        M::read_bytes(self.next, into.as_mut_bytes())?;
        self.next = self.next.wrapping_add(size_of_val(into) as u64);
        Ok(answers)
    }
}

impl<T: IntoBytes + Immutable, M: GuestMemory> Series<T, Out, M> {
    /// Copies values out in place of the next ones. After a fault the first of them may be there; the series stays where it is.
    pub fn write_from(&mut self, from: &[T]) -> Result<(), Errno> {
        M::write_bytes(self.next, from.as_bytes())?;
        self.next = self.next.wrapping_add(size_of_val(from) as u64);
        Ok(())
    }
}

impl<T, D, M> Iterator for Series<T, D, M> {
    type Item = Handle<T, D, M>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        Some(self.step())
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
        fn read_bytes(_: u64, into: &mut [u8]) -> Result<(), Errno> {
            into.fill(0);
            Ok(())
        }
        fn read_at_once(address: u64) -> Option<u32> {
            // What is said to be not there can be had slowly.
            (address != 0).then_some(0)
        }
        fn write<T: IntoBytes + Immutable>(_: u64, _: &T) -> Result<(), Errno> {
            Ok(())
        }
        fn write_bytes(_: u64, _: &[u8]) -> Result<(), Errno> {
            Ok(())
        }
        fn is_guests(address: u64, length: u64) -> bool {
            address.checked_add(length).is_some_and(|end| end < 1 << 47)
        }
    }

    pub type Handle<T, D> = super::Handle<T, D, Zeroes>;
    pub type Elements<T, D> = super::Elements<T, D, Zeroes>;
    pub type Series<T, D> = super::Series<T, D, Zeroes>;
}

#[cfg(test)]
mod tests {
    use super::doc::{Handle, In, InOut, Out, Series};

    #[test]
    fn a_series_goes_on_where_a_round_ended() {
        let mut words = Series::<u64, InOut>::new(0x1000).after(3);
        assert_eq!(words.step().into_address(), 0x1018);
        assert_eq!(words.address(), 0x1020);
        let over_the_end = Series::<u64, Out>::new(u64::MAX - 7).map(Handle::into_address).take(2);
        assert_eq!(over_the_end.collect::<std::vec::Vec<_>>(), [u64::MAX - 7, 0]);
        assert_eq!(Series::<u64, Out>::new(8).after(u64::MAX).address(), 0, "no number overflows");
    }

    #[test]
    fn a_series_goes_on_behind_what_was_copied_in_one() {
        let mut bytes = Series::<u8, In>::new(0x1000);
        bytes.read_into(&mut [1; 5]).unwrap();
        assert_eq!(bytes.address(), 0x1005);
        let mut words = Series::<u64, InOut>::new(0x1000);
        let mut chunk = [7; 3];
        let mut answers = words.read_into(&mut chunk).unwrap();
        assert_eq!((chunk, words.address(), answers.address()), ([0; 3], 0x1018, 0x1000));
        answers.write_from(&chunk).unwrap();
        assert_eq!(answers.address(), 0x1018);
    }

    #[test]
    fn what_does_not_go_at_once_is_still_to_be_had() {
        assert_eq!(Handle::<u32, In>::new(0x1000).read_at_once().unwrap(), 0);
        let again = Handle::<u32, In>::new(0).read_at_once().unwrap_err();
        assert_eq!(again.read(), Ok(0));
    }

    #[test]
    fn what_comes_behind_a_structure_is_there() {
        let behind: Handle<[u8; 3], Out> = Handle::<u32, Out>::new(0x1000).behind();
        assert_eq!(behind.into_address(), 0x1004);
    }

    #[test]
    fn a_part_is_where_the_field_is() {
        struct Answer {
            _before: u32,
            value: u16,
        }
        let part: Handle<u16, Out> = Handle::<Answer, Out>::new(0x1000).part(field!(Answer, value));
        assert_eq!(part.into_address(), 0x1000 + core::mem::offset_of!(Answer, value) as u64);
    }
}
