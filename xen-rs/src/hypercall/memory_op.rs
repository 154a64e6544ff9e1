//! `HYPERVISOR_memory_op`: reservations and memory maps (public header `memory.h`).

use alloc::{sync::Arc, vec::Vec};

use logic::{
    access::{Allowed, MemoryOp as Op},
    frames::Zone,
    hypercall::Outcome,
    lock::Held,
    num,
};
use machine::{
    boot_info::MemoryKind,
    mem::{
        end_of_ram,
        frame_table::frames,
        guest_copy,
        layout::{M2P_GUEST, M2P_GUEST_END},
        pv_pte,
    },
};
use xen_abi::{errno::Errno, ids::Mfn, memory::*};

use crate::{cpu::Context, domain::Domain, memory};

/// Largest extent that a domain may ask for, as a power of two of pages: 2 MiB (Xen's CONFIG_DOMU_MAX_ORDER). Xen lets
/// its control domain have more unless `memop-max-order=` says so; here one extent is one bounded piece of work.
const LARGEST_ORDER: u32 = 9;
/// Pages that one round gives or takes.
const PAGES_PER_ROUND: u64 = 64;
/// Most entries of a memory map that is set.
const MAP_ENTRIES: u32 = 128;

/// The hypercall: `(command with the first extent above it, argument)`.
pub fn memory_op(cx: &mut Context<'_>) -> Outcome {
    let [command, argument, ..] = cx.args;
    let first = command >> MEMOP_EXTENT_SHIFT;
    let command = num::uint(command) & ((1 << MEMOP_EXTENT_SHIFT) - 1);
    let op = match cx.permit::<Op>(command) {
        Ok(op) => op,
        Err(errno) => return Outcome::Fail(errno),
    };
    match op.op() {
        Op::IncreaseReservation | Op::DecreaseReservation | Op::PopulatePhysmap => {
            return reservation(cx, op, command, first, argument);
        }
        _ if first != 0 => return Outcome::Fail(Errno::EINVAL),
        _ => {}
    }
    match op.op() {
        Op::IncreaseReservation | Op::DecreaseReservation | Op::PopulatePhysmap => Outcome::Fail(Errno::EINVAL),
        Op::MaximumRamPage => Outcome::Done(end_of_ram().0),
        Op::CurrentReservation | Op::MaximumReservation | Op::MaximumGpfn => totals(cx, op, argument),
        Op::MemoryMap => memory_map(cx, argument).into(),
        Op::MachineMemoryMap => machine_memory_map(argument).into(),
        Op::SetMemoryMap => set_memory_map(cx, op, argument).into(),
        Op::MachphysMapping => machphys_mapping(cx, argument).into(),
        Op::AddToPhysmap => add_to_physmap(cx, op, argument).into(),
        // No page is ever shared copy-on-write.
        Op::GetSharingFreedPages | Op::GetSharingSharedPages => Outcome::OK,
        Op::MachphysMfnList => machphys_mfn_list(argument).into(),
    }
}

fn totals(cx: &mut Context<'_>, op: Allowed<Op>, argument: u64) -> Outcome {
    let wanted: MemoryDomain = match guest_copy::read(argument) {
        Ok(wanted) => wanted,
        Err(errno) => return Outcome::Fail(errno),
    };
    let domain = match cx.target(&op, wanted.domid) {
        Ok(domain) => domain,
        Err(why) => return Outcome::Fail(why.into()),
    };
    let totals = domain.memory.totals(&mut cx.held);
    match op.op() {
        Op::CurrentReservation => Outcome::Done(totals.total),
        Op::MaximumReservation => Outcome::Done(totals.maximum),
        _ => Outcome::Done(totals.total.saturating_sub(1)),
    }
}

/// Whether one extent was done.
enum Extent {
    Done,
    /// Not yet.
    Later,
    Stop,
}

/// The three operations on reservations. Whatever goes wrong, the answer is how many extents were done (as in Xen).
fn reservation(cx: &mut Context<'_>, op: Allowed<Op>, command: u32, first: u64, argument: u64) -> Outcome {
    let Ok(wanted) = guest_copy::read::<MemoryReservation>(argument) else { return Outcome::Done(first) };
    let takes = op.op() == Op::DecreaseReservation;
    if first >= wanted.nr_extents
        || wanted.nr_extents > u64::MAX >> MEMOP_EXTENT_SHIFT
        || wanted.extent_order > LARGEST_ORDER
        || (wanted.extent_start == 0 && op.op() != Op::IncreaseReservation)
    {
        return Outcome::Done(first);
    }
    let Ok(domain) = cx.target(&op, wanted.domid) else { return Outcome::Done(first) };
    let Ok(order) = u8::try_from(wanted.extent_order) else { return Outcome::Done(first) };
    // An address width below 32 bits cannot be told apart: such memory is not kept aside.
    let zone = match wanted.mem_flags & 0xff {
        0 => Zone::Any,
        bits if u64::from(bits) >= 64 || 1 << bits >= end_of_ram().0 << 12 => Zone::Any,
        bits if bits >= 32 => Zone::Low,
        _ => return Outcome::Done(first),
    };
    if takes && !memory::finish_deferred(cx) {
        return Outcome::Again;
    }
    let mut done = first;
    let mut left = PAGES_PER_ROUND;
    while done < wanted.nr_extents {
        // A pinned tree that was given back leaves work, which comes first.
        if done > first && (left == 0 || !cx.state.paging.deferred.is_empty()) {
            return later(cx, command, done);
        }
        left = left.saturating_sub(1 << order);
        let at = wanted.extent_start.wrapping_add(done * 8);
        let extent = match op.op() {
            Op::DecreaseReservation => give_back(cx, &domain, at, order),
            Op::PopulatePhysmap => populate(&domain, at, order, zone, &mut cx.held),
            _ => increase(&domain, (wanted.extent_start != 0).then_some(at), order, zone, &mut cx.held),
        };
        match extent {
            Extent::Done => done += 1,
            Extent::Later => return later(cx, command, done),
            Extent::Stop => break,
        }
    }
    Outcome::Done(done)
}

/// The guest makes the call again from extent `done` on.
fn later(cx: &mut Context<'_>, command: u32, done: u64) -> Outcome {
    cx.args[0] = u64::from(command) | done << MEMOP_EXTENT_SHIFT;
    Outcome::Again
}

/// Frames for one extent.
fn take(domain: &Arc<Domain>, order: u8, zone: Zone, held: &mut Held<'_, 0>) -> Result<Mfn, Extent> {
    domain.memory.populate(domain, order, zone, held).map_err(|errno| match errno {
        Errno::ERESTART => Extent::Later,
        _ => Extent::Stop,
    })
}

fn populate(domain: &Arc<Domain>, at: u64, order: u8, zone: Zone, held: &mut Held<'_, 0>) -> Extent {
    let Ok(pfn) = guest_copy::read::<u64>(at) else { return Extent::Stop };
    let first = match take(domain, order, zone, held) {
        Ok(first) => first,
        Err(extent) => return extent,
    };
    for i in 0..1u64 << order {
        if let Some(f) = frames().ram(Mfn(first.0 + i)) {
            pv_pte::set_m2p(f, pfn.wrapping_add(i));
        }
    }
    if guest_copy::write(at, &first.0).is_err() { Extent::Stop } else { Extent::Done }
}

fn increase(domain: &Arc<Domain>, at: Option<u64>, order: u8, zone: Zone, held: &mut Held<'_, 0>) -> Extent {
    match (take(domain, order, zone, held), at) {
        (Err(extent), _) => extent,
        (Ok(first), Some(at)) if guest_copy::write(at, &first.0).is_err() => Extent::Stop,
        (Ok(_), _) => Extent::Done,
    }
}

fn give_back(cx: &mut Context<'_>, domain: &Arc<Domain>, at: u64, order: u8) -> Extent {
    let Ok(first) = guest_copy::read::<u64>(at) else { return Extent::Stop };
    let mut mm = memory::mmu_with(cx.held.again(), cx.domain, domain, &mut cx.state.paging.deferred);
    for mfn in first..first.saturating_add(1 << order) {
        match mm.give_back(Mfn(mfn), domain.id) {
            Ok(()) => {}
            Err(_) => return Extent::Stop,
        }
    }
    Extent::Done
}

/// The caller's own memory map.
fn memory_map(cx: &mut Context<'_>, argument: u64) -> Result<(), Errno> {
    let mut wanted: MemoryMap = guest_copy::read(argument)?;
    let map = cx.domain.memory.map();
    if map.is_empty() {
        return Err(Errno::ENOSYS);
    }
    let count = (wanted.nr_entries as usize).min(map.len());
    write_map(wanted.buffer, map.get(..count).unwrap_or(&[]))?;
    wanted.nr_entries = num::count(count);
    guest_copy::write(argument, &wanted)
}

fn write_map(to: u64, entries: &[E820Entry]) -> Result<(), Errno> {
    for (at, entry) in (to..).step_by(size_of::<E820Entry>()).zip(entries) {
        guest_copy::write(at, entry)?;
    }
    Ok(())
}

fn machine_memory_map(argument: u64) -> Result<(), Errno> {
    let mut wanted: MemoryMap = guest_copy::read(argument)?;
    let map: Vec<E820Entry> = memory::machine_map()
        .iter()
        .map(|r| E820Entry { addr: r.start, size: r.end - r.start, type_: e820_type(r.kind) })
        .collect();
    if wanted.buffer != 0 {
        if map.len() > wanted.nr_entries as usize {
            return Err(Errno::EINVAL);
        }
        write_map(wanted.buffer, &map)?;
    }
    wanted.nr_entries = num::count(map.len());
    guest_copy::write(argument, &wanted)
}

/// PV domains have no translation to add anything to.
fn add_to_physmap(cx: &mut Context<'_>, op: Allowed<Op>, argument: u64) -> Result<(), Errno> {
    let wanted: AddToPhysmap = guest_copy::read(argument)?;
    cx.target(&op, wanted.domid)?;
    Err(Errno::EACCES)
}

const fn e820_type(kind: MemoryKind) -> u32 {
    match kind {
        MemoryKind::Ram => e820::RAM,
        MemoryKind::AcpiReclaimable => e820::ACPI,
        MemoryKind::AcpiNvs => e820::NVS,
        MemoryKind::Unusable => e820::UNUSABLE,
        MemoryKind::Reserved => e820::RESERVED,
    }
}

fn set_memory_map(cx: &mut Context<'_>, op: Allowed<Op>, argument: u64) -> Result<(), Errno> {
    let wanted: ForeignMemoryMap = guest_copy::read(argument)?;
    if wanted.map.nr_entries > MAP_ENTRIES {
        return Err(Errno::EINVAL);
    }
    let domain = cx.target(&op, wanted.domid)?;
    let mut map = Vec::with_capacity(wanted.map.nr_entries as usize);
    for i in 0..u64::from(wanted.map.nr_entries) {
        map.push(guest_copy::read(wanted.map.buffer.wrapping_add(i * size_of::<E820Entry>() as u64))?);
    }
    domain.memory.set_map(map);
    Ok(())
}

fn machphys_mapping(cx: &Context<'_>, argument: u64) -> Result<(), Errno> {
    let all = (M2P_GUEST_END - M2P_GUEST) / 8;
    // The control domain is told how much there really is.
    let max_mfn = if cx.domain.is_control() { end_of_ram().0 } else { all } - 1;
    guest_copy::write(argument, &MachphysMapping { v_start: M2P_GUEST, v_end: M2P_GUEST_END, max_mfn })
}

/// The frames that the machine-to-phys table is made of, one for each 2 MiB.
fn machphys_mfn_list(argument: u64) -> Result<(), Errno> {
    let mut wanted: MachphysMfnList = guest_copy::read(argument)?;
    let mut written = 0;
    while written < wanted.max_extents
        && let Some(mfn) = pv_pte::m2p_extent(u64::from(written))
    {
        guest_copy::write(wanted.extent_start.wrapping_add(u64::from(written) * 8), &mfn.0)?;
        written += 1;
    }
    wanted.nr_extents = written;
    guest_copy::write(argument, &wanted)
}
