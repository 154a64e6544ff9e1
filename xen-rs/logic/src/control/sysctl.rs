//! `HYPERVISOR_sysctl`: operations on the host.

use xen_abi::{
    errno::Errno,
    ids::DomId,
    sysctl::{self as abi, Sysctl},
};

use super::payload;
use crate::access::{Operation, Rule};

/// An operation with its arguments.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "named after the commands of the public header sysctl.h")]
pub enum Call {
    ReadConsole(abi::ReadConsole),
    PhysInfo,
    SchedId,
    GetDomainInfoList(abi::GetDomainInfoList),
    DebugKeys(abi::DebugKeys),
    CpuTopoInfo(abi::CpuTopoInfo),
}

impl Operation for Call {
    fn rule(&self) -> Rule {
        Rule::Control
    }

    fn target(&self) -> Option<DomId> {
        None
    }
}

/// Decodes what the caller handed in. `EACCES`: another interface version; `ENOSYS`: not an operation we have.
pub fn decode(raw: &Sysctl) -> Result<Call, Errno> {
    if raw.interface_version != abi::XEN_SYSCTL_INTERFACE_VERSION {
        return Err(Errno::EACCES);
    }
    let bytes = &raw.u;
    Ok(match raw.cmd {
        abi::XEN_SYSCTL_READCONSOLE => Call::ReadConsole(payload(bytes)?),
        abi::XEN_SYSCTL_PHYSINFO => Call::PhysInfo,
        abi::XEN_SYSCTL_SCHED_ID => Call::SchedId,
        abi::XEN_SYSCTL_GETDOMAININFOLIST => Call::GetDomainInfoList(payload(bytes)?),
        abi::XEN_SYSCTL_DEBUG_KEYS => Call::DebugKeys(payload(bytes)?),
        abi::XEN_SYSCTL_CPUTOPOINFO => Call::CpuTopoInfo(payload(bytes)?),
        _ => return Err(Errno::ENOSYS),
    })
}
