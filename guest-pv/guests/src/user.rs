//! A user mode to run a few instructions in: page tables of its own, one page of code, one of stack.
//!
//! Unsafe: the code page is written as bytes, and run.

use crate::{make_read_only, mmuext, page, table_page};
use core::cell::UnsafeCell;
use guest_pv::call::traps::stack_switch;
use guest_pv::mem::Frame;
use guest_pv::mem::table::{ACCESSED, DIRTY, PRESENT, TABLE, USER, WRITE};
use guest_pv::traps;
use xen_abi::arch_x86::{FLAT_KERNEL_SS, FLAT_USER_CS64, FLAT_USER_SS64};
use xen_abi::mmu::{MMUEXT_NEW_USER_BASEPTR, MMUEXT_PIN_L4_TABLE};

/// Where the code is mapped.
pub const CODE: u64 = 0x40_0000;
/// Where the stack page is mapped.
pub const STACK: u64 = 0x40_1000;
/// The first address after the stack.
pub const STACK_TOP: u64 = STACK + 0x1000;

/// Page tables with the code and stack pages, in the order L4, L3, L2, L1, code, stack.
pub struct UserSpace {
    /// The pages, kept for as long as the space is used.
    pub pages: [Frame; 6],
}

#[repr(align(16))]
struct KernelStack(UnsafeCell<[u8; 16384]>);

// SAFETY: only the processor uses it, when it enters the kernel from user mode.
unsafe impl Sync for KernelStack {}

static KERNEL_STACK: KernelStack = KernelStack(UnsafeCell::new([0; 16384]));

impl UserSpace {
    /// Makes the tables, pins them, makes them the current user tables, and sets the kernel stack.
    ///
    /// # Panics
    /// When the hypervisor refuses any of this.
    pub fn new(code: &[u8]) -> Self {
        let mut code_page = page();
        code_page.bytes_mut()[..code.len()].copy_from_slice(code);
        make_read_only(&code_page);
        let stack = page();
        let leaf = PRESENT | USER | ACCESSED;
        let l1 = table_page(&[(0, code_page.mfn().0 << 12 | leaf), (1, stack.mfn().0 << 12 | leaf | WRITE | DIRTY)]);
        let l2 = table_page(&[((CODE >> 21) as usize, l1.mfn().0 << 12 | TABLE)]);
        let l3 = table_page(&[(0, l2.mfn().0 << 12 | TABLE)]);
        let l4 = table_page(&[(0, l3.mfn().0 << 12 | TABLE)]);
        mmuext(MMUEXT_PIN_L4_TABLE, l4.mfn()).expect("a proper root can be pinned");
        mmuext(MMUEXT_NEW_USER_BASEPTR, l4.mfn()).expect("a pinned root can be the user's");
        // SAFETY: the stack is used for nothing else.
        unsafe { stack_switch(FLAT_KERNEL_SS, kernel_stack_top()) }.expect("the kernel stack can be set");
        Self { pages: [l4, l3, l2, l1, code_page, stack] }
    }
}

/// The top of the stack on which the kernel is entered from user mode.
pub fn kernel_stack_top() -> u64 {
    KERNEL_STACK.0.get() as u64 + 16384
}

/// The state in which user code starts at an offset of its page.
pub fn start_at(offset: u64) -> traps::Frame {
    traps::Frame {
        rip: CODE + offset,
        cs: FLAT_USER_CS64.into(),
        rflags: 0x202,
        rsp: STACK_TOP,
        ss: FLAT_USER_SS64.into(),
        ..Default::default()
    }
}

/// Runs in user mode until something traps. Returns the frame of that trap.
///
/// # Panics
/// Never: user mode is left by a trap only.
pub fn run(state: traps::Frame) -> traps::Frame {
    // SAFETY: the caller made a user space; what happens there ends in a trap.
    unsafe { traps::catch(|| traps::resume(state)) }.expect("user mode is left by a trap only")
}
