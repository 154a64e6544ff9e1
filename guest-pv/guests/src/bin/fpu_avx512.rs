//! AVX-512's state of vCPUs: mask registers, upper halves, and the upper sixteen registers stay theirs whatever runs between.
//!
//! It takes an emulator that has AVX-512, which QEMU's has not; elsewhere all claims are skipped.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Random numbers are cut to size.
#![allow(unsafe_code)] // The claims are instructions.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::tap::Tap;
use guest_pv::{call, smp, time};
use guests::cpu::{cr4, set_cr4, xcr0, xen_cpuid, xsetbv};
use guests::smp::{COUNT, Random, Watch, on_all};
use guests::trap_of;

guest_pv::test!(run);

const UD: Option<(u64, u64)> = Some((6, 0));
const GP: Option<(u64, u64)> = Some((13, 0));
const OSXSAVE: u64 = 1 << 18;

/// Components: SSE and AVX, and AVX-512's three (SDM vol. 1, 13.1). x87 is left out: it is another guest's subject.
const UP_TO_AVX: u64 = 7;
const AVX512: u64 = 0xe0;
const LOOKED_AT: u32 = 0xe6;

/// Offsets in the standard format of XSAVE: SSE, AVX, masks, upper halves, upper registers (SDM vol. 1, 13.4; the last
/// four are said by CPUID leaf 13, and looked at below).
const PARTS: [(&str, usize, usize); 5] = [
    ("the SSE registers", 160, 256),
    ("the AVX registers", 576, 256),
    ("the mask registers", 1088, 64),
    ("the upper halves", 1152, 512),
    ("the upper registers", 1664, 1024),
];
const MXCSR: usize = 24;
const XSTATE_BV: usize = 512;
const SIZE: usize = 2688;

#[derive(Clone)]
#[repr(C, align(64))]
struct Area([u8; SIZE]);

impl Area {
    fn noise(random: &mut Random) -> Self {
        let mut area = Self([0; SIZE]);
        for (_, start, length) in PARTS {
            area.0[start..start + length].fill_with(|| random.below(256) as u8);
        }
        area.0[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
        area.0[XSTATE_BV..XSTATE_BV + 4].copy_from_slice(&LOOKED_AT.to_le_bytes());
        area
    }

    fn load(&self) {
        // SAFETY: an area of the right shape, for components that are on.
        unsafe { asm!("xrstor64 [{}]", in(reg) self, in("eax") LOOKED_AT, in("edx") 0, options(nostack)) };
    }

    fn current() -> Self {
        let mut area = Self([0; SIZE]);
        // SAFETY: the area has the size and alignment for these components.
        unsafe { asm!("xsave64 [{}]", in(reg) &raw mut area, in("eax") LOOKED_AT, in("edx") 0, options(nostack)) };
        area
    }

    fn difference(&self, other: &Self) -> Option<&'static str> {
        PARTS
            .into_iter()
            .find(|&(_, start, length)| self.0[start..start + length] != other.0[start..start + length])
            .map(|(name, ..)| name)
    }
}

fn all_on() {
    set_cr4(cr4() | OSXSAVE);
    xsetbv(0, UP_TO_AVX | AVX512);
}

fn run(tap: &mut Tap) {
    let offered = u64::from(xen_cpuid(0xd, 0).eax);
    if offered & AVX512 != AVX512 || xen_cpuid(7, 0).ebx >> 16 & 1 == 0 {
        return (0..CLAIMS).for_each(|_| tap.skip("AVX-512", "the processor has none"));
    }
    let told = [2, 5, 6, 7].map(|component| {
        let leaf = xen_cpuid(0xd, component);
        (leaf.ebx as usize, leaf.eax as usize)
    });
    tap.is(told, [1, 2, 3, 4].map(|part: usize| (PARTS[part].1, PARTS[part].2)), "components lie where CPUID says");
    components(tap);
    apart(tap);
}

const CLAIMS: usize = 13;

fn components(tap: &mut Tap) {
    set_cr4(cr4() | OSXSAVE);
    tap.is(xsetbv(0, UP_TO_AVX), None, "AVX is switched on");
    // vpxorq zmm0, zmm0, zmm0
    // SAFETY: an instruction that traps, or zeroes a register that nothing is in.
    let wide = || trap_of(|| unsafe { asm!(".byte 0x62, 0xf1, 0xfd, 0x48, 0xef, 0xc0") });
    tap.is(wide(), UD, "without AVX-512 its instructions are not there");
    tap.is(xsetbv(0, UP_TO_AVX | 0x20), GP, "its components come all three");
    tap.is(xsetbv(0, UP_TO_AVX | 0x60), GP, "not two of them");
    tap.is(xsetbv(0, 3 | AVX512), GP, "and not without AVX");
    tap.is(xsetbv(0, UP_TO_AVX | AVX512), None, "they are switched on");
    tap.is((xcr0(), wide()), (Some(UP_TO_AVX | AVX512), None), "then the instructions are there");
    let noise = Area::noise(&mut Random::new(5));
    noise.load();
    tap.is(noise.difference(&Area::current()), None, "what is loaded is there");
    time::sleep(1_000_000);
    tap.is(noise.difference(&Area::current()), None, "after a sleep, too");
    xsetbv(0, UP_TO_AVX);
    time::sleep(1_000_000);
    xsetbv(0, UP_TO_AVX | AVX512);
    tap.is(noise.difference(&Area::current()), None, "and after a while of being switched off");
}

static WATCH: Watch = Watch::new();
static ROUNDS: [AtomicU64; COUNT as usize] = [const { AtomicU64::new(0) }; COUNT as usize];
const WANTED: u64 = 40;

/// Registers are loaded, other vCPUs run, and the registers are looked at.
fn one_vcpu() {
    let me = smp::index();
    let mut random = Random::new(123 + me as u64);
    all_on();
    for round in 0..WANTED {
        let noise = Area::noise(&mut random);
        noise.load();
        match random.below(4) {
            0 => time::sleep(50_000),
            // SAFETY: a fault that is caught.
            1 => drop(trap_of(|| unsafe { asm!("ud2") })),
            _ => drop(call::sched::yield_cpu()),
        }
        if let Some(what) = noise.difference(&Area::current()) {
            WATCH.check(false, format_args!("round {round}: {what}"));
        }
        ROUNDS[me].fetch_add(1, Ordering::SeqCst);
    }
}

fn apart(tap: &mut Tap) {
    on_all(one_vcpu);
    WATCH.verdict(tap, "each of four vCPUs finds its own registers");
    tap.ok(ROUNDS.iter().all(|rounds| rounds.load(Ordering::SeqCst) == WANTED), "all of them looked");
}
