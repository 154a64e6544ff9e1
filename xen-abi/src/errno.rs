//! Error numbers (`errno.h`): a hypercall fails by returning one of them negated.

use crate::layout::Constant;

/// Declares the enum and its reverse look-up from one list.
macro_rules! errnos {
    ($( $(#[$meta:meta])* $name:ident = $value:literal, )*) => {
        /// Xen's error numbers; the values are Linux's on every architecture.
        ///
        /// As wide as a register: `Result<u64, Errno>` is then returned in two of them instead of in memory.
        #[repr(u64)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Errno { $( $(#[$meta])* $name = $value, )* }

        impl Errno {
            /// The error with this positive number.
            pub const fn from_number(number: i32) -> Option<Self> {
                match number { $( $value => Some(Self::$name), )* _ => None }
            }

            /// The name, as in `"EINVAL"`.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => stringify!($name), )* }
            }
        }

        #[doc(hidden)]
        pub const __CONSTANTS: &[Constant] = &[ $( Constant { name: stringify!($name), c: concat!("XEN_", stringify!($name)), value: $value }, )* ];
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1,
    /// No such thing.
    ENOENT = 2,
    /// No such domain.
    ESRCH = 3,
    /// Interrupted (inside the hypervisor only).
    EINTR = 4,
    /// I/O error.
    EIO = 5,
    /// No such device or address.
    ENXIO = 6,
    /// List too long.
    E2BIG = 7,
    /// Not an image that can be started.
    ENOEXEC = 8,
    /// Bad file number.
    EBADF = 9,
    /// No child.
    ECHILD = 10,
    /// Try again.
    EAGAIN = 11,
    /// Out of memory.
    ENOMEM = 12,
    /// Permission denied.
    EACCES = 13,
    /// A guest address could not be accessed.
    EFAULT = 14,
    /// In use.
    EBUSY = 16,
    /// Exists already.
    EEXIST = 17,
    /// Cross-device link.
    EXDEV = 18,
    /// No such device.
    ENODEV = 19,
    /// Not a directory.
    ENOTDIR = 20,
    /// Is a directory.
    EISDIR = 21,
    /// Invalid argument.
    EINVAL = 22,
    /// Table overflow.
    ENFILE = 23,
    /// Too many open.
    EMFILE = 24,
    /// No space left.
    ENOSPC = 28,
    /// Read-only.
    EROFS = 30,
    /// Too many links.
    EMLINK = 31,
    /// Argument out of domain.
    EDOM = 33,
    /// Result out of range.
    ERANGE = 34,
    /// Would deadlock.
    EDEADLK = 35,
    /// Name too long.
    ENAMETOOLONG = 36,
    /// No locks available.
    ENOLCK = 37,
    /// Not implemented.
    ENOSYS = 38,
    /// Not empty.
    ENOTEMPTY = 39,
    /// No data.
    ENODATA = 61,
    /// Timer expired.
    ETIME = 62,
    /// Not a message.
    EBADMSG = 74,
    /// Value too large.
    EOVERFLOW = 75,
    /// Illegal sequence.
    EILSEQ = 84,
    /// To be restarted (inside the hypervisor only).
    ERESTART = 85,
    /// Not a socket.
    ENOTSOCK = 88,
    /// Message too large.
    EMSGSIZE = 90,
    /// Not supported.
    EOPNOTSUPP = 95,
    /// Address in use.
    EADDRINUSE = 98,
    /// Address not available.
    EADDRNOTAVAIL = 99,
    /// No buffer space.
    ENOBUFS = 105,
    /// Already connected.
    EISCONN = 106,
    /// Not connected.
    ENOTCONN = 107,
    /// Timed out.
    ETIMEDOUT = 110,
    /// Connection refused.
    ECONNREFUSED = 111,
}

impl Errno {
    /// `EWOULDBLOCK` is `EAGAIN`.
    pub const EWOULDBLOCK: Self = Self::EAGAIN;
    /// `EDEADLOCK` is `EDEADLK`.
    pub const EDEADLOCK: Self = Self::EDEADLK;

    /// The positive number.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The value for a return register: two's complement of the negated number.
    pub const fn as_ret(self) -> u64 {
        (self as i64).wrapping_neg().cast_unsigned()
    }

    /// Reads a return register: `None` when it holds a success or an error number not listed here (see [`is_error`]).
    pub const fn from_ret(ret: u64) -> Option<Self> {
        if !is_error(ret) {
            return None;
        }
        // The range check above leaves 1..=4095.
        #[allow(clippy::cast_possible_truncation)]
        Self::from_number(ret.cast_signed().wrapping_neg() as i32)
    }
}

/// Whether a return register holds any error (-4095..=-1), listed here or not.
pub const fn is_error(ret: u64) -> bool {
    ret > 0xffff_ffff_ffff_f000
}

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_register_round_trip() {
        assert_eq!(Errno::EPERM.as_ret(), u64::MAX);
        assert_eq!(Errno::from_ret(Errno::ENOSYS.as_ret()), Some(Errno::ENOSYS));
        assert_eq!(Errno::from_ret(0), None);
        assert_eq!(Errno::from_ret(22), None);
        assert!(is_error(0u64.wrapping_sub(4095)) && !is_error(0u64.wrapping_sub(4096)));
    }
}
