//! What several conformance guests share. Each guest is one file under `src/bin`, about one subject.
//!
//! The guests misuse the interface on purpose. The helpers here have safe signatures although a wrong argument can
//! pull the ground from under the guest: nothing but the guest itself is at stake, and a guest that dies fails its
//! test. So the guests can read like lists of claims.
#![no_std]
#![allow(unsafe_code)] // See above.

pub mod big_tree;
pub mod child;
pub mod code_32;
pub mod container;
pub mod cpu;
pub mod domain;
pub mod grant_entries;
pub mod hostile;
pub mod pointers;
pub mod pools;
pub mod smp;
pub mod user;
pub mod values;

/// The bytes of some instructions, for a program that runs elsewhere. They must not depend on where they are.
#[macro_export]
macro_rules! code {
    ($($line:expr),+ $(,)?) => {{
        let (start, end): (usize, usize);
        // SAFETY: jumps over the instructions and takes their addresses.
        unsafe {
            ::core::arch::asm!(
                "lea {start}, [rip + 771f]",
                "lea {end}, [rip + 772f]",
                "jmp 772f",
                "771:",
                $($line,)+
                "772:",
                start = out(reg) start,
                end = out(reg) end,
                options(nomem, nostack, preserves_flags)
            );
            // SAFETY: these are bytes of the program.
            ::core::slice::from_raw_parts(start as *const u8, end - start)
        }
    }};
}

use core::arch::asm;
use guest_pv::alloc::vec::Vec;
use guest_pv::call::{check, raw};
use guest_pv::mem::table::{READ_ONLY, READ_WRITE};
use guest_pv::mem::{Frame, table};
use guest_pv::{Mode, mode, traps};
use xen_abi::Errno;
use xen_abi::hypercall::{HYPERVISOR_MMU_UPDATE, HYPERVISOR_MMUEXT_OP, HYPERVISOR_UPDATE_VA_MAPPING};
use xen_abi::ids::{DomId, Mfn};
use xen_abi::mmu::{MMUEXT_PIN_L4_TABLE, MMUEXT_UNPIN_TABLE, MmuUpdate, MmuextOp, UVMF_INVLPG};
use zerocopy::{FromBytes, IntoBytes};

/// Calls a function that is written into memory more than 2 MiB from any code that has run; what it returns, which is to be
/// 1234. `None`: there is not so much memory. In a container, where memory is mapped for everything.
pub fn code_elsewhere() -> Option<u32> {
    let mut frames: Vec<Frame> = (0..1024).map_while(|_| Frame::zeroed()).collect();
    let frame = if frames.len() == 1024 { frames.last_mut()? } else { return None };
    let code = code!("mov eax, 1234", "ret");
    frame.bytes_mut()[..code.len()].copy_from_slice(code);
    // SAFETY: a function that changes no other register.
    let function: extern "C" fn() -> u32 = unsafe { core::mem::transmute(frame.address()) };
    Some(function())
}

/// Any hypercall.
///
/// # Errors
/// The errno it returned.
pub fn call<const N: usize>(number: u32, args: [u64; N]) -> Result<u64, Errno> {
    // SAFETY: see the head of this file.
    check(unsafe { raw(number.into(), args) })
}

/// The shape `call(command, &argument)`.
///
/// # Errors
/// The errno it returned.
pub fn op<T: FromBytes + IntoBytes>(number: u32, command: u32, argument: &mut T) -> Result<u64, Errno> {
    call(number, [command.into(), address_of(argument)])
}

/// The address of a variable, for an argument.
pub fn address_of<T: ?Sized>(variable: &mut T) -> u64 {
    core::ptr::from_mut(variable).cast::<()>() as u64
}

/// One `mmuext_op` on this domain.
///
/// # Errors
/// The errno it returned.
pub fn mmuext(cmd: u32, mfn: Mfn) -> Result<(), Errno> {
    let mut op = MmuextOp { cmd, _pad: 0, arg1: mfn.0, arg2: 0 };
    call(HYPERVISOR_MMUEXT_OP, [address_of(&mut op), 1, 0, DomId::SELF.0.into()]).map(drop)
}

/// One `mmu_update` of this domain's page tables.
///
/// # Errors
/// The errno it returned.
pub fn mmu_update(ptr: u64, val: u64) -> Result<(), Errno> {
    let mut request = MmuUpdate { ptr, val };
    call(HYPERVISOR_MMU_UPDATE, [address_of(&mut request), 1, 0, DomId::SELF.0.into()]).map(drop)
}

/// This domain's number.
pub fn me() -> DomId {
    match mode() {
        Mode::Pv => DomId(0),
        #[allow(clippy::cast_possible_truncation, reason = "a domain's number has 16 bits")]
        Mode::Pvh => DomId(core::arch::x86_64::__cpuid_count(0x4000_0004, 0).ecx as u16),
    }
}

/// `update_va_mapping`, and what takes its place in a hardware container.
///
/// # Errors
/// The errno it returned.
pub fn update_va_mapping(va: u64, entry: u64, flags: u64) -> Result<(), Errno> {
    match mode() {
        Mode::Pv => call(HYPERVISOR_UPDATE_VA_MAPPING, [va, entry, flags]).map(drop),
        // SAFETY: see the head of this file.
        Mode::Pvh => unsafe { table::set_entry(va, entry) },
    }
}

/// A zeroed page of our own.
///
/// # Panics
/// Without memory.
pub fn page() -> Frame {
    Frame::zeroed().expect("the guest has memory")
}

/// Maps a page of the direct map read-only, as a page table must be. Make it writable before it is dropped.
///
/// # Panics
/// When the hypervisor refuses.
pub fn make_read_only(page: &Frame) {
    update_va_mapping(page.address(), page.mfn().0 << 12 | READ_ONLY, UVMF_INVLPG)
        .expect("own memory may be read-only");
}

/// Maps a page of the direct map writable.
///
/// # Errors
/// The errno of `update_va_mapping`.
pub fn make_writable(page: &Frame) -> Result<(), Errno> {
    update_va_mapping(page.address(), page.mfn().0 << 12 | READ_WRITE, UVMF_INVLPG)
}

/// A page with an entry at each given index, mapped read-only.
pub fn table_page(entries: &[(usize, u64)]) -> Frame {
    let mut table = page();
    for &(index, entry) in entries {
        table.bytes_mut()[index * 8..index * 8 + 8].copy_from_slice(&entry.to_le_bytes());
    }
    make_read_only(&table);
    table
}

/// A pinned root with what the kernel's root has, and more entries.
///
/// # Panics
/// When the hypervisor refuses it.
pub fn second_root(more: &[(usize, u64)]) -> Frame {
    // The hypervisor's slots are not ours to fill.
    let ours = (0..512).filter(|slot| !(256..272).contains(slot));
    let entries =
        ours.map(|slot| (slot, table::read_entry(table::root(), slot as u64))).filter(|(_, entry)| entry & 1 != 0);
    let root = table_page(&entries.chain(more.iter().copied()).collect::<Vec<_>>());
    mmuext(MMUEXT_PIN_L4_TABLE, root.mfn()).expect("a proper root can be pinned");
    root
}

/// Gives a pinned table of [`second_root`] up.
///
/// # Panics
/// When it is in use.
pub fn give_up_root(root: &Frame) {
    mmuext(MMUEXT_UNPIN_TABLE, root.mfn()).expect("it was pinned");
    make_writable(root).expect("it is not in use");
}

/// Machine address of an entry of a table page.
pub fn entry_of(table: &Frame, index: u64) -> u64 {
    table::entry_address(table.mfn(), index)
}

/// Reads a u64 of a page as it is now.
pub fn read(page: &Frame, index: u64) -> u64 {
    traps::peek(page.address() + index * 8).unwrap_or(0xdead_dead_dead_dead)
}

/// Vector and error code of the trap that `body` ends with, if it does.
pub fn trap_of(body: impl FnOnce()) -> Option<(u64, u64)> {
    frame_of(body).map(|frame| (frame.vector, frame.error))
}

/// The frame of the trap that `body` ends with, if it does.
pub fn frame_of(body: impl FnOnce()) -> Option<traps::Frame> {
    // SAFETY: see the head of this file.
    unsafe { traps::catch(body) }
}

/// Reads a u64 wherever it may be.
pub fn load(address: u64) -> u64 {
    let value;
    // SAFETY: see the head of this file.
    unsafe { asm!("mov {}, [{}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Writes a u64 wherever it may be.
pub fn store(address: u64, value: u64) {
    // SAFETY: see the head of this file.
    unsafe { asm!("mov [{}], {}", in(reg) address, in(reg) value, options(nostack)) };
}

/// A mapped page of zeros before one that is not mapped. Both are ordinary again when it is dropped.
pub struct Cliff {
    /// The page that is there.
    pub page: Frame,
    hole: Frame,
}

impl Cliff {
    /// Finds two neighbours and unmaps the second.
    ///
    /// # Panics
    /// Without memory.
    #[expect(clippy::new_without_default, reason = "it unmaps memory")]
    pub fn new() -> Self {
        let mut first = page();
        // The allocator gives out neighbours, but does not promise it.
        loop {
            let second = page();
            if second.pfn().0 == first.pfn().0 + 1 {
                update_va_mapping(second.address(), 0, UVMF_INVLPG).expect("it can be unmapped");
                return Self { page: first, hole: second };
            }
            first.leak();
            first = second;
        }
    }

    /// The first address where nothing is mapped.
    pub fn edge(&self) -> u64 {
        self.hole.address()
    }
}

impl Drop for Cliff {
    fn drop(&mut self) {
        make_writable(&self.hole).expect("own memory can be mapped");
    }
}
