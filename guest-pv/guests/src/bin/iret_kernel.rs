//! The iret hypercall back to the kernel itself: what its frame sets, each flag, selectors and addresses that cannot be, and
//! events that wait for it. `iret_user` has the ways to user mode, `crash` the frames that end the domain.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Frames are made by hand.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::tap::Tap;
use guest_pv::{events, traps};
use guests::{Cliff, frame_of, page, store};
use xen_abi::arch_x86::{VGCF_IN_KERNEL, VGCF_IN_SYSCALL, vcpu_info};
use xen_abi::ids::VcpuId;

guest_pv::test!(run);

/// A frame of the hypercall, in its order in memory.
#[derive(Clone, Copy)]
#[repr(C)]
struct Frame {
    rax: u64,
    r11: u64,
    rcx: u64,
    flags: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// With 0 as `rip` and `rsp` it goes on behind the hypercall.
const PLAIN: Frame =
    Frame { rax: 0x3333, r11: 0x2222, rcx: 0x1111, flags: 0, rip: 0, cs: 0xe030, rflags: 2, rsp: 0, ss: 0xe02b };

/// What is found behind the hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    rax: u64,
    rcx: u64,
    r11: u64,
    rflags: u64,
    /// Where it went on.
    here: u64,
}

/// Makes the hypercall with its frame at `at`.
fn iret_from(at: u64, mut frame: Frame) -> Found {
    let (rax, rcx, r11, rflags, here): (u64, u64, u64, u64, u64);
    // SAFETY: goes on behind the syscall with the same stack, or is a fault that is caught.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "lea {here}, [rip + 2f]",
            // rip and rsp, unless they are chosen.
            "cmp qword ptr [{frame} + 32], 0",
            "jne 3f",
            "mov [{frame} + 32], {here}",
            "3:",
            "cmp qword ptr [{frame} + 56], 0",
            "jne 4f",
            "mov [{frame} + 56], rsp",
            "4:",
            "mov rsi, {frame}",
            "mov rdi, {at}",
            "mov ecx, 9",
            "cld",
            "rep movsq",
            "mov r8, rsp",
            "mov rsp, {at}",
            "mov eax, 23",
            "syscall",
            "ud2",
            "2:",
            "pushfq",
            "pop rdx",
            "push 2",
            "popfq",
            "pop rbp",
            "pop rbx",
            here = out(reg) here, frame = inout(reg) &raw mut frame => _, at = inout(reg) at => _,
            out("rax") rax, out("rcx") rcx, out("r11") r11, out("rdx") rflags,
            out("rsi") _, out("rdi") _, out("r8") _,
        );
    }
    Found { rax, rcx, r11, rflags, here }
}

/// The same with the frame on a page of its own.
fn iret(frame: Frame) -> Found {
    iret_from(SCRATCH.load(Ordering::SeqCst), frame)
}

/// The fault that it ends with.
fn fault_of(frame: Frame) -> Option<traps::Frame> {
    frame_of(|| {
        iret(frame);
    })
}

static SCRATCH: AtomicU64 = AtomicU64::new(0);

fn mask() -> u8 {
    events::shared().u8_at(vcpu_info::EVTCHN_UPCALL_MASK).load(Ordering::SeqCst)
}

fn run(tap: &mut Tap) {
    let scratch = page();
    SCRATCH.store(scratch.address() + 2048, Ordering::SeqCst);
    registers(tap);
    places(tap);
    flags(tap);
    selectors(tap);
    addresses(tap);
    waiting(tap);
    events::set_upcall_mask(true);
}

fn registers(tap: &mut Tap) {
    let found = iret(PLAIN);
    tap.is((found.rax, found.rcx, found.r11), (0x3333, 0x1111, 0x2222), "rax, rcx and r11 are the frame's");
    let found = iret(Frame { flags: VGCF_IN_KERNEL, ..PLAIN });
    tap.is((found.rax, found.rcx, found.r11), (0x3333, 0x1111, 0x2222), "VGCF_in_kernel does not matter");
    let found = iret(Frame { flags: !VGCF_IN_SYSCALL, ..PLAIN });
    tap.is((found.rax, found.rcx, found.r11), (0x3333, 0x1111, 0x2222), "nor does any flag but VGCF_in_syscall");
    let found = iret(Frame { flags: VGCF_IN_SYSCALL, rflags: 0x897, ..PLAIN });
    tap.is((found.rax, found.rcx), (0x3333, found.here), "with that rcx is where it goes on");
    tap.is((found.r11 & 0xcd7, found.rflags & 0xcd7), (0x897, 0x897), "and r11 the flags");
}

fn places(tap: &mut Tap) {
    let plain = iret(PLAIN);
    let at = |at: u64| {
        let found = iret_from(at, PLAIN);
        (found.rax, found.rcx, found.r11, found.rflags) == (plain.rax, plain.rcx, plain.r11, plain.rflags)
    };
    let scratch = SCRATCH.load(Ordering::SeqCst);
    tap.ok(at(scratch + 1) && at(scratch + 4), "the frame may be anywhere in a page");
    let cliff = Cliff::new();
    tap.ok(at(cliff.edge() - 72), "up to its last byte");
    drop(cliff);
    let data = page();
    store(data.address(), 0x0b0f);
    UD2.store(data.address(), Ordering::SeqCst);
    let pages = [page(), page()];
    let [low, high] = [0, 1].map(|index: usize| pages[index].address());
    if low.abs_diff(high) == 4096 {
        tap.ok(at(low.max(high) - 40), "or in two");
    } else {
        tap.skip("or in two", "there were no neighbours");
    }
    let stack = page();
    // The stack that the frame names holds what was pushed before the hypercall.
    let found = fault_of(Frame { rsp: stack.address() + 4001, rip: UD2.load(Ordering::SeqCst), ..PLAIN });
    tap.is(found.map(|frame| frame.vector), Some(6), "another place to go on");
    tap.is(found.map(|frame| frame.rsp), Some(stack.address() + 4001), "with any stack");
    data.leak();
}

/// Where a `ud2` is.
static UD2: AtomicU64 = AtomicU64::new(0);

fn flags(tap: &mut Tap) {
    for (bit, name) in [
        (0, "CF"),
        (2, "PF"),
        (4, "AF"),
        (6, "ZF"),
        (7, "SF"),
        (10, "DF"),
        (11, "OF"),
        (14, "NT"),
        (18, "AC"),
        (21, "ID"),
    ] {
        let found = iret(Frame { rflags: 2 | 1 << bit, ..PLAIN });
        tap.is(found.rflags, 0x202 | 1 << bit, name);
    }
    for (bits, name) in [
        (1u64 << 12 | 1 << 13, "IOPL stays 0"),
        (1 << 17, "VM is dropped"),
        (1 << 3 | 1 << 5 | 1 << 15, "reserved bits too"),
        (!0 << 22, "and all above ID"),
    ] {
        tap.is(iret(Frame { rflags: 2 | bits, ..PLAIN }).rflags, 0x202, name);
    }
    tap.is(iret(Frame { rflags: 0, ..PLAIN }).rflags, 0x202, "IF and bit 1 are always set");
    let stepped = fault_of(Frame { rflags: 2 | 1 << 8, ..PLAIN }).unwrap_or_default();
    tap.is((stepped.vector, stepped.error), (1, 0), "with TF it is stepped");
    tap.is(iret(Frame { rflags: 2 | 1 << 16, ..PLAIN }).rflags, 0x202, "RF is used up by one instruction");
    for (rflags, want, name) in [(2u64, 1, "IF clear masks events"), (0x202, 0, "IF set opens them")] {
        iret(Frame { rflags, ..PLAIN });
        tap.is(mask(), want, name);
        iret(Frame { rflags, cs: PLAIN.cs | 1 << 32, ..PLAIN });
        tap.is(mask(), want, "whatever mask is saved beside CS");
    }
    events::set_upcall_mask(true);
}

/// Vector, error code, CS, SS, user mode or not.
fn refused(frame: Frame) -> Option<(u64, u64, u64, u64, bool)> {
    let found = fault_of(frame)?;
    Some((found.vector, found.error, found.cs & 0xffff, found.ss & 0xffff, found.from_user()))
}

fn selectors(tap: &mut Tap) {
    for level in 0..=2 {
        tap.is(iret(Frame { cs: 0xe030 | level, ..PLAIN }).rax, 0x3333, "CS of any level but 3 is the kernel's");
    }
    for level in 0..=3 {
        tap.is(iret(Frame { ss: 0xe028 | level, ..PLAIN }).rax, 0x3333, "SS of any level");
    }
    tap.is(iret(Frame { ss: 0xe02b | 0xffff << 16, ..PLAIN }).rax, 0x3333, "of 16 bits");
    tap.is(iret(Frame { cs: 0xe030 | 0xffff << 16, ..PLAIN }).rax, 0x3333, "as CS has");
    for (cs, error, name) in [
        (0u64, 0, "no code segment"),
        (0x10, 0x10, "one that is not there"),
        (0xe028, 0xe028, "a data segment"),
        (0xe008, 0xe008, "the hypervisor's own code"),
        (0xe038, 0xe038, "what else the hypervisor has"),
        (0xfff8, 0xfff8, "the last entry"),
        (4, 4, "one of an LDT that is not there"),
    ] {
        let found = refused(Frame { cs, ..PLAIN });
        tap.is(found.map(|found| (found.0, found.1)), Some((13, error)), name);
        tap.is(found.map(|found| (found.2, found.4)), Some((cs, false)), "the fault is the kernel's, at that selector");
    }
    for (ss, error, name) in [
        (0u64, 0, "no stack segment"),
        (0x10, 0x10, "one that is not there"),
        (0xe030, 0xe030, "a code segment"),
        (0xe010, 0xe010, "the hypervisor's own"),
        (7, 4, "one of an LDT that is not there"),
    ] {
        let found = refused(Frame { ss, ..PLAIN });
        tap.is(found.map(|found| (found.0, found.1)), Some((13, error)), name);
    }
}

fn addresses(tap: &mut Tap) {
    let at = |rip: u64| {
        let found = fault_of(Frame { rip, rflags: 0x202, ..PLAIN }).unwrap_or_default();
        (found.vector, found.error & !0x10, found.rip == rip, found.from_user(), found.events_masked())
    };
    tap.is(at(1 << 47), (13, 0, true, false, false), "an address that is not canonical");
    tap.is(at(1 << 63), (13, 0, true, false, false), "nor is this");
    tap.is(at(0x1000), (14, 0, true, false, false), "nothing is mapped there");
    tap.is(at(0xffff_8300_0000_0000).0, 14, "the hypervisor's");
    let data = UD2.load(Ordering::SeqCst);
    tap.is(at(data).0, 6, "what is mapped can be executed");
    let found = fault_of(Frame { rip: 1 << 47, flags: VGCF_IN_SYSCALL, ..PLAIN });
    let found = found.map(|frame| (frame.vector, frame.error, frame.rip));
    tap.is(found, Some((13, 0, 1 << 47)), "not canonical, after a system call");
}

static UPCALLS: AtomicU64 = AtomicU64::new(0);
static SEEN: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn waiting(tap: &mut Tap) {
    fn upcall(frame: &mut traps::Frame) {
        UPCALLS.fetch_add(1, Ordering::SeqCst);
        let masks = u64::from(mask()) << 8 | u64::from(frame.events_masked());
        for (place, value) in SEEN.iter().zip([frame.rax, frame.rcx, frame.r11, masks]) {
            place.store(value, Ordering::SeqCst);
        }
        while events::poll().is_some() {}
    }
    let count = || UPCALLS.swap(0, Ordering::SeqCst);
    let port = guest_pv::call::event_channel::bind_ipi(VcpuId(0)).expect("a free port");
    events::unmask(port);
    while events::poll().is_some() {}
    traps::set_handler(traps::EVENT, Some(upcall));
    events::notify(port).expect("bound");
    let found = iret(PLAIN);
    tap.is((count(), found.rax), (0, 0x3333), "an event waits behind a return with IF clear");
    let found = iret(Frame { rflags: 0x202, ..PLAIN });
    tap.is(count(), 1, "and comes with one that has it set");
    let seen = [0, 1, 2, 3].map(|index: usize| SEEN[index].load(Ordering::SeqCst));
    tap.is(seen, [0x3333, 0x1111, 0x2222, 0x100], "it finds the registers of the frame, and masks events");
    let after = (found.rax, found.rcx, found.r11, mask());
    tap.is(after, (0x3333, 0x1111, 0x2222, 0), "which are there after it, with events open");
    events::set_upcall_mask(true);
    events::notify(port).expect("bound");
    iret(Frame { rflags: 0x202, flags: VGCF_IN_SYSCALL, ..PLAIN });
    tap.is(count(), 1, "with VGCF_in_syscall too");
    events::set_upcall_mask(true);
    // The mark alone, without a port.
    events::shared().u8_at(vcpu_info::EVTCHN_UPCALL_PENDING).store(1, Ordering::SeqCst);
    iret(Frame { rflags: 0x202, ..PLAIN });
    tap.is(count(), 1, "the mark in vcpu_info alone is enough");
    iret(Frame { rflags: 0x202, ..PLAIN });
    tap.is(count(), 0, "without it nothing comes");
    events::set_upcall_mask(true);
    events::notify(port).expect("bound");
    let fault = fault_of(Frame { rflags: 0x202, rip: 0x1000, ..PLAIN }).unwrap_or_default();
    tap.is((count(), fault.vector, fault.rip), (1, 14, 0x1000), "it comes before what waits where the kernel goes on");
    events::set_upcall_mask(true);
    events::notify(port).expect("bound");
    let fault = fault_of(Frame { rflags: 0x202, cs: 0x10, ..PLAIN }).unwrap_or_default();
    tap.is((count(), fault.vector, fault.error), (1, 13, 0x10), "and before a selector that is not there");
    events::set_upcall_mask(true);
    traps::set_handler(traps::EVENT, None);
    events::close(port).expect("a port of ours");
}
