//! Privileged instructions: those that are emulated, and those that fault.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Halves and bytes are cut out of words on purpose.
#![allow(unsafe_code)] // Each claim is an instruction.

use core::arch::asm;
use guest_pv::mem::table;
use guest_pv::tap::Tap;
use guest_pv::{call::traps as calls, events};
use guests::{load, op, page, trap_of};
use xen_abi::hypercall::HYPERVISOR_PHYSDEV_OP;

guest_pv::test!(run);

const GP: Option<(u64, u64)> = Some((13, 0));

/// An instruction as a body for `trap_of`.
macro_rules! instruction {
    ($($text:tt)*) => {
        // SAFETY: the hypervisor emulates it or makes it a fault.
        || unsafe { asm!($($text)*) }
    };
}

fn run(tap: &mut Tap) {
    control_registers(tap);
    machine_registers(tap);
    cpuid(tap);
    ports(tap);
    debug_registers(tap);
    refused(tap);
}

fn control_registers(tap: &mut Tap) {
    let cr0 = || {
        let value: u64;
        // SAFETY: a read that is emulated.
        unsafe { asm!("mov {}, cr0", out(reg) value) };
        value
    };
    tap.is(cr0() & 0x8000_0001, 0x8000_0001, "CR0: protected mode and paging");
    tap.is(cr0() & 8, 0, "CR0: TS is clear");
    calls::fpu_taskswitch(true).expect("always");
    tap.is(cr0() & 8, 8, "CR0: TS is set by fpu_taskswitch");
    tap.is(trap_of(instruction!("clts")), None, "clts");
    tap.is(cr0() & 8, 0, "CR0: TS is clear again");
    let set = cr0() | 8;
    tap.is(trap_of(instruction!("mov cr0, {}", in(reg) set)), None, "CR0 can be written to change TS");
    tap.is(cr0() & 8, 8, "CR0: TS is set");
    tap.is(trap_of(instruction!("mov cr0, {}", in(reg) set & !8)), None, "and back");
    tap.is(trap_of(instruction!("mov cr0, {}", in(reg) set & !1)), GP, "CR0: nothing else may change");

    let cr2: u64;
    let _ = trap_of(|| _ = load(0x1238));
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, cr2", out(reg) cr2) };
    tap.is((cr2, events::cr2()), (0x1238, 0x1238), "CR2: the last page fault");
    tap.is(trap_of(instruction!("mov cr2, {}", in(reg) 0x5678u64)), None, "CR2 can be written");
    tap.is(events::cr2(), 0x5678, "which is the same place");

    let cr3: u64;
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, cr3", out(reg) cr3) };
    tap.is(cr3, table::root().0 << 12, "CR3: the kernel's root");
    tap.is(trap_of(instruction!("mov cr3, {}", in(reg) cr3)), None, "CR3 can be loaded with it");
    let bad = page().mfn().0 << 12;
    tap.is(trap_of(instruction!("mov cr3, {}", in(reg) bad)), GP, "but not with an ordinary page");

    let cr4: u64;
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, cr4", out(reg) cr4) };
    tap.is(cr4 >> 5 & 1, 1, "CR4: PAE");
    tap.is(cr4 & (1 << 20 | 1 << 21 | 1 << 13 | 1 << 14), 0, "CR4: no SMEP, SMAP, VMX, SMX");
    tap.is(trap_of(instruction!("mov cr4, {}", in(reg) cr4)), None, "CR4 can be written as it is");
    let disable = trap_of(instruction!("mov {}, cr8", out(reg) _));
    tap.is(disable.map(|(vector, _)| vector == 13 || vector == 6), Some(true), "CR8 is not for PV guests");
}

fn rdmsr(number: u32) -> Result<u64, (u64, u64)> {
    let (mut low, mut high) = (0u32, 0u32);
    let fault = trap_of(|| {
        let (a, d): (u32, u32);
        // SAFETY: a read that is emulated.
        unsafe { asm!("rdmsr", in("ecx") number, out("eax") a, out("edx") d) };
        (low, high) = (a, d);
    });
    fault.map_or(Ok(u64::from(high) << 32 | u64::from(low)), Err)
}

fn wrmsr(number: u32, value: u64) -> Option<(u64, u64)> {
    // SAFETY: a write that is emulated.
    trap_of(|| unsafe { asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32) })
}

fn machine_registers(tap: &mut Tap) {
    let efer = rdmsr(0xc000_0080).unwrap_or(0);
    tap.is(efer & 0x500, 0x500, "EFER: long mode");
    tap.is(efer & 1, 1, "EFER: syscall");
    tap.is(wrmsr(0xc000_0080, efer), None, "EFER can be written as it is");
    tap.is(wrmsr(0xc000_0080, efer ^ 1), GP, "EFER cannot be changed");
    tap.is(rdmsr(0x277), Ok(0x0000_0501_0007_0406), "PAT is Xen's");
    let mut data = page();
    data.bytes_mut()[..8].copy_from_slice(&0x2222u64.to_le_bytes());
    for (name, msr) in [("FS_BASE", 0xc000_0100u32), ("GS_BASE", 0xc000_0101)] {
        tap.is(wrmsr(msr, data.address()), None, name);
        tap.is(rdmsr(msr), Ok(data.address()), "reads back");
        tap.is(wrmsr(msr, 1 << 47), GP, "is canonical");
    }
    let value: u64;
    // SAFETY: the base is that of the page.
    unsafe { asm!("mov {}, fs:[0]", out(reg) value) };
    tap.is(value, 0x2222, "FS_BASE is used");
    tap.is(wrmsr(0xc000_0102, 0x7000), None, "SHADOW_GS_BASE");
    tap.is(rdmsr(0xc000_0102), Ok(0x7000), "reads back");
    for msr in [0xc000_0100u32, 0xc000_0101, 0xc000_0102] {
        wrmsr(msr, 0);
    }
    tap.is(rdmsr(0x1b).map(|base| base & 0xffff_f000), Ok(0xfee0_0000), "APIC_BASE can be read");
    tap.is(rdmsr(0xdead), Err((13, 0)), "an MSR that does not exist");
    tap.is(wrmsr(0xdead, 0), GP, "nor can it be written");
    tap.is(wrmsr(0xc000_0081, 0), GP, "STAR is the hypervisor's");
    tap.is(wrmsr(0xc000_0082, 0), GP, "LSTAR is the hypervisor's");
}

/// CPUID as the processor answers, or as Xen does with its prefix.
fn cpuid_of(leaf: u32, forced: bool) -> [u32; 4] {
    let (a, b, c, d): (u32, u32, u32, u32);
    // SAFETY: reads processor identification; rbx is the compiler's.
    unsafe {
        if forced {
            asm!("mov {save:r}, rbx", ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid", "xchg {save:r}, rbx",
                save = out(reg) b, inout("eax") leaf => a, inout("ecx") 0 => c, out("edx") d);
        } else {
            asm!("mov {save:r}, rbx", "cpuid", "xchg {save:r}, rbx",
                save = out(reg) b, inout("eax") leaf => a, inout("ecx") 0 => c, out("edx") d);
        }
    }
    [a, b, c, d]
}

fn cpuid(tap: &mut Tap) {
    let [max, b, c, d] = cpuid_of(0x4000_0000, true);
    tap.is([b, c, d], [0x566e_6558, 0x6558_4d4d, 0x4d4d_566e], "leaf 0x40000000 says XenVMMXenVMM");
    tap.ok(max >= 0x4000_0003, "there are more leaves");
    tap.is(cpuid_of(0x4000_0001, true)[0], 0x4_0011, "leaf 0x40000001: the version");
    let [_, features, ..] = cpuid_of(0x4000_0002, true);
    tap.is(features, 0x4000_0000, "leaf 0x40000002: the MSR of the hypercall page");
    let [_, _, ecx, edx] = cpuid_of(1, true);
    tap.is(ecx >> 31 & 1, 1, "leaf 1: there is a hypervisor");
    tap.is(ecx >> 5 & 1, 0, "leaf 1: no VMX");
    tap.is(ecx >> 21 & 1, 0, "leaf 1: no x2APIC");
    tap.is(ecx >> 17 & 1, 0, "leaf 1: no PCID");
    tap.is(ecx >> 24 & 1, 0, "leaf 1: no TSC deadline");
    tap.is(edx >> 3 & 1, 0, "leaf 1: no PSE");
    tap.is(edx >> 13 & 1, 0, "leaf 1: no global pages");
    tap.is(edx >> 6 & 1, 1, "leaf 1: PAE");
    tap.is(ecx >> 27 & 1, ecx >> 26 & 1, "leaf 1: OSXSAVE is shown with XSAVE");
    let [_, ebx, ecx7, _] = cpuid_of(7, true);
    tap.is(ebx >> 7 & 1 | ebx >> 20 & 1 | ebx >> 10 & 1, 0, "leaf 7: no SMEP, SMAP, INVPCID");
    tap.is(ecx7 >> 2 & 1 | ecx7 >> 3 & 1 | ecx7 >> 16 & 1, 0, "leaf 7: no UMIP, PKU, LA57");
    let [_, _, ecx81, edx81] = cpuid_of(0x8000_0001, true);
    tap.is(edx81 >> 29 & 1, 1, "leaf 0x80000001: long mode");
    tap.is(edx81 >> 11 & 1, 1, "leaf 0x80000001: syscall");
    tap.is(edx81 >> 20 & 1, 1, "leaf 0x80000001: NX");
    tap.is(ecx81 >> 2 & 1, 0, "leaf 0x80000001: no SVM");
    tap.is(edx81 >> 26 & 1, 0, "leaf 0x80000001: no 1 GiB pages");
    tap.ok(cpuid_of(1, false)[3] & 1 == 1, "plain cpuid works");
    let ud = instruction!(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6d", "cpuid", out("eax") _, out("ecx") _, out("edx") _);
    tap.is(trap_of(ud), Some((6, 0)), "another prefix is an invalid opcode");
}

fn inb(port: u16) -> Result<u8, (u64, u64)> {
    let mut value = 0;
    let fault = trap_of(|| {
        let byte: u8;
        // SAFETY: the port has no side effects when read.
        unsafe { asm!("in al, dx", in("dx") port, out("al") byte) };
        value = byte;
    });
    fault.map_or(Ok(value), Err)
}

fn ports(tap: &mut Tap) {
    tap.is(inb(0x80).map(drop), Err((13, 0)), "without I/O privilege, a port faults");
    tap.is(trap_of(instruction!("cli")), GP, "so does cli");
    tap.is(trap_of(instruction!("sti")), GP, "and sti");
    let mut iopl = 1u32;
    tap.is(op(HYPERVISOR_PHYSDEV_OP, 6, &mut iopl).is_ok(), true, "set_iopl(1)");
    tap.is(inb(0x80).map(drop), Ok(()), "a port can be read");
    tap.is(trap_of(instruction!("out dx, al", in("dx") 0x80u16, in("al") 0u8)), None, "and written");
    tap.is(inb(0x21), Ok(0xff), "the interrupt controller's are not there");
    tap.is(inb(0x3f8 + 7), Ok(0xff), "nor is the console's");
    tap.is(trap_of(instruction!("cli")), None, "cli does nothing");
    tap.is(trap_of(instruction!("sti")), None, "nor does sti");
    iopl = 4;
    tap.is(op(HYPERVISOR_PHYSDEV_OP, 6, &mut iopl).is_err(), true, "there are four levels");
    iopl = 0;
    tap.is(op(HYPERVISOR_PHYSDEV_OP, 6, &mut iopl).is_ok(), true, "set_iopl(0)");
    tap.is(inb(0x80).map(drop), Err((13, 0)), "and the port faults again");
}

fn debug_registers(tap: &mut Tap) {
    let mut data = page();
    let watched = data.address() + 16;
    tap.is(calls::set_debugreg(0, watched), Ok(()), "a watched address");
    // Local enable, on writes, 8 bytes.
    tap.is(calls::set_debugreg(7, 1 | 0b1001 << 16), Ok(()), "is enabled");
    tap.is(trap_of(|| data.bytes_mut()[0] = 1), None, "a write elsewhere does not trap");
    tap.is(trap_of(|| guests::store(watched, 1)), Some((1, 0)), "a write there does");
    tap.is(calls::get_debugreg(6) & 15, 1, "DR6 says which");
    tap.is(calls::set_debugreg(6, 0), Ok(()), "it is cleared");
    tap.is(calls::set_debugreg(7, 0), Ok(()), "the watch is disabled");
    tap.is(trap_of(|| guests::store(watched, 1)), None, "and writes do not trap");
    tap.is(calls::get_debugreg(0), watched, "the address can be read");
    let dr0: u64;
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, dr0", out(reg) dr0) };
    tap.is(dr0, watched, "by the instruction too");
    tap.ok(calls::set_debugreg(0, 0xffff_8300_0000_0000).is_err(), "nobody watches the hypervisor");
    tap.ok(calls::set_debugreg(4, 0).is_err() || calls::set_debugreg(8, 0).is_err(), "there are no others");
    calls::set_debugreg(0, 0).expect("any address of the guest's");
}

fn refused(tap: &mut Tap) {
    let memory = [0u64; 2];
    let pointer = memory.as_ptr();
    tap.is(trap_of(instruction!("lgdt [{}]", in(reg) pointer)), GP, "lgdt");
    tap.is(trap_of(instruction!("lidt [{}]", in(reg) pointer)), GP, "lidt");
    tap.is(trap_of(instruction!("lldt {0:x}", in(reg) 0u16)), GP, "lldt");
    tap.is(trap_of(instruction!("ltr {0:x}", in(reg) 0u16)), GP, "ltr");
    tap.is(trap_of(instruction!("swapgs")), GP, "swapgs");
    tap.is(trap_of(instruction!("sysretq", in("rcx") 0u64)), GP, "sysret");
    tap.is(trap_of(instruction!("invd")), GP, "invd");
    tap.is(trap_of(instruction!("rdtsc", out("eax") _, out("edx") _)), None, "rdtsc works");
    tap.is(trap_of(instruction!("invlpg [{}]", in(reg) pointer)), GP, "invlpg");
    tap.is(trap_of(instruction!("wbinvd")), None, "wbinvd is emulated");
    // #GP where the hypervisor has switched VT-x on (SDM vol. 3C, chapter 31, VMCALL: in VMX root operation, CPL > 0).
    let invalid = trap_of(instruction!("vmcall"));
    tap.ok(matches!(invalid, Some((6, 0)) | GP), "vmcall is no way in for PV guests");
}
