//! The x87, SSE and AVX state of vCPUs: what they begin with, that it stays theirs whatever runs between, TS and the traps
//! it makes, MXCSR, and components that XCR0 switches off and on.
//!
//! Xen 4.17 loads the registers at their first use, by a trap of its own, and QEMU 7.2 has no such trap for XSAVE, XRSTOR
//! and MMX: the guest uses x87 before the first two, and does not claim that they trap.
//!
//! The guests are built without floating point, so nothing but what is written here touches these registers.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Random numbers are cut to size.
#![allow(unsafe_code)] // The claims are instructions.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::call::{self, domctl, traps::fpu_taskswitch};
use guest_pv::tap::Tap;
use guest_pv::{smp, time};
use guests::cpu::{cr4, set_cr4, xcr0, xen_cpuid, xsetbv};
use guests::smp::{COUNT, Random, Watch, on_all};
use guests::user::{self, UserSpace};
use guests::{address_of, code, page, trap_of};
use xen_abi::domctl::{Bitmap, VcpuAffinity, XEN_DOMCTL_SETVCPUAFFINITY, XEN_VCPUAFFINITY_HARD};
use xen_abi::ids::{DomId, VcpuId};

guest_pv::test!(run);

const NM: Option<(u64, u64)> = Some((7, 0));
const UD: Option<(u64, u64)> = Some((6, 0));
const GP: Option<(u64, u64)> = Some((13, 0));
const OSXSAVE: u64 = 1 << 18;

/// Offsets in an area of XSAVE, and of AVX's upper halves in the standard format.
const MXCSR: usize = 24;
const X87: usize = 32;
const XMM: usize = 160;
const XSTATE_BV: usize = 512;
const YMM: usize = 576;
/// Bytes of the area, and what is looked at.
const SIZE: usize = 832;

/// An instruction as a body for `trap_of`.
macro_rules! instruction {
    ($($text:tt)*) => {
        // SAFETY: it touches registers only, or is a fault.
        || unsafe { asm!($($text)*) }
    };
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Area([u8; SIZE]);

impl Area {
    /// What this vCPU has: with AVX when that is on, else x87 and SSE.
    fn current() -> Self {
        let mut area = Self([0; SIZE]);
        // SAFETY: the area has the size and alignment for three components.
        unsafe {
            if avx_is_on() {
                asm!("fnop", "xsave64 [{}]", in(reg) &raw mut area, in("eax") 7, in("edx") 0, options(nostack));
            } else {
                asm!("fxsave64 [{}]", in(reg) &raw mut area, options(nostack));
            }
        }
        area
    }

    /// Registers full of noise. No exception of x87 waits.
    fn noise(random: &mut Random) -> Self {
        let mut area = Self([0; SIZE]);
        for part in [X87..XMM + 256, YMM..SIZE] {
            area.0[part].fill_with(|| random.below(256) as u8);
        }
        for register in area.0[X87..XMM].chunks_exact_mut(16) {
            // Bit 63 of the mantissa is explicit. Behind the ten bytes is nothing.
            register[7] |= 0x80;
            register[9] = 0x3f;
            register[10..].fill(0);
        }
        let control = 0x037f | (random.below(4) as u16) << 10;
        area.0[..2].copy_from_slice(&control.to_le_bytes());
        area.0[4] = 0xff;
        let mxcsr = 0x1f80 | (random.below(4) as u32) << 13 | random.below(64) as u32;
        area.0[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
        area.0[XSTATE_BV] = 7;
        area
    }

    fn load(&self) {
        // SAFETY: an area of the right shape.
        unsafe {
            if avx_is_on() {
                asm!("fnop", "xrstor64 [{}]", in(reg) self, in("eax") 7, in("edx") 0, options(nostack));
            } else {
                asm!("fxrstor64 [{}]", in(reg) self, options(nostack));
            }
        }
    }

    fn control(&self) -> u16 {
        u16::from_le_bytes([self.0[0], self.0[1]])
    }

    fn mxcsr(&self) -> u32 {
        u32::from_le_bytes([self.0[MXCSR], self.0[MXCSR + 1], self.0[MXCSR + 2], self.0[MXCSR + 3]])
    }

    /// The first part in which the two differ.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        [(0, 2, "the control word"), (4, 5, "the tags"), (MXCSR, MXCSR + 4, "MXCSR"), (X87, XMM, "the x87 registers")]
            .into_iter()
            .chain([(XMM, XMM + 256, "the SSE registers"), (YMM, SIZE, "the AVX registers")])
            .filter(|&(first, ..)| first != YMM || avx_is_on())
            .find(|&(first, end, _)| self.0[first..end] != other.0[first..end])
            .map(|(.., name)| name)
    }
}

fn avx_is_on() -> bool {
    has_avx() && xcr0().is_some_and(|components| components & 4 != 0)
}

fn has_avx() -> bool {
    xen_cpuid(1, 0).ecx >> 26 & 1 != 0 && xen_cpuid(0xd, 0).eax & 4 != 0
}

/// Switches all components on that these claims are about, for this vCPU.
fn all_on() {
    if has_avx() {
        set_cr4(cr4() | OSXSAVE);
        xsetbv(0, 7);
    }
}

fn run(tap: &mut Tap) {
    beginnings(tap);
    all_on();
    components(tap);
    task_switched(tap);
    user_mode(tap);
    exceptions(tap);
    apart(tap);
}

static BEGINNING: [AtomicU64; 4] = [const { AtomicU64::new(u64::MAX) }; 4];

/// Control word, MXCSR, whether the registers are empty, TS.
fn beginning() -> [u64; 4] {
    let area = Area::current();
    let cr0: u64;
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, cr0", out(reg) cr0) };
    let clean = area.0[4] == 0 && area.0[XMM..XMM + 256].iter().all(|&byte| byte == 0);
    [area.control().into(), area.mxcsr().into(), clean.into(), cr0 >> 3 & 1]
}

fn beginnings(tap: &mut Tap) {
    let fresh = [0x037f, 0x1f80, 1, 0];
    tap.is(beginning(), fresh, "the state of the first vCPU is as after FNINIT, and TS is clear");
    all_on();
    Area::noise(&mut Random::new(1)).load();
    fpu_taskswitch(true).expect("TS can be set");
    let look = || {
        for (place, value) in BEGINNING.iter().zip(beginning()) {
            place.store(value, Ordering::SeqCst);
        }
    };
    smp::start(VcpuId(1), look).expect("the domain has four vCPUs");
    smp::join(VcpuId(1)).expect("it was started");
    tap.is([0, 1, 2, 3].map(|index| BEGINNING[index].load(Ordering::SeqCst)), fresh, "that of another vCPU too");
    fpu_taskswitch(false).expect("TS can be cleared");
    tap.is(Area::noise(&mut Random::new(1)).difference(&Area::current()), None, "and its own are left alone");
}

fn components(tap: &mut Tap) {
    if !has_avx() {
        return (0..6).for_each(|_| tap.skip("components that are switched off", "there is no AVX"));
    }
    let noise = Area::noise(&mut Random::new(2));
    noise.load();
    tap.is(xsetbv(0, 3), None, "AVX is switched off");
    tap.is(trap_of(instruction!("vxorps ymm0, ymm0, ymm0")), UD, "its instructions are not there");
    time::sleep(1_000_000);
    tap.is(noise.difference(&Area::current()), None, "x87 and SSE are as before");
    tap.is(xsetbv(0, 7), None, "it is switched on again");
    tap.is(noise.difference(&Area::current()), None, "and its registers have kept their values");
    xsetbv(0, 1);
    time::sleep(1_000_000);
    xsetbv(0, 7);
    tap.is(noise.difference(&Area::current()), None, "so have those of SSE");
}

fn ts() -> bool {
    let cr0: u64;
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, cr0", out(reg) cr0) };
    cr0 & 8 != 0
}

/// The trap of an instruction while TS is set, and whether TS is set behind it.
fn with_ts(body: impl FnOnce()) -> (Option<(u64, u64)>, bool) {
    fpu_taskswitch(true).expect("TS can be set");
    let trap = trap_of(body);
    (trap, ts())
}

fn task_switched(tap: &mut Tap) {
    let noise = Area::noise(&mut Random::new(3));
    noise.load();
    let mut area = Area([0; SIZE]);
    let at = &raw mut area;
    let mut word = [0u32; 4];
    let word_at = address_of(&mut word);
    tap.is(with_ts(|| ()), (None, true), "TS is set");
    time::sleep(1_000_000);
    tap.ok(ts(), "and still is after a sleep");
    tap.is(with_ts(instruction!("fnop")), (NM, false), "x87 traps, and TS is clear then");
    tap.is(with_ts(instruction!("fnstcw [{}]", in(reg) word_at)), (NM, false), "storing the control word");
    tap.is(with_ts(instruction!("fwait")), (NM, false), "waiting for x87, since MP is set");
    tap.is(with_ts(instruction!("movaps xmm0, xmm0")), (NM, false), "SSE");
    tap.is(with_ts(instruction!("stmxcsr [{}]", in(reg) word_at)), (NM, false), "MXCSR");
    tap.is(with_ts(instruction!("fxsave64 [{}]", in(reg) at)), (NM, false), "saving all of it");
    if avx_is_on() {
        tap.is(with_ts(instruction!("vmovaps ymm0, ymm0")), (NM, false), "AVX");
        let read = with_ts(instruction!("xgetbv", in("ecx") 0, out("eax") _, out("edx") _));
        tap.is(read, (None, true), "but not reading XCR0");
        tap.is(with_ts(|| assert_eq!(xsetbv(0, 7), None)), (None, true), "nor writing it");
    } else {
        (0..3).for_each(|_| tap.skip("AVX", "there is none"));
    }
    tap.is(with_ts(instruction!("prefetcht0 [{}]", in(reg) word_at)), (None, true), "nor a prefetch");
    tap.is(with_ts(instruction!("sfence")), (None, true), "nor a fence");
    tap.is(with_ts(instruction!("clts")), (None, false), "clts clears it");
    let cr0: u64;
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, cr0", out(reg) cr0) };
    tap.is((trap_of(instruction!("mov cr0, {}", in(reg) cr0 | 8)), ts()), (None, true), "mov to CR0 sets it");
    tap.is((trap_of(instruction!("mov cr0, {}", in(reg) cr0)), ts()), (None, false), "and clears it");
    let long = guests::call(xen_abi::hypercall::HYPERVISOR_FPU_TASKSWITCH, [u64::MAX << 1]);
    tap.is((long, ts()), (Ok(0), true), "fpu_taskswitch takes anything but zero");
    let upper = guests::call(xen_abi::hypercall::HYPERVISOR_FPU_TASKSWITCH, [0]);
    tap.is((upper, ts()), (Ok(0), false), "and zero");
    tap.is(noise.difference(&Area::current()), None, "the registers were left alone");
}

fn user_mode(tap: &mut Tap) {
    let mut program = [0x90u8; 64];
    for (piece, offset) in
        [code!("fnop", "int 0x80"), code!("pcmpeqd xmm7, xmm7", "int 0x80")].iter().zip((0..).step_by(16))
    {
        program[offset..offset + piece.len()].copy_from_slice(piece);
    }
    let space = UserSpace::new(&program);
    let run = |piece: u64| {
        let frame = user::run(user::start_at(piece * 16));
        (frame.vector, frame.error, frame.rip - user::CODE - piece * 16)
    };
    tap.is(run(0), (0x80, 0, 4), "user mode may use x87");
    let mut noise = Area::noise(&mut Random::new(4));
    noise.load();
    tap.is(run(1), (0x80, 0, 6), "and SSE");
    noise.0[XMM + 7 * 16..XMM + 8 * 16].fill(0xff);
    tap.is(noise.difference(&Area::current()), None, "they are the registers of its kernel");
    fpu_taskswitch(true).expect("TS can be set");
    tap.is((run(0), ts()), ((7, 0, 0), false), "TS traps there too, and the kernel has it clear");
    tap.is(run(0), (0x80, 0, 4), "so that it can go on");
    fpu_taskswitch(false).expect("TS can be cleared");
    // Its tables stay in use.
    core::mem::forget(space);
}

fn exceptions(tap: &mut Tap) {
    // SAFETY: loads a register from memory, or is a fault.
    let set = |value: u32| trap_of(|| unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value) });
    tap.is((set(0x3f80 & !0x2000 | 0x6000), Area::current().mxcsr()), (None, 0x7f80), "MXCSR is written");
    tap.is((set(0x1f80), Area::current().mxcsr()), (None, 0x1f80), "and as before");
    let unmasked: u16 = 0x0360;
    // SAFETY: an exception of x87 is a trap that is caught.
    let divide = trap_of(|| unsafe {
        asm!("fninit", "fldcw [{}]", "fld1", "fldz", "fdivp st(1), st", "fwait", in(reg) &raw const unmasked);
    });
    tap.is(divide, Some((16, 0)), "a division by zero is an x87 exception");
    // SAFETY: x87 holds nothing.
    unsafe { asm!("fninit") };
    tap.is(Area::current().control(), 0x037f, "FNINIT ends it");
    let mut bad = page();
    bad.bytes_mut()[XSTATE_BV + 16] = 1;
    let bad_at = bad.address();
    if avx_is_on() {
        let restore = || trap_of(instruction!("xrstor64 [{}]", in(reg) bad_at, in("eax") 7, in("edx") 0));
        tap.is(restore(), GP, "a state with bits set in its reserved header is refused");
        bad.bytes_mut()[XSTATE_BV + 16] = 0;
        bad.bytes_mut()[XSTATE_BV] = 0x20;
        tap.is(restore(), GP, "so is one with components that are not on");
    } else {
        (0..2).for_each(|_| tap.skip("a bad state is refused", "there is no AVX"));
    }
}

static WATCH: Watch = Watch::new();
static ROUNDS: [AtomicU64; COUNT as usize] = [const { AtomicU64::new(0) }; COUNT as usize];
static CPUS: AtomicU64 = AtomicU64::new(1);

/// Lets this vCPU run on that CPU only.
fn move_to(cpu: u64) {
    let mut map = 1u64 << cpu;
    let bitmap = Bitmap { bitmap: address_of(&mut map), nr_bits: 64, ..Default::default() };
    let mut affinity =
        VcpuAffinity { vcpu: smp::this(), flags: XEN_VCPUAFFINITY_HARD, cpumap_hard: bitmap, ..Default::default() };
    // SAFETY: the map outlives the call, and a vCPU may run anywhere.
    let moved = unsafe { domctl::payload(XEN_DOMCTL_SETVCPUAFFINITY, DomId(0), &mut affinity) };
    WATCH.check(moved.is_ok(), format_args!("moving to CPU {cpu}: {moved:?}"));
}

/// Registers are loaded, other vCPUs run, and the registers are looked at.
fn one_vcpu() {
    let me = smp::index();
    let mut random = Random::new(77 + me as u64);
    all_on();
    for round in 0..120u64 {
        let noise = Area::noise(&mut random);
        noise.load();
        let halved = has_avx() && random.below(3) == 0;
        if halved {
            xsetbv(0, 3);
        }
        let task_switched = random.below(3) == 0;
        if task_switched {
            let _ = fpu_taskswitch(true);
        }
        for _ in 0..=random.below(3) {
            match random.below(5) {
                0 => time::sleep(50_000),
                1 => move_to(random.below(CPUS.load(Ordering::SeqCst) as usize) as u64),
                2 => drop(trap_of(instruction!("ud2"))),
                _ => drop(call::sched::yield_cpu()),
            }
        }
        WATCH.check(ts() == task_switched, format_args!("round {round}: TS"));
        if task_switched {
            let _ = fpu_taskswitch(false);
        }
        if has_avx() {
            let want = if halved { 3 } else { 7 };
            WATCH.check(xcr0() == Some(want), format_args!("round {round}: XCR0 is {:x?}, not {want}", xcr0()));
            xsetbv(0, 7);
        }
        if let Some(what) = noise.difference(&Area::current()) {
            WATCH.check(false, format_args!("round {round}: {what}, halved {halved}, TS {task_switched}"));
        }
        ROUNDS[me].fetch_add(1, Ordering::SeqCst);
    }
}

fn apart(tap: &mut Tap) {
    CPUS.store(guest_pv::call::sysctl::physinfo().map_or(1, |info| info.nr_cpus.into()), Ordering::SeqCst);
    on_all(one_vcpu);
    WATCH.verdict(tap, "each of four vCPUs finds its own registers, TS and XCR0, wherever it runs");
    let rounds = ROUNDS.iter().all(|rounds| rounds.load(Ordering::SeqCst) == 120);
    tap.ok(rounds, "all of them looked");
}
