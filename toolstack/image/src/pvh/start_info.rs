//! The start info of a PVH kernel and all that it points to, in one piece: `hvm_start_info` version 1, the list of modules,
//! the memory map, the command line.

use alloc::vec::Vec;

use xen_abi::hvm::{HvmMemmapTableEntry, HvmModlistEntry, HvmStartInfo, XEN_HVM_START_MAGIC_VALUE};
use xen_abi::memory::E820Entry;
use zerocopy::IntoBytes;

use super::Request;

/// What it says.
pub struct Contents<'a> {
    /// Where it is to lie.
    pub at: u64,
    /// Address and bytes of the ramdisk.
    pub ramdisk: Option<(u64, u64)>,
    /// Address of the RSDP.
    pub rsdp: u64,
    /// The domain.
    pub request: &'a Request<'a>,
    /// Its memory.
    pub map: &'a [E820Entry],
}

/// How many bytes that is.
pub fn len(request: &Request<'_>, map: &[E820Entry]) -> u64 {
    let modules = if request.ramdisk_len > 0 { size_of::<HvmModlistEntry>() } else { 0 };
    let entries = map.len() * size_of::<HvmMemmapTableEntry>();
    (size_of::<HvmStartInfo>() + modules + entries + request.cmdline.len() + 1) as u64
}

/// The bytes.
pub fn bytes(contents: &Contents<'_>) -> Vec<u8> {
    let modules_at = contents.at + size_of::<HvmStartInfo>() as u64;
    let modules = contents.ramdisk.map(|(paddr, size)| HvmModlistEntry { paddr, size, ..Default::default() });
    let map_at = modules_at + modules.map_or(0, |_| size_of::<HvmModlistEntry>() as u64);
    let map: Vec<_> = contents.map.iter().map(memory_map_entry).collect();
    let cmdline_at = map_at + size_of_val(map.as_slice()) as u64;
    let info = HvmStartInfo {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        flags: contents.request.flags,
        nr_modules: u32::from(modules.is_some()),
        modlist_paddr: if modules.is_some() { modules_at } else { 0 },
        cmdline_paddr: cmdline_at,
        rsdp_paddr: contents.rsdp,
        memmap_paddr: map_at,
        memmap_entries: u32::try_from(map.len()).unwrap_or(0),
        ..Default::default()
    };
    let mut bytes = info.as_bytes().to_vec();
    if let Some(module) = modules {
        bytes.extend_from_slice(module.as_bytes());
    }
    bytes.extend_from_slice(map.as_bytes());
    bytes.extend_from_slice(contents.request.cmdline);
    bytes.push(0);
    bytes
}

fn memory_map_entry(entry: &E820Entry) -> HvmMemmapTableEntry {
    // The types' numbers are the same in both maps.
    HvmMemmapTableEntry { addr: entry.addr, size: entry.size, type_: entry.type_, reserved: 0 }
}
