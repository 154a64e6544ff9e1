//! What a domain reads as its TSC (`XEN_DOMCTL_settscinfo`, xl's `tsc_mode`): the CPU's own, one that the hypervisor counts
//! for it at another frequency, or, in a container, one that the hardware makes of the CPU's; by every way of reading it. And its
//! wall clock (`XEN_DOMCTL_settimeoffset`).
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::call::domctl::{get_domain_info, get_tsc_info, set_time_offset, set_tsc_info};
use guest_pv::call::sysctl;
use guest_pv::mem::{Access, Mapping, SharedBytes};
use guest_pv::tap::Tap;
use guest_pv::{events, time};
use guests::code;
use guests::container::Boxed;
use guests::cpu::xen_cpuid;
use guests::domain::{End, Tiny};
use xen_abi::Errno;
use xen_abi::arch_x86::shared_info;
use xen_abi::domctl::TscInfo;
use xen_abi::ids::DomId;
use xen_abi::sched::SHUTDOWN_POWEROFF;

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
    for mode in [ALWAYS_EMULATE, DEFAULT] {
        emulated(tap, mode);
    }
    native(tap);
    in_a_container(tap);
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
fn emulated(tap: &mut Tap, mode: u32) {
    const KHZ: u32 = 1000;
    let tiny = Tiny::new(program());
    let start = time::now();
    let elapsed = start / 2;
    let wanted = TscInfo { gtsc_khz: KHZ, incarnation: 4, elapsed_nsec: elapsed, ..info(mode) };
    let whose =
        if mode == DEFAULT { "so is by default one of another frequency" } else { "another domain's is emulated" };
    tap.is(set_tsc_info(tiny.id, wanted), Ok(()), whose);
    let told = get_tsc_info(tiny.id).expect("a domain of ours");
    tap.is((told.tsc_mode, told.gtsc_khz, told.incarnation), (mode, KHZ, 5), "with a frequency, once more");
    let passed = elapsed..=elapsed + (time::now() - start);
    tap.ok(passed.contains(&told.elapsed_nsec), "time goes on from what had passed");
    let read = read(tap, &tiny);
    let most = (elapsed + (time::now() - start)) / 1000 + 10;
    let counted = read.counters.is_sorted_by(|a, b| a < b)
        && read.counters.iter().all(|ticks| (elapsed / 1000..most).contains(ticks));
    if !tap.ok(counted, "microseconds are counted, each reading above the last") {
        tap.note(format_args!("{:?}, at most {most}", read.counters));
    }
    let [flags, said, khz, incarnation, offset @ .., factor, shift] = read.leaves;
    tap.is((flags & 1, said, khz, incarnation), (1, mode, KHZ, 5), "CPUID says so");
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

/// The time record and the counter at two moments, between which it waits; the counter in three ways; what 64 readings cost; the
/// leaves 0x40000003; and an interrupt of the local APIC's timer when the counter has a value.
fn program_in_a_container() -> &'static [u8] {
    code!(
        ".code32",
        "mov esp, 0x101e00",
        "mov edi, 0x101000",
        "call 5f",
        "3: pause",
        "cmp dword ptr ds:[0x101f00], 0",
        "je 3b",
        "call 5f",
        "jmp 6f",
        // A record to edi, and the counter; anew when the record has changed meanwhile.
        "5: mov esi, 0x102020",
        "mov ebp, [esi]",
        "test ebp, 1",
        "jnz 5b",
        "push edi",
        "mov ecx, 8",
        "rep movsd",
        "rdtsc",
        "pop ecx",
        "cmp ebp, ds:[0x102020]",
        "je 4f",
        "mov edi, ecx",
        "jmp 5b",
        "4: mov [edi], eax",
        "mov [edi + 4], edx",
        "add edi, 8",
        "ret",
        "6: rdtsc",
        "mov [edi], eax",
        "mov [edi + 4], edx",
        "mov eax, 0x40000003",
        "xor ecx, ecx",
        "cpuid",
        "test al, 1",
        "jnz 9f",
        "rdtscp",
        "jmp 2f",
        // On QEMU it exits as `rdtsc`, which Xen answers with a fault.
        "9: rdtsc",
        "2: mov [edi + 8], eax",
        "mov [edi + 12], edx",
        "mov ecx, 0x10",
        "rdmsr",
        "mov [edi + 16], eax",
        "mov [edi + 20], edx",
        "rdtsc",
        "mov esi, eax",
        "mov ebx, 64",
        "7: rdtsc",
        "dec ebx",
        "jnz 7b",
        "sub eax, esi",
        "mov [edi + 24], eax",
        "mov eax, 0x40000003",
        "xor ecx, ecx",
        "cpuid",
        "mov [edi + 32], eax",
        "mov [edi + 36], ebx",
        "mov [edi + 40], ecx",
        "mov [edi + 44], edx",
        "mov eax, 0x40000003",
        "mov ecx, 1",
        "cpuid",
        "mov [edi + 48], eax",
        "mov [edi + 52], ebx",
        "mov [edi + 56], ecx",
        "mov [edi + 60], edx",
        // x2APIC mode, the APIC on, and vector 0x40 at the deadline.
        "mov ecx, 0x1b",
        "rdmsr",
        "or eax, 0xc00",
        "wrmsr",
        "xor edx, edx",
        "mov ecx, 0x80f",
        "mov eax, 0x1ff",
        "wrmsr",
        "mov ecx, 0x832",
        "mov eax, 0x40040",
        "wrmsr",
        "rdtsc",
        "mov [edi + 64], eax",
        "mov [edi + 68], edx",
        "add eax, ds:[0x101f08]",
        "adc edx, 0",
        "mov ecx, 0x6e0",
        "wrmsr",
        "mov ecx, 0x822",
        "8: rdmsr",
        "test eax, 1",
        "jz 8b",
        "rdtsc",
        "mov [edi + 72], eax",
        "mov [edi + 76], edx",
        "cli",
        "hlt",
        ".code64"
    )
}

/// What it has left: two records of four words with the counter, and the rest as it is written.
struct Moment {
    stamp: u64,
    system_time: u64,
    factor: u32,
    shift: i8,
    counter: u64,
}

impl Moment {
    fn read(page: &SharedBytes, at: usize) -> Self {
        let scale = page.load_u64(at + 24).to_le_bytes();
        Self {
            stamp: page.load_u64(at + 8),
            system_time: page.load_u64(at + 16),
            factor: page.load_u32(at + 24),
            shift: scale[4].cast_signed(),
            counter: page.load_u64(at + 32),
        }
    }

    /// System time by the record.
    #[allow(clippy::cast_possible_truncation, reason = "as every guest computes it")]
    fn time(&self) -> u64 {
        let ticks = self.counter.wrapping_sub(self.stamp);
        let ticks = if self.shift >= 0 { ticks << self.shift } else { ticks >> -self.shift };
        self.system_time.wrapping_add(((u128::from(ticks) * u128::from(self.factor)) >> 32) as u64)
    }

    fn khz(&self) -> u64 {
        let khz = (1_000_000u64 << 32) / u64::from(self.factor.max(1));
        if self.shift >= 0 { khz >> self.shift } else { khz << -self.shift }
    }
}

/// Where its clocks may be apart from ours, on another CPU.
const APART: u64 = 1_000_000;

/// Two thirds of the CPU's frequency: by the hardware where it can, else by exits. The guest sees no difference.
fn in_a_container(tap: &mut Tap) {
    let khz = xen_cpuid(0x4000_0003, 2).eax / 3 * 2;
    let Some(boxed) = Boxed::new(program_in_a_container()) else {
        return tap.skip("a domain in a container has another frequency", "there are no containers here");
    };
    let elapsed = time::now() / 2;
    let wanted = TscInfo { gtsc_khz: khz, incarnation: 2, elapsed_nsec: elapsed, ..info(DEFAULT) };
    tap.is(set_tsc_info(boxed.id, wanted), Ok(()), "a domain in a container has another frequency by default");
    let told = get_tsc_info(boxed.id).expect("a domain of ours");
    tap.is((told.tsc_mode, told.gtsc_khz, told.incarnation), (DEFAULT, khz, 3), "which is kept");
    // Five milliseconds.
    let wait = u64::from(khz) * 5;
    boxed.data.store_u64(0xf08, wait);
    let begin = time::now();
    boxed.start();
    tap.ok(boxed.has_said(0x20), "it reads its time record and its counter");
    let between = time::now();
    let cpus = sysctl::physinfo().map_or(1, |info| info.nr_cpus);
    boxed.move_to(cpus - 1);
    time::sleep(20_000_000);
    boxed.move_to(0);
    let middle = time::now();
    boxed.data.store_u64(0xf00, 1);
    tap.is(boxed.end(), End::Shutdown(SHUTDOWN_POWEROFF), "and again on another CPU");
    let end = time::now();
    let [first, second] = [0, 40].map(|at| Moment::read(&boxed.data, at));
    let right = |moment: &Moment| moment.khz().abs_diff(khz.into()) <= u64::from(khz) / 10_000;
    if !tap.ok(right(&first) && right(&second), "the records say its frequency") {
        tap.note(format_args!("{} and {} for {khz}", first.khz(), second.khz()));
    }
    let near = |moment: &Moment, from: u64, to: u64| (from - APART..to + APART).contains(&moment.time());
    if !tap.ok(near(&first, begin, between) && near(&second, middle, end), "both tell the time that we have") {
        let times = [first.time(), second.time()];
        tap.note(format_args!("{times:?} for {begin} to {between} and {middle} to {end}"));
    }
    let word = |at: usize| boxed.data.load_u64(80 + at);
    let counted = [first.counter, second.counter, word(0), word(8), word(16)];
    if !tap.ok(counted.is_sorted_by(|a, b| a < b), "each way of reading it goes on from the one before") {
        tap.note(format_args!("{counted:?}"));
    }
    let half = |at: usize| boxed.data.load_u32(80 + at);
    let [flags, mode, said, incarnation] = [32, 36, 40, 44].map(half);
    tap.is((mode, said, incarnation), (DEFAULT, khz, 3), "CPUID says so");
    let by_exits = flags & 1 != 0;
    tap.note(format_args!("read {}, {} ticks for 64", if by_exits { "by exits" } else { "without an exit" }, half(24)));
    tap.ok(by_exits || half(24) < 64 * 100, "reading it costs nothing where CPUID says that nobody answers");
    let offset = u64::from(half(52)) << 32 | u64::from(half(48));
    tap.ok(if by_exits { offset == 0 } else { (1..begin).contains(&offset) }, "and when it began");
    let scale = Moment { factor: half(56), shift: half(60).to_le_bytes()[0].cast_signed(), ..first };
    tap.ok(right(&scale), "and how a tick becomes nanoseconds");
    let waited = word(72).wrapping_sub(word(64));
    if !tap.ok((wait..wait * 100).contains(&waited), "a timer goes off when the counter has the value") {
        tap.note(format_args!("{waited} ticks for {wait}"));
    }
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
