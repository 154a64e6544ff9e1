//! The policy of CPUID and of model-specific registers as a PV guest sees it: the hypervisor's own leaves, what is hidden,
//! what follows CR4 and XCR0, which registers answer, which take a write and which do not exist.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Halves are cut out of words on purpose.
#![allow(unsafe_code)] // Each answer is an instruction's.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, CpuidResult};
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::call::{traps::set_segment_base, version};
use guest_pv::tap::Tap;
use guest_pv::{smp, time, traps};
use guests::cpu::{cr4, rdmsr, set_cr4, wrmsr, xcr0, xen_cpuid, xsetbv};
use guests::user::{self, UserSpace};
use guests::{code, page, trap_of};
use xen_abi::arch_x86::{SEGBASE_FS, SEGBASE_GS_KERNEL, SEGBASE_GS_USER};
use xen_abi::ids::VcpuId;

guest_pv::test!(run);

const GP: Option<(u64, u64)> = Some((13, 0));
const OSXSAVE: u64 = 1 << 18;
const ZERO: CpuidResult = CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };

fn run(tap: &mut Tap) {
    hypervisor_leaves(tap);
    time_leaf(tap);
    limits(tap);
    hidden(tap);
    nothing_invented(tap);
    extended_state(tap);
    from_user_mode(tap);
    same_on_each_vcpu(tap);
    bases(tap);
    fixed_registers(tap);
    absent_registers(tap);
    halves(tap);
    tsc_aux(tap);
    hypercall_page(tap);
}

fn hypervisor_leaves(tap: &mut Tap) {
    let first = xen_cpuid(0x4000_0000, 0);
    let name = [first.ebx, first.ecx, first.edx].map(u32::to_le_bytes);
    tap.is(name.as_flattened(), b"XenVMMXenVMM", "the first leaf of the hypervisor has its signature");
    tap.is(first.eax, 0x4000_0005, "and its last leaf");
    tap.is(xen_cpuid(0x4000_0000, 7), first, "it has no sub-leaves");
    let (major, minor) = version::version().unwrap_or_default();
    let second = CpuidResult { eax: u32::from(major) << 16 | u32::from(minor), ..ZERO };
    tap.is(xen_cpuid(0x4000_0001, 0), second, "the second leaf is the version");
    let pages = CpuidResult { eax: 1, ebx: 0x4000_0000, ecx: 1, edx: 0 };
    tap.is(xen_cpuid(0x4000_0002, 0), pages, "the third: one hypercall page, its MSR, MMU_PT_UPDATE_PRESERVE_AD");
    tap.is(xen_cpuid(0x4000_0004, 0), ZERO, "the fifth is for hardware containers");
    let width = xen_cpuid(0x4000_0005, 0);
    tap.is((width.eax, width.ecx, width.edx), (0, 0, 0), "the sixth has one word");
    tap.ok((26..=52).contains(&width.ebx), "the bits of the highest machine address");
    tap.is(xen_cpuid(0x4000_0005, 1), ZERO, "and one sub-leaf");
    for leaf in [0x4000_0006, 0x4000_00ff, 0x4000_0100, 0x4000_01ff, 0x4000_0200, 0x4fff_ffff, 0x3fff_ffff] {
        tap.is(xen_cpuid(leaf, 0), ZERO, "nothing is behind the last leaf");
    }
}

fn time_leaf(tap: &mut Tap) {
    let time = xen_cpuid(0x4000_0003, 0);
    tap.is(time.eax & !6, 0, "the TSC is not emulated");
    tap.is(time.eax >> 2 & 1, xen_cpuid(0x8000_0001, 0).edx >> 27 & 1, "rdtscp is said to be there as by its own bit");
    tap.is((time.ebx, time.edx), (0, 0), "the default mode, the first incarnation");
    tap.note(format_args!("{time:x?} {:x?}", xen_cpuid(0x4000_0003, 1)));
    let cpu = xen_cpuid(0x4000_0003, 2);
    tap.is((cpu.ebx, cpu.ecx, cpu.edx), (0, 0, 0), "the third sub-leaf has one word");
    let (start, counted) = (time::now(), time::tsc());
    time::sleep(50_000_000);
    let khz = (time::tsc() - counted) * 1_000_000 / (time::now() - start).max(1);
    tap.ok(u64::from(cpu.eax).abs_diff(khz) < khz / 4, "the frequency at which the TSC counts");
    tap.is(xen_cpuid(0x4000_0003, 3), ZERO, "there is no fourth");
}

fn limits(tap: &mut Tap) {
    let native = __cpuid_count(0, 0);
    let first = xen_cpuid(0, 0);
    tap.is((first.ebx, first.ecx, first.edx), (native.ebx, native.ecx, native.edx), "the vendor is the CPU's");
    tap.ok(first.eax <= native.eax.max(0xd), "there are no more leaves than the CPU has");
    let last = first.eax;
    tap.is(xen_cpuid(last + 1, 0), ZERO, "nothing is behind the last basic leaf");
    tap.is(xen_cpuid(0x3fff_ffff, 0), ZERO, "before the hypervisor's");
    tap.is(xen_cpuid(0, u32::MAX), first, "sub-leaves of leaf 0 are all the same");
    let extended = xen_cpuid(0x8000_0000, 0);
    tap.ok(extended.eax <= __cpuid_count(0x8000_0000, 0).eax.max(0x8000_0021), "no more extended leaves either");
    tap.is(xen_cpuid(extended.eax + 1, 0), ZERO, "nothing is behind the last extended leaf");
    for leaf in [0x8000_ffff, 0x8001_0000, 0x8fff_ffff, 0xc000_0000, 0xffff_ffff] {
        tap.is(xen_cpuid(leaf, 0), ZERO, "nor far behind it");
    }
    let seven = xen_cpuid(7, 0).eax;
    tap.is((xen_cpuid(7, seven + 1), xen_cpuid(7, u32::MAX)), (ZERO, ZERO), "nor behind the last sub-leaf of 7");
    tap.is((xen_cpuid(0xd, 63), xen_cpuid(0xd, u32::MAX)), (ZERO, ZERO), "nor behind those of 0xd");
    for leaf in [3, 8, 9, 0xa, 0xb, 0xc] {
        tap.is(xen_cpuid(leaf, 0), ZERO, "leaves that a PV guest has not");
    }
    for leaf in [0x8000_0009, 0x8000_000a, 0x8000_000b, 0x8000_0018, 0x8000_001b, 0x8000_001d, 0x8000_001e, 0x8000_001f]
    {
        tap.is(xen_cpuid(leaf, 0), ZERO, "SVM, IBS, topology and encryption among the extended");
    }
}

/// Leaf, sub-leaf, register (0 to 3) and bits of what a PV guest is not told of, in the hypervisor's view.
const HIDDEN: &[(u32, u32, usize, &[u32], &str)] = &[
    (
        1,
        0,
        2,
        &[2, 3, 5, 6, 8, 11, 14, 15, 17, 18, 21, 24],
        "DTES64 MONITOR VMX SMX TM2 SDBG XTPR PDCM PCID DCA X2APIC TSC_DEADLINE",
    ),
    (1, 0, 3, &[1, 3, 13, 17, 18, 21, 29, 31], "VME PSE PGE PSE36 PSN DS TM1 PBE"),
    (7, 0, 1, &[1, 2, 7, 10, 12, 15, 20, 22, 25], "TSC_ADJUST SGX SMEP INVPCID PQM PQE SMAP PCOMMIT PT"),
    (7, 0, 2, &[2, 3, 4, 5, 7, 16], "UMIP PKU OSPKE WAITPKG CET_SS LA57"),
    (7, 0, 3, &[5, 18, 20, 22, 24, 25], "UINTR PCONFIG CET_IBT AMX"),
    (0xd, 1, 0, &[3, 4], "XSAVES XFD"),
    (0x8000_0001, 0, 2, &[2, 3, 4, 10, 13, 17, 19, 22], "SVM EXTAPIC CR8_LEGACY IBS WDT TCE NODEID TOPOEXT"),
    (0x8000_0001, 0, 3, &[1, 3, 13, 17, 26], "VME PSE PGE PSE36 PAGE1GB"),
];

fn word(result: CpuidResult, register: usize) -> u32 {
    [result.eax, result.ebx, result.ecx, result.edx].get(register).copied().unwrap_or(0)
}

fn hidden(tap: &mut Tap) {
    for &(leaf, subleaf, register, bits, names) in HIDDEN {
        let shown = word(xen_cpuid(leaf, subleaf), register);
        let found = bits.iter().fold(0, |all, bit| all | shown & 1 << bit);
        tap.is(found, 0, names);
    }
    let one = xen_cpuid(1, 0);
    tap.is(one.ecx >> 31, 1, "the bit for a hypervisor is set");
    // The hardware domain's kernel looks after them, by hypercalls.
    tap.is(one.edx >> 12 & 1, __cpuid_count(1, 0).edx >> 12 & 1, "MTRRs are shown to the hardware domain's kernel");
    tap.is(one.ecx >> 7 & 1, __cpuid_count(1, 0).ecx >> 7 & 1, "so is EIST");
    tap.is(one.edx >> 9 & 1, 1, "so is the APIC");
    tap.is(xen_cpuid(0x8000_0007, 0).edx & !(1 << 8), 0, "of power management at most the invariant TSC is shown");
    tap.is(one.ebx >> 24, 0, "the APIC's number is not");
    tap.is(xen_cpuid(0xd, 0).eax & !7 & !0xe0 & !0x18, 0, "states are x87, SSE, AVX, MPX, AVX-512 at most");
}

fn nothing_invented(tap: &mut Tap) {
    // The bit for a hypervisor and OSXSAVE are not the CPU's to say; ARCH_CAPABILITIES are there on all of Intel's, and
    // MTRRs in AMD's leaf too.
    for (leaf, subleaf, register, own) in [
        (1, 0, 2, 1 << 31 | 1 << 27),
        (1, 0, 3, 0),
        (7, 0, 1, 0),
        (7, 0, 2, 0),
        (7, 0, 3, 1 << 29),
        (7, 1, 0, 0),
        (0xd, 0, 0, 0),
        (0xd, 1, 0, 0),
        (0x8000_0001, 0, 2, 0),
        (0x8000_0001, 0, 3, 1 << 12),
    ] {
        let shown = word(xen_cpuid(leaf, subleaf), register) & !own;
        let there = word(__cpuid_count(leaf, subleaf), register);
        tap.is(shown & !there, 0, "no feature is shown that the CPU has not");
    }
}

fn extended_state(tap: &mut Tap) {
    let before = cr4();
    if xen_cpuid(1, 0).ecx >> 26 & 1 == 0 {
        for what in 0..8 {
            tap.skip(if what == 0 { "XSAVE" } else { "and what belongs to it" }, "there is none");
        }
        return;
    }
    let forced = || xen_cpuid(1, 0).ecx >> 27 & 1;
    let native = || __cpuid_count(1, 0).ecx >> 27 & 1;
    set_cr4(before & !OSXSAVE);
    tap.is((forced(), native()), (1, 1), "OSXSAVE is shown to the kernel before CR4 has it");
    tap.ok(xcr0().is_some(), "and xgetbv is there: the hypervisor has the CPU's set");
    tap.is(xsetbv(0, 3), Some((6, 0)), "xsetbv is not");
    set_cr4(before | OSXSAVE);
    tap.is((forced(), native()), (1, 1), "with CR4.OSXSAVE in both");
    let all = u64::from(xen_cpuid(0xd, 0).eax);
    let sizes = || (xen_cpuid(0xd, 0).ebx, __cpuid_count(0xd, 0).ebx);
    tap.is((xsetbv(0, 1), xcr0(), sizes()), (None, Some(1), (576, 576)), "x87 alone");
    tap.is((xsetbv(0, 3), xcr0(), sizes()), (None, Some(3), (576, 576)), "x87 and SSE");
    tap.is((xsetbv(0, all), xcr0()), (None, Some(all)), "all states that are offered");
    let size = xen_cpuid(0xd, 0);
    tap.is((size.ebx, __cpuid_count(0xd, 0).ebx), (size.ecx, size.ecx), "their size is the largest");
    set_cr4(before & !OSXSAVE);
    set_cr4(before | OSXSAVE);
    tap.is(xcr0(), Some(all), "XCR0 is kept while CR4.OSXSAVE is clear");
    xsetbv(0, 3);
    set_cr4(before);
}

fn from_user_mode(tap: &mut Tap) {
    let mut program = [0x90u8; 128];
    let pieces = [
        code!(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid", "int 0x80"),
        code!("rdmsr", "int 0x80"),
        code!("wrmsr", "int 0x80"),
        code!("cpuid", "int 0x80"),
    ];
    for (piece, offset) in pieces.iter().zip((0..).step_by(16)) {
        program[offset..offset + piece.len()].copy_from_slice(piece);
    }
    let space = UserSpace::new(&program);
    let start =
        |piece: u64, rax: u64, rcx: u64| user::run(traps::Frame { rax, rcx, rdx: 0, ..user::start_at(piece * 16) });
    let ask = |leaf| {
        let frame = start(0, leaf, 0);
        CpuidResult { eax: frame.rax as u32, ebx: frame.rbx as u32, ecx: frame.rcx as u32, edx: frame.rdx as u32 }
    };
    tap.is(ask(0x4000_0000), xen_cpuid(0x4000_0000, 0), "user mode has the hypervisor's view too");
    let (before, kernel) = (cr4(), xen_cpuid(1, 0));
    set_cr4(before & !OSXSAVE);
    let closed = ask(1);
    tap.is(closed.ecx >> 27 & 1, 0, "but OSXSAVE only when CR4 has it");
    tap.is(closed.edx >> 12 & 1, 0, "nor the MTRRs of the hardware domain's kernel");
    let own = 1 << 27 | 1 << 7;
    tap.is((closed.ebx, closed.ecx | own), (kernel.ebx, kernel.ecx | own), "otherwise the same");
    set_cr4(before | OSXSAVE);
    tap.is(ask(1).ecx >> 27 & 1, kernel.ecx >> 26 & 1, "it has it");
    set_cr4(before);
    tap.is(start(3, 0, 0).vector, 0x80, "plain CPUID answers in user mode");
    let outcome = |frame: traps::Frame| (frame.vector, frame.error);
    tap.is(outcome(start(1, 0, 0xc000_0100)), (13, 0), "rdmsr is not for user mode");
    tap.is(outcome(start(2, 0, 0xc000_0100)), (13, 0), "nor wrmsr");
    // Its tables stay in use.
    core::mem::forget(space);
}

static ELSEWHERE: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn same_on_each_vcpu(tap: &mut Tap) {
    let look = || {
        ELSEWHERE[0].store(u64::from(xen_cpuid(1, 0).ebx), Ordering::SeqCst);
        ELSEWHERE[1].store(rdmsr(0x1b).unwrap_or(0), Ordering::SeqCst);
        ELSEWHERE[2].store(rdmsr(0xc000_0103).unwrap_or(99), Ordering::SeqCst);
        ELSEWHERE[3].store(rdmsr(0xc000_0100).unwrap_or(99), Ordering::SeqCst);
        wrmsr(0xc000_0103, 77);
        wrmsr(0xc000_0100, 0x7777);
    };
    wrmsr(0xc000_0103, 5);
    wrmsr(0xc000_0100, 0x5555);
    smp::start(VcpuId(1), look).expect("the domain has two vCPUs");
    smp::join(VcpuId(1)).expect("it was started");
    let seen = |index: usize| ELSEWHERE[index].load(Ordering::SeqCst);
    tap.is(seen(0), u64::from(xen_cpuid(1, 0).ebx), "the second vCPU has the same leaf 1");
    tap.is((rdmsr(0x1b), seen(1)), (Some(0xfee0_0900), 0xfee0_0800), "APIC_BASE tells which is the first");
    tap.is((seen(2), seen(3)), (0, 0), "its own registers begin as zero");
    tap.is((rdmsr(0xc000_0103), rdmsr(0xc000_0100)), (Some(5), Some(0x5555)), "and are not those of the first");
    wrmsr(0xc000_0103, 0);
    wrmsr(0xc000_0100, 0);
}

fn bases(tap: &mut Tap) {
    for (number, which, name) in [
        (0xc000_0100, SEGBASE_FS, "the base of fs"),
        (0xc000_0101, SEGBASE_GS_KERNEL, "the kernel's base of gs"),
        (0xc000_0102, SEGBASE_GS_USER, "the user's base of gs"),
    ] {
        tap.is((wrmsr(number, 0x1234_5678_9abc), rdmsr(number)), (None, Some(0x1234_5678_9abc)), name);
        // SAFETY: the bases are not used by the guest.
        let set = unsafe { set_segment_base(which, 0x4321_0000) };
        tap.is((set, rdmsr(number)), (Ok(()), Some(0x4321_0000)), "is also set by the hypercall");
        tap.is((wrmsr(number, 1 << 47), wrmsr(number, 1 << 63)), (GP, GP), "not to what is not canonical");
        tap.is((wrmsr(number, u64::MAX), rdmsr(number)), (None, Some(u64::MAX)), "but to any other address");
        tap.is((wrmsr(number, 0), rdmsr(number)), (None, Some(0)), "and back to zero");
    }
    let chosen = xen_cpuid(7, 0).ebx & 1 != 0;
    let before = cr4();
    set_cr4(before | 1 << 16);
    let mut value = 0u64;
    if chosen {
        wrmsr(0xc000_0100, 0x5000);
        // SAFETY: reads and writes a base that is not used, with CR4.FSGSBASE.
        let trap = trap_of(|| unsafe { asm!("rdfsbase {0}", "wrfsbase {1}", out(reg) value, in(reg) 0x6000u64) });
        tap.is((trap, value, rdmsr(0xc000_0100)), (None, 0x5000, Some(0x6000)), "rdfsbase and wrfsbase are the same");
    } else {
        tap.skip("rdfsbase and wrfsbase are the same", "there are none");
    }
    wrmsr(0xc000_0100, 0);
    set_cr4(before);
}

fn fixed_registers(tap: &mut Tap) {
    let efer = rdmsr(0xc000_0080).unwrap_or(0);
    tap.is(efer & 0xd01, 0xd01, "EFER has SCE, LME, LMA and NXE");
    tap.is(efer & !0x4d01, 0, "and not SVME");
    tap.is(wrmsr(0xc000_0080, efer), None, "it may be written as it is");
    for bit in [0, 8, 10, 11, 12, 13, 63] {
        tap.is(wrmsr(0xc000_0080, efer ^ 1 << bit), GP, "but not otherwise");
    }
    for (number, value, name) in [
        (0x1b, 0xfee0_0900, "APIC_BASE: enabled, the bootstrap processor"),
        (0x277, 0x0000_0501_0007_0406, "PAT of the hypervisor"),
        (0xce, 0, "PLATFORM_INFO without CPUID faulting"),
        (0x345, 0, "PERF_CAPABILITIES: none"),
    ] {
        tap.is(rdmsr(number), Some(value), name);
        tap.is((wrmsr(number, value), wrmsr(number, !value)), (GP, GP), "cannot be written");
        tap.is(rdmsr(number), Some(value), "and stays");
    }
    tap.is(rdmsr(0x140), Some(0), "MISC_FEATURES_ENABLES");
    tap.is((wrmsr(0x140, 0), wrmsr(0x140, 1), wrmsr(0x140, 2)), (None, GP, GP), "has no bit to set");
    match rdmsr(0x1a0) {
        Some(value) => {
            tap.is(value & 0x80_1800, 0x80_1800, "MISC_ENABLE: no branch trace, no precise events, no xTPR messages");
            tap.is(value & 0x4_0080, 0, "no performance counters, no MONITOR");
            tap.is(wrmsr(0x1a0, value), None, "may be written as it is");
            tap.is(rdmsr(0x1a0), Some(value), "and stays");
        }
        None => (0..4).for_each(|_| tap.skip("MISC_ENABLE", "there is none")),
    }
    let intel = xen_cpuid(0, 0).ecx == u32::from_le_bytes(*b"ntel");
    tap.is(
        (rdmsr(0x3a), wrmsr(0x3a, 1)),
        (intel.then_some(1), GP),
        "FEATURE_CONTROL is locked with nothing in it on Intel's",
    );
    let (first, second) = (rdmsr(0x10), rdmsr(0x10));
    tap.ok(first.is_some() && first < second, "the TSC counts");
    let close = rdmsr(0x10).is_some_and(|value| time::tsc().wrapping_sub(value) < 1 << 32);
    tap.ok(close, "as rdtsc does");
    let amd = xen_cpuid(0, 0).ecx == u32::from_le_bytes(*b"cAMD");
    for number in [0xc001_0041, 0xc001_0042, 0xc001_0061, 0xc001_0062, 0xc001_0063, 0xc001_006b] {
        if amd {
            let seen = (rdmsr(number), wrmsr(number, u64::MAX), rdmsr(number));
            tap.is(seen, (Some(0), None, Some(0)), "power states read as zero, and writes are dropped");
        } else {
            tap.is((rdmsr(number), wrmsr(number, 0)), (None, GP), "AMD's power states are not Intel's");
        }
    }
}

/// Registers that a PV guest has not, whatever the CPU has.
const ABSENT: &[(u32, &str)] = &[
    (0x3b, "TSC_ADJUST"),
    (0xcf, "CORE_CAPABILITIES"),
    (0xfe, "MTRRcap"),
    (0x122, "TSX_CTRL"),
    (0x123, "MCU_OPT_CTRL"),
    (0x174, "SYSENTER_CS"),
    (0x175, "SYSENTER_ESP"),
    (0x176, "SYSENTER_EIP"),
    (0x1d9, "DEBUGCTL"),
    (0x200, "an MTRR's base"),
    (0x201, "an MTRR's mask"),
    (0x250, "a fixed MTRR"),
    (0x2ff, "MTRRdefType"),
    (0x480, "VMX_BASIC"),
    (0x491, "VMX_VMFUNC"),
    (0x560, "RTIT_OUTPUT_BASE"),
    (0x6a0, "U_CET"),
    (0x6a2, "S_CET"),
    (0x6a7, "PL3_SSP"),
    (0x6e0, "TSC_DEADLINE"),
    (0x800, "the first of the x2APIC's"),
    (0x802, "the x2APIC's number"),
    (0x830, "the x2APIC's command"),
    (0x83f, "the last of the x2APIC's"),
    (0xd90, "BNDCFGS"),
    (0xda0, "XSS"),
    (0x1234, "a number without a register"),
    (0x4000_0001, "a second register of the hypervisor"),
    (0x4000_01ff, "its last"),
    (0xc000_0081, "STAR"),
    (0xc000_0082, "LSTAR"),
    (0xc000_0083, "CSTAR"),
    (0xc000_0084, "SFMASK"),
    (0xc001_0117, "VM_HSAVE_PA"),
    (0xc001_1234, "a number without a register"),
    (u32::MAX, "the last number"),
];

fn absent_registers(tap: &mut Tap) {
    for &(number, name) in ABSENT {
        tap.is((rdmsr(number), wrmsr(number, 0)), (None, GP), name);
    }
    let seven = xen_cpuid(7, 0).edx;
    let barrier = seven >> 26 & 1 != 0 || xen_cpuid(0x8000_0008, 0).ebx >> 12 & 1 != 0;
    tap.is(rdmsr(0x49), None, "PRED_CMD cannot be read");
    tap.is(wrmsr(0x49, 1), if barrier { None } else { GP }, "it is written where the barrier is offered");
    tap.is(wrmsr(0x49, 4), GP, "its other bits never");
    tap.is(rdmsr(0x10b), None, "FLUSH_CMD cannot be read");
    tap.is(rdmsr(0x10a).is_some(), seven >> 29 & 1 != 0, "ARCH_CAPABILITIES is there when CPUID says so");
    tap.is(wrmsr(0x10a, 0), GP, "and is never written");
}

fn halves(tap: &mut Tap) {
    let (mut low, mut high): (u64, u64);
    // SAFETY: reads a register by emulation.
    unsafe {
        asm!("rdmsr", in("rcx") 0xdead_beef_0000_0277u64, inout("rax") u64::MAX => low, inout("rdx") u64::MAX => high);
    }
    tap.is((low, high), (0x0007_0406, 0x501), "rdmsr takes the number from ecx and clears the upper halves");
    // SAFETY: writes a base that is not used.
    let trap = trap_of(|| unsafe {
        asm!("wrmsr", in("rcx") 0xdead_beef_c000_0100u64, in("rax") 0xffff_ffff_8765_4320u64,
            in("rdx") 0xffff_ffff_0000_0001u64);
    });
    tap.is((trap, rdmsr(0xc000_0100)), (None, Some(0x1_8765_4320)), "wrmsr takes the lower halves");
    wrmsr(0xc000_0100, 0);
    // SAFETY: as above.
    unsafe {
        asm!("push rbx", ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid", "pop rbx",
            inout("rax") 0xdead_beef_4000_0002u64 => low, inout("rcx") u64::MAX << 32 => high, out("rdx") _);
    }
    tap.is((low, high), (1, 1), "CPUID likewise");
    // The prefix belongs to CPUID: before another instruction it is what it looks like.
    let mut program = page();
    program.bytes_mut()[..7].copy_from_slice(&[0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x90, 0xc3]);
    // SAFETY: a call of a page with a fault at its start.
    let trap = trap_of(|| unsafe { asm!("call {}", in(reg) program.address()) });
    tap.is(trap, Some((6, 0)), "the prefix before something else is ud2");
}

fn tsc_aux(tap: &mut Tap) {
    if xen_cpuid(0x8000_0001, 0).edx >> 27 & 1 == 0 {
        return (0..3).for_each(|_| tap.skip("TSC_AUX", "there is none"));
    }
    tap.is((wrmsr(0xc000_0103, 0xffff_fff3), rdmsr(0xc000_0103)), (None, Some(0xffff_fff3)), "TSC_AUX");
    let aux: u64;
    // SAFETY: reads the counter and the register.
    unsafe { asm!("rdtscp", out("rcx") aux, out("rax") _, out("rdx") _) };
    tap.is(aux, 0xffff_fff3, "is what rdtscp returns");
    tap.is((wrmsr(0xc000_0103, 1 << 32), rdmsr(0xc000_0103)), (GP, Some(0xffff_fff3)), "it has 32 bits");
    wrmsr(0xc000_0103, 0);
}

fn hypercall_page(tap: &mut Tap) {
    const NUMBER: u32 = 0x4000_0000;
    tap.is(rdmsr(NUMBER), Some(0), "the register of the hypercall page reads as zero");
    let target = page();
    let frame = target.mfn().0 << 12;
    tap.is(wrmsr(NUMBER, frame | 1), GP, "there is no second page");
    tap.is(target.bytes()[17 * 32], 0, "and nothing was written");
    tap.is(wrmsr(NUMBER, frame), None, "a frame of ours is filled");
    // push rcx; push r11; mov eax, 17; syscall; pop r11; pop rcx; ret.
    let want = [0x51, 0x41, 0x53, 0xb8, 17, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3];
    tap.is(&target.bytes()[17 * 32..17 * 32 + 14], &want[..], "with a stub for each hypercall");
    let answer: u64;
    // SAFETY: xen_version, command 0.
    unsafe {
        asm!("call {}", in(reg) target.address() + 17 * 32, in("rdi") 0, in("rsi") 0, out("rax") answer, clobber_abi("C"));
    }
    tap.is(answer, 4 << 16 | 17, "which makes it");
    tap.is(wrmsr(NUMBER, 1 << 52), GP, "a frame that does not exist");
    guests::make_read_only(&target);
    tap.is(wrmsr(NUMBER, frame), None, "a frame that is mapped read-only may be filled too");
    guests::make_writable(&target).expect("own memory may be writable");
    let table = guests::table_page(&[]);
    guests::mmuext(xen_abi::mmu::MMUEXT_PIN_L1_TABLE, table.mfn()).expect("an empty table");
    tap.is(wrmsr(NUMBER, table.mfn().0 << 12), GP, "a page table may not");
    guests::mmuext(xen_abi::mmu::MMUEXT_UNPIN_TABLE, table.mfn()).expect("it was pinned");
    guests::make_writable(&table).expect("an ordinary page");
}
