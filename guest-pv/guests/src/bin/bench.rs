//! What hypercalls cost: TSC ticks per operation, which are instructions when the emulator counts them.
//!
//! Not a test: it prints `bench: NAME = N of OPERATIONS` per operation and `bench: end` last. Each figure is the mean
//! of many rounds with the cost of the bare loop subtracted. The rounds stand between marks, so that a tool outside
//! counts what the hypervisor executes in them. The operation includes the guest's own instructions around `syscall`.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // The loops hold the instructions that are measured and nothing else.

use core::arch::asm;
use guest_pv::mem::table::{READ_ONLY, READ_WRITE};
use guest_pv::mem::{Access, Mapping};
use guest_pv::{Mode, call, events, grants, mark, mode, power, println, time};
use guests::{address_of, entry_of, make_writable, mmuext, page, read, table_page};
use xen_abi::event_channel::{EVTCHNOP_SEND, EVTCHNOP_STATUS, EvtchnSend, EvtchnStatus};
use xen_abi::grant_table::{
    GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GNTMAP_HOST_MAP, GNTMAP_READONLY, GNTTABOP_COPY, GNTTABOP_MAP_GRANT_REF,
    GNTTABOP_UNMAP_GRANT_REF, GnttabCopy, GnttabCopyPtr, GnttabMapGrantRef, GnttabUnmapGrantRef,
};
use xen_abi::hypercall::*;
use xen_abi::ids::DomId;
use xen_abi::mmu::{MMUEXT_PIN_L1_TABLE, MMUEXT_TLB_FLUSH_LOCAL, MMUEXT_UNPIN_TABLE, MmuUpdate, MmuextOp};
use xen_abi::multicall::MulticallEntry;

guest_pv::entry!(run);

const ROUNDS: u64 = 10_000;

/// The hypercall with four arguments. A call that is interrupted and continued changes its argument registers.
#[inline(always)]
fn bare(number: u64, a: u64, b: u64, c: u64, d: u64) {
    // SAFETY: the calls measured here change nothing that the compiler knows of.
    unsafe {
        asm!("syscall", inlateout("rax") number => _, inlateout("rdi") a => _, inlateout("rsi") b => _,
            inlateout("rdx") c => _, inlateout("r10") d => _, lateout("rcx") _, lateout("r11") _);
    }
}

/// Runs `body` so many times; ticks for all of them.
#[inline(always)]
fn ticks(rounds: u64, mut body: impl FnMut()) -> u64 {
    let start = time::tsc();
    for round in 0..rounds {
        // The loop must stay a loop.
        core::hint::black_box(round);
        body();
    }
    time::tsc() - start
}

/// What was printed is taken by another domain, which needs this CPU for it.
fn rest() {
    let until = time::now() + 5_000_000;
    while mode() == Mode::Pvh && time::now() < until {
        let _ = call::sched::yield_cpu();
    }
}

#[inline(always)]
fn measure(name: &str, per_round: u64, mut body: impl FnMut()) {
    rest();
    // The first rounds pay for page faults and caches.
    ticks(10, &mut body);
    let empty = ticks(ROUNDS, || ());
    mark::begin();
    let full = ticks(ROUNDS, body);
    mark::end();
    let operations = ROUNDS * per_round;
    let hundredths = full.saturating_sub(empty) * 100 / operations;
    println!("bench: {name} = {}.{:02} of {operations}", hundredths / 100, hundredths % 100);
}

fn run() {
    if mode() == Mode::Pvh {
        container();
    } else {
        basics();
        event_channels();
        page_tables();
        granting();
        faults();
    }
    println!("bench: end");
    power::off();
}

/// The exits of a guest in a hardware container.
fn container() {
    measure("vmcall xen_version", 1, || bare(HYPERVISOR_XEN_VERSION.into(), 0, 0, 0, 0));
    measure("cpuid exit", 1, || {
        // SAFETY: rbx is the compiler's.
        unsafe {
            asm!("mov {save}, rbx", "cpuid", "mov rbx, {save}",
                save = out(reg) _, inout("eax") 1 => _, inout("ecx") 0 => _, out("edx") _);
        }
    });
    // SAFETY: a register that every kernel may read, and none without an exit.
    measure("rdmsr APIC_BASE exit", 1, || unsafe { asm!("rdmsr", in("ecx") 0x1bu32, out("eax") _, out("edx") _) });
    // SAFETY: nobody has this port.
    measure("out to a port that nobody has", 1, || unsafe { asm!("out dx, al", in("dx") 0x1234u16, in("al") 0u8) });
    let far = time::now() + 3_600_000_000_000;
    measure("set_timer_op", 1, || bare(HYPERVISOR_SET_TIMER_OP.into(), far, 0, 0, 0));
    let port = events::bind_ipi().expect("a free port");
    events::mask(port);
    let mut send = EvtchnSend { port };
    let send = address_of(&mut send);
    measure("event send, masked", 1, || {
        events::clear(port);
        bare(HYPERVISOR_EVENT_CHANNEL_OP.into(), EVTCHNOP_SEND.into(), send, 0, 0);
    });
    events::close(port).expect("a port of ours");
    measure("sched_yield", 1, || bare(HYPERVISOR_SCHED_OP.into(), 0, 0, 0, 0));
}

fn basics() {
    measure("xen_version", 1, || bare(HYPERVISOR_XEN_VERSION.into(), 0, 0, 0, 0));
    measure("invalid hypercall", 1, || bare(63, 0, 0, 0, 0));
    let stack = guests::user::kernel_stack_top();
    measure("stack_switch", 1, || bare(HYPERVISOR_STACK_SWITCH.into(), 0xe02b, stack, 0, 0));
    measure("fpu_taskswitch", 1, || bare(HYPERVISOR_FPU_TASKSWITCH.into(), 0, 0, 0, 0));
    let mut domain = [0x7ff0u16; 4];
    let domain = address_of(&mut domain);
    measure("memory_op current_reservation", 1, || bare(HYPERVISOR_MEMORY_OP.into(), 3, domain, 0, 0));
    let far = time::now() + 3_600_000_000_000;
    measure("set_timer_op far", 1, || bare(HYPERVISOR_SET_TIMER_OP.into(), far, 0, 0, 0));
    measure("set_timer_op 0", 1, || bare(HYPERVISOR_SET_TIMER_OP.into(), 0, 0, 0, 0));
    measure("sched_yield", 1, || bare(HYPERVISOR_SCHED_OP.into(), 0, 0, 0, 0));
    let mut calls = [MulticallEntry { op: HYPERVISOR_XEN_VERSION.into(), result: 0, args: [0; 6] }; 10];
    let calls = address_of(&mut calls);
    measure("multicall of 10 xen_version", 1, || bare(HYPERVISOR_MULTICALL.into(), calls, 10, 0, 0));
}

fn event_channels() {
    let port = events::bind_ipi().expect("a free port");
    let mut send = EvtchnSend { port };
    let send = address_of(&mut send);
    let send_it = || bare(HYPERVISOR_EVENT_CHANNEL_OP.into(), EVTCHNOP_SEND.into(), send, 0, 0);
    events::mask(port);
    measure("event send, masked", 1, || {
        events::clear(port);
        send_it();
    });
    send_it();
    measure("event send, pending", 1, send_it);
    while events::poll().is_some() {}
    events::unmask(port);
    measure("event send, unmasked", 1, || {
        events::clear(port);
        send_it();
    });
    while events::poll().is_some() {}
    handlers::of_events(port, true);
    events::set_upcall_mask(false);
    measure("event send, upcall, iret", 1, send_it);
    events::set_upcall_mask(true);
    handlers::of_events(port, false);
    let mut status = EvtchnStatus { dom: DomId::SELF, port, ..Default::default() };
    let status = address_of(&mut status);
    measure("evtchn_status", 1, || bare(HYPERVISOR_EVENT_CHANNEL_OP.into(), EVTCHNOP_STATUS.into(), status, 0, 0));
    events::close(port).expect("a port of ours");
}

fn page_tables() {
    let data = page();
    let table = table_page(&[]);
    mmuext(MMUEXT_PIN_L1_TABLE, table.mfn()).expect("an empty table");
    let entry = |flags: u64| data.mfn().0 << 12 | flags;
    let mut requests: [MmuUpdate; 32] =
        core::array::from_fn(|index| MmuUpdate { ptr: entry_of(&table, index as u64), val: entry(READ_WRITE) });
    let pointer = address_of(&mut requests);
    let update = |count| bare(HYPERVISOR_MMU_UPDATE.into(), pointer, count, 0, 0x7ff0);
    update(32);
    assert!(read(&table, 31) != 0, "a batch is done");
    let mut writable = true;
    let mut toggle = |requests: &mut [MmuUpdate]| {
        writable = !writable;
        let val = entry(if writable { READ_WRITE } else { READ_ONLY });
        requests.iter_mut().for_each(|request| request.val = val);
    };
    measure("mmu_update, one L1 entry, toggle RW", 1, || {
        toggle(&mut requests[..1]);
        update(1);
    });
    measure("mmu_update, batch of 32, per entry", 32, || {
        toggle(&mut requests);
        update(32);
    });
    // One request empties the entry, the next one fills it: two updates.
    requests[0].val = 0;
    requests[1] = MmuUpdate { ptr: requests[0].ptr, val: entry(READ_WRITE) };
    measure("mmu_update unmap and map", 1, || update(2));
    requests[1].ptr = entry_of(&table, 1);
    requests.iter_mut().for_each(|request| request.val = 0);
    update(32);

    let window = Mapping::own(&[data.mfn().0], Access::ReadWrite).expect("own memory can be mapped");
    let va = window.address();
    let mut flags = READ_WRITE;
    let mut map = |flush: u64| {
        flags ^= 2;
        bare(HYPERVISOR_UPDATE_VA_MAPPING.into(), va, data.mfn().0 << 12 | flags, flush, 0);
    };
    measure("update_va_mapping, no flush", 1, || map(0));
    measure("update_va_mapping, invlpg", 1, || map(2));
    let mut flush = MmuextOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, ..Default::default() };
    let flush = address_of(&mut flush);
    measure("mmuext TLB flush", 1, || bare(HYPERVISOR_MMUEXT_OP.into(), flush, 1, 0, 0x7ff0));
    let mut invlpg = MmuextOp { cmd: xen_abi::mmu::MMUEXT_INVLPG_LOCAL, _pad: 0, arg1: va, arg2: 0 };
    let invlpg = address_of(&mut invlpg);
    measure("mmuext invlpg", 1, || bare(HYPERVISOR_MMUEXT_OP.into(), invlpg, 1, 0, 0x7ff0));
    let slot = table.address();
    let mut flags = READ_WRITE;
    measure("emulated write to a page table", 1, || {
        flags ^= 2;
        guests::store(slot, data.mfn().0 << 12 | flags);
    });
    mmuext(MMUEXT_UNPIN_TABLE, table.mfn()).expect("pinned above");
    make_writable(&table).expect("an ordinary page");
}

fn granting() {
    let (data, other) = (page(), page());
    let reference = grants::grant(DomId(0), data.mfn(), Access::ReadOnly).expect("a free entry");
    let window = Mapping::own(&[other.mfn().0], Access::ReadWrite).expect("own memory can be mapped");
    let va = window.address();
    guests::update_va_mapping(va, 0, 2).expect("it can be unmapped");
    let mut map = GnttabMapGrantRef {
        host_addr: va,
        flags: GNTMAP_HOST_MAP | GNTMAP_READONLY,
        ref_: reference,
        dom: DomId(0),
        ..Default::default()
    };
    let mut unmap = GnttabUnmapGrantRef { host_addr: va, ..Default::default() };
    let number = HYPERVISOR_GRANT_TABLE_OP.into();
    measure("grant map and unmap", 1, || {
        bare(number, GNTTABOP_MAP_GRANT_REF.into(), address_of(&mut map), 1, 0);
        unmap.handle = map.handle;
        bare(number, GNTTABOP_UNMAP_GRANT_REF.into(), address_of(&mut unmap), 1, 0);
    });
    let writable = grants::grant(DomId(0), other.mfn(), Access::ReadWrite).expect("a free entry");
    let end = |reference: xen_abi::ids::GrantRef| GnttabCopyPtr {
        u: reference.0.into(),
        domid: DomId(0),
        offset: 0,
        _pad: 0,
    };
    let flags = GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF;
    let mut copy = GnttabCopy { source: end(reference), dest: end(writable), len: 4096, flags, ..Default::default() };
    let copy = address_of(&mut copy);
    measure("grant copy of 4096 bytes", 1, || bare(number, GNTTABOP_COPY.into(), copy, 1, 0));
}

fn faults() {
    // SAFETY: privileged reads, which the hypervisor emulates.
    measure("mov from cr0", 1, || unsafe { asm!("mov {}, cr0", out(reg) _) });
    // SAFETY: as above.
    measure("mov from cr3", 1, || unsafe { asm!("mov {}, cr3", out(reg) _) });
    // SAFETY: as above.
    measure("mov from cr4", 1, || unsafe { asm!("mov {}, cr4", out(reg) _) });
    // SAFETY: as above.
    measure("rdmsr EFER", 1, || unsafe { asm!("rdmsr", in("ecx") 0xc000_0080u32, out("eax") _, out("edx") _) });
    measure("cpuid, forced emulation", 1, || {
        // SAFETY: Xen's prefix for its own view of cpuid; rbx is the compiler's.
        unsafe {
            asm!("mov {save}, rbx", ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid", "mov rbx, {save}",
                save = out(reg) _, inout("eax") 1 => _, inout("ecx") 0 => _, out("edx") _);
        }
    });
    handlers::of_page_faults(true);
    measure("page fault, handler, iret", 1, || {
        // SAFETY: the handler goes on behind the load.
        unsafe { asm!("lea rax, [rip + 2f]", "mov {}, [0x1000]", "2:", out(reg) _, out("rax") _) };
    });
    handlers::of_page_faults(false);
    measure("iret", 1, handlers::iret);
}

/// Handlers of a few instructions, since those of the runtime would cost more than what is measured.
mod handlers {
    use super::*;
    use core::sync::atomic::{AtomicU64, Ordering};
    use xen_abi::arch_x86::shared_info;
    use xen_abi::callback::{CALLBACKF_MASK_EVENTS, CALLBACKTYPE_EVENT};
    use xen_abi::ids::Port;
    use xen_abi::trap::TrapInfo;

    /// Where the event handler finds what it clears.
    static VCPU_INFO: AtomicU64 = AtomicU64::new(0);
    static PENDING: AtomicU64 = AtomicU64::new(0);

    #[cfg(target_os = "none")]
    core::arch::global_asm!(
        ".pushsection .text.bench, \"ax\", @progbits",
        // Clears upcall_pending, pending_sel and the port's word.
        "bench_event:",
        "mov rcx, [rip + {vcpu_info}]",
        "mov byte ptr [rcx], 0",
        "mov qword ptr [rcx + 8], 0",
        "mov rcx, [rip + {pending}]",
        "mov qword ptr [rcx], 0",
        "pop rcx",
        "pop r11",
        "jmp 2f",
        // Goes on where rax says.
        "bench_page_fault:",
        "pop rcx",
        "pop r11",
        "add rsp, 8",
        "mov [rsp], rax",
        "2:",
        "push 0",
        "push rcx",
        "push r11",
        "push rax",
        "mov eax, 23",
        "syscall",
        ".popsection",
        vcpu_info = sym VCPU_INFO,
        pending = sym PENDING,
    );

    #[cfg(target_os = "none")]
    fn addresses() -> (u64, u64) {
        unsafe extern "C" {
            fn bench_event();
            fn bench_page_fault();
        }
        (bench_event as *const () as u64, bench_page_fault as *const () as u64)
    }

    #[cfg(not(target_os = "none"))]
    fn addresses() -> (u64, u64) {
        (0, 0)
    }

    /// Takes the upcall over, or gives it back to the runtime.
    pub fn of_events(port: Port, ours: bool) {
        let shared = events::shared();
        let word = shared_info::EVTCHN_PENDING + port.0 as usize / 64 * 8;
        PENDING.store(core::ptr::from_ref(shared.u64_at(word)) as u64, Ordering::Relaxed);
        VCPU_INFO.store(core::ptr::from_ref(shared.u8_at(0)) as u64, Ordering::Relaxed);
        let address = if ours { addresses().0 } else { guest_pv::traps::callbacks()[0] };
        // SAFETY: both understand the frame of an upcall.
        unsafe { call::callback::register(CALLBACKTYPE_EVENT, CALLBACKF_MASK_EVENTS, address) }
            .expect("an entry point");
    }

    /// Takes page faults over, or gives them back to the runtime.
    pub fn of_page_faults(ours: bool) {
        let mut entry = guest_pv::traps::default_entry(14);
        if ours {
            entry.address = addresses().1;
        }
        // SAFETY: both understand the frame of a page fault.
        unsafe { call::traps::set_trap_table(&[entry, TrapInfo::default()]) }.expect("a trap table");
    }

    /// The iret hypercall, from the kernel to the kernel, with events masked.
    #[inline(always)]
    pub fn iret() {
        // SAFETY: the frame (arch-x86/xen-x86_64.h) says where we are; the hypercall takes it off the stack again.
        unsafe {
            asm!("mov {sp}, rsp", "lea {ip}, [rip + 2f]",
                "push 0xe02b", "push {sp}", "push 2", "push 0xe030", "push {ip}", "push 0", "push rcx", "push r11", "push rax",
                "mov eax, 23", "syscall", "2:",
                sp = out(reg) _, ip = out(reg) _, out("rax") _, out("rcx") _, out("r11") _);
        }
    }
}
