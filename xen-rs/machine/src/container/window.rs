//! A little memory of the hypervisor's that a guest's call finds at an address no 32-bit pointer reaches: what 32-bit code
//! hands over is put there in the form that handlers know, as long as its call lasts.
//!
//! Unsafe: half a page of this CPU's.

use core::sync::atomic::{AtomicU64, Ordering};

use xen_abi::errno::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::known;
use crate::arch::x86_64::percpu;

const PAGE: u64 = 4096;
/// What is before is `known`'s.
pub(super) const IN_PAGE: u64 = 2048;
/// Where it begins in the page, and in the page at its address: behind the word that says whether it is open.
const BEGIN: u64 = IN_PAGE + 8;

/// The window, while it is open on this CPU.
#[derive(Debug)]
pub struct Window(());

impl Window {
    /// Where a handler finds it: the last that a guest can name below the hypervisor.
    pub const ADDRESS: u64 = 0x0000_8000_0000_0000 - PAGE + BEGIN;
    /// Its size: to the end of the page.
    pub const BYTES: u64 = PAGE - BEGIN;

    /// Opens it. `None`: no container is loaded here, or it is open already.
    #[must_use]
    pub fn open() -> Option<Self> {
        if percpu::this().container_tables.load(Ordering::Relaxed) == 0 {
            return None;
        }
        (state().swap(1, Ordering::Relaxed) == 0).then_some(Self(()))
    }

    /// Puts a value there. `EFAULT`: it does not fit.
    pub fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, offset: u64, value: &T) -> Result<(), Errno> {
        let bytes = value.as_bytes();
        let to = Self::inside(offset, bytes.len())? as *mut u8;
        // SAFETY: inside of the half page, which is this CPU's; nobody has a reference to it.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// What is there now. `EFAULT`: it ends before.
    pub fn get<T: FromBytes>(&self, offset: u64) -> Result<T, Errno> {
        let from = Self::inside(offset, size_of::<T>())? as *const T;
        // SAFETY: as in `put`; any bytes are a `T`.
        Ok(unsafe { from.read_unaligned() })
    }

    fn inside(offset: u64, length: usize) -> Result<u64, Errno> {
        let fits = offset.checked_add(length as u64).is_some_and(|end| end <= Self::BYTES);
        if fits { Ok(known::page() + BEGIN + offset) } else { Err(Errno::EFAULT) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        state().store(0, Ordering::Relaxed);
    }
}

/// Whether it is open on this CPU.
fn state() -> &'static AtomicU64 {
    // SAFETY: a word of a page that stays this CPU's; zero at the beginning, and always used as an atomic.
    unsafe { AtomicU64::from_ptr((known::page() + IN_PAGE) as *mut u64) }
}

/// Where an address of the window is in the direct map, up to the end of its page.
#[inline(always)]
pub(super) fn place(at: u64) -> Option<u64> {
    let offset = at.wrapping_sub(Window::ADDRESS);
    (offset < Window::BYTES && state().load(Ordering::Relaxed) != 0).then(|| known::page() + BEGIN + offset)
}
