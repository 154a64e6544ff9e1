//! What of a processor a domain finds that others have used: for two or more domains in hardware containers on one CPU. Each looks
//! at what it has been given, fills it with a pattern of its own, and looks again after others have run. With `fill` on its
//! command line it goes on until it is destroyed, else it ends. In a PV domain there is nothing to see of it.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // A processor's registers.
#![allow(clippy::cast_possible_truncation)] // Patterns are cut to size.

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use guest_pv::call::sched;
use guest_pv::tap::Tap;
use guest_pv::{Mode, boot, mode};
use guests::cpu::{cr4, rdmsr, set_cr4, wrmsr, xcr0, xsetbv};
use guests::{code_elsewhere, me};

guest_pv::test!(run);

const ROUNDS: u64 = 3000;
const OSXSAVE: u64 = 1 << 18;
/// x87, SSE, AVX, AVX-512.
const COMPONENTS: u32 = 0xe7;

/// Registers that the runtime has no use for, with what they hold after INIT: CSTAR, SYSENTER's three, the other base of GS.
const UNUSED: [(u32, u64); 5] = [(0xc000_0083, 0), (0x174, 0), (0x175, 0), (0x176, 0), (0xc000_0102, 0)];
const PAT: (u32, u64) = (0x277, 0x0007_0406_0007_0406);
const TSC_AUX: u32 = 0xc000_0103;

fn run(tap: &mut Tap) {
    if mode() == Mode::Pv {
        return tap.skip("what others have left", "a PV domain");
    }
    set_cr4(cr4() | OSXSAVE);
    fresh(tap);
    tap.is(code_elsewhere(), Some(1234), "code runs in a large page in which none has run");
    let mine = Pattern::of(u64::from(me().0));
    mine.load();
    let wrong = mine.wrong();
    tap.is(wrong, None, "what is written is there");
    let mut round = 0;
    let wrong = loop {
        let _ = sched::yield_cpu();
        let wrong = mine.wrong().or_else(|| general(u64::from(me().0) << 32 | round));
        round += 1;
        if wrong.is_some() || round == ROUNDS && !boot().command_line().contains("fill") {
            break wrong;
        }
    };
    tap.is(wrong, None, "and stays there while others run");
}

/// Before anything was written.
fn fresh(tap: &mut Tap) {
    tap.is(breakpoints(), [0; 4], "no breakpoints are left");
    tap.is(cr2(), 0, "nor the address of a fault");
    for (number, value) in UNUSED.into_iter().chain([PAT]) {
        tap.is(rdmsr(number), Some(value), "nor what a register held");
    }
    if has_tsc_aux() {
        tap.is(rdmsr(TSC_AUX), Some(0), "nor a CPU's number");
    }
    tap.is(xcr0(), Some(1), "x87 alone is switched on");
    let state = State::current();
    tap.ok(state.parts().all(|part| part.iter().all(|byte| *byte == 0)), "x87, SSE, AVX and what follows hold nothing");
    tap.is(state.control(), (0x37f, 0x1f80), "their controls are as after reset");
}

fn has_tsc_aux() -> bool {
    __cpuid_count(0x8000_0001, 0).edx & 1 << 27 != 0
}

fn breakpoints() -> [u64; 4] {
    let (a, b, c, d);
    // SAFETY: reads registers.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3", out(reg) a, out(reg) b, out(reg) c, out(reg) d);
    }
    [a, b, c, d]
}

fn cr2() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) value) };
    value
}

/// The extended state in XSAVE's standard format (SDM vol. 1, 13.4).
#[derive(Clone)]
#[repr(C, align(64))]
struct State([u8; 4096]);

impl State {
    const MXCSR: usize = 24;
    const XSTATE_BV: usize = 512;

    /// All components there are are switched on, and stay so.
    fn current() -> Self {
        let offered = __cpuid_count(0xd, 0).eax & COMPONENTS;
        xsetbv(0, offered.into());
        let mut state = Self([0; 4096]);
        // SAFETY: the area has room for these components.
        unsafe { asm!("xsave64 [{}]", in(reg) &raw mut state, in("eax") COMPONENTS, in("edx") 0, options(nostack)) };
        state
    }

    fn load(&self) {
        // SAFETY: made below, of components that are on.
        unsafe { asm!("xrstor64 [{}]", in(reg) self, in("eax") COMPONENTS, in("edx") 0, options(nostack)) };
    }

    /// Where components lie: the eight registers of x87, SSE, then what CPUID says.
    fn places() -> impl Iterator<Item = (usize, usize)> {
        let offered = __cpuid_count(0xd, 0).eax & COMPONENTS;
        let x87 = (0..8).map(|i| (32 + i * 16, 10));
        let others = (2..8).filter(move |i| offered & 1 << i != 0).map(|i| {
            let leaf = __cpuid_count(0xd, i);
            (leaf.ebx as usize, leaf.eax as usize)
        });
        x87.chain([(160, 256)]).chain(others)
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        Self::places().map(|(start, length)| &self.0[start..start + length])
    }

    /// The control words of x87 and SSE.
    fn control(&self) -> (u16, u32) {
        let mxcsr: [u8; 4] = [0, 1, 2, 3].map(|i| self.0[Self::MXCSR + i]);
        (u16::from_le_bytes([self.0[0], self.0[1]]), u32::from_le_bytes(mxcsr))
    }
}

/// What a domain puts into its registers.
struct Pattern {
    seed: u64,
    state: State,
}

impl Pattern {
    fn of(seed: u64) -> Self {
        let mut state = State([0; 4096]);
        for (start, length) in State::places() {
            for (i, byte) in state.0[start..start + length].iter_mut().enumerate() {
                *byte = (seed as u8).wrapping_mul(37).wrapping_add(i as u8) | 1;
            }
        }
        state.0[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        // All eight registers of x87 are in use.
        state.0[4] = 0xff;
        state.0[State::MXCSR..State::MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
        let offered = __cpuid_count(0xd, 0).eax & COMPONENTS;
        state.0[State::XSTATE_BV..State::XSTATE_BV + 4].copy_from_slice(&offered.to_le_bytes());
        Self { seed, state }
    }

    /// What goes into a register that takes any address.
    const fn word(&self, i: u64) -> u64 {
        self.seed << 20 | i << 12 | 0x128
    }

    /// The same for an MSR: one of them holds a selector.
    const fn of_msr(&self, number: u32, i: u64) -> u64 {
        if number == 0x174 { (self.seed << 3 | 0x4000) & 0xffff } else { self.word(i) }
    }

    fn load(&self) {
        self.state.load();
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| self.word(i));
        // SAFETY: addresses of breakpoints that are off; an address of a fault that there was not.
        unsafe {
            asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", in(reg) a, in(reg) b, in(reg) c, in(reg) d);
            asm!("mov cr2, {}", in(reg) self.word(4));
        }
        for (i, (number, _)) in (5..).zip(UNUSED) {
            wrmsr(number, self.of_msr(number, i));
        }
        wrmsr(PAT.0, if self.seed & 1 == 0 { PAT.1 } else { 0x0006_0406_0007_0406 });
        if has_tsc_aux() {
            wrmsr(TSC_AUX, self.seed);
        }
    }

    /// The first that is not as it was put there.
    fn wrong(&self) -> Option<&'static str> {
        let now = State::current();
        let same = now.parts().eq(self.state.parts()) && now.control() == self.state.control();
        let aux = !has_tsc_aux() || rdmsr(TSC_AUX) == Some(self.seed);
        let pat = if self.seed & 1 == 0 { PAT.1 } else { 0x0006_0406_0007_0406 };
        [
            (same, "the extended state"),
            (breakpoints() == [0, 1, 2, 3].map(|i| self.word(i)), "the breakpoints"),
            (cr2() == self.word(4), "CR2"),
            ((5..).zip(UNUSED).all(|(i, (number, _))| rdmsr(number) == Some(self.of_msr(number, i))), "an MSR"),
            (rdmsr(PAT.0) == Some(pat), "the page attributes"),
            (aux, "TSC_AUX"),
        ]
        .into_iter()
        .find_map(|(holds, what)| (!holds).then_some(what))
    }
}

/// Registers that a call keeps: others run while it is made.
fn general(seed: u64) -> Option<&'static str> {
    const SCHED_OP: u64 = 29;
    let (mut rbp, mut r12, mut r13, mut r14, mut r15) = (0u64, seed + 1, seed + 2, seed + 3, seed + 4);
    // SAFETY: `yield`, which writes nothing.
    unsafe {
        asm!(
            "push rbp", "lea rbp, [r12 + 7]", "syscall", "mov rdi, rbp", "pop rbp",
            inout("rax") SCHED_OP => _, inout("rdi") 0u64 => rbp, inout("rsi") 0u64 => _,
            inout("r12") r12, inout("r13") r13, inout("r14") r14, inout("r15") r15,
            out("rcx") _, out("r11") _, out("rdx") _, out("r8") _, out("r9") _, out("r10") _,
        );
    }
    let kept = (rbp, r12, r13, r14, r15) == (seed + 8, seed + 1, seed + 2, seed + 3, seed + 4);
    (!kept).then_some("a general register")
}
