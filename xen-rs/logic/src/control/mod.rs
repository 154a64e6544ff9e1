//! What the toolstack asks for: control operations decoded and given their access rule.
//!
//! Decoding turns the bytes of a `struct xen_domctl` or `struct xen_sysctl` into an operation with typed arguments;
//! nothing is looked up and nothing changes. `access::permit` then says whether the caller may.

pub mod domctl;
pub mod sysctl;

use xen_abi::errno::Errno;
use zerocopy::FromBytes;

/// The typed argument at the start of an operation's payload.
fn payload<T: FromBytes>(bytes: &[u8]) -> Result<T, Errno> {
    T::read_from_prefix(bytes).map(|(value, _)| value).map_err(|_| Errno::EINVAL)
}
