//! Roots of the kernel and of user mode: `MMUEXT_NEW_BASEPTR`, `MMUEXT_NEW_USER_BASEPTR` and `mov` to CR3. What may be one,
//! that translations follow at once, what holds a root while it is in use, and by which vCPU.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // CR3 is loaded by hand.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::mem::Frame;
use guest_pv::mem::table::{self, READ_ONLY, READ_WRITE, TABLE};
use guest_pv::tap::Tap;
use guest_pv::{smp, traps};
use guests::user::{self, UserSpace};
use guests::{
    address_of, call, code, entry_of, give_up_root, load, make_read_only, make_writable, mmu_update, mmuext, page,
    second_root, store, table_page, trap_of,
};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_MMUEXT_OP;
use xen_abi::ids::{Mfn, VcpuId};
use xen_abi::mmu::{
    MMUEXT_NEW_BASEPTR, MMUEXT_NEW_USER_BASEPTR, MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L4_TABLE, MMUEXT_TLB_FLUSH_LOCAL,
    MMUEXT_UNPIN_TABLE, MmuextOp,
};

guest_pv::test!(run);

const GP: Option<(u64, u64)> = Some((13, 0));
const INVALID: Result<(), Errno> = Err(Errno::EINVAL);
const BUSY: Result<(), Errno> = Err(Errno::EBUSY);
/// Where the roots differ: a slot of theirs that the kernel's has not.
const SLOT: usize = 100;
const WINDOW: u64 = (SLOT as u64) << 39;

fn kernel_root(mfn: Mfn) -> Result<(), Errno> {
    mmuext(MMUEXT_NEW_BASEPTR, mfn)
}

fn user_root(mfn: Mfn) -> Result<(), Errno> {
    mmuext(MMUEXT_NEW_USER_BASEPTR, mfn)
}

fn cr3() -> u64 {
    let value;
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, cr3", out(reg) value) };
    value
}

fn set_cr3(value: u64) -> Option<(u64, u64)> {
    // SAFETY: emulated, or a fault that ends the body; the root has what the kernel needs.
    trap_of(|| unsafe { asm!("mov cr3, {}", in(reg) value) })
}

/// Tables that map one page at the window: L3, L2, L1.
struct Tower {
    tables: [Frame; 3],
    page: Frame,
}

impl Tower {
    fn new(value: u64) -> Self {
        let page = page();
        store(page.address(), value);
        let l1 = table_page(&[(0, page.mfn().0 << 12 | READ_WRITE)]);
        let l2 = table_page(&[(0, l1.mfn().0 << 12 | TABLE)]);
        let l3 = table_page(&[(0, l2.mfn().0 << 12 | TABLE)]);
        Self { tables: [l3, l2, l1], page }
    }

    /// The root's entry for it.
    fn entry(&self) -> (usize, u64) {
        (SLOT, self.tables[0].mfn().0 << 12 | TABLE)
    }

    /// Its tables become ordinary pages again.
    fn take_down(self) {
        for table in &self.tables {
            make_writable(table).expect("no root has it");
        }
    }
}

fn run(tap: &mut Tap) {
    let (one, two) = (Tower::new(0x1111), Tower::new(0x2222));
    let first = second_root(&[one.entry()]);
    let second = second_root(&[two.entry()]);
    switching(tap, &first, &second);
    by_cr3(tap, &first, &second);
    in_use(tap, &first);
    refused(tap);
    never_pinned(tap, &one);
    batches(tap, &first, &second);
    entries(tap, &first, &two);
    users(tap, &first);
    several(tap, &first, &second);
    give_up_root(&first);
    give_up_root(&second);
    tap.is(load(one.page.address()), 0x1111, "the pages are as they were");
    one.take_down();
    two.take_down();
}

fn switching(tap: &mut Tap, first: &Frame, second: &Frame) {
    let ours = table::root();
    tap.is(cr3(), ours.0 << 12, "CR3 is the root");
    tap.is(traps::peek(WINDOW), None, "which does not have the window");
    for (root, value, name) in
        [(first, 0x1111, "the first root"), (second, 0x2222, "the second"), (first, 0x1111, "again")]
    {
        tap.is(kernel_root(root.mfn()), Ok(()), name);
        tap.is(
            (cr3(), traps::peek(WINDOW)),
            (root.mfn().0 << 12, Some(value)),
            "has its own page in the window, at once",
        );
    }
    tap.is(kernel_root(first.mfn()), Ok(()), "the same root");
    tap.is(traps::peek(WINDOW), Some(0x1111), "changes nothing");
    tap.is((kernel_root(ours), traps::peek(WINDOW)), (Ok(()), None), "the one that the builder made");
}

fn by_cr3(tap: &mut Tap, first: &Frame, second: &Frame) {
    let ours = cr3();
    tap.is(set_cr3(first.mfn().0 << 12), None, "mov to CR3 loads a root");
    tap.is((cr3(), traps::peek(WINDOW)), (first.mfn().0 << 12, Some(0x1111)), "which is used");
    tap.is(set_cr3(second.mfn().0 << 12 | 0xfff), None, "its lower bits are ignored");
    tap.is((cr3(), traps::peek(WINDOW)), (second.mfn().0 << 12, Some(0x2222)), "they are not kept");
    let ordinary = page();
    tap.is(set_cr3(ordinary.mfn().0 << 12), GP, "a page that is no root faults");
    tap.is(set_cr3(1 << 51), GP, "so does what is not there");
    tap.is(cr3(), second.mfn().0 << 12, "the root stays");
    tap.is((set_cr3(ours), cr3()), (None, ours), "and the builder's is back");
}

fn in_use(tap: &mut Tap, root: &Frame) {
    kernel_root(root.mfn()).expect("a pinned root");
    tap.is(mmuext(MMUEXT_UNPIN_TABLE, root.mfn()), Ok(()), "a root in use is unpinned");
    tap.is(make_writable(root), BUSY, "and is still a table");
    tap.is(traps::peek(WINDOW), Some(0x1111), "that is used");
    tap.is(user_root(root.mfn()), Ok(()), "it becomes user mode's too");
    kernel_root(table::root()).expect("the builder's");
    tap.is(make_writable(root), BUSY, "which holds it alone");
    tap.is(user_root(Mfn(0)), Ok(()), "without a user root");
    tap.is(make_writable(root), Ok(()), "it is an ordinary page");
    make_read_only(root);
    tap.is(mmuext(MMUEXT_PIN_L4_TABLE, root.mfn()), Ok(()), "it is pinned again");
}

fn refused(tap: &mut Tap) {
    let writable = page();
    let l1 = table_page(&[]);
    mmuext(MMUEXT_PIN_L1_TABLE, l1.mfn()).expect("an empty table");
    // A root that maps itself writable by an L3 that is no L3.
    let bad = table_page(&[(SLOT, l1.mfn().0 << 12 | TABLE)]);
    let reserved = table_page(&[(SLOT, l1.mfn().0 << 12 | TABLE | 1 << 7)]);
    let foreign = table_page(&[(SLOT, 1 << 50 | TABLE)]);
    for (mfn, name) in [
        (writable.mfn(), "a page that is written to"),
        (l1.mfn(), "a table of another level"),
        (bad.mfn(), "a root with a table of the wrong level"),
        (reserved.mfn(), "a root with a large page"),
        (foreign.mfn(), "a root with a frame that is not there"),
        (Mfn(1 << 40), "a frame that is not there"),
        (Mfn(u64::MAX), "the last number"),
        (Mfn(u64::MAX >> 12), "the last frame"),
    ] {
        tap.is(kernel_root(mfn), INVALID, name);
        tap.is(user_root(mfn), INVALID, "nor for user mode");
    }
    tap.is(kernel_root(Mfn(0)), INVALID, "the kernel needs a root");
    tap.is(cr3(), table::root().0 << 12, "the root is the one it was");
    for failed in [&bad, &reserved, &foreign] {
        tap.is(make_writable(failed), Ok(()), "what was refused is an ordinary page");
    }
    mmuext(MMUEXT_UNPIN_TABLE, l1.mfn()).expect("it was pinned");
    make_writable(&l1).expect("an ordinary page");
    let mut op = MmuextOp { cmd: MMUEXT_NEW_BASEPTR, _pad: 0, arg1: table::root().0, arg2: 0 };
    let denied = Err(Errno::EPERM);
    for (domain, want) in [(0x7ff0, Ok(0)), (0, Err(Errno::ESRCH)), (0x7ff1, denied), (0x7ff2, denied)] {
        let result = call(HYPERVISOR_MMUEXT_OP, [address_of(&mut op), 1, 0, domain]);
        tap.is(result, want, "roots are of the caller's domain, by the name of DOMID_SELF");
    }
}

fn never_pinned(tap: &mut Tap, tower: &Tower) {
    let root = second_root(&[tower.entry()]);
    mmuext(MMUEXT_UNPIN_TABLE, root.mfn()).expect("it was pinned");
    tap.is(make_writable(&root), Ok(()), "a page that looks like a root");
    make_read_only(&root);
    tap.is(kernel_root(root.mfn()), Ok(()), "becomes one when it is loaded");
    tap.is(traps::peek(WINDOW), Some(0x1111), "and is used");
    tap.is(make_writable(&root), BUSY, "it is a table");
    tap.is(kernel_root(table::root()), Ok(()), "the builder's again");
    tap.is(make_writable(&root), Ok(()), "and it is a page again");
}

fn batches(tap: &mut Tap, first: &Frame, second: &Frame) {
    let op = |cmd, mfn: Mfn| MmuextOp { cmd, _pad: 0, arg1: mfn.0, arg2: 0 };
    let run = |ops: &mut [MmuextOp]| {
        let mut done = 0u32;
        let result = call(HYPERVISOR_MMUEXT_OP, [address_of(ops), ops.len() as u64, address_of(&mut done), 0x7ff0]);
        (result, done)
    };
    let mut ops = [op(MMUEXT_NEW_BASEPTR, first.mfn()), op(MMUEXT_NEW_USER_BASEPTR, second.mfn())];
    tap.is(run(&mut ops), (Ok(0), 2), "both roots in one call");
    tap.is(traps::peek(WINDOW), Some(0x1111), "the kernel has its own");
    let mut ops = [
        op(MMUEXT_NEW_BASEPTR, second.mfn()),
        op(MMUEXT_NEW_BASEPTR, Mfn(1 << 40)),
        op(MMUEXT_NEW_BASEPTR, first.mfn()),
    ];
    tap.is(run(&mut ops), (Err(Errno::EINVAL), 1), "a call ends at what is refused");
    tap.is(traps::peek(WINDOW), Some(0x2222), "what was before it is done");
    let mut ops = [op(MMUEXT_NEW_USER_BASEPTR, Mfn(0)), op(MMUEXT_NEW_BASEPTR, table::root())];
    tap.is(run(&mut ops), (Ok(0), 2), "and back");
}

fn entries(tap: &mut Tap, root: &Frame, other: &Tower) {
    kernel_root(root.mfn()).expect("a pinned root");
    let slot = entry_of(root, SLOT as u64);
    let old = guests::read(root, SLOT as u64);
    tap.is(mmu_update(slot, other.entry().1), Ok(()), "an entry of the root in use is changed");
    mmuext(MMUEXT_TLB_FLUSH_LOCAL, Mfn(0)).expect("a flush");
    tap.is(traps::peek(WINDOW), Some(0x2222), "and counts after a flush");
    tap.is(mmu_update(slot, 0), Ok(()), "it is taken away");
    mmuext(MMUEXT_TLB_FLUSH_LOCAL, Mfn(0)).expect("a flush");
    tap.is(traps::peek(WINDOW), None, "and nothing is there");
    tap.is(mmu_update(slot, old), Ok(()), "it is put back");
    tap.is(traps::peek(WINDOW), Some(0x1111), "as it was");
    kernel_root(table::root()).expect("the builder's");
}

fn users(tap: &mut Tap, kernel: &Frame) {
    let mut program = [0x90u8; 32];
    let text = code!("mov rax, [rbx]", "int 0x80");
    program[..text.len()].copy_from_slice(text);
    let space = UserSpace::new(&program);
    let read = |address: u64| {
        let frame = user::run(traps::Frame { rbx: address, ..user::start_at(0) });
        (frame.vector == 0x80).then_some(frame.rax)
    };
    store(space.pages[5].address(), 0x5555);
    tap.is(read(user::STACK), Some(0x5555), "user mode has its own root");
    tap.is(cr3(), table::root().0 << 12, "of which the kernel's CR3 says nothing");
    tap.is(kernel_root(kernel.mfn()), Ok(()), "another root of the kernel");
    tap.is((read(user::STACK), read(WINDOW)), (Some(0x5555), None), "does not change user mode's");
    // Nothing is said of user mode's pages in the kernel: they are global, and stay in the TLB for a while.
    tap.is(traps::peek(WINDOW), Some(0x1111), "nor the other way round");
    // One root for both, as small kernels have it.
    let both = second_root(&[(0, space.pages[1].mfn().0 << 12 | TABLE)]);
    tap.is((kernel_root(both.mfn()), user_root(both.mfn())), (Ok(()), Ok(())), "one root for both");
    tap.is((read(user::STACK), traps::peek(user::STACK)), (Some(0x5555), Some(0x5555)), "shows both the same");
    tap.is(user_root(space.pages[0].mfn()), Ok(()), "user mode's first root");
    kernel_root(table::root()).expect("the builder's");
    give_up_root(&both);
    // A new page in user mode's tables is seen when it returns there.
    let fresh = page();
    store(fresh.address(), 0x7777);
    make_read_only(&fresh);
    tap.is(read(user::STACK_TOP), None, "nothing is behind the stack");
    let leaf = READ_ONLY | table::USER;
    tap.is(mmu_update(entry_of(&space.pages[3], 2), fresh.mfn().0 << 12 | leaf), Ok(()), "a page is put there");
    tap.is(read(user::STACK_TOP), Some(0x7777), "and is there");
    tap.is(mmu_update(entry_of(&space.pages[3], 2), 0), Ok(()), "taken away");
    mmuext(MMUEXT_TLB_FLUSH_LOCAL, Mfn(0)).expect("a flush");
    tap.is(read(user::STACK_TOP), None, "it is gone after a flush");
    make_writable(&fresh).expect("an ordinary page");
    user_root(Mfn(0)).expect("no root is possible");
    // Its tables stay pinned.
    core::mem::forget(space);
}

static ROOT: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

fn several(tap: &mut Tap, first: &Frame, second: &Frame) {
    fn switch() {
        let result = kernel_root(Mfn(ROOT.load(Ordering::SeqCst)));
        SEEN.store(if result.is_ok() { traps::peek(WINDOW).unwrap_or(0) } else { 99 }, Ordering::SeqCst);
    }
    let on_second = |root: Mfn| {
        ROOT.store(root.0, Ordering::SeqCst);
        smp::start(VcpuId(1), switch).expect("the domain has two vCPUs");
        smp::join(VcpuId(1)).expect("it was started");
        SEEN.load(Ordering::SeqCst)
    };
    kernel_root(first.mfn()).expect("a pinned root");
    tap.is(on_second(table::root()), 0, "each vCPU has a root of its own");
    tap.is(on_second(second.mfn()), 0x2222, "another than the first's");
    tap.is(traps::peek(WINDOW), Some(0x1111), "which keeps its");
    tap.is(mmuext(MMUEXT_UNPIN_TABLE, second.mfn()), Ok(()), "the second's root is unpinned");
    tap.is(make_writable(second), BUSY, "and held by it, though it does not run");
    tap.is(on_second(first.mfn()), 0x1111, "one root for two vCPUs");
    tap.is(make_writable(second), Ok(()), "holds the other no more");
    make_read_only(second);
    mmuext(MMUEXT_PIN_L4_TABLE, second.mfn()).expect("a proper root");
    kernel_root(table::root()).expect("the builder's");
    tap.is(mmuext(MMUEXT_UNPIN_TABLE, first.mfn()), Ok(()), "the root of both is unpinned");
    tap.is(make_writable(first), BUSY, "the second still has it");
    tap.is(on_second(table::root()), 0, "until it leaves it");
    tap.is(make_writable(first), Ok(()), "then it is an ordinary page");
    make_read_only(first);
    mmuext(MMUEXT_PIN_L4_TABLE, first.mfn()).expect("a proper root");
}
