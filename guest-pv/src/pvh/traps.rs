//! The interrupt descriptor table: each vector's stub brings the stack to the shape that a PV guest's has and goes on in that
//! one's stub. The way back is `iretq`, which takes the place of the hypercall's first instructions.
//!
//! Unsafe: the table, and code that is changed.

/// The vector by which events arrive.
pub const EVENT_VECTOR: u8 = 0xf3;

#[cfg(target_os = "none")]
mod metal {
    use crate::pvh::stacks;
    use core::cell::UnsafeCell;

    core::arch::global_asm!(
        ".pushsection .text.traps, \"ax\", @progbits",
        // 256 stubs of 16 bytes, one per vector. The processor has pushed an error code or not, as the hypervisor would.
        ".balign 16",
        ".globl guest_pvh_vectors",
        "guest_pvh_vectors:",
        ".set guest_pvh_vector, 0",
        ".rept 256",
        ".balign 16",
        "push r11",
        "push rcx",
        ".if guest_pvh_vector == {event}",
        "jmp guest_pv_event",
        ".else",
        "jmp guest_pv_vectors + 16 * guest_pvh_vector",
        ".endif",
        ".set guest_pvh_vector, guest_pvh_vector + 1",
        ".endr",
        ".popsection",
        event = const super::EVENT_VECTOR,
    );

    unsafe extern "C" {
        static guest_pvh_vectors: u8;
        fn guest_pv_iret();
    }

    #[repr(C, align(16))]
    struct Table(UnsafeCell<[[u64; 2]; 256]>);

    // SAFETY: written by one processor at a time; what changes later is which stack a gate names.
    unsafe impl Sync for Table {}

    static TABLE: Table = Table(UnsafeCell::new([[0; 2]; 256]));

    /// Fills the table. `iretq` takes the place of the hypercall at the end of the stubs.
    pub fn init() {
        fill();
        // `iretq` is 48 cf.
        // SAFETY: the text is writable in these page tables; the stubs leave the frame that it takes.
        unsafe { (guest_pv_iret as *mut [u8; 2]).write_volatile([0x48, 0xcf]) };
    }

    /// Fills the table, with stacks of their own for traps or without.
    pub fn fill() {
        /// Present, an interrupt gate, the code segment.
        const GATE: u64 = 0x8e00 << 32 | 8 << 16;
        /// Software interrupts may come from user mode.
        const FOR_USER: u64 = 3 << 45;
        // SAFETY: nobody else writes the table at that time.
        let table = unsafe { &mut *TABLE.0.get() };
        for (entry, vector) in table.iter_mut().zip(0u64..) {
            let stub = (&raw const guest_pvh_vectors) as u64 + 16 * vector;
            let user = if matches!(vector, 3 | 4) || vector >= 32 { FOR_USER } else { 0 };
            let stack = if stacks::in_use() { stacks::of_vector(vector) << 32 } else { 0 };
            *entry = [stub & 0xffff | (stub >> 16 & 0xffff) << 48 | GATE | user | stack, stub >> 32];
        }
    }

    /// Makes it the table of the processor that runs this.
    pub fn load() {
        let mut register = [0u8; 10];
        register[..2].copy_from_slice(&4095u16.to_le_bytes());
        register[2..].copy_from_slice(&(TABLE.0.get() as u64).to_le_bytes());
        // SAFETY: the table is static.
        unsafe { core::arch::asm!("lidt [{}]", in(reg) &raw const register, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_os = "none")]
pub use metal::{fill, init, load};
