//! What the CPU looks like to a PV guest: every CPUID leaf, every MSR of the ranges in use, the control registers. It
//! claims little: the answers are values, to be compared between two hypervisors
//! (`cargo xtask test conformance --compare`).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Each answer is an instruction's.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, CpuidResult};
use guest_pv::alloc::format;
use guest_pv::println;
use guest_pv::tap::Tap;
use guests::cpu::{rdmsr, wrmsr, xen_cpuid};
use guests::trap_of;
use guests::values::Line;

guest_pv::test!(run);

/// The TSC and what else counts time: different at each reading.
const CLOCKS: [u32; 4] = [0x10, 0xe7, 0xe8, 0xc000_0104];

fn run(tap: &mut Tap) {
    let mut leaves = 0;
    for (first, last) in [(0, 0x21), (0x4000_0000, 0x4000_0006), (0x8000_0000, 0x8000_0022), (0xc000_0000, 0xc000_0001)]
    {
        for leaf in first..=last {
            for subleaf in 0..if matches!(leaf, 4 | 7 | 0xb | 0xd | 0x8000_001d) { 5 } else { 1 } {
                show("cpuid", leaf, subleaf, xen_cpuid(leaf, subleaf));
                leaves += 1;
            }
        }
    }
    show("cpuid", u32::MAX, 0, xen_cpuid(u32::MAX, 0));
    // Without CPUID faulting these are the machine's, but for what depends on CR4 and XCR0.
    for (leaf, subleaf) in [(1, 0), (7, 0), (0xd, 0), (0xd, 1)] {
        show("native cpuid", leaf, subleaf, __cpuid_count(leaf, subleaf));
    }
    tap.ok(leaves > 60, "CPUID answers");
    tap.is(read_all(), true, "MSRs are read or fault");
    control_registers();
    written_back();
    ports();
}

fn show(name: &str, leaf: u32, subleaf: u32, result: CpuidResult) {
    let CpuidResult { eax, ebx, ecx, edx } = result;
    println!("# values {name} {leaf:#x}.{subleaf}: eax={eax:08x} ebx={ebx:08x} ecx={ecx:08x} edx={edx:08x}");
}

const RANGES: [(u32, u32); 8] = [
    (0, 0x410),
    (0x480, 0x4a0),
    (0x560, 0x5a0),
    (0x600, 0x6e2),
    (0x800, 0x840),
    (0xd90, 0xdb0),
    (0x4000_0000, 0x4000_0110),
    (0xc000_0080, 0xc000_0110),
];

fn readable(mut each: impl FnMut(u32, u64)) {
    let more = [
        (0xc001_0000, 0xc001_0080),
        (0xc001_0110, 0xc001_0150),
        (0xc001_0200, 0xc001_0250),
        (0xc001_1000, 0xc001_1040),
    ];
    for (first, last) in RANGES.into_iter().chain(more) {
        for number in first..last {
            if let Some(value) = rdmsr(number) {
                each(number, value);
            }
        }
    }
}

/// What can be read, and what is there. What cannot be read is not said.
fn read_all() -> bool {
    let mut some = false;
    readable(|number, value| {
        some = true;
        if CLOCKS.contains(&number) {
            println!("# value rdmsr {number:#x}=counts");
        } else {
            println!("# value rdmsr {number:#x}={value:#x}");
        }
    });
    some
}

/// Whether what was read may be written again, and with one bit changed.
fn written_back() {
    readable(|number, value| {
        // The bases are in use, and of the clocks the value is old.
        if CLOCKS.contains(&number) || (0xc000_0100..0xc000_0103).contains(&number) {
            return;
        }
        let mut line = Line::new(&format!("wrmsr {number:#x}"));
        for (name, value) in [("same", value), ("zero", 0), ("bit63", value ^ 1 << 63), ("ones", u64::MAX)] {
            let answer = wrmsr(number, value).map_or("taken".into(), |(vector, _)| format!("trap{vector}"));
            line.value(name, &answer);
        }
        line.print();
    });
    let mut line = Line::new("wrmsr unreadable");
    for number in [0x1b, 0x49, 0x10b, 0x122, 0x1a0, 0x6e0, 0x808, 0x830, 0x1234, 0xc001_0114, 0xc001_1234] {
        line.value(&format!("{number:#x}"), if wrmsr(number, 0).is_none() { "taken" } else { "trap" });
    }
    line.print();
}

/// What becomes of each bit of a control register when it is turned over.
macro_rules! bits {
    ($register:literal, $value:expr) => {{
        let mut line = Line::new(concat!($register, " bit"));
        for bit in 0..32 {
            let value = $value ^ 1 << bit;
            // SAFETY: emulated, or a fault that ends the body.
            let trap = trap_of(|| unsafe { asm!(concat!("mov ", $register, ", {}"), in(reg) value) });
            let now: u64;
            // SAFETY: as above.
            unsafe {
                asm!(concat!("mov {}, ", $register), concat!("mov ", $register, ", {}"), out(reg) now, in(reg) $value);
            }
            let said = match trap {
                Some(_) => "trap",
                None if now == value => "taken",
                None => "ignored",
            };
            line.value(&format!("{bit}"), said);
        }
        line.print();
    }};
}

fn control_registers() {
    let (cr0, cr4): (u64, u64);
    // SAFETY: reads that are emulated.
    unsafe { asm!("mov {}, cr0", "mov {}, cr4", out(reg) cr0, out(reg) cr4) };
    println!("# values control: cr0={cr0:x} cr4={cr4:x}");
    bits!("cr4", cr4);
    bits!("cr0", cr0);
}

/// Which ports a privileged guest may read: those whose reading has no effect.
fn ports() {
    use guests::op;
    use xen_abi::hypercall::HYPERVISOR_PHYSDEV_OP;
    let mut iopl = 1u32;
    println!("# value set_iopl={:?}", op(HYPERVISOR_PHYSDEV_OP, 6, &mut iopl));
    let mut line = Line::new("in");
    for port in [
        0x20u16, 0x21, 0x40, 0x42, 0x43, 0x61, 0x70, 0x71, 0x80, 0xa0, 0xa1, 0xcf8, 0xcfc, 0x3f8, 0x3fd, 0x2f8, 0x402,
        0xffff,
    ] {
        // SAFETY: emulated, or a fault that ends the body.
        let trap = trap_of(|| unsafe { asm!("in al, dx", in("dx") port, out("al") _) });
        line.value(&format!("{port:#x}"), if trap.is_some() { "trap" } else { "read" });
    }
    line.print();
}
