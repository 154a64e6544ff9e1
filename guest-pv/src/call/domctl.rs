//! `domctl`: building and ruling other domains (public `domctl.h`). For the control domain.
//!
//! All of these are safe: they act on other domains, and buffers are passed as slices. [`payload`] is the way to
//! operations without a wrapper here.
//!
//! Unsafe: a hypercall is told addresses of structures, which in turn hold some.

use super::{check, raw};
use xen_abi::arch_x86::{CpuidLeaf, MsrEntry, VcpuGuestContext};
use xen_abi::domctl::{
    AddressSize, Bitmap, CpuPolicy, CreateDomain, Domctl, GetDomainInfo, GetPageFrameInfo3, GetVcpuInfo, HvmContext,
    HypercallInit, MaxMem, MaxVcpus, NodeAffinity, PagingMempool, SchedCredit2, SchedulerOp, SendTrigger,
    SetDomainHandle, SetTimeOffset, SetVirqHandler, TscInfo, VcpuAffinity, VcpuContext, XEN_DOMCTL_CREATEDOMAIN,
    XEN_DOMCTL_DESTROYDOMAIN, XEN_DOMCTL_GET_ADDRESS_SIZE, XEN_DOMCTL_GET_CPU_POLICY, XEN_DOMCTL_GETDOMAININFO,
    XEN_DOMCTL_GETHVMCONTEXT, XEN_DOMCTL_GETNODEAFFINITY, XEN_DOMCTL_GETPAGEFRAMEINFO3, XEN_DOMCTL_GETTSCINFO,
    XEN_DOMCTL_GETVCPUAFFINITY, XEN_DOMCTL_GETVCPUCONTEXT, XEN_DOMCTL_GETVCPUINFO, XEN_DOMCTL_HYPERCALL_INIT,
    XEN_DOMCTL_INTERFACE_VERSION, XEN_DOMCTL_MAX_MEM, XEN_DOMCTL_MAX_VCPUS, XEN_DOMCTL_PAUSEDOMAIN,
    XEN_DOMCTL_SCHEDOP_GETINFO, XEN_DOMCTL_SCHEDOP_PUTINFO, XEN_DOMCTL_SCHEDULER_OP, XEN_DOMCTL_SENDTRIGGER,
    XEN_DOMCTL_SET_ADDRESS_SIZE, XEN_DOMCTL_SET_CPU_POLICY, XEN_DOMCTL_SET_PAGING_MEMPOOL_SIZE,
    XEN_DOMCTL_SET_VIRQ_HANDLER, XEN_DOMCTL_SETDOMAINHANDLE, XEN_DOMCTL_SETHVMCONTEXT, XEN_DOMCTL_SETTIMEOFFSET,
    XEN_DOMCTL_SETTSCINFO, XEN_DOMCTL_SETVCPUAFFINITY, XEN_DOMCTL_SETVCPUCONTEXT, XEN_DOMCTL_UNPAUSEDOMAIN,
    XEN_SCHEDULER_CREDIT2,
};
use xen_abi::errno::Errno;
use xen_abi::hypercall::HYPERVISOR_DOMCTL;
use xen_abi::ids::{DomId, VcpuId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Runs an operation with its payload, which is replaced by the answer. Returns the domain in the answer's header.
///
/// # Safety
/// Pointers in the payload are valid for what the operation does with them, and an operation on the calling domain
/// itself leaves it able to run.
///
/// # Errors
/// Those of the hypercall.
pub unsafe fn payload<T>(cmd: u32, domain: DomId, payload: &mut T) -> Result<DomId, Errno>
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout,
{
    let mut op = Domctl { cmd, interface_version: XEN_DOMCTL_INTERFACE_VERSION, domain, ..Default::default() };
    payload.write_to_prefix(&mut op.u).map_err(|_| Errno::EINVAL)?;
    // SAFETY: by the contract above; the struct outlives the call.
    check(unsafe { raw(HYPERVISOR_DOMCTL.into(), [(&raw mut op) as u64]) })?;
    let (answer, _) = T::read_from_prefix(&op.u).map_err(|_| Errno::EINVAL)?;
    *payload = answer;
    Ok(op.domain)
}

/// An operation whose payload holds no pointers.
fn plain<T: FromBytes + IntoBytes + Immutable + KnownLayout>(
    cmd: u32,
    domain: DomId,
    arg: &mut T,
) -> Result<(), Errno> {
    // SAFETY: without pointers there is nothing to go wrong in memory.
    unsafe { payload(cmd, domain, arg) }.map(drop)
}

fn len(slice_len: usize) -> Result<u32, Errno> {
    u32::try_from(slice_len).map_err(|_| Errno::EINVAL)
}

/// Creates a domain; `domain` 0 lets the hypervisor choose the number, which is returned.
///
/// # Errors
/// Those of the hypercall.
pub fn create_domain(domain: DomId, config: &CreateDomain) -> Result<DomId, Errno> {
    // SAFETY: no pointers.
    unsafe { payload(XEN_DOMCTL_CREATEDOMAIN, domain, &mut config.clone()) }
}

/// Destroys a domain. Long work: on `EAGAIN` or `ERESTART` (which the hypervisor may return where it does not continue
/// by itself) call again.
///
/// # Errors
/// Those of the hypercall.
pub fn destroy_domain(domain: DomId) -> Result<(), Errno> {
    plain(XEN_DOMCTL_DESTROYDOMAIN, domain, &mut 0u8)
}

/// Pauses a domain (counted).
///
/// # Errors
/// Those of the hypercall.
pub fn pause_domain(domain: DomId) -> Result<(), Errno> {
    plain(XEN_DOMCTL_PAUSEDOMAIN, domain, &mut 0u8)
}

/// Takes back one pause; a new domain is paused once.
///
/// # Errors
/// Those of the hypercall.
pub fn unpause_domain(domain: DomId) -> Result<(), Errno> {
    plain(XEN_DOMCTL_UNPAUSEDOMAIN, domain, &mut 0u8)
}

/// Information on the domain with this number or, when there is none, the next one.
///
/// # Errors
/// `ESRCH` when there is none from there on.
pub fn get_domain_info(domain: DomId) -> Result<GetDomainInfo, Errno> {
    let mut info = GetDomainInfo::default();
    plain(XEN_DOMCTL_GETDOMAININFO, domain, &mut info)?;
    Ok(info)
}

/// Limits a domain's memory, in KiB.
///
/// # Errors
/// Those of the hypercall.
pub fn max_mem(domain: DomId, max_memkb: u64) -> Result<(), Errno> {
    plain(XEN_DOMCTL_MAX_MEM, domain, &mut MaxMem { max_memkb })
}

/// Makes the vCPUs.
///
/// # Errors
/// Those of the hypercall.
pub fn max_vcpus(domain: DomId, max: u32) -> Result<(), Errno> {
    plain(XEN_DOMCTL_MAX_VCPUS, domain, &mut MaxVcpus { max })
}

/// Sets the domain's handle (UUID).
///
/// # Errors
/// Those of the hypercall.
pub fn set_domain_handle(domain: DomId, handle: [u8; 16]) -> Result<(), Errno> {
    plain(XEN_DOMCTL_SETDOMAINHANDLE, domain, &mut SetDomainHandle { handle })
}

/// Fills the hypercall page at a guest frame.
///
/// # Errors
/// Those of the hypercall.
pub fn hypercall_init(domain: DomId, gmfn: u64) -> Result<(), Errno> {
    plain(XEN_DOMCTL_HYPERCALL_INIT, domain, &mut HypercallInit { gmfn })
}

/// Chooses a 32- or 64-bit guest, before it has memory.
///
/// # Errors
/// Those of the hypercall.
pub fn set_address_size(domain: DomId, bits: u32) -> Result<(), Errno> {
    plain(XEN_DOMCTL_SET_ADDRESS_SIZE, domain, &mut AddressSize { size: bits })
}

/// What credit2 gives to a domain.
///
/// # Errors
/// Those of the hypercall.
pub fn credit2(domain: DomId) -> Result<SchedCredit2, Errno> {
    let mut arg =
        SchedulerOp { sched_id: XEN_SCHEDULER_CREDIT2, cmd: XEN_DOMCTL_SCHEDOP_GETINFO, ..Default::default() };
    plain(XEN_DOMCTL_SCHEDULER_OP, domain, &mut arg)?;
    let (info, _) = SchedCredit2::read_from_prefix(arg.u.as_bytes()).map_err(|_| Errno::EINVAL)?;
    Ok(info)
}

/// A domain's weight and cap under its scheduler, which is credit or credit2.
///
/// # Errors
/// Those of the hypercall.
pub fn share(domain: DomId, scheduler: u32) -> Result<(u16, u16), Errno> {
    let mut arg = SchedulerOp { sched_id: scheduler, cmd: XEN_DOMCTL_SCHEDOP_GETINFO, ..Default::default() };
    plain(XEN_DOMCTL_SCHEDULER_OP, domain, &mut arg)?;
    let (info, _) = SchedCredit2::read_from_prefix(arg.u.as_bytes()).map_err(|_| Errno::EINVAL)?;
    Ok((info.weight, info.cap))
}

/// Sets both.
///
/// # Errors
/// Those of the hypercall.
pub fn set_share(domain: DomId, scheduler: u32, weight: u16, cap: u16) -> Result<(), Errno> {
    let mut arg = SchedulerOp { sched_id: scheduler, cmd: XEN_DOMCTL_SCHEDOP_PUTINFO, ..Default::default() };
    SchedCredit2 { weight, cap }.write_to_prefix(arg.u.as_mut_bytes()).map_err(|_| Errno::EINVAL)?;
    plain(XEN_DOMCTL_SCHEDULER_OP, domain, &mut arg)
}

/// Sets what credit2 gives to a domain.
///
/// # Errors
/// Those of the hypercall.
pub fn set_credit2(domain: DomId, info: SchedCredit2) -> Result<(), Errno> {
    let mut arg =
        SchedulerOp { sched_id: XEN_SCHEDULER_CREDIT2, cmd: XEN_DOMCTL_SCHEDOP_PUTINFO, ..Default::default() };
    info.write_to_prefix(arg.u.as_mut_bytes()).map_err(|_| Errno::EINVAL)?;
    plain(XEN_DOMCTL_SCHEDULER_OP, domain, &mut arg)
}

/// The width of the guest, in bits.
///
/// # Errors
/// Those of the hypercall.
pub fn get_address_size(domain: DomId) -> Result<u32, Errno> {
    let mut arg = AddressSize::default();
    plain(XEN_DOMCTL_GET_ADDRESS_SIZE, domain, &mut arg)?;
    Ok(arg.size)
}

/// Chooses how the guest sees the TSC.
///
/// # Errors
/// Those of the hypercall.
pub fn set_tsc_info(domain: DomId, info: TscInfo) -> Result<(), Errno> {
    plain(XEN_DOMCTL_SETTSCINFO, domain, &mut info.clone())
}

/// Sets how many seconds a domain's wall clock is ahead of the host's.
///
/// # Errors
/// Those of the hypercall.
pub fn set_time_offset(domain: DomId, seconds: i64) -> Result<(), Errno> {
    plain(XEN_DOMCTL_SETTIMEOFFSET, domain, &mut SetTimeOffset { time_offset_seconds: seconds })
}

/// How the guest sees the TSC.
///
/// # Errors
/// Those of the hypercall.
pub fn get_tsc_info(domain: DomId) -> Result<TscInfo, Errno> {
    let mut info = TscInfo::default();
    plain(XEN_DOMCTL_GETTSCINFO, domain, &mut info)?;
    Ok(info)
}

/// What a vCPU is doing.
///
/// # Errors
/// Those of the hypercall.
pub fn get_vcpu_info(domain: DomId, vcpu: VcpuId) -> Result<GetVcpuInfo, Errno> {
    let mut info = GetVcpuInfo { vcpu, ..Default::default() };
    plain(XEN_DOMCTL_GETVCPUINFO, domain, &mut info)?;
    Ok(info)
}

/// Sets the memory (bytes) that the hypervisor may use for an HVM or PVH domain's own tables. Long work; continues by
/// itself.
///
/// # Errors
/// Those of the hypercall.
pub fn set_paging_mempool_size(domain: DomId, size: u64) -> Result<(), Errno> {
    plain(XEN_DOMCTL_SET_PAGING_MEMPOOL_SIZE, domain, &mut PagingMempool { size })
}

/// Sends a global virtual interrupt to `domain` from now on.
///
/// # Errors
/// Those of the hypercall.
pub fn set_virq_handler(domain: DomId, virq: u32) -> Result<(), Errno> {
    plain(XEN_DOMCTL_SET_VIRQ_HANDLER, domain, &mut SetVirqHandler { virq })
}

/// Sets a vCPU's registers and tables.
///
/// # Errors
/// Those of the hypercall.
pub fn set_vcpu_context(domain: DomId, vcpu: VcpuId, context: &VcpuGuestContext) -> Result<(), Errno> {
    let mut arg = VcpuContext { vcpu, _pad: 0, ctxt: core::ptr::from_ref(context) as u64 };
    // SAFETY: the hypervisor reads the context; it refuses the calling domain.
    unsafe { payload(XEN_DOMCTL_SETVCPUCONTEXT, domain, &mut arg) }.map(drop)
}

/// The nodes that a domain's memory had better come from, as bits.
///
/// # Errors
/// Those of the hypercall.
pub fn node_affinity(domain: DomId, nodes: &mut [u8]) -> Result<(), Errno> {
    let nr_bits = u32::try_from(nodes.len() * 8).map_err(|_| Errno::EINVAL)?;
    let nodemap = Bitmap { bitmap: nodes.as_mut_ptr() as u64, nr_bits, ..Default::default() };
    // SAFETY: the hypervisor writes at most as many bits as there are.
    unsafe { payload(XEN_DOMCTL_GETNODEAFFINITY, domain, &mut NodeAffinity { nodemap }) }.map(drop)
}

/// Replaces machine frames by what the domain uses them as (`XEN_DOMCTL_PFINFO_*`).
///
/// # Errors
/// Those of the hypercall: `E2BIG` for more than 1024.
pub fn frame_types(domain: DomId, frames: &mut [u64]) -> Result<(), Errno> {
    let mut arg = GetPageFrameInfo3 { num: frames.len() as u64, array: frames.as_mut_ptr() as u64 };
    // SAFETY: the hypervisor reads and writes the array, which we hold exclusively.
    unsafe { payload(XEN_DOMCTL_GETPAGEFRAMEINFO3, domain, &mut arg) }.map(drop)
}

/// Reads a vCPU's registers and tables.
///
/// # Errors
/// Those of the hypercall.
pub fn get_vcpu_context(domain: DomId, vcpu: VcpuId, context: &mut VcpuGuestContext) -> Result<(), Errno> {
    let mut arg = VcpuContext { vcpu, _pad: 0, ctxt: core::ptr::from_mut(context) as u64 };
    // SAFETY: the hypervisor fills a struct of this type that we hold exclusively.
    unsafe { payload(XEN_DOMCTL_GETVCPUCONTEXT, domain, &mut arg) }.map(drop)
}

/// Reads a domain's CPUID leaves and MSRs; returns how many of each there are.
///
/// # Errors
/// Those of the hypercall; `ENOBUFS` when the slices are too short.
pub fn get_cpu_policy(domain: DomId, leaves: &mut [CpuidLeaf], msrs: &mut [MsrEntry]) -> Result<(usize, usize), Errno> {
    let mut arg = CpuPolicy {
        nr_leaves: len(leaves.len())?,
        nr_msrs: len(msrs.len())?,
        leaves: leaves.as_mut_ptr() as u64,
        msrs: msrs.as_mut_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the hypervisor writes at most the given numbers of entries.
    unsafe { payload(XEN_DOMCTL_GET_CPU_POLICY, domain, &mut arg) }?;
    Ok((arg.nr_leaves as usize, arg.nr_msrs as usize))
}

/// Changes a domain's CPUID leaves and MSRs, before it runs.
///
/// # Errors
/// Those of the hypercall.
pub fn set_cpu_policy(domain: DomId, leaves: &[CpuidLeaf], msrs: &[MsrEntry]) -> Result<(), Errno> {
    let mut arg = CpuPolicy {
        nr_leaves: len(leaves.len())?,
        nr_msrs: len(msrs.len())?,
        leaves: leaves.as_ptr() as u64,
        msrs: msrs.as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the hypervisor only reads the entries.
    unsafe { payload(XEN_DOMCTL_SET_CPU_POLICY, domain, &mut arg) }.map(drop)
}

/// Reads an HVM domain's state; returns its size. An empty buffer asks for the size only.
///
/// # Errors
/// Those of the hypercall.
pub fn get_hvm_context(domain: DomId, buffer: &mut [u8]) -> Result<usize, Errno> {
    let pointer = if buffer.is_empty() { 0 } else { buffer.as_mut_ptr() as u64 };
    let mut arg = HvmContext { size: len(buffer.len())?, _pad: 0, buffer: pointer };
    // SAFETY: the hypervisor writes at most `size` bytes.
    unsafe { payload(XEN_DOMCTL_GETHVMCONTEXT, domain, &mut arg) }?;
    Ok(arg.size as usize)
}

/// Sets an HVM domain's state.
///
/// # Errors
/// Those of the hypercall.
pub fn set_hvm_context(domain: DomId, context: &[u8]) -> Result<(), Errno> {
    let mut arg = HvmContext { size: len(context.len())?, _pad: 0, buffer: context.as_ptr() as u64 };
    // SAFETY: the hypervisor only reads the buffer.
    unsafe { payload(XEN_DOMCTL_SETHVMCONTEXT, domain, &mut arg) }.map(drop)
}

/// One half of [`affinity`]: as many bits as the bytes hold.
fn bitmap(bytes: &mut [u8]) -> Result<Bitmap, Errno> {
    Ok(Bitmap { bitmap: bytes.as_mut_ptr() as u64, nr_bits: len(bytes.len() * 8)?, ..Default::default() })
}

/// Sets or reads (`cmd`) where a vCPU is to run: `flags` (`XEN_VCPUAFFINITY_*`) say which of the two bitmaps count. What is
/// in force then comes back in them.
///
/// # Errors
/// Those of the hypercall.
pub fn affinity(
    cmd: u32,
    domain: DomId,
    vcpu: VcpuId,
    flags: u32,
    hard: &mut [u8],
    soft: &mut [u8],
) -> Result<(), Errno> {
    if cmd != XEN_DOMCTL_SETVCPUAFFINITY && cmd != XEN_DOMCTL_GETVCPUAFFINITY {
        return Err(Errno::EINVAL);
    }
    let mut arg = VcpuAffinity { vcpu, flags, cpumap_hard: bitmap(hard)?, cpumap_soft: bitmap(soft)? };
    // SAFETY: the hypervisor reads and writes at most as many bits as the slices hold.
    unsafe { payload(cmd, domain, &mut arg) }.map(drop)
}

/// Presses a button of a domain's machine (`XEN_DOMCTL_SENDTRIGGER_*`).
///
/// # Errors
/// Those of the hypercall.
pub fn send_trigger(domain: DomId, trigger: u32, vcpu: VcpuId) -> Result<(), Errno> {
    plain(XEN_DOMCTL_SENDTRIGGER, domain, &mut SendTrigger { trigger, vcpu })
}
