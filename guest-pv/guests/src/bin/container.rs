//! What a kernel in a hardware container finds: CPUID and MSRs, ports that nobody has, control registers, its local APIC as
//! memory and as MSRs, and hypercalls with pointers to nowhere. In a PV domain there is nothing to see of it.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // A kernel's own instructions, some of which fault, and the APIC's registers.
#![allow(clippy::cast_possible_truncation)] // Halves are cut out of words on purpose.

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use guest_pv::call::{hvm, raw};
use guest_pv::tap::Tap;
use guest_pv::{Mode, mem, mode};
use guests::cpu::{rdmsr, wrmsr, xsetbv};
use guests::trap_of;
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;
use xen_abi::multicall::MulticallEntry;

guest_pv::test!(run);

const GP: Option<(u64, u64)> = Some((13, 0));
const APIC_BASE: u32 = 0x1b;
const VECTOR: u8 = 0x41;

fn run(tap: &mut Tap) {
    if mode() == Mode::Pv {
        return tap.skip("a kernel in a hardware container", "a PV domain");
    }
    cpuid(tap);
    registers(tap);
    control_registers(tap);
    ports(tap);
    string_ports(tap);
    pointers(tap);
    multicall(tap);
    apic_as_memory(tap);
    apic_as_msrs(tap);
}

fn cpuid(tap: &mut Tap) {
    let one = __cpuid_count(1, 0);
    tap.ok(one.ecx & 1 << 31 != 0, "CPUID says that there is a hypervisor");
    tap.is(one.ebx >> 24, 0, "CPUID has the APIC's number");
    let xen = __cpuid_count(0x4000_0000, 0);
    let name = [xen.ebx, xen.ecx, xen.edx].map(u32::to_le_bytes).concat();
    tap.ok(name == *b"XenVMMXenVMM" && xen.eax >= 0x4000_0004, "it is Xen's");
    tap.is(__cpuid_count(0x4000_0001, 0).eax, 4 << 16 | 17, "4.17");
    let four = __cpuid_count(0x4000_0004, 0);
    tap.is(four.eax & 0x18, 0x18, "it tells the vCPU and the domain");
    tap.is(four.ebx, 0, "this is vCPU 0");
    tap.is(__cpuid_count(0x4000_0002, 0).eax, 1, "one page of hypercalls, for those who want it");
    tap.ok(one.ecx & 1 << 5 == 0, "no VT-x inside");
    tap.ok(__cpuid_count(0x8000_0001, 0).ecx & 1 << 2 == 0, "no AMD-V inside");
}

fn registers(tap: &mut Tap) {
    for number in [0x1234_5678, 0xc000_1234, 0x480, 0x6_0000] {
        tap.is(rdmsr(number), None, "an MSR that there is not");
        tap.is(wrmsr(number, 0), GP, "nor can it be written");
    }
    tap.is(rdmsr(0xc000_0080).map(|efer| efer & 0xd01), Some(0xd01), "EFER");
    tap.is(wrmsr(0xc000_0080, 1 << 20), GP, "EFER: reserved bits");
    tap.is(rdmsr(0x2ff), Some(0xc06).map(|all: u64| all & !0x400), "memory is write-back where nothing else is said");
    tap.is(wrmsr(0x2ff, 0x801), None, "something else is said");
    tap.is(rdmsr(0x2ff), Some(0x801), "and stays so");
    for value in [0x802, 0x807, 0x1806, 0x906] {
        tap.is(wrmsr(0x2ff, value), GP, "no such type of memory, or a reserved bit");
    }
    tap.is(wrmsr(0x2ff, 0x806), None, "write-back again");
}

// Reserved bits of CR0 and CR4 are the processor's affair, and QEMU's lets them pass.
fn control_registers(tap: &mut Tap) {
    // SAFETY: faults that end the body, or a value that is in force already.
    unsafe {
        let cr4: u64;
        asm!("mov {}, cr4", out(reg) cr4);
        asm!("mov cr4, {}", in(reg) cr4 | 1 << 18);
        tap.is(xsetbv(0, 2), GP, "XCR0: SSE without x87");
        tap.is(xsetbv(7, 1), GP, "no such extended control register");
        tap.is(xsetbv(0, 1), None, "XCR0: x87");
        tap.is(trap_of(|| asm!("invlpg [{}]", in(reg) mem::DIRECT_MAP)), None, "INVLPG");
        tap.is(trap_of(|| asm!("wbinvd")), None, "WBINVD");
        tap.is(trap_of(|| asm!("vmrun rax", in("rax") 0)), Some((6, 0)), "VMRUN is no instruction");
        tap.is(trap_of(|| asm!("ud2")), Some((6, 0)), "neither is UD2");
    }
}

fn ports(tap: &mut Tap) {
    for port in [0x60u16, 0x92, 0x3fd, 0x1234, 0xcfc] {
        let (byte, word, long): (u8, u16, u32);
        // SAFETY: nobody has these ports.
        unsafe {
            asm!("in al, dx", in("dx") port, out("al") byte);
            asm!("in ax, dx", in("dx") port, out("ax") word);
            asm!("in eax, dx", in("dx") port, out("eax") long);
            asm!("out dx, al", in("dx") port, in("al") 0x5au8);
        }
        tap.is((byte, word, long), (u8::MAX, u16::MAX, u32::MAX), "a port that nobody has reads as ones");
    }
}

fn string_ports(tap: &mut Tap) {
    let mut bytes = [0u8; 300];
    let mut left = bytes.len() as u64;
    // SAFETY: the port is nobody's; the array is this function's.
    unsafe { asm!("rep insb", in("dx") 0x1234u16, inout("rdi") bytes.as_mut_ptr() => _, inout("rcx") left) };
    tap.ok(left == 0 && bytes == [0xff; 300], "INS from a port that nobody has fills with ones");
    let mut words = [0u32; 4];
    let mut left = 3u64;
    // SAFETY: as above, from the third word down to the first.
    unsafe {
        let third = words.as_mut_ptr().add(2);
        asm!("std", "rep insd", "cld", in("dx") 0x1234u16, inout("rdi") third => _, inout("rcx") left);
    }
    tap.ok(left == 0 && words == [u32::MAX, u32::MAX, u32::MAX, 0], "downwards, too");
    let mut left = 300u64;
    // SAFETY: as above.
    unsafe { asm!("rep outsb", in("dx") 0x1234u16, inout("rsi") bytes.as_ptr() => _, inout("rcx") left) };
    tap.is(left, 0, "OUTS to it goes nowhere");
}

fn multicall(tap: &mut Tap) {
    const XEN_VERSION: u64 = 17;
    const MULTICALL: u64 = 13;
    let mut calls = [XEN_VERSION, 60, MULTICALL, XEN_VERSION].map(|op| MulticallEntry { op, ..Default::default() });
    // SAFETY: calls that write nothing but their results.
    let result = unsafe { raw(MULTICALL, [calls.as_mut_ptr() as u64, calls.len() as u64]) };
    let results = calls.map(|call| call.result);
    let [enosys, einval] = [Errno::ENOSYS, Errno::EINVAL].map(Errno::as_ret);
    tap.is((result, results), (0, [0x4_0011, enosys, einval, 0x4_0011]), "several calls in one");
}

fn pointers(tap: &mut Tap) {
    const HVM_OP: u64 = 34;
    for pointer in [0, 0x8000_0000_0000, 0xffff_ffff_ffff_fff0] {
        // SAFETY: there is no memory at the address.
        let result = unsafe { raw(HVM_OP, [1, pointer]) };
        tap.is(Errno::from_ret(result), Some(Errno::EFAULT), "a parameter at an address that is not mapped");
    }
    tap.is(hvm::get_param(DomId::SELF, 39), Err(Errno::EINVAL), "no such parameter");
    // SAFETY: no such call.
    tap.is(Errno::from_ret(unsafe { raw(60, [0; 5]) }), Some(Errno::ENOSYS), "no such hypercall");
}

fn apic_read(offset: u64) -> u32 {
    let value;
    // SAFETY: the local APIC's registers, in the direct map.
    unsafe { asm!("mov {:e}, [{}]", out(reg) value, in(reg) mem::DIRECT_MAP + 0xfee0_0000 + offset) };
    value
}

fn apic_write(offset: u64, value: u32) {
    // SAFETY: as above.
    unsafe { asm!("mov [{}], {:e}", in(reg) mem::DIRECT_MAP + 0xfee0_0000 + offset, in(reg) value) };
}

fn apic_as_memory(tap: &mut Tap) {
    tap.is(rdmsr(APIC_BASE), Some(0xfee0_0900), "the APIC is on, and this is the first processor");
    tap.is(apic_read(0x30), 0x5_0014, "its version, and six entries in its table");
    tap.is(apic_read(0x20), 0, "its number");
    tap.is(apic_read(0x80), 0, "the task priority");
    apic_write(0xf0, 0x1ff);
    tap.is(apic_read(0xf0), 0x1ff, "it is switched on");
    apic_write(0x300, 0x4_0000 | u32::from(VECTOR));
    let word = 0x200 + 0x10 * u64::from(VECTOR / 32);
    tap.is(apic_read(word), 1 << (VECTOR % 32), "an interrupt to oneself is requested");
    apic_write(0x80, 0x40);
    tap.is(apic_read(0xa0), 0x40, "the task priority is the processor's");
    apic_write(0x80, 0);
}

fn apic_as_msrs(tap: &mut Tap) {
    if __cpuid_count(1, 0).ecx & 1 << 21 == 0 {
        return tap.skip("the APIC as MSRs", "no x2APIC");
    }
    tap.is(rdmsr(0x802), None, "no MSRs yet");
    tap.is(wrmsr(APIC_BASE, 0xfee0_0500), GP, "no x2APIC that is off");
    tap.is(wrmsr(APIC_BASE, 0xfee0_0d00), None, "x2APIC");
    tap.is(rdmsr(0x802), Some(0), "its number");
    tap.is(rdmsr(0x80d), Some(1), "its logical address");
    tap.is(wrmsr(0x802, 1), GP, "its number stays");
    tap.is(rdmsr(0x80b), None, "EOI cannot be read");
    tap.is(wrmsr(0x80b, 1), GP, "EOI takes 0 only");
    tap.is(wrmsr(0x83f, 0x100), GP, "no vector has nine bits");
    tap.is(wrmsr(0x830, 1 << 20), GP, "the command register's reserved bits");
    tap.is(wrmsr(APIC_BASE, 0xfee0_0900), GP, "not back to memory");
}
