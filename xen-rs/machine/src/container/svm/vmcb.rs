//! The virtual machine control block (APM vol. 2, appendix B).
//!
//! Unsafe: a page that the CPU reads and writes by its physical address.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::mem::offset_of;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use logic::hvm::length::MAX_LENGTH;

use crate::container::state::Segment;
use crate::mem::direct_map::phys_of_va;

/// The block, field by field.
#[repr(C, align(4096))]
pub(crate) struct Fields {
    pub cr_reads: u16,
    pub cr_writes: u16,
    pub dr_reads: u16,
    pub dr_writes: u16,
    pub exceptions: u32,
    pub instructions: [u32; 3],
    _0: [u8; 0x28],
    pub io_map: u64,
    pub msr_map: u64,
    pub tsc_offset: u64,
    pub asid: u32,
    pub tlb_control: u32,
    pub virtual_interrupt: u64,
    pub shadow: u64,
    pub exit_code: u64,
    pub exit_info: [u64; 2],
    pub exit_event: u64,
    pub nested_paging: u64,
    _1: [u64; 2],
    pub event: u64,
    pub nested_cr3: u64,
    pub extensions: u64,
    pub clean: u64,
    pub next_rip: u64,
    /// Decode assists: how many bytes of the instruction the CPU has fetched whose access to memory exited, and they.
    pub fetched: u8,
    pub instruction: [u8; MAX_LENGTH],
    _2: [u8; 0x320],
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub gdtr: Segment,
    pub ldtr: Segment,
    pub idtr: Segment,
    pub tr: Segment,
    _3: [u8; 0x2b],
    pub cpl: u8,
    _4: u32,
    pub efer: u64,
    _5: [u8; 0x70],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    _6: [u8; 0x58],
    pub rsp: u64,
    _7: [u64; 3],
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    _8: [u8; 0x20],
    pub pat: u64,
}

const _: () = assert!(
    size_of::<Fields>() == 4096
        && offset_of!(Fields, io_map) == 0x40
        && offset_of!(Fields, tsc_offset) == 0x50
        && offset_of!(Fields, event) == 0xa8
        && offset_of!(Fields, next_rip) == 0xc8
        && offset_of!(Fields, fetched) == 0xd0
        && offset_of!(Fields, es) == 0x400
        && offset_of!(Fields, tr) == 0x490
        && offset_of!(Fields, cpl) == 0x4cb
        && offset_of!(Fields, efer) == 0x4d0
        && offset_of!(Fields, cr4) == 0x548
        && offset_of!(Fields, rip) == 0x578
        && offset_of!(Fields, rsp) == 0x5d8
        && offset_of!(Fields, rax) == 0x5f8
        && offset_of!(Fields, cr2) == 0x640
        && offset_of!(Fields, pat) == 0x668
);

/// What of the block is as the CPU has seen it last (APM vol. 2, 15.15.3). CPUs without this ignore it.
pub(super) mod clean {
    /// And the TSC's offset.
    pub const INTERCEPTS: u64 = 1;
    pub const ASID: u64 = 1 << 2;
    pub const INTERRUPTS: u64 = 1 << 3;
    pub const CONTROL_REGISTERS: u64 = 1 << 5;
    pub const DEBUG: u64 = 1 << 6;
    /// Those above, and: the maps of ports and MSRs, descriptor tables, segments, CR2.
    pub const ALL: u64 = 0x3ff;
}

/// A block of this hypervisor's.
#[derive(Debug)]
pub(crate) struct Vmcb {
    page: NonNull<Fields>,
    phys: u64,
}

// SAFETY: the page belongs to this value alone, and a CPU uses it only while it has the value.
unsafe impl Send for Vmcb {}

impl Vmcb {
    /// All zeroes; `None`: no memory.
    pub(crate) fn new() -> Option<Self> {
        // SAFETY: the layout is not empty.
        let page = NonNull::new(unsafe { alloc_zeroed(Layout::new::<Fields>()) })?.cast::<Fields>();
        match phys_of_va(page.as_ptr() as u64) {
            Some(phys) => Some(Self { page, phys }),
            None => {
                // SAFETY: just allocated with this layout.
                unsafe { dealloc(page.as_ptr().cast(), Layout::new::<Fields>()) };
                None
            }
        }
    }

    /// Where the CPU finds it.
    #[inline(always)]
    pub(crate) const fn phys(&self) -> u64 {
        self.phys
    }

    /// Where others on this CPU find it while it is loaded.
    #[inline(always)]
    pub(crate) fn address(&self) -> u64 {
        self.page.as_ptr() as u64
    }
}

impl Deref for Vmcb {
    type Target = Fields;
    #[inline(always)]
    fn deref(&self) -> &Fields {
        // SAFETY: allocated and zeroed (any bytes are fields); the CPU writes only during `enter`, which takes `&mut`.
        unsafe { self.page.as_ref() }
    }
}

impl DerefMut for Vmcb {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Fields {
        // SAFETY: as above.
        unsafe { self.page.as_mut() }
    }
}

impl Drop for Vmcb {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and no CPU has it loaded: the one that had has left it.
        unsafe { dealloc(self.page.as_ptr().cast(), Layout::new::<Fields>()) };
    }
}
