//! Pointers that no hypercall may follow: each one must fail with EFAULT and change nothing.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::mem::Frame;
use guest_pv::tap::Tap;
use guests::{call, make_read_only, make_writable, page, read, update_va_mapping};
use xen_abi::Errno;
use xen_abi::hypercall::*;

guest_pv::test!(run);

/// Where the pointer goes: the other arguments are harmless.
type Call = (&'static str, u32, [u64; 5], usize);

const P: u64 = 0;
const SELF: u64 = 0x7ff0;

/// Calls that read through the pointer before anything else.
const READERS: [Call; 22] = [
    ("set_trap_table", HYPERVISOR_SET_TRAP_TABLE, [P, 0, 0, 0, 0], 0),
    ("mmu_update", HYPERVISOR_MMU_UPDATE, [P, 1, 0, SELF, 0], 0),
    ("set_gdt", HYPERVISOR_SET_GDT, [P, 512, 0, 0, 0], 0),
    ("memory_op current_reservation", HYPERVISOR_MEMORY_OP, [3, P, 0, 0, 0], 1),
    ("memory_op maximum_reservation", HYPERVISOR_MEMORY_OP, [4, P, 0, 0, 0], 1),
    ("memory_op machphys_mfn_list", HYPERVISOR_MEMORY_OP, [5, P, 0, 0, 0], 1),
    ("memory_op machine_memory_map", HYPERVISOR_MEMORY_OP, [10, P, 0, 0, 0], 1),
    ("multicall", HYPERVISOR_MULTICALL, [P, 1, 0, 0, 0], 0),
    ("xen_version get_features", HYPERVISOR_XEN_VERSION, [6, P, 0, 0, 0], 1),
    ("console_io write", HYPERVISOR_CONSOLE_IO, [0, 8, P, 0, 0], 2),
    ("grant_table_op map", HYPERVISOR_GRANT_TABLE_OP, [0, P, 1, 0, 0], 1),
    ("grant_table_op copy", HYPERVISOR_GRANT_TABLE_OP, [5, P, 1, 0, 0], 1),
    ("grant_table_op query_size", HYPERVISOR_GRANT_TABLE_OP, [6, P, 1, 0, 0], 1),
    ("vcpu_op set_singleshot_timer", HYPERVISOR_VCPU_OP, [8, 0, P, 0, 0], 2),
    ("vcpu_op register_vcpu_info", HYPERVISOR_VCPU_OP, [10, 0, P, 0, 0], 2),
    ("mmuext_op", HYPERVISOR_MMUEXT_OP, [P, 1, 0, SELF, 0], 0),
    ("sched_op poll", HYPERVISOR_SCHED_OP, [3, P, 0, 0, 0], 1),
    ("sched_op shutdown", HYPERVISOR_SCHED_OP, [2, P, 0, 0, 0], 1),
    ("callback_op register", HYPERVISOR_CALLBACK_OP, [0, P, 0, 0, 0], 1),
    ("event_channel_op bind_virq", HYPERVISOR_EVENT_CHANNEL_OP, [1, P, 0, 0, 0], 1),
    ("event_channel_op alloc_unbound", HYPERVISOR_EVENT_CHANNEL_OP, [6, P, 0, 0, 0], 1),
    ("physdev_op set_iopl", HYPERVISOR_PHYSDEV_OP, [6, P, 0, 0, 0], 1),
];

/// Calls that write through the pointer.
const WRITERS: [Call; 6] = [
    ("xen_version extraversion", HYPERVISOR_XEN_VERSION, [1, P, 0, 0, 0], 1),
    ("xen_version capabilities", HYPERVISOR_XEN_VERSION, [3, P, 0, 0, 0], 1),
    ("xen_version get_features", HYPERVISOR_XEN_VERSION, [6, P, 0, 0, 0], 1),
    ("memory_op machphys_mapping", HYPERVISOR_MEMORY_OP, [12, P, 0, 0, 0], 1),
    ("grant_table_op query_size", HYPERVISOR_GRANT_TABLE_OP, [6, P, 1, 0, 0], 1),
    ("event_channel_op alloc_unbound", HYPERVISOR_EVENT_CHANNEL_OP, [6, P, 0, 0, 0], 1),
];

fn with(call_: &Call, pointer: u64) -> Result<u64, Errno> {
    let (_, number, mut args, at) = *call_;
    args[at] = pointer;
    call(number, args)
}

/// A mapped page of zeros followed by a hole.
fn cliff() -> (Frame, Frame) {
    let mut first = page();
    // The allocator gives out neighbours, but does not promise it.
    loop {
        let second = page();
        if second.pfn().0 == first.pfn().0 + 1 {
            update_va_mapping(second.address(), 0, 2).expect("it can be unmapped");
            return (first, second);
        }
        first.leak();
        first = second;
    }
}

fn run(tap: &mut Tap) {
    let (edge, hole) = cliff();
    let bad = [
        ("not mapped", 0x1000),
        ("the M2P table", 0xffff_8000_0000_0000),
        ("the hypervisor's start", 0xffff_8010_0000_0000),
        ("the hypervisor's data", 0xffff_82d0_4000_0000),
        ("the direct map", 0xffff_8300_0000_0000),
        ("the last bytes of the hypervisor", 0xffff_87ff_ffff_fff8),
        ("the first address that is not canonical", 1 << 47),
        ("the last address that is not canonical", 0xffff_7fff_ffff_fff8),
        ("half of all addresses", 1 << 63),
        ("the end of all addresses", 0xffff_ffff_ffff_fff8),
        ("the end of a page before a hole", edge.address() + 4095),
    ];
    for reader in &READERS {
        check(tap, reader, &bad);
    }
    let reads_nothing: [Call; 2] = [WRITERS[0], WRITERS[1]];
    for writer in &reads_nothing {
        check(tap, writer, &bad);
    }
    tap.is(make_writable(&hole), Ok(()), "the hole is filled again");

    let mut locked = page();
    // SELF as a domain, for those calls that want one.
    locked.bytes_mut()[..2].copy_from_slice(&[0xf0, 0x7f]);
    locked.bytes_mut()[2..4].copy_from_slice(&[0xf0, 0x7f]);
    make_read_only(&locked);
    for writer in &WRITERS {
        // get_features takes its index from there: let it be a good one.
        let pointer = if writer.0.ends_with("features") { locked.address() + 8 } else { locked.address() };
        tap.is(with(writer, pointer), Err(Errno::EFAULT), writer.0);
    }
    let untouched = (1..512).all(|index| read(&locked, index) == 0);
    tap.ok(untouched && read(&locked, 0) == 0x7ff0_7ff0, "nothing was written to the read-only page");
    make_writable(&locked).expect("an ordinary page");
}

fn check(tap: &mut Tap, call_: &Call, bad: &[(&str, u64)]) {
    let mut wrong = None;
    for &(name, pointer) in bad {
        let result = with(call_, pointer);
        if result != Err(Errno::EFAULT) && wrong.is_none() {
            wrong = Some((name, result));
        }
    }
    if !tap.ok(wrong.is_none(), call_.0) {
        tap.note(format_args!("{wrong:?}"));
    }
}
