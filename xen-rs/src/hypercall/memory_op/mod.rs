//! `HYPERVISOR_memory_op`: reservations, memory maps, and pages that tools map (public header `memory.h`).

mod exchange;
mod maps;
mod physmap;
mod refused;
mod reservation;
mod resource;

use logic::{
    access::{Allowed, MemoryOp as Op},
    frames::Zone,
    guest::In,
    hypercall::Outcome,
    memory_op::split_command,
};
use machine::mem::end_of_ram;
use xen_abi::{arch_x86::shared_info::ARCH_MAX_PFN, errno::Errno, ids::DomId, memory::*};

use crate::{cpu::Context, domain::Domain, guest::Handle};

/// How many pages the caller has, if that is what it asks: balloons do so all the time, and any domain may.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "a domain's number has 16 bits")]
pub fn at_once(domain: &Domain, command: u64, va: u64) -> Option<u64> {
    if command != u64::from(XENMEM_CURRENT_RESERVATION) {
        return None;
    }
    let domid = DomId(Handle::<u32, In>::new(va).read_at_once().ok()? as u16);
    (domid == DomId::SELF).then(|| domain.memory.total())
}

/// The hypercall: `(command with the first extent above it, argument)`.
pub fn memory_op(cx: &mut Context<'_>) -> Outcome {
    let [command, argument, ..] = cx.args();
    let (command, first) = split_command(command);
    let op = match cx.permit::<Op>(command) {
        Ok(op) => op,
        Err(errno) => return Outcome::Fail(errno),
    };
    match op.op() {
        Op::IncreaseReservation | Op::DecreaseReservation | Op::PopulatePhysmap => {
            reservation::reservation(cx, op, command, first, argument)
        }
        _ => others(cx, op, first, argument),
    }
}

/// What is not called often.
#[inline(never)]
fn others(cx: &mut Context<'_>, op: Allowed<Op>, first: u64, argument: u64) -> Outcome {
    match op.op() {
        Op::IncreaseReservation | Op::DecreaseReservation | Op::PopulatePhysmap => Outcome::Fail(Errno::EINVAL),
        // Calls that may be continued.
        Op::AcquireResource => resource::acquire_resource(cx, op, first, argument),
        Op::AddToPhysmap => physmap::add(cx, op, first, argument),
        Op::AddToPhysmapBatch => physmap::add_batch(cx, op, first, argument),
        // Which error a continuation that cannot be gets depends on where Xen would look for one.
        Op::MemoryMap
        | Op::MachineMemoryMap
        | Op::SetMemoryMap
        | Op::MachphysMapping
        | Op::MachphysMfnList
        | Op::SetPodTarget
        | Op::GetPodTarget
        | Op::GetSharingFreedPages
        | Op::GetSharingSharedPages
            if first != 0 =>
        {
            Outcome::Fail(Errno::ENOSYS)
        }
        _ if first != 0 => Outcome::Fail(Errno::EINVAL),
        // There is no such thing in a container.
        Op::MachineMemoryMap | Op::MachphysMapping if cx.domain.pvh().is_some() => Outcome::Fail(Errno::ENOSYS),
        Op::MaximumRamPage => Outcome::Done(end_of_ram().0),
        Op::CurrentReservation => current_reservation(cx, op, argument).into(),
        Op::MaximumReservation => maximum_reservation(cx, op, argument).into(),
        Op::MaximumGpfn => maximum_gpfn(cx, op, argument).into(),
        Op::Exchange => exchange::exchange(cx, op, argument),
        Op::ClaimPages => claim_pages(cx, op, argument).into(),
        Op::MemoryMap => maps::memory_map(cx, argument).into(),
        Op::MachineMemoryMap => maps::machine_memory_map(cx, argument).into(),
        Op::SetMemoryMap => maps::set_memory_map(cx, op, argument).into(),
        Op::MachphysMapping => maps::machphys_mapping(cx, argument).into(),
        Op::MachphysMfnList => maps::machphys_mfn_list(argument).into(),
        Op::ReservedDeviceMemoryMap => maps::reserved_device_memory(argument).into(),
        Op::RemoveFromPhysmap => physmap::remove(cx, op, argument).into(),
        Op::SetPodTarget | Op::GetPodTarget => refused::pod_target(cx, op, argument).into(),
        Op::AccessOp => refused::access_op(cx, argument).into(),
        Op::GetVnumaInfo => refused::vnuma_info(cx, op, argument).into(),
        // No page is ever shared copy-on-write.
        Op::GetSharingFreedPages | Op::GetSharingSharedPages => Outcome::OK,
    }
}

/// Where memory has to be for addresses of so many bits; 0: anywhere.
///
/// Widths below 32 bits that exclude some memory cannot be told apart: such memory is not kept aside, so there is none.
fn zone(address_bits: u8) -> Result<Zone, Errno> {
    match address_bits {
        0 | 64.. => Ok(Zone::Any),
        bits if 1 << bits >= end_of_ram().0 << 12 => Ok(Zone::Any),
        ..=12 => Err(Errno::EINVAL),
        32.. => Ok(Zone::Low),
        _ => Err(Errno::ENOMEM),
    }
}

/// The address width that `mem_flags` asks for (`XENMEMF_get_address_bits`).
const fn address_bits(mem_flags: u32) -> u8 {
    (mem_flags & 0xff) as u8
}

fn current_reservation(cx: &mut Context<'_>, op: Allowed<Op>, argument: u64) -> Result<u64, Errno> {
    let id = Handle::<MemoryDomain, In>::new(argument).read()?.domid;
    let domain = cx.target(&op, id)?;
    Ok(domain.memory.totals(&mut cx.held).total)
}

fn maximum_reservation(cx: &mut Context<'_>, op: Allowed<Op>, argument: u64) -> Result<u64, Errno> {
    let id = Handle::<MemoryDomain, In>::new(argument).read()?.domid;
    let domain = cx.target(&op, id)?;
    Ok(domain.memory.totals(&mut cx.held).maximum)
}

/// The highest frame of a PVH domain's map; what a PV domain has said of itself: it writes to `shared_info` how many frames its p2m list covers.
fn maximum_gpfn(cx: &mut Context<'_>, op: Allowed<Op>, argument: u64) -> Result<u64, Errno> {
    let id = Handle::<MemoryDomain, In>::new(argument).read()?.domid;
    let domain = cx.target(&op, id)?;
    if let Some(pvh) = domain.pvh() {
        return Ok(pvh.physmap.end(&mut cx.held).0.max(1) - 1);
    }
    let frames = domain.events.shared_info().map_or(0, |page| page.load64(ARCH_MAX_PFN));
    Ok(frames.max(1) - 1)
}

fn claim_pages(cx: &mut Context<'_>, op: Allowed<Op>, argument: u64) -> Result<(), Errno> {
    let wanted = Handle::<MemoryReservation, In>::new(argument).read()?;
    // By number only: a domain is claimed for, it does not claim.
    let plain = wanted.extent_start == 0 && wanted.extent_order == 0 && wanted.mem_flags == 0;
    if !plain || wanted.domid == DomId::SELF {
        return Err(Errno::EINVAL);
    }
    let domain = cx.target(&op, wanted.domid).map_err(|_| Errno::EINVAL)?;
    domain.memory.claim(wanted.nr_extents, &mut cx.held)
}
