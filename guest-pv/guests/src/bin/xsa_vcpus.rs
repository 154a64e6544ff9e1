//! What advisories have tried with several vCPUs: first states that are wild, areas that do not fit, event channels that are
//! reset while others use them, tables that are unpinned while another vCPU loads them, and calls that continue while what they
//! work on goes away.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Offsets in a page.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use guest_pv::alloc::boxed::Box;
use guest_pv::mem::Frame;
use guest_pv::mem::table::{self, TABLE};
use guest_pv::tap::Tap;
use guest_pv::{events, smp as vcpus, traps};
use guests::smp::{COUNT, Random, Watch, on_all};
use guests::{address_of, call, load, make_writable, mmu_update, mmuext, op, page, table_page};
use spin::Mutex;
use xen_abi::Errno;
use xen_abi::arch_x86::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, VGCF_IN_KERNEL, VcpuGuestContext};
use xen_abi::event_channel::*;
use xen_abi::hypercall::*;
use xen_abi::ids::{DomId, Mfn, Port, VcpuId};
use xen_abi::mmu::*;
use xen_abi::vcpu::*;
use zerocopy::FromZeros;

guest_pv::test!(run);

fn run(tap: &mut Tap) {
    first_states(tap);
    areas(tap);
    races(tap);
    events_reset(tap);
}

fn initialise(vcpu: u64, context: &mut VcpuGuestContext) -> Result<u64, Errno> {
    call(HYPERVISOR_VCPU_OP, [VCPUOP_INITIALISE.into(), vcpu, address_of(context)])
}

fn first_states(tap: &mut Tap) {
    // vCPU 5 does not exist, vCPU 3 gets its first state here: wild ones first, which must leave it without one.
    let mut context = Box::new(VcpuGuestContext::new_zeroed());
    tap.is(initialise(64, &mut context), Err(Errno::ENOENT), "a vCPU that does not exist");
    tap.is(initialise(u64::MAX, &mut context), Err(Errno::ENOENT), "nor this one");
    tap.is(initialise(3, &mut context), Err(Errno::EINVAL), "a state of zeros");
    let with = |change: fn(&mut VcpuGuestContext)| {
        let mut context = Box::new(VcpuGuestContext::new_zeroed());
        context.flags = VGCF_IN_KERNEL;
        context.user_regs.cs = FLAT_KERNEL_CS;
        context.user_regs.ss = FLAT_KERNEL_SS;
        context.ctrlreg[3] = table::root().0 << 12;
        change(&mut context);
        initialise(3, &mut context)
    };
    const WILD: u64 = 1 << 47;
    for (change, what) in [
        ((|c| c.ctrlreg[3] = 0) as fn(&mut VcpuGuestContext), "no root"),
        (|c| c.ctrlreg[3] = 1 << 51, "a root that does not exist"),
        (|c| c.ctrlreg[1] = 1 << 51, "a user's root that does not exist"),
        (|c| c.user_regs.rip = WILD, "rip"),
        (|c| c.user_regs.rsp = WILD, "rsp"),
        (|c| c.kernel_sp = WILD, "the kernel's stack"),
        (|c| c.event_callback_eip = WILD, "the event callback"),
        (|c| c.failsafe_callback_eip = WILD, "the failsafe callback"),
        (|c| c.syscall_callback_eip = WILD, "the syscall callback"),
        (|c| c.fs_base = WILD, "the base of fs"),
        (|c| c.gs_base_kernel = WILD, "the kernel's base of gs"),
        (|c| c.gs_base_user = WILD, "the user's base of gs"),
        (|c| c.trap_ctxt[255].address = WILD, "a handler"),
        (|c| c.gdt_ents = 8193, "a GDT that is too long"),
        (|c| (c.gdt_ents, c.gdt_frames[0]) = (512, u64::MAX), "a GDT that does not exist"),
        (|c| (c.gdt_ents, c.gdt_frames[0]) = (512, table::root().0), "a GDT that is a page table"),
        (|c| (c.ldt_ents, c.ldt_base) = (8193, 0), "an LDT that is too long"),
        (|c| (c.ldt_ents, c.ldt_base) = (1, 0xffff_8300_0000_0000), "an LDT in the hypervisor"),
    ] {
        tap.is(with(change), Err(Errno::EINVAL), what);
    }
    tap.is(
        call(HYPERVISOR_VCPU_OP, [VCPUOP_UP.into(), 3, 0]),
        Err(Errno::EINVAL),
        "it still has no state to start with",
    );
    tap.is(initialise(0, &mut context), Err(Errno::EEXIST), "vCPU 0 has one");
    tap.is(call(HYPERVISOR_VCPU_OP, [VCPUOP_DOWN.into(), 3, 0]), Ok(0), "what is down can be brought down");
    tap.is(vcpus::start(VcpuId(3), || ()), Ok(()), "a good state is taken after all that");
    vcpus::join(VcpuId(3)).expect("it was started");
    tap.is(with(|_| ()), Err(Errno::EEXIST), "once");
}

fn areas(tap: &mut Tap) {
    let area = page();
    let register = |vcpu: u64, mfn: u64, offset: u32| {
        let mut argument = VcpuRegisterVcpuInfo { mfn, offset, rsvd: 0 };
        call(HYPERVISOR_VCPU_OP, [VCPUOP_REGISTER_VCPU_INFO.into(), vcpu, address_of(&mut argument)])
    };
    for (offset, what) in
        [(4096 - 63, "beyond the page"), (4096, "behind the page"), (u32::MAX, "far behind"), (1 << 31, "half")]
    {
        tap.is(register(2, area.mfn().0, offset), Err(Errno::ENXIO), what);
    }
    for offset in [1u32, 2, 4, 63] {
        let odd = register(2, area.mfn().0, offset);
        tap.ok(odd.is_err(), "a vcpu_info that is not aligned (XSA-327)");
    }
    tap.is(register(2, u64::MAX, 0), Err(Errno::EINVAL), "a frame that does not exist");
    tap.is(register(2, table::root().0, 0), Err(Errno::EINVAL), "a page table");
    tap.is(register(64, area.mfn().0, 0), Err(Errno::ENOENT), "a vCPU that does not exist");
    tap.is(load(area.address()), 0, "nothing was written");
    for command in [VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA] {
        for address in [0xffff_8300_0000_0000u64, 0xffff_8000_0000_0000, 0xffff_87ff_ffff_ffff] {
            let mut argument = VcpuRegisterRunstateMemoryArea { addr: address };
            let result = call(HYPERVISOR_VCPU_OP, [command.into(), 2, address_of(&mut argument)]);
            tap.is(result, Err(Errno::EFAULT), "an area in the hypervisor");
        }
    }
}

/// What the vCPUs fight for: towers of tables, their roots and data.
static ROOTS: Mutex<[u64; 4]> = Mutex::new([0; 4]);
static MIDDLES: Mutex<[u64; 4]> = Mutex::new([0; 4]);
static WATCH: Watch = Watch::new();
static STOP: AtomicBool = AtomicBool::new(false);
static SEEDS: AtomicU64 = AtomicU64::new(1);

const ROUNDS: usize = 800;

/// Loads, pins, unpins and changes tables that the others do the same with.
fn fight() {
    let mut random = Random::new(SEEDS.fetch_add(1, Ordering::SeqCst));
    let (roots, middles) = (*ROOTS.lock(), *MIDDLES.lock());
    for _ in 0..ROUNDS {
        let which = random.below(4);
        let (root, middle) = (Mfn(roots[which]), Mfn(middles[which]));
        // Every result may be an error, since others have been there; what counts is what is left.
        let result = match random.below(7) {
            0 => mmuext(MMUEXT_PIN_L4_TABLE, root),
            1 => mmuext(MMUEXT_UNPIN_TABLE, root),
            2 => mmuext(MMUEXT_NEW_USER_BASEPTR, root),
            3 => mmuext(MMUEXT_NEW_USER_BASEPTR, Mfn(0)),
            4 => mmu_update(root.0 << 12, 0),
            5 => mmu_update(root.0 << 12, middle.0 << 12 | TABLE),
            _ => mmuext(MMUEXT_NEW_BASEPTR, table::root()),
        };
        WATCH.check(!matches!(result, Err(Errno::EFAULT | Errno::ENOSYS)), format_args!("{result:?}"));
    }
    mmuext(MMUEXT_NEW_USER_BASEPTR, Mfn(0)).expect("no root can always be");
}

fn races(tap: &mut Tap) {
    let mut frames: [[Frame; 4]; 4] = core::array::from_fn(|_| {
        let l1 = table_page(&[]);
        let l2 = table_page(&[(0, l1.mfn().0 << 12 | TABLE), (511, l1.mfn().0 << 12 | TABLE)]);
        let l3 = table_page(&[(0, l2.mfn().0 << 12 | TABLE)]);
        let l4 = table_page(&[(0, l3.mfn().0 << 12 | TABLE)]);
        [l4, l3, l2, l1]
    });
    *ROOTS.lock() = core::array::from_fn(|index| frames[index][0].mfn().0);
    *MIDDLES.lock() = core::array::from_fn(|index| frames[index][1].mfn().0);
    on_all(fight);
    WATCH.verdict(tap, "four vCPUs load, pin and unpin the same roots");
    // Whatever is left: one unpin at most, and all pages are ordinary.
    let mut ordinary = true;
    for tower in &frames {
        let _ = mmuext(MMUEXT_UNPIN_TABLE, tower[0].mfn());
        tap.is(mmuext(MMUEXT_UNPIN_TABLE, tower[0].mfn()), Err(Errno::EINVAL), "no root is pinned twice");
    }
    for table in frames.iter().flatten() {
        ordinary &= make_writable(table).is_ok();
    }
    tap.ok(ordinary, "and all their tables are ordinary pages afterwards: no reference was lost or kept");
    frames.iter_mut().flatten().for_each(|table| table.bytes_mut()[4088..].fill(1));
    tap.ok(
        frames.iter().flatten().all(|table| load(table.address() + 4088) == 0x0101_0101_0101_0101),
        "which take data",
    );
}

fn close(port: u32) -> Result<u64, Errno> {
    op(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_CLOSE, &mut EvtchnClose { port: Port(port) })
}

/// Binds, sends, moves and closes ports that another vCPU resets under its hands.
fn bind_and_close() {
    let mut random = Random::new(SEEDS.fetch_add(1, Ordering::SeqCst));
    let me = vcpus::this();
    while !STOP.load(Ordering::SeqCst) {
        let port = 8 + random.below(64) as u32;
        let result = match random.below(6) {
            0 => {
                let mut bind = EvtchnBindIpi { vcpu: me, port: Port(0) };
                op(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_IPI, &mut bind)
            }
            1 => {
                let mut alloc = EvtchnAllocUnbound { dom: DomId::SELF, remote_dom: DomId::SELF, port: Port(0) };
                op(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_ALLOC_UNBOUND, &mut alloc)
            }
            2 => {
                let mut bind = EvtchnBindInterdomain {
                    remote_dom: DomId::SELF,
                    _pad: 0,
                    remote_port: Port(port),
                    local_port: Port(0),
                };
                op(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_INTERDOMAIN, &mut bind)
            }
            3 => op(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut EvtchnSend { port: Port(port) }),
            4 => {
                let vcpu = VcpuId(random.below(COUNT as usize) as u32);
                op(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_VCPU, &mut EvtchnBindVcpu { port: Port(port), vcpu })
            }
            _ => close(port),
        };
        WATCH.check(!matches!(result, Err(Errno::EFAULT | Errno::ENOSYS)), format_args!("{result:?}"));
    }
}

fn reset_all() {
    if vcpus::index() != 0 {
        return bind_and_close();
    }
    for _ in 0..80 {
        let mut reset = EvtchnReset { dom: DomId::SELF };
        let result = op(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_RESET, &mut reset);
        // A port that another vCPU is at work on makes it come back.
        WATCH.check(matches!(result, Ok(0) | Err(Errno::EAGAIN)), format_args!("reset: {result:?}"));
        for _ in 0..20 {
            vcpus::relax();
        }
    }
    STOP.store(true, Ordering::SeqCst);
}

/// Last: the runtime's own ports go as well.
fn events_reset(tap: &mut Tap) {
    events::set_upcall_mask(true);
    on_all(reset_all);
    WATCH.verdict(tap, "event channels are reset while three vCPUs bind, send and close (XSA-343, 344)");
    let mut reset = EvtchnReset { dom: DomId::SELF };
    tap.is(op(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_RESET, &mut reset), Ok(0), "a last reset");
    let free = (1..256).all(|port| {
        let mut status = EvtchnStatus { dom: DomId::SELF, port: Port(port), ..FromZeros::new_zeroed() };
        match op(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_STATUS, &mut status) {
            Ok(_) => status.status == EVTCHNSTAT_CLOSED,
            // Beyond all ports that the three happened to bind.
            Err(errno) => errno == Errno::EINVAL && port > 8,
        }
    });
    tap.ok(free, "and all ports are closed");
    tap.ok(traps::peek(0x1000).is_none(), "traps work still");
}
