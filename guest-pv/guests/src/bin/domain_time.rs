//! What a domain reads as its TSC (`XEN_DOMCTL_settscinfo`, xl's `tsc_mode`): the CPU's own, or one that the hypervisor counts
//! for it at another frequency, by every way of reading it. And its wall clock (`XEN_DOMCTL_settimeoffset`).
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::call::domctl::{get_domain_info, get_tsc_info, set_time_offset, set_tsc_info};
use guest_pv::mem::{Access, Mapping, SharedBytes};
use guest_pv::tap::Tap;
use guest_pv::{events, time};
use guests::code;
use guests::cpu::xen_cpuid;
use guests::domain::{End, Tiny};
use xen_abi::Errno;
use xen_abi::arch_x86::shared_info;
use xen_abi::domctl::TscInfo;
use xen_abi::ids::DomId;

guest_pv::test!(run);

const DEFAULT: u32 = 0;
const ALWAYS_EMULATE: u32 = 1;
const NEVER_EMULATE: u32 = 2;

/// What the second domain has read.
struct Read {
    /// By `rdtsc`, `rdtscp` and `rdmsr`, in this order.
    counters: [u64; 3],
    /// The leaves 0x40000003, subleaves 0 and 1: four registers each.
    leaves: [u32; 8],
}

fn info(tsc_mode: u32) -> TscInfo {
    TscInfo { tsc_mode, ..TscInfo::default() }
}

/// Reads everything, and shuts down.
fn program() -> &'static [u8] {
    code!(
        "mov ebx, 0x402000",
        "rdtsc",
        "mov [rbx], eax",
        "mov [rbx + 4], edx",
        "rdtscp",
        "mov [rbx + 8], eax",
        "mov [rbx + 12], edx",
        "mov ecx, 0x10",
        "rdmsr",
        "mov [rbx + 16], eax",
        "mov [rbx + 20], edx",
        "mov r8, rbx",
        "mov eax, 0x40000003",
        "xor ecx, ecx",
        ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2",
        "mov [r8 + 24], eax",
        "mov [r8 + 28], ebx",
        "mov [r8 + 32], ecx",
        "mov [r8 + 36], edx",
        "mov eax, 0x40000003",
        "mov ecx, 1",
        ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2",
        "mov [r8 + 40], eax",
        "mov [r8 + 44], ebx",
        "mov [r8 + 48], ecx",
        "mov [r8 + 52], edx",
        "push 1",
        "mov edi, 2",
        "mov rsi, rsp",
        "mov eax, 29",
        "syscall"
    )
}

fn read(tap: &mut Tap, tiny: &Tiny) -> Read {
    tap.is(tiny.run(&tiny.context()), End::Shutdown(1), "a domain reads its counter in three ways");
    let words: [u64; 7] = tiny.results();
    let half = |i: usize| {
        let bytes = words[3 + i / 2].to_le_bytes();
        u32::from_le_bytes(if i.is_multiple_of(2) {
            [bytes[0], bytes[1], bytes[2], bytes[3]]
        } else {
            [bytes[4], bytes[5], bytes[6], bytes[7]]
        })
    };
    Read { counters: [words[0], words[1], words[2]], leaves: core::array::from_fn(half) }
}

fn run(tap: &mut Tap) {
    refused(tap);
    emulated(tap);
    native(tap);
    wall_clock(tap);
}

fn refused(tap: &mut Tap) {
    tap.is(set_tsc_info(DomId(0), info(NEVER_EMULATE)), Err(Errno::EINVAL), "a domain's own counter stays");
    tap.is(set_tsc_info(DomId(0x1234), info(NEVER_EMULATE)), Err(Errno::ESRCH), "nor is there another domain");
    let tiny = Tiny::new(program());
    tap.is(set_tsc_info(tiny.id, info(3)), Err(Errno::EINVAL), "there are three modes");
    let first = get_tsc_info(tiny.id).expect("a domain of ours");
    tap.is((first.tsc_mode, first.incarnation), (DEFAULT, 1), "a new domain has the default, for the first time");
    tap.is(first.gtsc_khz, xen_cpuid(0x4000_0003, 2).eax, "and the CPU's frequency");
}

/// 1 MHz, and not all of its time before the machine's start: Xen's arithmetic does not go there.
fn emulated(tap: &mut Tap) {
    const KHZ: u32 = 1000;
    let tiny = Tiny::new(program());
    let start = time::now();
    let elapsed = start / 2;
    let wanted = TscInfo { gtsc_khz: KHZ, incarnation: 4, elapsed_nsec: elapsed, ..info(ALWAYS_EMULATE) };
    tap.is(set_tsc_info(tiny.id, wanted), Ok(()), "another domain's is emulated");
    let told = get_tsc_info(tiny.id).expect("a domain of ours");
    tap.is((told.tsc_mode, told.gtsc_khz, told.incarnation), (ALWAYS_EMULATE, KHZ, 5), "with a frequency, once more");
    let passed = elapsed..=elapsed + (time::now() - start);
    tap.ok(passed.contains(&told.elapsed_nsec), "time goes on from what had passed");
    let read = read(tap, &tiny);
    let most = (elapsed + (time::now() - start)) / 1000 + 10;
    let counted = read.counters.is_sorted_by(|a, b| a < b)
        && read.counters.iter().all(|ticks| (elapsed / 1000..most).contains(ticks));
    if !tap.ok(counted, "microseconds are counted, each reading above the last") {
        tap.note(format_args!("{:?}, at most {most}", read.counters));
    }
    let [flags, mode, khz, incarnation, offset @ .., factor, shift] = read.leaves;
    tap.is((flags & 1, mode, khz, incarnation), (1, ALWAYS_EMULATE, KHZ, 5), "CPUID says so");
    tap.is(offset, [0, 0], "that nothing has to be added");
    // 2^32 thousandths of 2^-shift: a microsecond is that many nanoseconds.
    tap.is((factor, shift), (0xfa00_0000, 10), "and how a tick becomes nanoseconds");
}

fn native(tap: &mut Tap) {
    let tiny = Tiny::new(program());
    tap.is(set_tsc_info(tiny.id, info(NEVER_EMULATE)), Ok(()), "another domain reads the CPU's");
    let told = get_tsc_info(tiny.id).expect("a domain of ours");
    tap.is((told.tsc_mode, told.gtsc_khz, told.elapsed_nsec), (NEVER_EMULATE, 0, 0), "nothing is to be kept of that");
    let before = time::tsc();
    let read = read(tap, &tiny);
    let after = time::tsc();
    let [first, .., last] = read.counters;
    tap.ok(before < first && read.counters.is_sorted() && last < after, "which is what we read");
    tap.is((read.leaves[0] & 1, read.leaves[1]), (0, NEVER_EMULATE), "CPUID says so");
    tap.is(read.leaves[2], xen_cpuid(0x4000_0003, 2).eax, "with the CPU's frequency");
    let offset = u64::from(read.leaves[5]) << 32 | u64::from(read.leaves[4]);
    tap.ok((1..time::now()).contains(&offset), "and when the domain was made");
}

/// As in Xen, the record is written where the domain's shared page is, before it runs.
fn wall_clock(tap: &mut Tap) {
    let tiny = Tiny::new(program());
    let frame = get_domain_info(tiny.id).expect("a domain of ours").shared_info_frame;
    let shared = Mapping::foreign(tiny.id, &[frame], Access::ReadOnly).expect("a foreign page can be mapped");
    let seconds = |page: &SharedBytes| {
        u64::from(page.load_u32(shared_info::WC_SEC_HI)) << 32 | u64::from(page.load_u32(shared_info::WC_SEC))
    };
    let ours = seconds(events::shared());
    tap.is(set_time_offset(tiny.id, 3600), Ok(()), "another domain's wall clock is an hour ahead");
    tap.is(seconds(&shared), ours + 3600, "it says so");
    tap.is(set_time_offset(tiny.id, -7200), Ok(()), "or two hours behind");
    tap.is(seconds(&shared), ours - 7200, "in place of that");
    tap.is(set_time_offset(tiny.id, 0), Ok(()), "or right");
    tap.is(seconds(&shared), ours, "again");
    tap.is(set_time_offset(DomId(0x1234), 0), Err(Errno::ESRCH), "there is no other domain");
}
