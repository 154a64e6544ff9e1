//! `HYPERVISOR_domctl`: operations on one domain.

use xen_abi::{
    domctl::{self as abi, Domctl},
    errno::Errno,
    ids::{DomId, VcpuId},
};

use super::payload;
use crate::access::{Operation, Rule};

/// An operation with its arguments.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "named after the commands of the public header domctl.h")]
pub enum Command {
    CreateDomain(abi::CreateDomain),
    DestroyDomain,
    PauseDomain,
    UnpauseDomain,
    GetDomainInfo,
    SetVcpuAffinity(abi::VcpuAffinity),
    GetVcpuAffinity(abi::VcpuAffinity),
    SetNodeAffinity(abi::NodeAffinity),
    MaxMem(abi::MaxMem),
    SetVcpuContext(abi::VcpuContext),
    GetVcpuContext(abi::VcpuContext),
    GetVcpuInfo(VcpuId),
    MaxVcpus(abi::MaxVcpus),
    SchedulerOp(abi::SchedulerOp),
    SetDomainHandle(abi::SetDomainHandle),
    HypercallInit(abi::HypercallInit),
    SetAddressSize(abi::AddressSize),
    GetAddressSize,
    SetTscInfo(abi::TscInfo),
    GetTscInfo,
    ResumeDomain,
}

/// A decoded call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The domain it names; for `CreateDomain` the number wished for.
    pub domain: DomId,
    /// What to do.
    pub command: Command,
}

impl Operation for Call {
    fn rule(&self) -> Rule {
        // Xen's default policy (XSM dummy): every operation here is the control domain's.
        Rule::Control
    }

    fn target(&self) -> Option<DomId> {
        match self.command {
            Command::CreateDomain(_) => None,
            _ => Some(self.domain),
        }
    }
}

/// Decodes what the caller handed in. `EACCES`: another interface version; `ENOSYS`: not an operation we have.
pub fn decode(raw: &Domctl) -> Result<Call, Errno> {
    if raw.interface_version != abi::XEN_DOMCTL_INTERFACE_VERSION {
        return Err(Errno::EACCES);
    }
    let bytes = &raw.u;
    let command = match raw.cmd {
        abi::XEN_DOMCTL_CREATEDOMAIN => Command::CreateDomain(payload(bytes)?),
        abi::XEN_DOMCTL_DESTROYDOMAIN => Command::DestroyDomain,
        abi::XEN_DOMCTL_PAUSEDOMAIN => Command::PauseDomain,
        abi::XEN_DOMCTL_UNPAUSEDOMAIN => Command::UnpauseDomain,
        abi::XEN_DOMCTL_RESUMEDOMAIN => Command::ResumeDomain,
        abi::XEN_DOMCTL_GETDOMAININFO => Command::GetDomainInfo,
        abi::XEN_DOMCTL_SETVCPUAFFINITY => Command::SetVcpuAffinity(payload(bytes)?),
        abi::XEN_DOMCTL_GETVCPUAFFINITY => Command::GetVcpuAffinity(payload(bytes)?),
        abi::XEN_DOMCTL_SETNODEAFFINITY => Command::SetNodeAffinity(payload(bytes)?),
        abi::XEN_DOMCTL_MAX_MEM => Command::MaxMem(payload(bytes)?),
        abi::XEN_DOMCTL_SETVCPUCONTEXT => Command::SetVcpuContext(payload(bytes)?),
        abi::XEN_DOMCTL_GETVCPUCONTEXT => Command::GetVcpuContext(payload(bytes)?),
        abi::XEN_DOMCTL_GETVCPUINFO => Command::GetVcpuInfo(VcpuId(payload(bytes)?)),
        abi::XEN_DOMCTL_MAX_VCPUS => Command::MaxVcpus(payload(bytes)?),
        abi::XEN_DOMCTL_SCHEDULER_OP => Command::SchedulerOp(payload(bytes)?),
        abi::XEN_DOMCTL_SETDOMAINHANDLE => Command::SetDomainHandle(payload(bytes)?),
        abi::XEN_DOMCTL_HYPERCALL_INIT => Command::HypercallInit(payload(bytes)?),
        abi::XEN_DOMCTL_SET_ADDRESS_SIZE => Command::SetAddressSize(payload(bytes)?),
        abi::XEN_DOMCTL_GET_ADDRESS_SIZE => Command::GetAddressSize,
        abi::XEN_DOMCTL_SETTSCINFO => Command::SetTscInfo(payload(bytes)?),
        abi::XEN_DOMCTL_GETTSCINFO => Command::GetTscInfo,
        _ => return Err(Errno::ENOSYS),
    };
    Ok(Call { domain: raw.domain, command })
}
