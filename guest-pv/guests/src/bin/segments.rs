//! Descriptors: GDT, LDT, `update_descriptor`, segment bases, and the FPU's TS bit.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Selectors are loaded by hand.

use core::arch::asm;
use guest_pv::call::traps::{fpu_taskswitch, set_segment_base};
use guest_pv::mem::Frame;
use guest_pv::tap::Tap;
use guests::{address_of, call, entry_of, load, make_read_only, make_writable, page, trap_of};
use xen_abi::Errno;
use xen_abi::arch_x86::{SEGBASE_FS, SEGBASE_GS_KERNEL, SEGBASE_GS_USER, SEGBASE_GS_USER_SEL};
use xen_abi::hypercall::*;
use xen_abi::mmu::{MMUEXT_SET_LDT, MmuextOp};

guest_pv::test!(run);

/// A flat 64-bit code segment, a flat data segment, both DPL 3.
const CODE: u64 = 0x00af_fb00_0000_ffff;
const DATA: u64 = 0x00cf_f300_0000_ffff;

fn run(tap: &mut Tap) {
    flat_segments(tap);
    gdt(tap);
    ldt(tap);
    bases(tap);
    fpu(tap);
}

/// The access rights of a selector, when it is visible here.
fn rights(selector: u16) -> Option<u32> {
    let (rights, zero): (u32, u8);
    // SAFETY: reads a descriptor.
    unsafe {
        asm!("lar {0:e}, {1:e}", "setz {2}", out(reg) rights, in(reg) u32::from(selector), out(reg_byte) zero);
    }
    (zero != 0).then_some(rights & 0xff_ff00)
}

fn load_fs(selector: u16) -> Option<(u64, u64)> {
    // SAFETY: fs is not used by the guest.
    trap_of(|| unsafe { asm!("mov fs, {0:e}", in(reg) u32::from(selector)) })
}

fn flat_segments(tap: &mut Tap) {
    let (cs, ss): (u16, u16);
    // SAFETY: reads registers.
    unsafe { asm!("mov {0:x}, cs", "mov {1:x}, ss", out(reg) cs, out(reg) ss) };
    tap.is((cs, ss), (0xe033, 0xe02b), "the kernel runs with the flat segments, at ring 3");
    tap.is(rights(0xe033).map(|rights| rights >> 8 & 0xfa), Some(0xfa), "64-bit code, DPL 3");
    tap.is(rights(0xe023).map(|rights| rights >> 8 & 0xfa), Some(0xfa), "32-bit code, DPL 3");
    tap.is(rights(0xe02b).map(|rights| rights >> 8 & 0xf2), Some(0xf2), "data, DPL 3");
    tap.is(rights(8), None, "there is nothing below without a GDT");
    tap.is(load_fs(0xe02b), None, "the flat data segment can be loaded");
    tap.is(load_fs(0), None, "so can null");
    tap.is(load_fs(0x10), Some((13, 0x10)), "a descriptor that is not there faults");
}

fn set_gdt(frames: &mut [u64], entries: u64) -> Result<u64, Errno> {
    call(HYPERVISOR_SET_GDT, [address_of(frames), entries])
}

fn put(table: &mut Frame, index: usize, descriptor: u64) {
    table.bytes_mut()[index * 8..index * 8 + 8].copy_from_slice(&descriptor.to_le_bytes());
}

fn gdt(tap: &mut Tap) {
    let mut table = page();
    put(&mut table, 2, DATA);
    put(&mut table, 3, CODE);
    let mut frames = [table.mfn().0; 16];
    tap.is(set_gdt(&mut frames[..1], 512), Err(Errno::EINVAL), "a frame that is mapped writable is no GDT");
    make_read_only(&table);
    tap.is(set_gdt(&mut frames[..1], 512), Ok(0), "a read-only one is");
    tap.is(make_writable(&table), Err(Errno::EBUSY), "it cannot be mapped writable");
    tap.is(load_fs(0x13), None, "its data segment can be loaded");
    tap.is(rights(0x1b).map(|rights| rights >> 8 & 0xfa), Some(0xfa), "its code segment is there");
    tap.is(load_fs(0x23), Some((13, 0x20)), "an empty entry faults");
    tap.is(rights(0xe033).map(|rights| rights >> 8 & 0xfa), Some(0xfa), "the flat segments stay");
    tap.is(guests::mmuext(0, table.mfn()), Err(Errno::EINVAL), "a GDT is no page table");

    let update =
        |index: u64, descriptor: u64| call(HYPERVISOR_UPDATE_DESCRIPTOR, [entry_of(&table, index), descriptor]);
    tap.is(update(4, DATA), Ok(0), "update_descriptor");
    tap.is(load_fs(0x23), None, "its segment can be loaded");
    tap.is(update(4, 0), Ok(0), "it is emptied");
    tap.is(load_fs(0x23), Some((13, 0x20)), "and faults");
    tap.is(update(5, DATA & !(3 << 45)), Ok(0), "a descriptor of DPL 0");
    tap.is(rights(0x2b).map(|rights| rights >> 13 & 3), Some(3), "gets DPL 3");
    for (descriptor, want, what) in [
        (0x0000_8900_0000_0000, Err(Errno::EINVAL), "a TSS is refused"),
        (0x0000_8e00_0000_0000, Err(Errno::EINVAL), "an interrupt gate is refused"),
        (0x0000_8f00_0000_0000, Err(Errno::EINVAL), "a trap gate is refused"),
        (0x0000_8200_0000_0000, Err(Errno::EINVAL), "an LDT is refused"),
        (0x0000_0000_0000_1234, Ok(0), "what is not present is not looked at"),
        (0, Ok(0), "nothing"),
    ] {
        tap.is(update(6, descriptor), want, what);
    }
    let ordinary = page();
    let written = call(HYPERVISOR_UPDATE_DESCRIPTOR, [entry_of(&ordinary, 1), DATA]);
    tap.is(written, Ok(0), "update_descriptor writes to an ordinary page");
    tap.is(load(ordinary.address() + 8), DATA, "what it is told");
    tap.is(
        call(HYPERVISOR_UPDATE_DESCRIPTOR, [entry_of(&table, 1) + 4, DATA]),
        Err(Errno::EINVAL),
        "not across entries",
    );
    tap.is(
        call(HYPERVISOR_UPDATE_DESCRIPTOR, [1 << 52, DATA]),
        Err(Errno::EINVAL),
        "not to a frame that does not exist",
    );

    tap.is(set_gdt(&mut frames, 7169), Err(Errno::EINVAL), "7168 entries are the limit");
    tap.is(set_gdt(&mut frames, 7168), Ok(0), "the same frame fourteen times");
    let mut missing = [1 << 40];
    tap.is(set_gdt(&mut missing, 1), Err(Errno::EINVAL), "a frame that does not exist");
    tap.is(load_fs(0x13), None, "the old GDT is in use then");
    tap.is((load_fs(0), set_gdt(&mut frames, 0)), (None, Ok(0)), "no GDT at all");
    tap.is(load_fs(0x13), Some((13, 0x10)), "its segments are gone");
    tap.is(make_writable(&table), Ok(()), "the frame is ordinary again");

    // The frame is validated as a GDT.
    for (descriptor, want, what) in [
        (0x0000_8900_0000_0000, Err(Errno::EINVAL), "a GDT with a TSS is refused"),
        (0x0000_8e00_0000_0000, Err(Errno::EINVAL), "a GDT with a gate is refused"),
        (DATA & !(3 << 45), Ok(0), "a GDT with a descriptor of DPL 0"),
    ] {
        put(&mut table, 7, descriptor);
        make_read_only(&table);
        tap.is(set_gdt(&mut frames[..1], 512), want, what);
        set_gdt(&mut frames, 0).expect("no GDT at all");
        make_writable(&table).expect("an ordinary page");
    }
}

fn set_ldt(base: u64, entries: u64) -> Result<u64, Errno> {
    let mut op = MmuextOp { cmd: MMUEXT_SET_LDT, _pad: 0, arg1: base, arg2: entries };
    call(HYPERVISOR_MMUEXT_OP, [address_of(&mut op), 1, 0, 0x7ff0])
}

fn ldt(tap: &mut Tap) {
    let mut table = page();
    put(&mut table, 1, DATA);
    tap.is(load_fs(0x0f), Some((13, 0x0c)), "without an LDT, its selectors fault");
    make_read_only(&table);
    tap.is(set_ldt(table.address(), 512), Ok(0), "an LDT");
    tap.is(load_fs(0x0f), None, "its segment can be loaded");
    tap.is(load_fs(0x17), Some((13, 0x14)), "an empty entry faults");
    tap.is(make_writable(&table), Err(Errno::EBUSY), "it cannot be mapped writable");
    tap.is(call(HYPERVISOR_UPDATE_DESCRIPTOR, [entry_of(&table, 2), DATA]), Ok(0), "update_descriptor");
    tap.is(load_fs(0x17), None, "its segment can be loaded");
    tap.is(set_ldt(table.address() + 8, 1), Err(Errno::EINVAL), "an LDT starts at a page");
    tap.is(set_ldt(table.address(), 8193), Err(Errno::EINVAL), "and has 8192 entries");
    tap.is(set_ldt(0xffff_8300_0000_0000, 1), Err(Errno::EINVAL), "and is not in the hypervisor");
    tap.is((load_fs(0), set_ldt(0, 0)), (None, Ok(0)), "no LDT");
    tap.is(load_fs(0x0f), Some((13, 0x0c)), "its segments are gone");
    tap.is(make_writable(&table), Ok(()), "the frame is ordinary again");
    // An LDT in writable memory is found out when it is used.
    tap.is(set_ldt(table.address(), 512), Ok(0), "an LDT that is mapped writable");
    tap.is(load_fs(0x0f).map(|(vector, _)| vector), Some(14), "faults when it is used");
    tap.is(set_ldt(0, 0), Ok(0), "no LDT");
}

fn bases(tap: &mut Tap) {
    let mut data = page();
    data.bytes_mut()[..8].copy_from_slice(&0x1111u64.to_le_bytes());
    let through_fs = || {
        let value: u64;
        // SAFETY: the base is that of the page.
        unsafe { asm!("mov {}, fs:[0]", out(reg) value) };
        value
    };
    let through_gs = || {
        let value: u64;
        // SAFETY: as above.
        unsafe { asm!("mov {}, gs:[0]", out(reg) value) };
        value
    };
    // SAFETY: neither base is used by the guest, here and below.
    let set = |which, base| unsafe { set_segment_base(which, base) };
    tap.is(set(SEGBASE_FS, data.address()), Ok(()), "the base of fs");
    tap.is(through_fs(), 0x1111, "is used");
    tap.is(set(SEGBASE_GS_KERNEL, data.address()), Ok(()), "the kernel's base of gs");
    tap.is(through_gs(), 0x1111, "is used");
    tap.is(set(SEGBASE_GS_USER, 0x5000), Ok(()), "the user's base of gs");
    tap.is(through_gs(), 0x1111, "is not used here");
    tap.is(set(SEGBASE_FS, 1 << 47), Err(Errno::EINVAL), "a base that is not canonical");
    tap.is(set(SEGBASE_GS_KERNEL, 1 << 63), Err(Errno::EINVAL), "nor for gs");
    tap.is(set(99, 0), Err(Errno::EINVAL), "a segment that does not exist");
    tap.is(set(SEGBASE_GS_USER_SEL, 0), Ok(()), "the user's gs is null");
    tap.is(set(SEGBASE_GS_USER_SEL, 0x13), Ok(()), "a user's gs that is not there is null too");
    tap.is(through_fs(), 0x1111, "the base of fs is as before");
    set(SEGBASE_FS, 0).expect("zero is canonical");
    set(SEGBASE_GS_KERNEL, 0).expect("zero is canonical");
    set(SEGBASE_GS_USER, 0).expect("zero is canonical");
}

fn fpu(tap: &mut Tap) {
    // SAFETY: the FPU holds nothing.
    let use_it = || trap_of(|| unsafe { asm!("fnop") });
    tap.is(fpu_taskswitch(true), Ok(()), "TS is set");
    tap.is(use_it(), Some((7, 0)), "the FPU traps");
    tap.is(use_it(), None, "once: the trap clears TS");
    tap.is(fpu_taskswitch(true), Ok(()), "TS is set again");
    tap.is(fpu_taskswitch(false), Ok(()), "and cleared");
    tap.is(use_it(), None, "the FPU does not trap");
}
