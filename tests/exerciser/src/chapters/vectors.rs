//! Registers of the FPU, of SSE and of AVX across switches: more threads than CPUs, each with a pattern of its own in all
//! of them, while they yield, are preempted, and are interrupted by a handler that uses the same registers.
//!
//! Unsafe: the registers have no other name than in assembly, and exceptions are made on purpose.

#![allow(unsafe_code, reason = "registers by name, exceptions on purpose")]

use super::sys;
use super::tap::Tap;
use std::arch::asm;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const THREADS: usize = 6;
const ROUNDS: u64 = 40;
/// How often a round yields, and how long it runs without a call so that it is preempted.
const YIELDS: u64 = 20;
const SPINS: u64 = 400_000;

/// One aligned image of sixteen registers of up to 32 bytes.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Image([u64; 64]);

impl Image {
    /// A pattern that no other thread and no other round has.
    fn of(thread: u64, round: u64) -> Self {
        let mut state = (thread << 32 | round).wrapping_add(1);
        Self(std::array::from_fn(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state ^ (state >> 29)
        }))
    }
}

/// Loads registers, waits by yields and by spinning, and stores them again; all within one block, so that nothing else
/// has a say in what they hold.
macro_rules! round {
    ($move:literal, $reg:literal, $step:literal, $from:expr, $to:expr $(, $clear:literal)?) => {
        asm!(
            concat!(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n",
                $move, " ", $reg, "\\n, [{from} + \\n*", $step, "]\n.endr"),
            "2: mov eax, 24", // SYS_sched_yield
            "syscall",
            "dec {yields}",
            "jnz 2b",
            "3: dec {spins}",
            "jnz 3b",
            concat!(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n",
                $move, " [{to} + \\n*", $step, "], ", $reg, "\\n\n.endr"),
            $($clear,)?
            from = in(reg) $from.0.as_ptr(),
            to = in(reg) $to.0.as_mut_ptr(),
            yields = inout(reg) YIELDS => _,
            spins = inout(reg) SPINS => _,
            out("rax") _, out("rcx") _, out("r11") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
            out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _,
            out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack),
        )
    };
}

fn sse(from: &Image, to: &mut Image) {
    // SAFETY: 16 registers of 16 bytes each, within images of 512 bytes; the call it makes is sched_yield.
    unsafe { round!("movups", "xmm", "16", from, to) }
}

fn avx(from: &Image, to: &mut Image) {
    // SAFETY: 16 registers of 32 bytes each; the caller has seen that there is AVX.
    unsafe { round!("vmovups", "ymm", "32", from, to, "vzeroupper") }
}

/// The x87 stack with eight integers, its control word and MXCSR with settings that are not the usual ones.
fn x87(from: &Image, to: &mut Image) {
    let usual = (0x037f_u16, 0x1f80_u32);
    // Round toward zero, double precision; and round down, flush to zero.
    let mut words = (0x0e7f_u16, 0xbf80_u32);
    // SAFETY: the stack is empty before and after, and both words are put back to what the ABI wants.
    unsafe {
        asm!(
            "fldcw [{cw}]",
            "ldmxcsr [{mx}]",
            ".irp n,0,1,2,3,4,5,6,7\nfild qword ptr [{from} + \\n*8]\n.endr",
            "2: mov eax, 24",
            "syscall",
            "dec {yields}",
            "jnz 2b",
            "3: dec {spins}",
            "jnz 3b",
            ".irp n,7,6,5,4,3,2,1,0\nfistp qword ptr [{to} + \\n*8]\n.endr",
            "fnstcw [{cw}]",
            "stmxcsr [{mx}]",
            "fldcw [{cw0}]",
            "ldmxcsr [{mx0}]",
            cw = in(reg) &raw mut words.0,
            mx = in(reg) &raw mut words.1,
            cw0 = in(reg) &raw const usual.0,
            mx0 = in(reg) &raw const usual.1,
            from = in(reg) from.0.as_ptr(),
            to = in(reg) to.0.as_mut_ptr(),
            yields = inout(reg) YIELDS => _,
            spins = inout(reg) SPINS => _,
            out("rax") _, out("rcx") _, out("r11") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            options(nostack),
        );
    }
    // The words count as part of the image.
    if words == (0x0e7f, 0xbf80) {
        to.0[8..].copy_from_slice(&from.0[8..]);
    }
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

/// Spoils the registers that a thread may be waiting with.
extern "C" fn spoil(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: nothing is touched but registers that are said to be.
    unsafe {
        asm!(
            "pcmpeqd xmm0, xmm0", "movaps xmm7, xmm0", "movaps xmm15, xmm0", "fninit", "fldpi", "fstp st(0)",
            out("xmm0") _, out("xmm7") _, out("xmm15") _, out("st(0)") _, options(nostack, nomem),
        );
    }
}

pub fn run(tap: &mut Tap) {
    let _ = sys::on_signal(libc::SIGALRM, spoil, libc::SA_RESTART);
    HANDLED.store(0, Ordering::SeqCst);
    let _ = sys::alarm_every(Duration::from_millis(5));
    tap.same(&wrong(x87, 8), &0, "the x87 stack, its control word and MXCSR of 6 threads");
    tap.same(&wrong(sse, 32), &0, "xmm0-15 of 6 threads");
    if std::arch::is_x86_feature_detected!("avx") {
        tap.same(&wrong(avx, 64), &0, "ymm0-15 of 6 threads");
        let mixed: usize = std::thread::scope(|scope| {
            let kinds = [(avx as fn(&Image, &mut Image), 64), (sse, 32), (x87, 8)];
            let threads: Vec<_> = kinds.map(|(kind, words)| scope.spawn(move || wrong(kind, words))).into();
            threads.into_iter().map(|thread| thread.join().unwrap_or(1)).sum()
        });
        tap.same(&mixed, &0, "all of these at once");
    } else {
        tap.skip("ymm0-15 of 6 threads", "no AVX here");
        tap.skip("all of these at once", "no AVX here");
    }
    let _ = sys::alarm_every(Duration::ZERO);
    let handled = HANDLED.load(Ordering::SeqCst);
    tap.claim(handled > 5, &format!("a handler that uses them came in between: {handled} times"));
}

/// Rounds after which a thread's first so many words of registers are not what it put there.
fn wrong(round: fn(&Image, &mut Image), words: usize) -> usize {
    let thread = |thread: u64| {
        let one = |number: u64| {
            let mut from = Image::of(thread, number);
            // The x87 stack takes any integer, but the ABI's 80 bits hold one of 64 exactly only in full precision.
            from.0[..8].iter_mut().for_each(|word| *word >>= 12);
            let mut to = Image([0; 64]);
            round(&from, &mut to);
            let x87_words = words == 8;
            let compared = if x87_words { 64 } else { words };
            from.0[..compared] != to.0[..compared]
        };
        (0..ROUNDS).filter(|number| one(*number)).count()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS as u64).map(|number| scope.spawn(move || thread(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(1)).sum()
    })
}

/// A mistake, the signal that it ends in, and how to make it.
type Fault = (&'static str, i32, fn());

/// What a program must not do.
pub const FAULTS: [Fault; 5] = [
    ("an undefined instruction is SIGILL", libc::SIGILL, undefined),
    ("a division by zero is SIGFPE", libc::SIGFPE, division),
    ("a breakpoint is SIGTRAP", libc::SIGTRAP, breakpoint),
    ("a privileged instruction is SIGSEGV", libc::SIGSEGV, privileged),
    ("an address that is not canonical is SIGSEGV", libc::SIGSEGV, address),
];

fn undefined() {
    // SAFETY: ends this process.
    unsafe { asm!("ud2") }
}

fn division() {
    // SAFETY: ends this process.
    unsafe { asm!("xor eax, eax", "xor edx, edx", "div eax", out("eax") _, out("edx") _) }
}

fn breakpoint() {
    // SAFETY: ends this process.
    unsafe { asm!("int3") }
}

fn privileged() {
    // SAFETY: ends this process.
    unsafe { asm!("mov {}, cr3", out(reg) _) }
}

fn address() {
    // SAFETY: ends this process.
    unsafe { asm!("mov {}, [{}]", out(reg) _, in(reg) 0x8000_0000_0000_0000_u64) }
}

/// A signal ends this process again, as it did before anyone wanted it.
pub fn default_action(signal: i32) {
    // SAFETY: numbers only.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}
