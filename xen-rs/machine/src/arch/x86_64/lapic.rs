//! The local APIC: end of interrupt, messages between processors, this CPU's timer (SDM vol. 3A, chapter 11).
//!
//! Unsafe: registers of the APIC, in memory or model-specific.

use super::cpu::{self, Features, has};
use super::{acpi, tsc};
use crate::container;
use crate::mem::boot_frames::BootFrames;
use crate::mem::hypervisor_map::Access;
use crate::mem::window::Window;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The timer's vector.
pub const TIMER: u8 = 0xfa;
/// The vector of messages between processors: look into the mailbox, look at what runs here.
pub const KICK: u8 = 0xfb;
/// Spurious interrupts; never acknowledged.
pub const SPURIOUS: u8 = 0xff;
/// First and last vector for devices.
pub const DEVICES: core::ops::RangeInclusive<u8> = 0x30..=0xef;

const IA32_APIC_BASE: u32 = 0x1b;
const TSC_DEADLINE: u32 = 0x6e0;
/// First MSR of the x2APIC: register offset / 16 is added.
pub(crate) const X2APIC: u32 = 0x800;

const ID: u32 = 0x20;
pub(crate) const TASK_PRIORITY: u32 = 0x80;
const EOI: u32 = 0xb0;
const SPURIOUS_VECTOR: u32 = 0xf0;
const COMMAND: u32 = 0x300;
const COMMAND_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;

const MASKED: u32 = 1 << 16;
const DELIVERY_NMI: u32 = 4 << 8;
const DELIVERY_PENDING: u32 = 1 << 12;
const ASSERT: u32 = 1 << 14;
const MODE_PERIODIC: u32 = 1 << 17;
const MODE_TSC_DEADLINE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0xb;

/// Address of the registers, 0 while there is none, 1 for the x2APIC.
pub(crate) static BASE: AtomicU64 = AtomicU64::new(0);
const BASE_X2APIC: u64 = 1;
/// The timer's frequency where it has no TSC-deadline mode.
static TIMER_HERTZ: AtomicU64 = AtomicU64::new(0);
/// The least that it counts: one, since zero would switch it off, and more where it [`repeats`].
static TIMER_LEAST: AtomicU32 = AtomicU32::new(1);

/// Whether the timer goes on until [`timer_has_come`] says that its interrupt was taken: QEMU's CPU now and then forgets
/// one that comes while it goes into a container or out of it (`docs/decisions/0043`).
fn repeats() -> bool {
    container::forgets_interrupts() && !has(Features::TSC_DEADLINE)
}

fn timer_mode() -> u32 {
    let mode = if has(Features::TSC_DEADLINE) {
        MODE_TSC_DEADLINE
    } else if repeats() {
        MODE_PERIODIC
    } else {
        0
    };
    u32::from(TIMER) | mode
}

#[inline]
fn read(register: u32) -> u32 {
    match BASE.load(Ordering::Relaxed) {
        0 => 0,
        // SAFETY: the APIC is in x2APIC mode, so these MSRs exist.
        BASE_X2APIC => unsafe { cpu::rdmsr(X2APIC + register / 16) as u32 },
        // SAFETY: the registers are mapped there.
        base => unsafe { ((base + u64::from(register)) as *const u32).read_volatile() },
    }
}

#[inline]
fn write(register: u32, value: u32) {
    match BASE.load(Ordering::Relaxed) {
        0 => {}
        // SAFETY: as in `read`; no register of the APIC touches memory by itself.
        BASE_X2APIC => unsafe { cpu::wrmsr(X2APIC + register / 16, u64::from(value)) },
        // SAFETY: as above.
        base => unsafe { ((base + u64::from(register)) as *mut u32).write_volatile(value) },
    }
}

/// Finds the APIC and maps its registers.
pub(crate) fn init(frames: &mut BootFrames) {
    if has(Features::X2APIC) {
        BASE.store(BASE_X2APIC, Ordering::Relaxed);
    } else {
        // SAFETY: boot; the firmware's address of the local APIC, whose only driver this is.
        let window = unsafe { Window::map(frames, acpi::platform().local_apic, 4096, Access::Device) };
        BASE.store(window.va(), Ordering::Relaxed);
    }
    choose_mode();
}

/// Puts this CPU's APIC into the mode in which it is spoken to.
fn choose_mode() {
    const ENABLE: u64 = 1 << 11;
    const X2: u64 = 1 << 10;
    // SAFETY: every 64-bit processor has this register.
    unsafe {
        let base = cpu::rdmsr(IA32_APIC_BASE);
        let mode = if has(Features::X2APIC) { ENABLE | X2 } else { ENABLE };
        if base & mode != mode {
            // To x2APIC by way of the ordinary mode (SDM vol. 3A, 11.12.5).
            cpu::wrmsr(IA32_APIC_BASE, base | ENABLE);
            cpu::wrmsr(IA32_APIC_BASE, base | mode);
        }
    }
}

/// Switches this CPU's APIC on: everything masked but NMI from the board.
pub(crate) fn init_this() {
    choose_mode();
    write(SPURIOUS_VECTOR, 0x100 | u32::from(SPURIOUS));
    write(TASK_PRIORITY, 0);
    write(LVT_LINT0, MASKED);
    write(LVT_LINT1, DELIVERY_NMI);
    write(LVT_ERROR, MASKED);
    write(DIVIDE, DIVIDE_BY_1);
    write(LVT_TIMER, timer_mode());
    // What was left from before.
    end_of_interrupt();
}

/// This CPU's APIC id.
#[must_use]
pub fn id() -> u32 {
    let id = read(ID);
    if BASE.load(Ordering::Relaxed) == BASE_X2APIC { id } else { id >> 24 }
}

/// Tells the APIC that the interrupt of highest priority was taken.
#[inline]
pub(crate) fn end_of_interrupt() {
    write(EOI, 0);
}

/// Sends a command to another processor.
fn command(apic_id: u32, command: u32) {
    match BASE.load(Ordering::Relaxed) {
        0 => {}
        BASE_X2APIC => {
            let value = u64::from(apic_id) << 32 | u64::from(command);
            // What was written before must be seen by the receiver: this write alone does not order (SDM vol. 3A, 11.12.3).
            core::sync::atomic::fence(Ordering::SeqCst);
            // SAFETY: the ICR of the x2APIC.
            unsafe { cpu::wrmsr(X2APIC + COMMAND / 16, value) };
        }
        _ => {
            // SPIN: the previous one leaves the APIC on its own, without any other CPU's help.
            for _ in 0..100_000 {
                if read(COMMAND) & DELIVERY_PENDING == 0 {
                    break;
                }
                // SPIN: the APIC's delivery, which needs no CPU's help.
                core::hint::spin_loop();
            }
            write(COMMAND_HIGH, apic_id << 24);
            write(COMMAND, command);
        }
    }
}

/// Interrupts another processor with [`KICK`].
pub(crate) fn send_kick(apic_id: u32) {
    command(apic_id, ASSERT | u32::from(KICK));
}

/// Interrupts another processor with an NMI.
pub(crate) fn send_nmi(apic_id: u32) {
    command(apic_id, ASSERT | DELIVERY_NMI);
}

/// Resets another processor.
pub(crate) fn send_init(apic_id: u32) {
    command(apic_id, ASSERT | 5 << 8);
}

/// Starts a processor that was reset at a page below 1 MiB.
pub(crate) fn send_startup(apic_id: u32, page: u8) {
    command(apic_id, ASSERT | 6 << 8 | u32::from(page));
}

/// Counts the timer against the TSC for `span` ticks, where it is needed.
pub(crate) fn calibrate(span: u64) {
    if has(Features::TSC_DEADLINE) {
        return;
    }
    write(LVT_TIMER, MASKED | u32::from(TIMER));
    write(INITIAL_COUNT, u32::MAX);
    // It counts down.
    let counter = || u64::from(u32::MAX - read(CURRENT_COUNT));
    let (first, start) = tsc::pair(&counter);
    // SPIN: only time is waited for.
    while cpu::rdtsc().wrapping_sub(start) < span {
        // SPIN: time passes by itself.
        core::hint::spin_loop();
    }
    let (last, end) = tsc::pair(&counter);
    write(INITIAL_COUNT, 0);
    write(LVT_TIMER, timer_mode());
    let counted = u128::from(last - first) * u128::from(tsc::hertz()) / u128::from((end - start).max(1));
    let hertz = u64::try_from(counted).unwrap_or(0);
    TIMER_HERTZ.store(hertz, Ordering::Relaxed);
    if repeats() {
        // 20 us: time enough to take it.
        TIMER_LEAST.store(u32::try_from(hertz / 50_000).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
    log::info!("APIC timer: {} kHz", hertz / 1000);
}

/// Sets this CPU's timer: [`TIMER`] arrives when the TSC reaches `deadline` (at once if that has passed), or somewhat
/// earlier when the timer cannot count so far. `None` switches it off.
pub fn set_timer(deadline: Option<u64>) {
    if has(Features::TSC_DEADLINE) {
        // Zero disarms; a deadline of zero has passed anyway.
        let value = deadline.map_or(0, |at| at.max(1));
        // SAFETY: the CPU has the mode, and the timer's vector is handled.
        unsafe { cpu::wrmsr(TSC_DEADLINE, value) };
        return;
    }
    let count = deadline.map_or(0, |at| {
        let ticks = u128::from(at.saturating_sub(cpu::rdtsc()));
        let count = ticks * u128::from(TIMER_HERTZ.load(Ordering::Relaxed)) / u128::from(tsc::hertz().max(1));
        u32::try_from(count + 1).unwrap_or(u32::MAX).max(TIMER_LEAST.load(Ordering::Relaxed))
    });
    write(INITIAL_COUNT, count);
}

/// The timer's interrupt was taken: it fires no more until it is set.
pub fn timer_has_come() {
    if repeats() {
        write(INITIAL_COUNT, 0);
    }
}
