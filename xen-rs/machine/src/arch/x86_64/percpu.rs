//! The memory of one CPU: stub page, stacks, and its block of data at the end, found from the stack pointer alone.
//!
//! ```text
//! + 0x00000   entry stubs of this CPU (SYSCALL and SYSENTER point here), executable
//! + 0x01000   stacks for #DF, NMI, #MC, #DB (two pages each)
//! + 0x09000   not mapped: overflow of the main stack faults
//! + 0x0a000   main stack, growing down from ...
//! + 0x20000   ... the block `PerCpu`, which ends here
//! + 0x20000   the GDT that this CPU runs on: 14 pages of the guest, then the hypervisor's own
//! + 0x30000   the LDT: 16 pages of the guest
//! ```
//!
//! No GS base is used: guests own both.
//!
//! Unsafe: the block of a CPU is found from the stack pointer.

use super::gdt::{self, Tss};
use crate::mem::layout::{PAGE_SIZE, PER_CPU, PER_CPU_END};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

/// Bytes of one region, and its alignment.
pub const REGION: u64 = 0x2_0000;
/// Distance of one CPU's region to the next.
pub const STRIDE: u64 = 2 * REGION;
/// Offset of the window with the global descriptor table.
pub const GDT_WINDOW: u64 = REGION;
/// Offset of the window with the local descriptor table.
pub const LDT_WINDOW: u64 = REGION + 0x1_0000;
/// Pages of either window.
pub const WINDOW_PAGES: usize = 16;
/// How many regions there can be.
pub const MAX_CPUS: u32 = ((PER_CPU_END - PER_CPU) / STRIDE) as u32;

/// Offset of the first IST stack.
pub const IST_STACKS: u64 = 0x1000;
/// Bytes of one IST stack.
pub const IST_STACK: u64 = 0x2000;
/// Offset of the page that is never mapped.
pub const GUARD: u64 = 0x9000;
/// Offset of [`PerCpu`], and of the first byte behind the guest's register frame.
pub const TOP: u64 = REGION - size_of::<PerCpu>() as u64;

/// The data of one CPU that machine itself needs.
#[repr(C, align(16))]
pub struct PerCpu {
    /// Where the SYSCALL stub puts the guest's stack pointer for a moment.
    pub(super) scratch_rsp: AtomicU64,
    /// This CPU's number, 0 is the boot processor.
    pub(crate) number: AtomicU32,
    /// Vector of the last exception in the hypervisor that the exception table caught.
    pub(super) fault_vector: AtomicU32,
    /// Its error code.
    pub(super) fault_error: AtomicU32,
    /// Set by the first fatal error on this CPU: a second one only stops.
    pub(crate) panicking: AtomicBool,
    /// The hypervisor's `Cpu`, as a pointer to it, 0 before there is one.
    pub(super) hypervisor_cpu: AtomicU64,
    /// Whether a bit of `arrived` may be set.
    pub(super) arrived_any: AtomicBool,
    /// Interrupts that arrived while this CPU was not in a guest: one bit for each vector.
    pub(super) arrived: [AtomicU64; 4],
    /// Its APIC id.
    pub(crate) apic_id: AtomicU32,
    /// How many CPUs have not answered this CPU's request yet.
    pub(crate) request_open: AtomicU32,
    /// What this CPU asks of others: a `fn(u64)`, and its argument.
    pub(crate) request_work: AtomicU64,
    /// See `request_work`.
    pub(crate) request_argument: AtomicU64,
    /// CPUs that ask something of this one.
    pub(crate) inbox: AtomicU64,
    /// First of the last-level entries of the GDT window, then of the LDT window.
    pub(super) window_entries: AtomicU64,
    /// The entry of the page without descriptors.
    pub(super) no_descriptors: AtomicU64,
    /// How many pages of the GDT window are a guest's.
    pub(super) gdt_pages: AtomicU32,
    /// Which pages of the LDT window are shown.
    pub(super) ldt_pages: AtomicU32,
    /// Descriptors in the LDT.
    pub(super) ldt_entries: AtomicU32,
    /// Physical address of three pages of this CPU for containers, 0 where there is no such hardware. What is in the first
    /// two is the vendor's affair, in the third `container::known`'s and `container::window`'s.
    pub(crate) container_pages: AtomicU64,
    /// The control block of the container that is loaded, 0 for none.
    pub(crate) container_block: AtomicU64,
    /// Its nested page tables.
    pub(crate) container_tables: AtomicU64,
    /// The address space number that was given last.
    pub(crate) last_asid: AtomicU32,
    /// How often they were used up.
    pub(crate) asid_round: AtomicU64,
    /// The task state segment.
    pub(super) tss: Tss,
}

const _: () = assert!(size_of::<PerCpu>().is_multiple_of(16) && size_of::<PerCpu>() < 0x1000);

/// First address of the region that the running CPU's stack lies in.
#[inline(always)]
#[must_use]
pub fn region() -> u64 {
    let rsp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    rsp & !(REGION - 1)
}

/// This CPU's data. The reference must not be handed to another CPU's work: it is `!Send` by its use of one stack.
#[inline(always)]
#[must_use]
pub fn this() -> &'static PerCpu {
    // SAFETY: every stack the hypervisor runs on lies in a region whose end is an initialised `PerCpu` (zeroes are one),
    // and regions are never freed. All fields that change are atomics.
    unsafe { &*((region() + TOP) as *const PerCpu) }
}

/// Number of the running CPU.
#[inline]
#[must_use]
pub fn number() -> u32 {
    this().number.load(core::sync::atomic::Ordering::Relaxed)
}

/// What a CPU's descriptor tables are at, for whoever brings them back.
#[cfg(target_os = "none")]
pub(crate) struct HostTables {
    /// The task state segment's selector.
    pub task: u64,
    /// Its address.
    pub task_base: u64,
    /// Address of the GDT.
    pub gdt: u64,
    /// Address of the IDT.
    pub idt: u64,
}

/// Those of the running CPU.
#[cfg(target_os = "none")]
pub(crate) fn host_tables() -> HostTables {
    HostTables {
        task: gdt::TSS_SELECTOR.into(),
        task_base: region() + TOP + core::mem::offset_of!(PerCpu, tss) as u64,
        gdt: region() + GDT_WINDOW,
        idt: super::idt::address(),
    }
}

/// Gives GDT and IDT of the running CPU their limits again, which a VM exit takes away.
#[cfg(target_os = "none")]
pub(crate) fn restore_table_limits() {
    gdt::load_table();
    super::idt::load();
}

/// First address of the region of CPU `number`.
#[must_use]
pub const fn region_of(number: u32) -> u64 {
    PER_CPU + number as u64 * STRIDE
}

/// The data of CPU `number`, whose region must exist.
#[cfg(target_os = "none")]
pub(crate) fn of(number: u32) -> &'static PerCpu {
    // SAFETY: as in `this`; callers pass numbers of CPUs that were counted at boot, after `create`.
    unsafe { &*((region_of(number) + TOP) as *const PerCpu) }
}

#[cfg(target_os = "none")]
unsafe extern "C" {
    static stub_base: u8;
    static stub_syscall64_end: u8;
    static stub_syscall32_end: u8;
    static stub_sysenter_end: u8;
    static stub_end: u8;
}

/// Offsets of the entry stubs in the first page of a region.
pub(super) const STUB_SYSCALL64: u64 = 0;
/// Compatibility mode.
pub(super) const STUB_SYSCALL32: u64 = 64;
/// Sysenter.
pub(super) const STUB_SYSENTER: u64 = 128;

/// Copies the entry stubs for the region at `region` to the page at `phys`: their jumps are relative.
#[cfg(target_os = "none")]
fn write_stubs(phys: u64, region: u64) {
    let base = (&raw const stub_base) as u64;
    let length = (&raw const stub_end) as u64 - base;
    let page = crate::mem::direct_map::va_of_phys(phys);
    // SAFETY: a fresh page in the direct map; the template is shorter than a page.
    unsafe {
        (page as *mut u8).write_bytes(0xcc, PAGE_SIZE as usize);
        core::ptr::copy_nonoverlapping(base as *const u8, page as *mut u8, length as usize);
    }
    for end in [&raw const stub_syscall64_end, &raw const stub_syscall32_end, &raw const stub_sysenter_end] {
        // Each stub ends with a jump whose 32-bit distance is its last four bytes.
        let at = (page + (end as u64 - base) - 4) as *mut i32;
        let moved = base.wrapping_sub(region) as i64 as i32;
        // SAFETY: inside the copy; regions lie within 2 GiB of the image.
        unsafe { at.write_unaligned(at.read_unaligned().wrapping_add(moved)) };
    }
}

/// Makes the region of CPU `number`.
///
/// # Safety
/// Boot, one CPU, once for each number.
#[cfg(target_os = "none")]
pub(super) unsafe fn create(frames: &mut crate::mem::boot_frames::BootFrames, number: u32) {
    use crate::mem::direct_map::va_of_phys;
    use crate::mem::hypervisor_map::{Access, Tables};

    assert!(number < MAX_CPUS, "too many CPUs");
    let region = region_of(number);
    // SAFETY: one CPU, so nobody else changes the tables.
    let mut tables = unsafe { Tables::current(frames) };
    let mut zeroed = |bytes: u64| -> u64 {
        let Some(phys) = tables.frames().take(bytes, PAGE_SIZE) else {
            panic!("no memory for CPU {number}");
        };
        // SAFETY: fresh memory in the direct map.
        unsafe { (va_of_phys(phys) as *mut u8).write_bytes(0, bytes as usize) };
        phys
    };
    let stub = zeroed(PAGE_SIZE);
    let ist = zeroed(GUARD - IST_STACKS);
    let main = zeroed(REGION - GUARD - PAGE_SIZE);
    let gdt_page = zeroed(PAGE_SIZE);
    let no_descriptors = zeroed(PAGE_SIZE);
    let container = if crate::container::vendor().is_some() { zeroed(3 * PAGE_SIZE) } else { 0 };
    write_stubs(stub, region);
    tables.map(region, stub, PAGE_SIZE, Access::Execute);
    tables.map(region + IST_STACKS, ist, GUARD - IST_STACKS, Access::Write);
    tables.map(region + GUARD + PAGE_SIZE, main, REGION - GUARD - PAGE_SIZE, Access::Write);

    let window_entries = tables.window(region + GDT_WINDOW, Access::WriteLocal);
    for page in 0..gdt::GUEST_PAGES as u64 {
        tables.map(region + GDT_WINDOW + page * PAGE_SIZE, no_descriptors, PAGE_SIZE, Access::ReadLocal);
    }
    let own = region + GDT_WINDOW + gdt::GUEST_PAGES as u64 * PAGE_SIZE;
    tables.map(own, gdt_page, PAGE_SIZE, Access::Write);

    let block = (region + TOP) as *mut PerCpu;
    let tss = region + TOP + core::mem::offset_of!(PerCpu, tss) as u64;
    let [tss_low, tss_high] = gdt::system_descriptor(tss, size_of::<Tss>() as u64 - 1, gdt::TYPE_TSS);
    // SAFETY: both pages were just mapped and belong to this function until the CPU starts.
    unsafe {
        let table = own as *mut u64;
        for (i, entry) in gdt::RESERVED.iter().enumerate() {
            table.add(i).write(*entry);
        }
        table.add(gdt::TSS_INDEX).write(tss_low);
        table.add(gdt::TSS_INDEX + 1).write(tss_high);
        (*block).number = AtomicU32::new(number);
        (*block).window_entries = AtomicU64::new(window_entries as u64);
        (*block).no_descriptors =
            AtomicU64::new(no_descriptors | crate::mem::hypervisor_map::page_bits(Access::ReadLocal));
        (*block).container_pages = AtomicU64::new(container);
        (*block).tss.rsp0 = region + TOP;
        (*block).tss.io_map_base = size_of::<Tss>() as u16;
        let mut stacks = [0u64; 7];
        for (stack, at) in stacks.iter_mut().zip((IST_STACKS + IST_STACK..=GUARD).step_by(IST_STACK as usize)) {
            *stack = region + at;
        }
        (*block).tss.ist = stacks;
    }
}
