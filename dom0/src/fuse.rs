//! A fuse in the hypercalls that build a domain: for tests, which let each of them fail in turn and look what is left.

use core::sync::atomic::{AtomicU32, Ordering};
use xen_abi::errno::Errno;

/// The call that is to fail, counted from 1; 0 is none.
static LEFT: AtomicU32 = AtomicU32::new(0);

/// Lets the so manieth call fail.
pub fn set(calls: u32) {
    LEFT.store(calls, Ordering::Relaxed);
}

/// Takes the fuse out; whether it blew.
pub fn take() -> bool {
    LEFT.swap(0, Ordering::Relaxed) == 0
}

/// A call is about to be made.
///
/// # Errors
/// `EINTR` where it is the one to fail.
pub fn burn() -> Result<(), Errno> {
    match LEFT.load(Ordering::Relaxed) {
        0 => Ok(()),
        left => {
            LEFT.store(left - 1, Ordering::Relaxed);
            if left == 1 { Err(Errno::EINTR) } else { Ok(()) }
        }
    }
}
