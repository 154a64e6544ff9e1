//! What a domain without privileges is denied: control of the machine and of other domains, other domains' memory in every
//! way that names a frame, devices, and frames that nobody has. A second domain tries it and reports.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // The second domain's program is instructions.

use guest_pv::alloc::vec::Vec;
use guest_pv::mem::table::{READ_ONLY, READ_WRITE};
use guest_pv::tap::Tap;
use guests::domain::{ARGUMENTS, Call, End, Tiny};
use guests::{load, page, store};
use xen_abi::Errno;
use xen_abi::hypercall::*;
use xen_abi::mmu::*;

guest_pv::test!(run);

const SELF: u64 = 0x7ff0;
const IO: u64 = 0x7ff1;
const XEN: u64 = 0x7ff2;
/// An operation with its struct written at an offset of the page of arguments.
const AT: u64 = ARGUMENTS;

/// Structs for arguments, one after the other, each on a boundary of 16 bytes.
#[derive(Default)]
struct Arguments(Vec<u8>);

impl Arguments {
    fn put(&mut self, words: &[u64]) -> u64 {
        let at = AT + self.0.len() as u64;
        words.iter().for_each(|word| self.0.extend_from_slice(&word.to_le_bytes()));
        self.0.resize(self.0.len().next_multiple_of(16), 0);
        at
    }
}

/// What the domain is to try, with what must come of it.
#[derive(Default)]
struct Attempts {
    arguments: Arguments,
    calls: Vec<(Call, Result<u64, Errno>, &'static str)>,
}

impl Attempts {
    fn add(&mut self, number: u32, args: &[u64], want: Result<u64, Errno>, what: &'static str) {
        let mut call = [0; 7];
        call[0] = number.into();
        call[1..=args.len()].copy_from_slice(args);
        self.calls.push((call, want, what));
    }

    /// The shape `call(command, &argument)`.
    fn op(&mut self, number: u32, command: u64, words: &[u64], want: Result<u64, Errno>, what: &'static str) {
        let at = self.arguments.put(words);
        self.add(number, &[command, at], want, what);
    }

    fn run(self, tap: &mut Tap, tiny: &Tiny) {
        let mut calls: Vec<Call> = self.calls.iter().map(|(call, ..)| *call).collect();
        let end = tiny.make(&mut calls, &self.arguments.0);
        tap.is(end, End::Shutdown(0), "the domain has tried");
        for (call, (_, want, what)) in calls.iter().zip(&self.calls) {
            let got = Errno::from_ret(call[6]).map_or(Ok(call[6]), Err);
            tap.is(got, *want, what);
        }
    }
}

fn run(tap: &mut Tap) {
    control(tap);
    frames(tap);
    memory(tap);
    others(tap);
}

const EPERM: Result<u64, Errno> = Err(Errno::EPERM);

fn control(tap: &mut Tap) {
    let mut all = Attempts::default();
    // Every domctl up to the highest there is, with the right version, on domain 0 and on itself.
    for cmd in [1u64, 2, 3, 4, 5, 8, 11, 12, 13, 14, 15, 17, 22, 35, 60, 82] {
        let at = all.arguments.put(&[cmd | 0x15 << 32, 0]);
        all.add(HYPERVISOR_DOMCTL, &[at], EPERM, "domctl on domain 0");
    }
    for cmd in [2u64, 4, 12] {
        let at = all.arguments.put(&[cmd | 0x15 << 32, SELF]);
        all.add(HYPERVISOR_DOMCTL, &[at], Err(Errno::ESRCH), "domctl on itself");
    }
    for cmd in [1u64, 3, 4, 6, 7, 16] {
        let at = all.arguments.put(&[cmd | 0x15 << 32]);
        all.add(HYPERVISOR_SYSCTL, &[at], EPERM, "sysctl");
    }
    for cmd in [17u64, 31, 50, 51, 55] {
        let at = all.arguments.put(&[cmd | 0x0300_0001 << 32]);
        all.add(HYPERVISOR_PLATFORM_OP, &[at], EPERM, "platform_op");
    }
    let at = all.arguments.put(&[0x15 << 32 | 1]);
    all.add(HYPERVISOR_CONSOLE_IO, &[1, 8, at], EPERM, "console_io: reading");
    all.op(HYPERVISOR_SCHED_OP, 4, &[3 << 32], EPERM, "sched_op: shutting domain 0 down");
    all.op(HYPERVISOR_SCHED_OP, 7, &[0], EPERM, "sched_op: pinning itself");
    let tiny = Tiny::caller();
    all.run(tap, &tiny);
}

fn frames(tap: &mut Tap) {
    let mut mine = page();
    mine.bytes_mut()[..8].copy_from_slice(&0x1234_5678u64.to_le_bytes());
    let tiny = Tiny::caller();
    let (frame, root) = (mine.mfn().0, guest_pv::mem::table::root().0);
    let slot = (tiny.l1().0 << 12) | (9 * 8);
    let mut all = Attempts::default();
    let missing = 1u64 << 39;
    for (name, mfn, want) in [
        ("a page of domain 0", frame, Err(Errno::EBUSY)),
        ("its root", root, Err(Errno::EBUSY)),
        ("a frame that does not exist", missing, EPERM),
    ] {
        for flags in [READ_ONLY, READ_WRITE] {
            let at = all.arguments.put(&[slot, mfn << 12 | flags]);
            all.add(HYPERVISOR_MMU_UPDATE, &[at, 1, 0, SELF], want, name);
        }
    }
    let at = all.arguments.put(&[slot, frame << 12 | READ_ONLY]);
    all.add(HYPERVISOR_MMU_UPDATE, &[at, 1, 0, 0], EPERM, "named as domain 0's");
    all.add(HYPERVISOR_MMU_UPDATE, &[at, 1, 0, XEN], EPERM, "as the hypervisor's");
    all.add(HYPERVISOR_MMU_UPDATE, &[at, 1, 0, IO], Err(Errno::EBUSY), "as a device's");
    let at = all.arguments.put(&[slot, 0xb_8000 | READ_ONLY]);
    all.add(HYPERVISOR_MMU_UPDATE, &[at, 1, 0, IO], EPERM, "the VGA's memory");
    let at = all.arguments.put(&[slot, 0xfee0_0000 | READ_ONLY]);
    all.add(HYPERVISOR_MMU_UPDATE, &[at, 1, 0, IO], EPERM, "the APIC");
    let at = all.arguments.put(&[frame << 12, 0]);
    all.add(HYPERVISOR_MMU_UPDATE, &[at, 1, 0, SELF], Err(Errno::EINVAL), "writing to domain 0's page");
    let at = all.arguments.put(&[root << 12, 0]);
    all.add(HYPERVISOR_MMU_UPDATE, &[at, 1, 0, SELF], Err(Errno::EINVAL), "to its root");
    let at = all.arguments.put(&[frame << 12 | MMU_MACHPHYS_UPDATE, 0]);
    all.add(HYPERVISOR_MMU_UPDATE, &[at, 1, 0, SELF], Err(Errno::EINVAL), "to its part of the M2P table");
    all.add(
        HYPERVISOR_UPDATE_VA_MAPPING,
        &[0x40_9000, frame << 12 | READ_ONLY, 0],
        Err(Errno::EBUSY),
        "by update_va_mapping",
    );
    all.add(
        HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN,
        &[0x40_9000, frame << 12 | READ_ONLY, 0, 0],
        EPERM,
        "of another domain",
    );
    for (cmd, what) in [
        (MMUEXT_PIN_L1_TABLE, "pinning it"),
        (MMUEXT_PIN_L4_TABLE, "as a root"),
        (MMUEXT_UNPIN_TABLE, "unpinning it"),
        (MMUEXT_NEW_BASEPTR, "as the root in use"),
        (MMUEXT_NEW_USER_BASEPTR, "of user mode"),
        (MMUEXT_CLEAR_PAGE, "clearing it"),
        (MMUEXT_COPY_PAGE, "copying it"),
    ] {
        for mfn in [frame, root] {
            let at = all.arguments.put(&[cmd.into(), mfn, frame]);
            all.add(HYPERVISOR_MMUEXT_OP, &[at, 1, 0, SELF], Err(Errno::EINVAL), what);
        }
    }
    let at = all.arguments.put(&[MMUEXT_PIN_L4_TABLE.into(), root]);
    all.add(HYPERVISOR_MMUEXT_OP, &[at, 1, 0, 0], EPERM, "in the name of domain 0");
    all.add(HYPERVISOR_UPDATE_DESCRIPTOR, &[frame << 12, 0], Err(Errno::EINVAL), "as a descriptor");
    let at = all.arguments.put(&[frame]);
    all.add(HYPERVISOR_SET_GDT, &[at, 512], Err(Errno::EINVAL), "as a GDT");
    let at = all.arguments.put(&[frame, 0]);
    all.add(HYPERVISOR_VCPU_OP, &[10, 0, at], Err(Errno::EINVAL), "as its vcpu_info");
    all.run(tap, &tiny);
    tap.is(load(mine.address()), 0x1234_5678, "the page is as it was");
    store(mine.address(), 1);
    tap.is(load(mine.address()), 1, "and can be written to");
}

fn memory(tap: &mut Tap) {
    let mine = page();
    let tiny = Tiny::caller();
    let mut all = Attempts::default();
    // struct xen_memory_reservation: start, count, order | flags << 32, domain.
    let list = all.arguments.put(&[mine.mfn().0]);
    for (command, name) in [(0u64, "more memory for domain 0: none"), (1, "less: none"), (6, "and for its holes: none")]
    {
        all.op(HYPERVISOR_MEMORY_OP, command, &[list, 1, 0, 0], Ok(0), name);
    }
    all.op(HYPERVISOR_MEMORY_OP, 1, &[list, 1, 0, SELF], Ok(0), "giving back what is not its own");
    all.op(HYPERVISOR_MEMORY_OP, 3, &[0], EPERM, "how much domain 0 has");
    all.op(HYPERVISOR_MEMORY_OP, 10, &[8, AT], EPERM, "the machine's memory map");
    all.op(HYPERVISOR_MEMORY_OP, 24, &[0, 1, 0, 0], EPERM, "claims");
    all.op(HYPERVISOR_MEMORY_OP, 28, &[0, 0, 1, AT], EPERM, "resources of domain 0");
    // struct gnttab_map_grant_ref and others: references of domain 0 that do not exist.
    let at = all.arguments.put(&[0x40_9000, 2 | 5 << 32, 0, 0, 0]);
    all.add(HYPERVISOR_GRANT_TABLE_OP, &[0, at, 1], Ok(0), "a grant that does not exist: told in its status");
    let at = all.arguments.put(&[1 << 32, 0, 0, 0]);
    all.add(HYPERVISOR_GRANT_TABLE_OP, &[2, at, 1], Ok(0), "the grant table of domain 0: told in its status");
    // Events: to ports of domain 0 that are not for it, and a channel in the name of others.
    all.op(HYPERVISOR_EVENT_CHANNEL_OP, 0, &[1 << 32], Err(Errno::EINVAL), "binding a port of domain 0's own");
    all.op(HYPERVISOR_EVENT_CHANNEL_OP, 6, &[0], EPERM, "allocating a port for domain 0");
    all.op(HYPERVISOR_EVENT_CHANNEL_OP, 5, &[0, 0], EPERM, "the status of domain 0's ports");
    all.op(HYPERVISOR_EVENT_CHANNEL_OP, 10, &[0], EPERM, "resetting domain 0's ports");
    all.op(HYPERVISOR_EVENT_CHANNEL_OP, 2, &[0], EPERM, "a machine's interrupt");
    all.run(tap, &tiny);
}

fn others(tap: &mut Tap) {
    let tiny = Tiny::caller();
    let mut all = Attempts::default();
    all.op(HYPERVISOR_PHYSDEV_OP, 8, &[0], EPERM, "the I/O APIC");
    all.op(HYPERVISOR_PHYSDEV_OP, 15, &[0], EPERM, "PCI devices");
    all.add(HYPERVISOR_XEN_VERSION, &[0, 0], Ok(0x4_0011), "the version is for everyone");
    all.add(HYPERVISOR_VCPU_OP, &[3, 0, 0], Ok(1), "so is its vCPU");
    all.add(HYPERVISOR_VCPU_OP, &[3, 1, 0], Err(Errno::ENOENT), "of which it has one");
    all.run(tap, &tiny);
}
