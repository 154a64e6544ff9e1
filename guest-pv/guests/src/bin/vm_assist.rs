//! `vm_assist`: which switches there are, and what each changes. Trapped writes to page tables are in `pt_emulation`, the
//! I/O privilege level in `ports`.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Flags are read, and a root is loaded by hand.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use guest_pv::alloc::vec::Vec;
use guest_pv::call::{domctl, version};
use guest_pv::mem::table;
use guest_pv::tap::Tap;
use guest_pv::{Mode, mode, smp, time, traps};
use guests::domain::{Call, End, Tiny};
use guests::smp::Watch;
use guests::user::{self, UserSpace};
use guests::{call, code, frame_of, give_up_root, load, mmuext, op, page, second_root};
use xen_abi::Errno;
use xen_abi::hypercall::{HYPERVISOR_PHYSDEV_OP, HYPERVISOR_VCPU_OP, HYPERVISOR_VM_ASSIST};
use xen_abi::ids::{Mfn, VcpuId};
use xen_abi::mmu::*;
use xen_abi::physdev::{PHYSDEVOP_SET_IOPL, SetIopl};
use xen_abi::vcpu::{VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, VcpuRegisterRunstateMemoryArea, XEN_RUNSTATE_UPDATE};
use xen_abi::vm_assist::*;

guest_pv::test!(run);

/// The assists of 64-bit PV guests.
const THERE: [u32; 7] = [
    VMASST_TYPE_4GB_SEGMENTS,
    VMASST_TYPE_4GB_SEGMENTS_NOTIFY,
    VMASST_TYPE_WRITABLE_PAGETABLES,
    VMASST_TYPE_PAE_EXTENDED_CR3,
    VMASST_TYPE_ARCHITECTURAL_IOPL,
    VMASST_TYPE_RUNSTATE_UPDATE_FLAG,
    VMASST_TYPE_M2P_STRICT,
];

/// Whether there is such an assist: a container has one of them.
fn is_there(number: u32) -> bool {
    match mode() {
        Mode::Pv => THERE.contains(&number),
        Mode::Pvh => number == VMASST_TYPE_RUNSTATE_UPDATE_FLAG,
    }
}

fn assist(command: u64, number: u64) -> Result<u64, Errno> {
    call(HYPERVISOR_VM_ASSIST, [command, number])
}

fn enable(number: u32) {
    assist(VMASST_CMD_ENABLE.into(), number.into()).expect("an assist that is there");
}

fn disable(number: u32) {
    assist(VMASST_CMD_DISABLE.into(), number.into()).expect("an assist that is there");
}

fn run(tap: &mut Tap) {
    numbers(tap);
    if mode() == Mode::Pvh {
        return runstate(tap);
    }
    features(tap);
    io_level(tap);
    runstate(tap);
    machine_table(tap);
    another_domain(tap);
}

fn numbers(tap: &mut Tap) {
    for number in 0..70u32 {
        let there = is_there(number);
        let want = if there { Ok(0) } else { Err(Errno::EINVAL) };
        let what = if there { "an assist that is there" } else { "one that is not" };
        // On, on again, off, off again. What is off at the start is off in the end.
        let seen = [0, 0, 1, 1].map(|command| assist(command, number.into()));
        tap.is(seen, [want; 4], what);
    }
    let flag = u64::from(VMASST_TYPE_RUNSTATE_UPDATE_FLAG);
    tap.is(assist(0, u64::from(u32::MAX)), Err(Errno::EINVAL), "the last number");
    tap.is(assist(2, flag), Err(Errno::ENOSYS), "a third command");
    tap.is(assist(u64::from(u32::MAX), flag), Err(Errno::ENOSYS), "the last command");
    tap.is(assist(2, 6), Err(Errno::EINVAL), "the number is looked at first");
    tap.is(assist(1 << 32, 1 << 33 | flag), Ok(0), "both are 32 bits");
    disable(VMASST_TYPE_RUNSTATE_UPDATE_FLAG);
    if mode() == Mode::Pv {
        enable(VMASST_TYPE_PAE_EXTENDED_CR3);
    }
}

fn features(tap: &mut Tap) {
    const PAE_PGDIR_ABOVE_4GB: u32 = 1 << 4;
    let now = || version::features(0).unwrap_or_default();
    let before = now();
    tap.is(before & PAE_PGDIR_ABOVE_4GB, PAE_PGDIR_ABOVE_4GB, "the feature of roots anywhere follows its assist");
    disable(VMASST_TYPE_PAE_EXTENDED_CR3);
    tap.is(now(), before & !PAE_PGDIR_ABOVE_4GB, "it is gone");
    for number in THERE.into_iter().filter(|&number| number != VMASST_TYPE_PAE_EXTENDED_CR3) {
        enable(number);
        tap.is(now(), before & !PAE_PGDIR_ABOVE_4GB, "no other assist is a feature");
        disable(number);
    }
    enable(VMASST_TYPE_PAE_EXTENDED_CR3);
    tap.is(now(), before, "it is back");
}

fn set_iopl(iopl: u32) -> Result<u64, Errno> {
    op(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_SET_IOPL, &mut SetIopl { iopl })
}

fn io_level(tap: &mut Tap) {
    let shown = || {
        // SAFETY: a trap that is caught.
        let frame = frame_of(|| unsafe { asm!("int 0x80") }).unwrap_or_default();
        let live: u64;
        // SAFETY: reads the flags.
        unsafe { asm!("pushfq", "pop {}", out(reg) live) };
        (frame.rflags >> 12 & 3, live >> 12 & 3)
    };
    for level in [0u32, 1, 3] {
        tap.is(set_iopl(level), Ok(0), "an I/O privilege level");
        tap.is(shown(), (0, 0), "is shown nowhere");
        enable(VMASST_TYPE_ARCHITECTURAL_IOPL);
        tap.is(shown(), (level.into(), 0), "with the assist in frames, and the processor has 0");
        disable(VMASST_TYPE_ARCHITECTURAL_IOPL);
    }
    set_iopl(0).expect("a level");
}

static WATCH: Watch = Watch::new();
static STOP: AtomicBool = AtomicBool::new(false);
static SLEEPS: AtomicU64 = AtomicU64::new(0);

/// Looks at the record of the other vCPU while that sleeps and wakes. When it entered its state less the sum of its times is
/// always the same; says how often a record could be read.
fn observe(tap: &mut Tap, area: u64, marked: bool) {
    STOP.store(false, Ordering::SeqCst);
    SLEEPS.store(0, Ordering::SeqCst);
    smp::start(VcpuId(1), || {
        while !STOP.load(Ordering::SeqCst) {
            time::sleep(100_000);
            SLEEPS.fetch_add(1, Ordering::SeqCst);
        }
    })
    .expect("the domain has two vCPUs");
    let (mut base, mut seen, mut last) = (None, 0u32, 0);
    // On a busy machine the other vCPU may not come to run for a while.
    let (end, at_last) = (time::now() + 300_000_000, time::now() + 5_000_000_000);
    let enough = |seen: u32| seen > 10 && SLEEPS.load(Ordering::SeqCst) > 10;
    while time::now() < end || !enough(seen) && time::now() < at_last {
        let entry = load(area + 8);
        let times: u64 = (0..4).map(|index| load(area + 16 + index * 8)).sum();
        if load(area + 8) != entry || entry & XEN_RUNSTATE_UPDATE != 0 {
            WATCH.check(marked || entry & XEN_RUNSTATE_UPDATE == 0, format_args!("a mark that nobody asked for"));
            continue;
        }
        WATCH.check(entry >= last, format_args!("the state was entered at {entry}, before {last}"));
        last = entry;
        // Without marks the record may change while it is read.
        if marked {
            let born = entry.wrapping_sub(times);
            WATCH.check(*base.get_or_insert(born) == born, format_args!("{born}, not {base:?}"));
        }
        seen += 1;
    }
    STOP.store(true, Ordering::SeqCst);
    smp::join(VcpuId(1)).expect("it was started");
    tap.ok(enough(seen), "a runstate record is read while it changes");
    WATCH.verdict(tap, if marked { "marked, it is always whole" } else { "not marked, it has no marks" });
}

fn runstate(tap: &mut Tap) {
    let area = page();
    let mut argument = VcpuRegisterRunstateMemoryArea { addr: area.address() };
    let at = guests::address_of(&mut argument);
    let result = call(HYPERVISOR_VCPU_OP, [VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA.into(), 1, at]);
    tap.is(result, Ok(0), "a runstate area of another vCPU");
    observe(tap, area.address(), false);
    enable(VMASST_TYPE_RUNSTATE_UPDATE_FLAG);
    observe(tap, area.address(), true);
    disable(VMASST_TYPE_RUNSTATE_UPDATE_FLAG);
    observe(tap, area.address(), false);
    area.leak();
}

/// Slot of the machine-to-physical table in a root.
const M2P: u64 = 0xffff_8000_0000_0000;

fn machine_table(tap: &mut Tap) {
    let mut program = [0x90u8; 32];
    let read = code!("mov rax, [rbx]", "int 0x80");
    program[..read.len()].copy_from_slice(read);
    let space = UserSpace::new(&program);
    let user = || {
        let frame = user::run(traps::Frame { rbx: M2P, ..user::start_at(0) });
        (frame.vector, frame.rip - user::CODE)
    };
    let (missing, there) = ((14, 0), (0x80, read.len() as u64));
    let kernel = || traps::peek(M2P).is_some();
    tap.ok(kernel(), "the kernel sees the machine-to-physical table");
    tap.is(user(), missing, "user mode does not, in a root that was only user mode's");
    // A second root for the kernel, with the user's part.
    let user_part = [(0, space.pages[1].mfn().0 << 12 | table::TABLE)];
    let both = second_root(&user_part);
    tap.is(mmuext(MMUEXT_NEW_BASEPTR, both.mfn()), Ok(()), "a root for both is the kernel's");
    tap.ok(kernel(), "the kernel sees the table by it");
    tap.is(mmuext(MMUEXT_NEW_BASEPTR, table::root()), Ok(()), "the first root again");
    tap.is(mmuext(MMUEXT_NEW_USER_BASEPTR, both.mfn()), Ok(()), "it is user mode's");
    tap.is(user(), there, "who see the table by it");
    enable(VMASST_TYPE_M2P_STRICT);
    tap.is(user(), there, "also with M2P_STRICT, which the root does not know yet");
    mmuext(MMUEXT_NEW_USER_BASEPTR, space.pages[0].mfn()).expect("a pinned root");
    tap.is(mmuext(MMUEXT_NEW_USER_BASEPTR, both.mfn()), Ok(()), "when it is set again");
    tap.is(user(), missing, "they do not see it");
    tap.ok(kernel(), "the kernel does");
    let fresh = second_root(&user_part);
    tap.is(mmuext(MMUEXT_NEW_BASEPTR, fresh.mfn()), Ok(()), "a new root of the kernel");
    tap.ok(kernel(), "has the table");
    tap.is(mmuext(MMUEXT_NEW_BASEPTR, table::root()), Ok(()), "the first root again");
    disable(VMASST_TYPE_M2P_STRICT);
    mmuext(MMUEXT_NEW_USER_BASEPTR, Mfn(0)).expect("no root is possible");
    give_up_root(&both);
    give_up_root(&fresh);
    // The user's tables stay pinned.
    core::mem::forget(space);
}

/// The assists of a domain, as the toolstack reads them.
fn assists_of(tiny: &Tiny) -> u64 {
    let mut context = tiny.context();
    domctl::get_vcpu_context(tiny.id, VcpuId(0), &mut context).expect("it has run");
    context.vm_assist
}

fn another_domain(tap: &mut Tap) {
    let tiny = Tiny::caller();
    let mut calls: Vec<Call> = [(0u64, 4u64), (1, 4), (0, 32), (0, 6), (0, 33), (2, 4), (0, u64::MAX)]
        .map(|(command, number)| [HYPERVISOR_VM_ASSIST.into(), command, number, 0, 0, 0, 0])
        .into();
    let end = tiny.make(&mut calls, &[]);
    let results = calls.iter().map(|call| call[6].cast_signed()).collect::<Vec<_>>();
    tap.is(end, End::Shutdown(0), "another domain has the same");
    tap.is(&results[..], &[0, 0, 0, -22, -22, -38, -22][..], "numbers and errors");
    let assists = assists_of(&tiny);
    tap.is(assists, 1 << VMASST_TYPE_M2P_STRICT, "what it has set is in the context that the toolstack reads");
    let other = Tiny::new(code!("push 0", "mov edi, 2", "mov rsi, rsp", "mov eax, 29", "syscall"));
    let mut context = other.context();
    context.vm_assist = u64::MAX;
    tap.is(other.run(&context), End::Refused(Errno::EINVAL), "a domain cannot start with assists that are not there");
    let all = THERE.iter().fold(0, |all, number| all | 1 << number);
    context.vm_assist = all;
    tap.is(other.run(&context), End::Shutdown(0), "one that starts with all assists");
    let assists = assists_of(&other);
    tap.is(assists, all, "has those that there are");
}
