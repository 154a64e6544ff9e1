//! What the toolstack asks for: control operations, their interface version and their payload.
//!
//! Which operations there are and that they are the control domain's stands in `access::table`.

use xen_abi::{
    domctl::{Domctl, XEN_DOMCTL_INTERFACE_VERSION},
    errno::Errno,
    sysctl::{Sysctl, XEN_SYSCTL_INTERFACE_VERSION},
};
use zerocopy::FromBytes;

use crate::access::{Asked, DomctlOp, Operation, SysctlOp};

/// The operation of a `struct xen_domctl`. `EACCES`: another interface version.
pub fn domctl(raw: &Domctl) -> Result<Asked<DomctlOp>, Errno> {
    if raw.interface_version == XEN_DOMCTL_INTERFACE_VERSION {
        Ok(DomctlOp::asked(raw.cmd))
    } else {
        Err(Errno::EACCES)
    }
}

/// The operation of a `struct xen_sysctl`. `EACCES`: another interface version.
pub fn sysctl(raw: &Sysctl) -> Result<Asked<SysctlOp>, Errno> {
    if raw.interface_version == XEN_SYSCTL_INTERFACE_VERSION {
        Ok(SysctlOp::asked(raw.cmd))
    } else {
        Err(Errno::EACCES)
    }
}

/// The typed argument at the start of an operation's payload.
pub fn payload<T: FromBytes>(bytes: &[u8]) -> Result<T, Errno> {
    T::read_from_prefix(bytes).map(|(value, _)| value).map_err(|_| Errno::EINVAL)
}
