//! Plain writes to a page table, which the hypervisor turns into checked updates.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // The writes are chosen instruction by instruction.

use core::arch::asm;
use guest_pv::call::traps::vm_assist;
use guest_pv::mem::Frame;
use guest_pv::mem::table::{READ_ONLY, READ_WRITE};
use guest_pv::tap::Tap;
use guests::{entry_of, make_writable, mmu_update, mmuext, page, read, store, table_page, trap_of};
use xen_abi::Errno;
use xen_abi::mmu::{MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L2_TABLE, MMUEXT_UNPIN_TABLE};
use xen_abi::vm_assist::{
    VMASST_CMD_DISABLE, VMASST_CMD_ENABLE, VMASST_TYPE_ARCHITECTURAL_IOPL, VMASST_TYPE_WRITABLE_PAGETABLES,
};

guest_pv::test!(run);

fn at(page: &Frame, flags: u64) -> u64 {
    page.mfn().0 << 12 | flags
}

fn run(tap: &mut Tap) {
    let data = page();
    let table = table_page(&[]);
    mmuext(MMUEXT_PIN_L1_TABLE, table.mfn()).expect("an empty table");
    let slot = table.address() + 8 * 8;
    let shown = || read(&table, 8);
    let wanted = at(&data, READ_WRITE);

    tap.is(vm_assist(VMASST_CMD_ENABLE, VMASST_TYPE_WRITABLE_PAGETABLES), Ok(()), "the assist can be enabled");
    tap.is(trap_of(|| store(slot, wanted)), None, "a write passes");
    tap.is(shown(), wanted | 4 | 1 << 52, "and is an update: the user bit is added");
    tap.is(trap_of(|| store(slot, at(&data, READ_ONLY))), None, "the entry can be changed");
    tap.is(shown() & 2, 0, "it is read-only now");
    tap.is(trap_of(|| store(slot, 0)), None, "and cleared");
    tap.is(shown(), 0, "it is empty now");

    let refused = trap_of(|| store(slot, at(&table, READ_WRITE)));
    tap.is(refused, Some((14, 3)), "a writable mapping of a page table faults");
    tap.is(trap_of(|| store(slot, 1 << 51 | READ_ONLY)), Some((14, 3)), "so does a frame beyond the machine");
    tap.is(shown(), 0, "and nothing is written");

    let swapped = || {
        let mut value = wanted;
        // SAFETY: the address is that of the table's entry.
        unsafe { asm!("xchg [{}], {}", in(reg) slot, inout(reg) value) };
        value
    };
    tap.is(swapped(), 0, "xchg returns the old entry");
    tap.is(shown() & 0xfff, READ_WRITE | 4, "and sets the new one");
    let exchange = |old: u64, new: u64| {
        let result: u64;
        // SAFETY: as above.
        unsafe { asm!("lock cmpxchg [{}], {}", in(reg) slot, in(reg) new, inout("rax") old => result) };
        result
    };
    let current = shown();
    tap.is(exchange(1, 0), current, "cmpxchg with a wrong expectation returns the entry");
    tap.is(shown(), current, "and changes nothing");
    tap.is(exchange(current, at(&data, READ_ONLY)), current, "with the right one it returns it too");
    tap.is(shown() & 0xfff, READ_ONLY | 4, "and changes it");

    // SAFETY: as above.
    let half = trap_of(|| unsafe { asm!("mov dword ptr [{}], {:e}", in(reg) slot, in(reg) 0u32) });
    tap.is(half, None, "a write of the lower half passes");
    tap.is(shown() & 0xffff_ffff, 0, "and clears it");
    mmu_update(entry_of(&table, 8), wanted).expect("an ordinary page");
    // SAFETY: as above.
    let and = trap_of(|| unsafe { asm!("lock and qword ptr [{}], {}", in(reg) slot, in(reg) !2u64) });
    tap.is(and, None, "a read-modify-write passes");
    tap.is(shown() & 0xfff, READ_ONLY | 0x40 | 4, "and took the write bit away");
    // SAFETY: as above.
    let set = trap_of(|| unsafe { asm!("lock bts qword ptr [{}], 9", in(reg) slot) });
    tap.is(set, None, "so does a bit instruction");
    tap.is(shown() >> 9 & 1, 1, "and set the bit");

    let l2 = table_page(&[]);
    mmuext(MMUEXT_PIN_L2_TABLE, l2.mfn()).expect("an empty table");
    let upper = trap_of(|| store(l2.address(), at(&table, 0x67)));
    tap.is(upper, Some((14, 3)), "upper tables are not written to in this way");
    mmuext(MMUEXT_UNPIN_TABLE, l2.mfn()).expect("pinned above");
    make_writable(&l2).expect("an ordinary page");

    let plain = page();
    guests::make_read_only(&plain);
    tap.is(trap_of(|| store(plain.address(), 1)), Some((14, 3)), "a page that is no table faults as ever");
    make_writable(&plain).expect("an ordinary page");

    tap.is(vm_assist(VMASST_CMD_DISABLE, VMASST_TYPE_WRITABLE_PAGETABLES), Ok(()), "the assist can be disabled");
    // The initial domain has it anyway.
    let refused = (!guest_pv::boot().is_initial_domain()).then_some((14, 3));
    tap.is(trap_of(|| store(slot, 0)), refused, "which ends it for all domains but the initial one");
    tap.is(vm_assist(VMASST_CMD_ENABLE, 63), Err(Errno::EINVAL), "an assist that does not exist");
    tap.is(vm_assist(2, VMASST_TYPE_ARCHITECTURAL_IOPL), Err(Errno::ENOSYS), "a command that does not exist");
    mmuext(MMUEXT_UNPIN_TABLE, table.mfn()).expect("pinned above");
    make_writable(&table).expect("an ordinary page");
}
