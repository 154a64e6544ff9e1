//! The clock that each vCPU computes from its time-stamp counter: the record and its version, the factor, monotony on one
//! vCPU and between several wherever they run, the second copy of the record, and the wall clock.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Small numbers are cut to size.
#![allow(unsafe_code)] // The machine's clock is read by its ports.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::call::{domctl, sched, sysctl};
use guest_pv::mem::{Access, Mapping, SharedBytes};
use guest_pv::tap::Tap;
use guest_pv::{Mode, boot, events, mode, smp, time};
use guests::cpu::xen_cpuid;
use guests::smp::{Random, Watch, on_all};
use guests::{address_of, call, op, page};
use xen_abi::Errno;
use xen_abi::arch_x86::{VcpuInfo, XEN_PVCLOCK_TSC_STABLE_BIT, shared_info, vcpu_info};
use xen_abi::domctl::{Bitmap, VcpuAffinity, XEN_DOMCTL_SETVCPUAFFINITY, XEN_VCPUAFFINITY_HARD};
use xen_abi::hypercall::{HYPERVISOR_PHYSDEV_OP, HYPERVISOR_PLATFORM_OP, HYPERVISOR_VCPU_OP};
use xen_abi::ids::{DomId, VcpuId};
use xen_abi::physdev::{PHYSDEVOP_SET_IOPL, SetIopl};
use xen_abi::platform::{PlatformOp, SetTime32, SetTime64, XENPF_INTERFACE_VERSION, XENPF_SETTIME32, XENPF_SETTIME64};
use xen_abi::vcpu::{VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, VcpuRegisterTimeMemoryArea};
use zerocopy::{Immutable, IntoBytes};

guest_pv::test!(run);

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
/// How far the clocks of two vCPUs may be apart: they are not the same counter on every machine.
const APART: u64 = MS;

/// A record as it is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    version: u32,
    stamp: u64,
    system_time: u64,
    factor: u32,
    shift: i8,
    flags: u8,
}

impl Record {
    /// Reads it as a guest does; the number of tries that met a change.
    fn read(shared: &SharedBytes, at: usize) -> (Self, u32) {
        let field = |offset: usize| at + offset - vcpu_info::TIME_VERSION;
        let mut tries = 0;
        loop {
            let record = Self {
                version: shared.load_u32(field(vcpu_info::TIME_VERSION)),
                stamp: shared.load_u64(field(vcpu_info::TIME_TSC_TIMESTAMP)),
                system_time: shared.load_u64(field(vcpu_info::TIME_SYSTEM_TIME)),
                factor: shared.load_u32(field(vcpu_info::TIME_TSC_TO_SYSTEM_MUL)),
                shift: shared.u8_at(field(vcpu_info::TIME_TSC_SHIFT)).load(Ordering::SeqCst).cast_signed(),
                flags: shared.u8_at(field(vcpu_info::TIME_FLAGS)).load(Ordering::SeqCst),
            };
            if record.version & 1 == 0 && shared.load_u32(field(vcpu_info::TIME_VERSION)) == record.version {
                return (record, tries);
            }
            tries += 1;
        }
    }

    /// That of a vCPU.
    fn of(vcpu: usize) -> Self {
        Self::read(events::shared(), vcpu * size_of::<VcpuInfo>() + vcpu_info::TIME_VERSION).0
    }

    /// Its time when the counter is at a value.
    fn at(&self, tsc: u64) -> u64 {
        let ticks = tsc.wrapping_sub(self.stamp);
        let ticks = if self.shift >= 0 { ticks << self.shift } else { ticks >> -self.shift };
        self.system_time.wrapping_add(((u128::from(ticks) * u128::from(self.factor)) >> 32) as u64)
    }

    /// Thousands of ticks in a second.
    fn khz(&self) -> u64 {
        let ticks = u128::from(MS) << 32;
        let khz = (ticks / u128::from(self.factor.max(1))) as u64;
        if self.shift >= 0 { khz >> self.shift } else { khz << -self.shift }
    }
}

fn run(tap: &mut Tap) {
    record(tap);
    second_copy(tap);
    several(tap);
    wall_clock(tap);
    if boot().is_initial_domain() {
        set_wall_clock(tap);
    }
}

fn record(tap: &mut Tap) {
    let first = Record::of(0);
    tap.ok(first.version > 0, "the record has been written");
    // A container's counter may have begun below zero.
    tap.ok(time::tsc().wrapping_sub(first.stamp).cast_signed() >= 0, "at a value that the counter had");
    tap.ok(first.factor >= 1 << 31, "the factor has all its bits");
    tap.ok((-31..=31).contains(&first.shift), "the shift is a small one");
    tap.is(first.flags & !XEN_PVCLOCK_TSC_STABLE_BIT, 0, "the guest was not stopped");
    let known = u64::from(xen_cpuid(0x4000_0003, 2).eax);
    tap.ok(
        first.khz().abs_diff(known) <= known / 100,
        "the factor is the frequency that CPUID tells, within a hundredth",
    );
    let (mut last, mut changes) = (first, 0);
    let mut good = true;
    let end = time::now() + 300 * MS;
    while time::now() < end {
        let next = Record::of(0);
        good &= if next.version == last.version { next == last } else { next.stamp > last.stamp };
        good &= next.system_time >= last.system_time;
        changes += u32::from(next.version != last.version);
        last = next;
    }
    tap.ok(good, "it changes with its version only, and to later times");
    tap.note(format_args!("{changes} changes in 300 ms"));
    // A record that is replaced by another tells the same time.
    let tsc = time::tsc();
    let old = last.at(tsc);
    time::sleep(100 * MS);
    let new = Record::of(0).at(tsc);
    tap.ok(old.abs_diff(new) < MS, "an old record and a new one tell the same time of one counter value");
    let (clock, tsc) = (time::now(), time::tsc());
    time::sleep(100 * MS);
    let (passed, ticks) = (time::now() - clock, time::tsc() - tsc);
    let told = ticks * MS / first.khz().max(1);
    tap.ok(passed.abs_diff(told) < passed / 50, "the clock advances by the ticks that were counted");
    if xen_cpuid(0x4000_0003, 0).eax & 1 << 2 != 0 {
        let before = time::tsc();
        let (low, high): (u32, u32);
        // SAFETY: reads the counter and a number of the CPU's.
        unsafe { asm!("rdtscp", out("eax") low, out("edx") high, out("ecx") _, options(nomem, nostack)) };
        let between = u64::from(high) << 32 | u64::from(low);
        tap.ok((before..time::tsc()).contains(&between), "rdtscp reads the same counter");
    }
    let version = Record::of(0).version;
    tap.is(version & 1, 0, "a vCPU never sees its own record being changed");
}

fn second_copy(tap: &mut Tap) {
    let frame = page();
    let area = Mapping::own(&[frame.mfn().0], Access::ReadWrite).expect("own memory can be mapped");
    let mut argument = VcpuRegisterTimeMemoryArea { addr: area.address() };
    let command = VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA.into();
    let result = call(HYPERVISOR_VCPU_OP, [command, 0, address_of(&mut argument)]);
    tap.is(result, Ok(0), "a second place for the record");
    let read = || Record::read(&area, 0).0;
    for _ in 0..3 {
        let (copy, own) = (read(), Record::of(0));
        let same = Record { version: own.version, ..copy } == own;
        // A change may come between the two.
        tap.ok(same || Record::of(0).version != own.version, "has the same as the first");
        time::sleep(20 * MS);
    }
    tap.ok(read().at(time::tsc()).abs_diff(time::now()) < MS, "and tells the same time");
    area.leak();
    frame.leak();
}

static WATCH: Watch = Watch::new();
/// The latest time that any vCPU has seen.
static LATEST: AtomicU64 = AtomicU64::new(0);
static WORST: AtomicU64 = AtomicU64::new(0);
/// CPUs that the vCPUs may be moved between: none where another domain decides that.
static CPUS: AtomicU64 = AtomicU64::new(0);
static MOVES: AtomicU64 = AtomicU64::new(0);

/// Lets this vCPU run on some CPU only.
fn move_to(cpu: u64) {
    let mut map = 1u64 << cpu;
    let bitmap = Bitmap { bitmap: address_of(&mut map), nr_bits: 64, ..Default::default() };
    let mut affinity =
        VcpuAffinity { vcpu: smp::this(), flags: XEN_VCPUAFFINITY_HARD, cpumap_hard: bitmap, ..Default::default() };
    // SAFETY: the map outlives the call, and a vCPU may run anywhere.
    let moved = unsafe { domctl::payload(XEN_DOMCTL_SETVCPUAFFINITY, DomId(0), &mut affinity) };
    WATCH.check(moved.is_ok(), format_args!("moving to CPU {cpu}: {moved:?}"));
    MOVES.fetch_add(1, Ordering::SeqCst);
}

fn one_vcpu() {
    let me = smp::index();
    let mut random = Random::new(5 + me as u64);
    let end = time::now() + 500 * MS;
    let (mut own, mut last) = (0, Record::of(me));
    while own < end {
        let latest = LATEST.load(Ordering::SeqCst);
        let now = time::now();
        WATCH.check(now >= own, format_args!("{own}, then {now}"));
        if now < latest {
            WORST.fetch_max(latest - now, Ordering::SeqCst);
        }
        own = now;
        LATEST.fetch_max(now, Ordering::SeqCst);
        let next = Record::of(me);
        WATCH.check(next.version != last.version || next == last, format_args!("{last:?}, then {next:?}"));
        WATCH.check(
            next.system_time >= last.system_time,
            format_args!("the record went back from {last:?} to {next:?}"),
        );
        last = next;
        match random.below(200) {
            0 => time::sleep(100_000),
            1 if CPUS.load(Ordering::SeqCst) > 0 => move_to(random.below(CPUS.load(Ordering::SeqCst) as usize) as u64),
            2..6 => drop(sched::yield_cpu()),
            _ => {}
        }
    }
}

fn several(tap: &mut Tap) {
    let moves = boot().is_initial_domain();
    if moves {
        CPUS.store(sysctl::physinfo().map_or(1, |info| info.nr_cpus.into()), Ordering::SeqCst);
    }
    on_all(one_vcpu);
    WATCH.verdict(tap, "on each of four vCPUs the clock goes forward, and records change by their versions");
    let worst = WORST.load(Ordering::SeqCst);
    tap.note(format_args!("{worst} ns between vCPUs"));
    tap.ok(worst < APART, "between them too, but for a moment");
    if moves {
        tap.ok(MOVES.load(Ordering::SeqCst) > 0, "while they move between CPUs");
    }
    let (first, flags) = (Record::of(0), (0..4).map(|vcpu| Record::of(vcpu).flags));
    tap.ok(flags.into_iter().all(|flags| flags == first.flags), "all of them say alike whether the counter is stable");
    let close = (1..4).all(|vcpu| Record::of(vcpu).khz().abs_diff(first.khz()) <= first.khz() / 100);
    tap.ok(close, "and count alike");
    // What a vCPU had before it went down is not what it begins with.
    let before = Record::of(1);
    time::sleep(50 * MS);
    smp::start(VcpuId(1), || LATEST.store(time::now(), Ordering::SeqCst)).expect("the domain has four vCPUs");
    smp::join(VcpuId(1)).expect("it was started");
    let told = LATEST.load(Ordering::SeqCst);
    tap.ok(
        time::now().abs_diff(told) < SECOND && told > before.system_time,
        "a vCPU that was down has the time at once",
    );
}

fn read_clock(register: u8) -> u8 {
    let value: u8;
    // SAFETY: selects and reads a register of the machine's clock, without an effect.
    unsafe { asm!("out 0x70, al", "in al, 0x71", inout("al") register => value) };
    value
}

/// Seconds of the day by the machine's clock, in BCD.
fn clock_seconds() -> u64 {
    let part = |register| {
        let value = u64::from(read_clock(register));
        (value >> 4) * 10 + (value & 15)
    };
    loop {
        let time = (part(4), part(2), part(0));
        // Not while it is counting on.
        if read_clock(10) & 0x80 == 0 && time == (part(4), part(2), part(0)) {
            return time.0 * 3600 + time.1 * 60 + time.2;
        }
    }
}

fn base() -> (u32, u64, u32) {
    let shared = events::shared();
    let seconds =
        u64::from(shared.load_u32(shared_info::WC_SEC_HI)) << 32 | u64::from(shared.load_u32(shared_info::WC_SEC));
    (shared.load_u32(shared_info::WC_VERSION), seconds, shared.load_u32(shared_info::WC_NSEC))
}

fn wall_clock(tap: &mut Tap) {
    let (version, seconds, nanoseconds) = base();
    tap.ok(version > 0 && version & 1 == 0, "the wall clock's version is even and not zero");
    tap.ok(u64::from(nanoseconds) < SECOND, "its nanoseconds are less than a second");
    tap.ok((1_577_836_800..4_102_444_800).contains(&seconds), "the machine was started in this century");
    time::sleep(100 * MS);
    tap.is(base(), (version, seconds, nanoseconds), "it is the moment of the start, which does not change");
    if mode() == Mode::Pvh || !boot().is_initial_domain() {
        // There is no other clock.
        return;
    }
    op(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_SET_IOPL, &mut SetIopl { iopl: 1 }).expect("a level");
    let day = 86_400;
    let (told, machine) = (time::wall_clock() / SECOND % day, clock_seconds());
    let apart = told.abs_diff(machine);
    tap.ok(apart.min(day - apart.min(day)) <= 2, "with the time since then it is what the machine's clock says");
}

fn platform<T: IntoBytes + Immutable>(cmd: u32, payload: &T) -> Result<u64, Errno> {
    let mut op = PlatformOp { cmd, interface_version: XENPF_INTERFACE_VERSION, u: [0; 128] };
    payload.write_to_prefix(&mut op.u).map_err(|_| Errno::EINVAL)?;
    call(HYPERVISOR_PLATFORM_OP, [address_of(&mut op)])
}

fn set_wall_clock(tap: &mut Tap) {
    let (version, ..) = base();
    let true_time = time::wall_clock();
    let wide = |secs: u64, nsecs: u32, mbz: u32, system_time: u64| {
        platform(XENPF_SETTIME64, &SetTime64 { secs, nsecs, mbz, system_time })
    };
    let now = time::now();
    tap.is(wide(2_000_000_000, 5, 0, now), Ok(0), "the control domain sets the wall clock");
    let told = time::wall_clock();
    tap.ok((2_000_000_000 * SECOND + 5..2_000_000_060 * SECOND).contains(&told), "to another time");
    let after = base().0;
    tap.ok(after > version && after & 1 == 0, "its version has changed");
    tap.is(wide(1_000_000_000, 0, 0, 0), Ok(0), "as a time of the start");
    tap.is((base().1, base().2), (1_000_000_000, 0), "it is kept as such");
    tap.is(wide(10, 1_500_000_000, 0, 0), Ok(0), "nanoseconds of more than a second");
    tap.is((base().1, base().2), (11, 500_000_000), "are seconds");
    tap.is(wide(10, 0, 0, 500_000_000), Ok(0), "half a second after the start");
    tap.is((base().1, base().2), (9, 500_000_000), "the start was half a second before");
    tap.is(wide(1 << 32 | 7, 0, 0, 0), Ok(0), "a time behind 2106");
    tap.is(base().1, 1 << 32 | 7, "has an upper half");
    tap.is(wide(10, 0, 1, 0), Err(Errno::EINVAL), "what must be zero must be");
    tap.is(base().1, 1 << 32 | 7, "nothing is changed then");
    let narrow = SetTime32 { secs: 0xffff_fff0, nsecs: 1, system_time: 0 };
    tap.is(platform(XENPF_SETTIME32, &narrow), Ok(0), "the older form has 32 bits of seconds");
    tap.is((base().1, base().2), (0xffff_fff0, 1), "all of them");
    let (secs, nsecs) = (true_time / SECOND, (true_time % SECOND) as u32);
    tap.is(wide(secs, nsecs, 0, now), Ok(0), "back to the true time");
    tap.ok(time::wall_clock().abs_diff(true_time) < 60 * SECOND, "which it tells");
}
