//! Memory maps (`memory_map`, `machine_memory_map`, `set_memory_map`) and the machine-to-phys table.

use alloc::vec::Vec;

use logic::{
    access::{Allowed, MemoryOp as Op},
    guest::{In, InOut, Out},
    num,
};
use machine::{
    boot_info::MemoryKind,
    mem::{
        end_of_ram,
        layout::{M2P_GUEST, M2P_GUEST_END},
        pv_pte::{self, M2pExtent},
    },
};
use xen_abi::{errno::Errno, ids::Mfn, memory::*};

use crate::{
    cpu::Context,
    guest::{Handle, Series, is_guest_range},
    memory,
};

/// Most entries of a memory map that is set (Xen's E820MAX).
const MAP_ENTRIES: u32 = 1024;

/// The caller's own memory map.
pub fn memory_map(cx: &mut Context<'_>, argument: u64) -> Result<(), Errno> {
    let (mut wanted, answer) = Handle::<MemoryMap, InOut>::new(argument).read()?;
    let map = cx.domain.memory.map();
    if map.is_empty() {
        return Err(Errno::ENOSYS);
    }
    let count = (wanted.nr_entries as usize).min(map.len());
    write_map(wanted.buffer, map.get(..count).unwrap_or(&[]))?;
    wanted.nr_entries = num::count(count);
    answer.write(&wanted)
}

fn write_map(to: u64, entries: &[E820Entry]) -> Result<(), Errno> {
    Series::<E820Entry, Out>::new(to).zip(entries).try_for_each(|(at, entry)| at.write(entry))
}

/// The machine's memory map, in which what the caller must not map is reserved.
pub fn machine_memory_map(cx: &mut Context<'_>, argument: u64) -> Result<(), Errno> {
    let (mut wanted, answer) = Handle::<MemoryMap, InOut>::new(argument).read()?;
    let map = machine_map(&cx.domain.memory.io_ranges());
    if wanted.buffer != 0 {
        if map.len() > wanted.nr_entries as usize {
            return Err(Errno::EINVAL);
        }
        write_map(wanted.buffer, &map)?;
    }
    wanted.nr_entries = num::count(map.len());
    answer.write(&wanted)
}

/// The loader's map; between its entries, as reserved, the frames that are in none of `allowed` (ordered).
fn machine_map(allowed: &[core::ops::Range<u64>]) -> Vec<E820Entry> {
    let mut map = Vec::new();
    let mut from = 0;
    for range in memory::machine_map() {
        forbidden(from..range.start >> 12, allowed, &mut map);
        map.push(E820Entry { addr: range.start, size: range.end - range.start, type_: e820_type(range.kind) });
        from = range.end.div_ceil(4096);
    }
    map
}

fn forbidden(gap: core::ops::Range<u64>, allowed: &[core::ops::Range<u64>], map: &mut Vec<E820Entry>) {
    let mut from = gap.start;
    let end = core::iter::once(gap.end..gap.end);
    for range in allowed.iter().cloned().chain(end) {
        let to = range.start.min(gap.end);
        if from < to {
            map.push(E820Entry { addr: from << 12, size: (to - from) << 12, type_: e820::RESERVED });
        }
        from = from.max(range.end);
    }
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

/// What another domain, or the caller, will be told by `memory_map`.
pub fn set_memory_map(cx: &mut Context<'_>, op: Allowed<Op>, argument: u64) -> Result<(), Errno> {
    let wanted = Handle::<ForeignMemoryMap, In>::new(argument).read()?;
    if wanted.map.nr_entries > MAP_ENTRIES {
        return Err(Errno::EINVAL);
    }
    let domain = cx.target(&op, wanted.domid)?;
    let mut map = Vec::new();
    map.try_reserve_exact(wanted.map.nr_entries as usize).map_err(|_| Errno::ENOMEM)?;
    for entry in Series::<E820Entry, In>::new(wanted.map.buffer).take(wanted.map.nr_entries as usize) {
        map.push(entry.read()?);
    }
    domain.memory.set_map(map);
    Ok(())
}

/// Where guests find the machine-to-phys table.
pub fn machphys_mapping(cx: &Context<'_>, argument: u64) -> Result<(), Errno> {
    let all = (M2P_GUEST_END - M2P_GUEST) / 8;
    // The control domain is told how much there really is.
    let max_mfn = if cx.domain.is_control() { end_of_ram().0 } else { all } - 1;
    Handle::<_, Out>::new(argument).write(&MachphysMapping { v_start: M2P_GUEST, v_end: M2P_GUEST_END, max_mfn })
}

/// The frames that the machine-to-phys table is made of, one for each 2 MiB: pages of `DOMID_XEN`, to be mapped for reading.
pub fn machphys_mfn_list(argument: u64) -> Result<(), Errno> {
    let (mut wanted, answer) = Handle::<MachphysMfnList, InOut>::new(argument).read()?;
    let mut list = Series::<u64, Out>::new(wanted.extent_start);
    let (mut written, mut last) = (0, Mfn(0));
    while written < wanted.max_extents {
        match pv_pte::m2p_extent(u64::from(written)) {
            M2pExtent::Frames(first) => last = first,
            // As in Xen, a hole looks like what is before it.
            M2pExtent::Hole => {}
            M2pExtent::Beyond => break,
        }
        list.step().write(&last.0)?;
        written += 1;
    }
    wanted.nr_extents = written;
    answer.write(&wanted)
}

/// Memory that devices need mapped one to one behind an IOMMU, of which there is none.
pub fn reserved_device_memory(argument: u64) -> Result<(), Errno> {
    let (mut wanted, answer) = Handle::<ReservedDeviceMemoryMap, InOut>::new(argument).read()?;
    let bytes = u64::from(wanted.nr_entries) * size_of::<ReservedDeviceMemory>() as u64;
    if !is_guest_range(wanted.buffer, bytes) {
        return Err(Errno::EFAULT);
    }
    if wanted.flags & !XENMEM_RDM_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    wanted.nr_entries = 0;
    answer.write(&wanted)
}
