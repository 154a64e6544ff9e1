//! Secondary processors: from INIT and SIPI through real mode to their own stack.
//!
//! Unsafe: another CPU starts in real mode on code copied to low memory.

use super::cpu::{self, Features, has, rdtsc};
use super::percpu::{self, TOP};
use super::{acpi, fpu, lapic, tsc};
use crate::boot_info::{BootInfo, MemoryKind};
use crate::command_line::CommandLine;
use crate::mailbox;
use crate::mem::boot_frames::BootFrames;
use crate::mem::direct_map::va_of_phys;
use crate::mem::hypervisor_map::{idle_root, pte};
use crate::mem::layout::PAGE_SIZE;
use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Physical address of the page where secondary processors start: below 1 MiB, which boot never gives away.
const TRAMPOLINE: u64 = 0x8000;
/// How many CPUs there can be: the width of a set of CPUs.
const MAX_CPUS: u32 = 64;

/// Number of CPUs with a region: those that may be started.
static PRESENT: AtomicU32 = AtomicU32::new(1);
/// The root table for the trampoline: the hypervisor's slots and the trampoline's page at its own address.
static START_ROOT: AtomicU64 = AtomicU64::new(0);
/// Set to its number by a CPU that has reached Rust.
static ARRIVED: AtomicU32 = AtomicU32::new(0);
/// The number up to which CPUs may go on to their guests.
static RELEASED: AtomicU32 = AtomicU32::new(0);

global_asm!(
    r#"
    .pushsection .rodata.trampoline, "a"
    .set TRAMPOLINE, {trampoline}
    .balign 16
    .globl trampoline_start
trampoline_start:
    .code16
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt_register - trampoline_start
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $8, $(TRAMPOLINE + trampoline_32 - trampoline_start)
    .code32
trampoline_32:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $0x20, %eax
    movl %eax, %cr4
    movl TRAMPOLINE + trampoline_root - trampoline_start, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl TRAMPOLINE + trampoline_efer - trampoline_start, %eax
    wrmsr
    movl $0x80010033, %eax
    movl %eax, %cr0
    ljmpl $24, $(TRAMPOLINE + trampoline_64 - trampoline_start)
    .code64
trampoline_64:
    movl $(TRAMPOLINE + trampoline_stack - trampoline_start), %eax
    movq (%rax), %rsp
    movabsq $secondary_main, %rax
    xorl %ebp, %ebp
    pushq %rbp
    callq *%rax
    ud2

    .balign 8
trampoline_gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
trampoline_gdt_register:
    .word 31
    .long TRAMPOLINE + trampoline_gdt - trampoline_start
    .balign 8
    .globl trampoline_root
trampoline_root:
    .quad 0
    .globl trampoline_efer
trampoline_efer:
    .quad 0
    .globl trampoline_stack
trampoline_stack:
    .quad 0
    .globl trampoline_end
trampoline_end:
    .popsection
    "#,
    trampoline = const TRAMPOLINE,
    options(att_syntax)
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_root: u8;
    static trampoline_efer: u8;
    static trampoline_stack: u8;
    static trampoline_end: u8;
    fn upcall_start_secondary(number: u32) -> !;
}

/// Number of CPUs that this machine has and may use.
#[must_use]
pub fn present() -> u32 {
    PRESENT.load(Ordering::Relaxed)
}

/// Writes a word of the trampoline's data.
///
/// # Safety
/// No processor is in the trampoline.
unsafe fn set(field: *const u8, value: u64) {
    let offset = field as u64 - (&raw const trampoline_start) as u64;
    // SAFETY: inside the trampoline's page, which is in the direct map.
    unsafe { (va_of_phys(TRAMPOLINE + offset) as *mut u64).write_volatile(value) };
}

/// Makes everything that needs memory: regions, the first root table, the trampoline. On the boot processor.
pub(crate) fn prepare(boot: &BootInfo, frames: &mut BootFrames) {
    let own = lapic::id();
    percpu::of(0).apic_id.store(own, Ordering::Relaxed);
    let wanted = CommandLine(boot.command_line)
        .value("maxcpus")
        .and_then(|n| n.parse::<u32>().ok())
        .filter(|n| *n != 0)
        .unwrap_or(u32::MAX)
        .min(MAX_CPUS);
    let wide = has(Features::X2APIC);
    let others = acpi::platform().apic_ids.iter().copied().filter(|id| *id != own && (wide || *id < 255));
    let mut number = 1;
    for apic_id in others {
        if number >= wanted {
            log::info!("more CPUs are there than are used ({number})");
            break;
        }
        // SAFETY: one CPU; each number once.
        unsafe { percpu::create(frames, number) };
        percpu::of(number).apic_id.store(apic_id, Ordering::Relaxed);
        number += 1;
    }
    PRESENT.store(number, Ordering::Relaxed);
    let is_ram = boot
        .memory_map
        .iter()
        .any(|r| r.kind == MemoryKind::Ram && r.start <= TRAMPOLINE && TRAMPOLINE + PAGE_SIZE <= r.end);
    if number == 1 {
        return;
    }
    if !is_ram {
        log::warn!("no memory at {TRAMPOLINE:#x} to start CPUs from");
        PRESENT.store(1, Ordering::Relaxed);
        return;
    }
    let mut table = || {
        let Some(phys) = frames.take_below(PAGE_SIZE, PAGE_SIZE, 1 << 32) else {
            panic!("no memory to start CPUs with");
        };
        // SAFETY: fresh memory in the direct map.
        unsafe { (va_of_phys(phys) as *mut u64).write_bytes(0, 512) };
        phys
    };
    let [root, l3, l2, l1] = core::array::from_fn(|_| table());
    let entry = |table: u64, index: u64| (va_of_phys(table) + index * 8) as *mut u64;
    // SAFETY: tables of our own that no CPU uses yet; the trampoline is shorter than its page, which nobody else uses.
    unsafe {
        core::ptr::copy_nonoverlapping(entry(idle_root(), 0), entry(root, 0), 512);
        entry(root, 0).write(l3 | pte::P | pte::RW);
        entry(l3, 0).write(l2 | pte::P | pte::RW);
        entry(l2, 0).write(l1 | pte::P | pte::RW);
        entry(l1, TRAMPOLINE >> 12).write(TRAMPOLINE | pte::P | pte::RW);
        let (start, end) = (&raw const trampoline_start, &raw const trampoline_end);
        core::ptr::copy_nonoverlapping(start, va_of_phys(TRAMPOLINE) as *mut u8, end as usize - start as usize);
    }
    START_ROOT.store(root, Ordering::Relaxed);
}

/// Starts one CPU and waits until it has reached Rust.
fn start(number: u32) -> bool {
    let apic_id = percpu::of(number).apic_id.load(Ordering::Relaxed);
    let nx = if has(Features::NX) { 0x800 } else { 0 };
    // SAFETY: CPUs are started one at a time, and each has left the trampoline when it reports.
    unsafe {
        set(&raw const trampoline_root, START_ROOT.load(Ordering::Relaxed));
        set(&raw const trampoline_efer, 0x101 | nx);
        set(&raw const trampoline_stack, percpu::region_of(number) + TOP - 256);
    }
    let arrived_within = |us: u64| {
        let (start, ticks) = (rdtsc(), tsc::hertz() / 1_000_000 * us);
        // SPIN: for a limited time, at start-up, when no CPU has requests for this one.
        while ARRIVED.load(Ordering::Acquire) != number {
            if rdtsc().wrapping_sub(start) > ticks {
                return false;
            }
            <mailbox::Poll as spin::RelaxStrategy>::relax();
        }
        true
    };
    lapic::send_init(apic_id);
    tsc::delay_us(1000);
    lapic::send_startup(apic_id, (TRAMPOLINE >> 12) as u8);
    // A second one is for processors that lost the first (SDM vol. 3A, 9.4.4).
    if !arrived_within(20_000) {
        lapic::send_startup(apic_id, (TRAMPOLINE >> 12) as u8);
        if !arrived_within(2_000_000) {
            log::error!("CPU {number} (APIC id {apic_id}) does not start");
            return false;
        }
    }
    tsc::compare();
    true
}

/// The APIC id of a CPU that runs.
#[must_use]
pub fn apic_id(cpu: u32) -> Option<u32> {
    let runs = cpu < 64 && mailbox::online().has(cpu);
    runs.then(|| percpu::of(cpu).apic_id.load(Ordering::Relaxed))
}

/// Starts CPUs until `limit` run; each ends up in `Hypervisor::start_secondary`. Returns how many run, this one included.
pub fn start_secondaries(limit: u32) -> u32 {
    let mut running = 1;
    for number in 1..present().min(limit) {
        if !start(number) {
            break;
        }
        // SPIN: at start-up, when no CPU has requests for this one.
        while !mailbox::online().has(number) {
            <mailbox::Poll as spin::RelaxStrategy>::relax();
        }
        running += 1;
    }
    log::info!("{running} CPUs");
    RELEASED.store(running, Ordering::Release);
    running
}

/// A secondary processor on its own stack, on the trampoline's root table.
#[unsafe(no_mangle)]
extern "C" fn secondary_main() -> ! {
    let number = percpu::number();
    // SAFETY: the region of this CPU was made for it; the idle root maps the hypervisor.
    unsafe {
        cpu::init_this();
        cpu::write_cr3(idle_root());
    }
    fpu::init_this();
    crate::container::start_this();
    lapic::init_this();
    ARRIVED.store(number, Ordering::Release);
    tsc::compare();
    mailbox::set_online(number);
    while RELEASED.load(Ordering::Acquire) <= number {
        <mailbox::Poll as spin::RelaxStrategy>::relax();
    }
    // SAFETY: the binary's `bind!` defines it with this signature.
    unsafe { upcall_start_secondary(number) }
}
