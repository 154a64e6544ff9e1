//! The LDT: its limits, that its pages are looked up when a selector needs them, what they may be and become, the faults when
//! they are not there, and that each vCPU has its own. `segments` has the shorter story of the GDT beside it.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Selectors are loaded by hand.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::mem::{Frame, table};
use guest_pv::tap::Tap;
use guest_pv::{call, events, smp, traps};
use guests::user::{self, UserSpace};
use guests::{
    address_of, call, code, entry_of, frame_of, give_up_root, make_read_only, make_writable, mmuext, page, read,
    second_root, trap_of, update_va_mapping,
};
use xen_abi::Errno;
use xen_abi::hypercall::{HYPERVISOR_MMUEXT_OP, HYPERVISOR_UPDATE_DESCRIPTOR};
use xen_abi::ids::VcpuId;
use xen_abi::mmu::{
    MMUEXT_NEW_BASEPTR, MMUEXT_PIN_L1_TABLE, MMUEXT_SET_LDT, MMUEXT_UNPIN_TABLE, MmuextOp, UVMF_INVLPG,
};

guest_pv::test!(run);

/// A flat 64-bit code segment, a flat data segment, both DPL 3.
const CODE: u64 = 0x00af_fb00_0000_ffff;
const DATA: u64 = 0x00cf_f300_0000_ffff;
const OK: Result<u64, Errno> = Ok(0);
const INVALID: Result<u64, Errno> = Err(Errno::EINVAL);

/// Where the tables are mapped: an address that has nothing else.
const BASE: u64 = 0x5000_0000_0000;

/// The selector of an entry of the LDT.
const fn selector(index: u64) -> u64 {
    index << 3 | 7
}

/// What loading a selector that is not there ends with.
const fn gp(index: u64) -> Option<(u64, u64)> {
    Some((13, index << 3 | 4))
}

fn load(selector: u64) -> Option<(u64, u64)> {
    // SAFETY: fs is not used by the guest.
    trap_of(|| unsafe { asm!("mov fs, {0:e}", in(reg) selector) })
}

fn entry(index: u64) -> Option<(u64, u64)> {
    load(selector(index))
}

/// A load that is a page fault: its error code and address.
fn missing(index: u64) -> Option<(u64, u64)> {
    // SAFETY: as above.
    let frame = frame_of(|| unsafe { asm!("mov fs, {0:e}", in(reg) selector(index)) })?;
    (frame.vector == 14).then(|| (frame.error, events::cr2()))
}

fn set(base: u64, entries: u64) -> Result<u64, Errno> {
    let mut op = MmuextOp { cmd: MMUEXT_SET_LDT, _pad: 0, arg1: base, arg2: entries };
    load(0);
    call(HYPERVISOR_MMUEXT_OP, [address_of(&mut op), 1, 0, 0x7ff0])
}

/// A page full of one descriptor, mapped read-only.
fn full(descriptor: u64) -> Frame {
    let mut page = page();
    page.bytes_mut().as_chunks_mut::<8>().0.fill(descriptor.to_le_bytes());
    make_read_only(&page);
    page
}

/// Sets the entry for a page of the LDT.
fn map(index: u64, entry: u64) {
    let at = BASE + index * 4096;
    table::ensure_slot(at).expect("there is memory for tables");
    update_va_mapping(at, entry, UVMF_INVLPG).expect("own memory can be mapped");
}

fn read_only(page: &Frame) -> u64 {
    page.mfn().0 << 12 | table::READ_ONLY
}

fn update(page: &Frame, index: u64, descriptor: u64) -> Result<u64, Errno> {
    call(HYPERVISOR_UPDATE_DESCRIPTOR, [entry_of(page, index), descriptor])
}

fn run(tap: &mut Tap) {
    let pages = [full(DATA), full(DATA), full(DATA)];
    for (page, index) in pages.iter().zip(0..) {
        map(index, read_only(page));
    }
    arguments(tap);
    limits(tap);
    faults(tap, &pages);
    types(tap, &pages);
    replaced(tap, &pages);
    gates(tap, &pages[0]);
    user_mode(tap, &pages);
    each_vcpu(tap, &pages);
}

fn arguments(tap: &mut Tap) {
    for (base, entries, want, what) in [
        (BASE, 1, OK, "an LDT of one entry"),
        (BASE, 8192, OK, "of the most"),
        (BASE, 8193, INVALID, "of more"),
        (BASE, u64::from(u32::MAX), INVALID, "of very many"),
        (BASE, 1 << 32 | 3, OK, "the count has 32 bits"),
        (BASE + 8, 1, INVALID, "not at a page"),
        (BASE + 8, 0, OK, "without entries nobody looks where it is"),
        (1 << 47, 0, OK, "wherever that is"),
        (1 << 47, 1, INVALID, "not at an address that is not canonical"),
        (0xffff_8000_0000_0000, 1, INVALID, "not in the hypervisor's part"),
        (0xffff_87ff_ffff_f000, 1, INVALID, "up to its end"),
        (0xffff_8800_0000_0000, 1, OK, "but behind it"),
        (0, 1, OK, "at zero"),
        (0x7fff_ffff_f000, 8192, OK, "across the end of the lower half"),
        (0xffff_ffff_ffff_f000, 8192, OK, "across the end of all addresses"),
        (0, 0, OK, "no LDT"),
    ] {
        tap.is(set(base, entries), want, what);
    }
    tap.is(entry(0), gp(0), "without an LDT its first entry is not there");
    tap.is(load(4), gp(0), "at any requested level");
}

fn limits(tap: &mut Tap) {
    for (count, name) in
        [(1u64, "one entry"), (2, "two"), (511, "almost a page"), (512, "a page"), (513, "a little more")]
    {
        tap.is(set(BASE, count), OK, name);
        tap.is((entry(0), entry(count - 1)), (None, None), "its first and last entry can be loaded");
        tap.is((entry(count), entry(8191)), (gp(count), gp(8191)), "what is behind it cannot");
    }
    set(0, 0).expect("no LDT");
}

fn faults(tap: &mut Tap, pages: &[Frame; 3]) {
    tap.is(set(BASE, 8192), OK, "an LDT of sixteen pages, of which three are there");
    let at = |index: u64| Some((0, BASE + index * 8));
    tap.is((missing(3 * 512), missing(16 * 512 - 1)), (at(3 * 512), at(16 * 512 - 1)), "the others fault in the LDT");
    tap.is((entry(0), entry(513), entry(1535)), (None, None, None), "and the three do not");
    // Without tables for the address at all.
    tap.is(set(0x6000_0000_0000, 8192), OK, "an LDT where nothing is");
    tap.is(missing(5), Some((0, 0x6000_0000_0028)), "faults there");
    tap.is(set(0x7fff_ffff_f000, 8192), OK, "an LDT across the end of the lower half");
    tap.is(missing(5), Some((0, 0x7fff_ffff_f028)), "faults before it");
    tap.is(entry(517), gp(517), "and behind it the selector is bad");
    // The handler maps the page, and the instruction goes on.
    fn repair(frame: &mut traps::Frame) {
        SEEN.store(frame.error << 32 | 1, Ordering::SeqCst);
        map(1, PAGE.load(Ordering::SeqCst));
    }
    map(1, 0);
    PAGE.store(read_only(&pages[1]), Ordering::SeqCst);
    set(BASE, 1536).expect("an LDT");
    traps::set_handler(14, Some(repair));
    tap.is((entry(600), SEEN.load(Ordering::SeqCst)), (None, 1), "a handler may map the page, and the load goes on");
    traps::set_handler(14, None);
    // Pages that cannot be one.
    let writable = page();
    map(2, read_only(&writable));
    tap.is(set(BASE, 1535), OK, "an LDT with a page that is mapped writable elsewhere");
    tap.is(missing(1024), at(1024), "faults as if it were not there");
    tap.is(entry(600), None, "its other pages do not");
    make_read_only(&writable);
    tap.is(entry(1024), gp(1024), "until the page is read-only: its entries are empty");
    tap.is(update(&writable, 0, DATA), OK, "one is written");
    tap.is(entry(1024), None, "and loaded");
    set(0, 0).expect("no LDT");
    make_writable(&writable).expect("an ordinary page");
    let tables = guests::table_page(&[]);
    mmuext(MMUEXT_PIN_L1_TABLE, tables.mfn()).expect("an empty table");
    map(2, read_only(&tables));
    set(BASE, 1536).expect("an LDT");
    tap.is(missing(1024), at(1024), "a page table is none");
    map(2, read_only(&pages[2]));
    mmuext(MMUEXT_UNPIN_TABLE, tables.mfn()).expect("it was pinned");
    make_writable(&tables).expect("an ordinary page");
    let bad = full(0x0000_8e00_0000_0000);
    map(2, read_only(&bad));
    tap.is(missing(1024), at(1024), "nor is a page with an interrupt gate");
    map(2, read_only(&pages[2]));
    make_writable(&bad).expect("an ordinary page");
    let raised = full(DATA & !(3 << 45));
    map(2, read_only(&raised));
    tap.is(entry(1024), None, "one with segments of DPL 0 is");
    tap.is(read(&raised, 0), DATA, "they are given DPL 3");
    set(0, 0).expect("no LDT");
    map(2, read_only(&pages[2]));
    make_writable(&raised).expect("an ordinary page");
}

static PAGE: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

fn types(tap: &mut Tap, pages: &[Frame; 3]) {
    set(BASE, 1536).expect("an LDT");
    tap.is((make_writable(&pages[0]), make_writable(&pages[1])), (Ok(()), Ok(())), "pages not needed yet are ordinary");
    make_read_only(&pages[0]);
    make_read_only(&pages[1]);
    tap.is((entry(0), entry(512)), (None, None), "they are needed");
    let busy = Err(Errno::EBUSY);
    tap.is((make_writable(&pages[0]), make_writable(&pages[1])), (busy, busy), "and cannot be written to any more");
    tap.is(mmuext(MMUEXT_PIN_L1_TABLE, pages[0].mfn()), Err(Errno::EINVAL), "nor become a page table");
    tap.is(make_writable(&pages[2]), Ok(()), "the third has not been needed");
    make_read_only(&pages[2]);
    let gdt = [pages[0].mfn().0];
    // SAFETY: no selector of the guest's is in it.
    tap.is(unsafe { call::traps::set_gdt(&gdt, 512) }, Ok(()), "a page may be in the GDT too");
    tap.is(load(0x13), None, "and be used by either");
    tap.is((entry(3), load(0)), (None, None), "table");
    set(0, 0).expect("no LDT");
    tap.is(make_writable(&pages[0]), busy, "it is one of the GDT's when the LDT is gone");
    // SAFETY: as above.
    unsafe { call::traps::set_gdt(&[], 0) }.expect("no GDT");
    tap.is(make_writable(&pages[0]), Ok(()), "until that is gone");
    tap.is(make_writable(&pages[1]), Ok(()), "the other page is ordinary");
    make_read_only(&pages[0]);
    make_read_only(&pages[1]);
}

fn replaced(tap: &mut Tap, pages: &[Frame; 3]) {
    let empty = full(0);
    set(BASE, 512).expect("an LDT");
    tap.is(entry(9), None, "an entry is loaded");
    tap.is(update(&pages[0], 9, 0), OK, "is emptied");
    tap.is(entry(9), gp(9), "and not there");
    tap.is(update(&pages[0], 9, CODE), OK, "becomes code");
    tap.is(entry(9), None, "which can be read");
    tap.is(update(&pages[0], 9, DATA), OK, "and data again");
    map(0, read_only(&empty));
    tap.is(entry(9), None, "another page at its address does not matter");
    tap.is((set(BASE, 512), entry(9)), (OK, None), "nor does setting the same LDT");
    tap.is(make_writable(&pages[0]), Err(Errno::EBUSY), "the first page is in use");
    tap.is((set(BASE, 511), entry(9)), (OK, gp(9)), "another LDT has the new page");
    tap.is(make_writable(&pages[0]), Ok(()), "the first page is ordinary");
    make_read_only(&pages[0]);
    map(0, read_only(&pages[0]));
    tap.is(entry(9), gp(9), "the new page stays in use");
    tap.is(mmuext(MMUEXT_NEW_BASEPTR, table::root()), Ok(()), "loading the same root changes nothing");
    tap.is(entry(9), gp(9), "the page stays");
    let second = second_root(&[]);
    tap.is(mmuext(MMUEXT_NEW_BASEPTR, second.mfn()), Ok(()), "until another root is loaded");
    tap.is(entry(9), None, "then it is looked up again");
    map(0, read_only(&empty));
    tap.is(entry(9), None, "another page at its address");
    let first = table::root().0 << 12;
    // SAFETY: a root that has all that is needed here.
    let moved = trap_of(|| unsafe { asm!("mov cr3, {}", in(reg) first) });
    tap.is((moved, entry(9)), (None, gp(9)), "is looked up after a mov to CR3 too");
    set(0, 0).expect("no LDT");
    map(0, read_only(&pages[0]));
    give_up_root(&second);
    tap.is(make_writable(&empty), Ok(()), "and the page not needed is ordinary");
    set(0, 0).expect("no LDT");
}

fn gates(tap: &mut Tap, table: &Frame) {
    // A call gate: offset, selector, type 0xc.
    let gate = |selector: u64, dpl: u64| 1 << 47 | dpl << 45 | 0xc << 40 | selector << 16 | 0x1234;
    set(BASE, 512).expect("an LDT");
    entry(0);
    for (descriptor, want, what) in [
        (gate(0xe033, 3), OK, "a call gate to the flat code segment"),
        (gate(0x33, 3), OK, "or to one of the guest's"),
        (gate(0xe008, 3), INVALID, "not to the hypervisor's code"),
        (0x0000_8900_0000_0000, INVALID, "a TSS"),
        (0x0000_8200_0000_0000, INVALID, "an LDT"),
        (0x0000_8500_0000_0000, INVALID, "a task gate"),
        (0x0000_8e00_0000_0000, INVALID, "an interrupt gate"),
        (0x0000_8f00_0000_0000, INVALID, "a trap gate"),
        (0x0000_0900_0000_0000, OK, "a TSS that is not present"),
        (DATA & !(3 << 45), OK, "data of DPL 0"),
    ] {
        tap.is(update(table, 20, descriptor), want, what);
    }
    tap.is(read(table, 20), DATA, "is given DPL 3");
    update(table, 20, gate(0xe033, 3)).expect("a gate");
    update(table, 21, 0).expect("its second half");
    let shown = read(table, 20);
    tap.is(shown >> 45 & 3, 0, "a gate is given DPL 0");
    // A 32-bit offset, then the selector.
    let target = (selector(20) << 32).to_le_bytes();
    // SAFETY: a call that faults.
    let trap = trap_of(|| unsafe { asm!("call fword ptr [{}]", in(reg) target.as_ptr()) });
    tap.is(trap, gp(20), "so that using it faults");
    update(table, 20, DATA).expect("data");
    update(table, 21, DATA).expect("data");
    set(0, 0).expect("no LDT");
}

fn user_mode(tap: &mut Tap, pages: &[Frame; 3]) {
    let mut program = [0x90u8; 32];
    for (piece, offset) in [code!("mov fs, eax", "int 0x80"), code!("int 0x80")].iter().zip((0..).step_by(16)) {
        program[offset..offset + piece.len()].copy_from_slice(piece);
    }
    let space = UserSpace::new(&program);
    let use_it = |index: u64| {
        let frame = user::run(traps::Frame { rax: selector(index), ..user::start_at(0) });
        (frame.vector, frame.error)
    };
    set(BASE, 1536).expect("an LDT");
    tap.is(use_it(0), (0x80, 0), "user mode uses it, though only the kernel's tables map it");
    map(1, 0);
    tap.is((use_it(700), events::cr2()), ((14, 4), BASE + 700 * 8), "a page that is missing is missing there too");
    tap.is(use_it(1536), (13, 1536 * 8 + 4), "and so is what is behind it");
    map(1, read_only(&pages[1]));
    tap.is(use_it(700), (0x80, 0), "it is back");
    // Code in the LDT, which is first looked up when user mode is entered.
    update(&pages[2], 1, CODE).expect("a code segment");
    set(BASE, 1535).expect("another LDT");
    let enter = |index: u64| {
        let frame = user::run(traps::Frame { cs: selector(index), ..user::start_at(16) });
        (frame.vector, frame.error, frame.cs & 0xffff)
    };
    tap.is(enter(1025), (0x80, 0, selector(1025)), "user mode may be entered by its code");
    tap.is(enter(1026), (13, 1026 * 8 + 4, selector(1026)), "not by its data");
    tap.is(enter(1535), (13, 1535 * 8 + 4, selector(1535)), "nor by what is behind it");
    // Its tables stay in use.
    core::mem::forget(space);
    update(&pages[2], 1, DATA).expect("data");
    set(0, 0).expect("no LDT");
}

static ELSEWHERE: AtomicU64 = AtomicU64::new(u64::MAX);

/// Vector and error code as one number, 0 for no trap.
fn packed(trap: Option<(u64, u64)>) -> u64 {
    trap.map_or(0, |(vector, error)| vector << 32 | error)
}

fn each_vcpu(tap: &mut Tap, pages: &[Frame; 3]) {
    let on_second = |job: fn()| {
        smp::start(VcpuId(1), job).expect("the domain has two vCPUs");
        smp::join(VcpuId(1)).expect("it was started");
        ELSEWHERE.load(Ordering::SeqCst)
    };
    set(BASE, 1536).expect("an LDT");
    tap.is(entry(9), None, "the first vCPU has an LDT");
    let there = on_second(|| ELSEWHERE.store(packed(entry(9)), Ordering::SeqCst));
    tap.is(there, packed(gp(9)), "the second has none");
    let there = on_second(|| {
        set(BASE, 10).expect("an LDT");
        let both = packed(entry(9)) | packed(entry(10)) << 1;
        let _ = call::sched::yield_cpu();
        ELSEWHERE.store(if packed(entry(9)) == 0 { both } else { 99 }, Ordering::SeqCst);
    });
    tap.is(there, packed(gp(10)) << 1, "it sets one of its own, of the same pages");
    tap.is((entry(9), entry(1025)), (None, None), "the first has the whole of it");
    set(0, 0).expect("no LDT");
    tap.is(make_writable(&pages[0]), Err(Errno::EBUSY), "a page is in use as long as one of them has it");
    tap.is(make_writable(&pages[1]), Ok(()), "the others are not");
    let there = on_second(|| ELSEWHERE.store(packed(entry(9)), Ordering::SeqCst));
    tap.is(there, 0, "the second still has it when it comes back");
    let there = on_second(|| {
        set(0, 0).expect("no LDT");
        ELSEWHERE.store(packed(entry(9)), Ordering::SeqCst);
    });
    tap.is(there, packed(gp(9)), "until it gives it up");
    tap.is(make_writable(&pages[0]), Ok(()), "and the page is ordinary");
}
