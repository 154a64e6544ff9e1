//! What every hypercall and every sub-operation answers to harmless and to bad arguments. It claims little: the answers
//! are values, to be compared between two hypervisors (`cargo xtask test conformance --compare`).
//!
//! Left out are calls that end or stop the caller when they succeed.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Words are cut out of numbers on purpose.
#![allow(unsafe_code)] // A survey of calls with arguments that make no sense: see the head of the library.

use guest_pv::alloc::{format, string::String};
use guest_pv::call::{domctl, raw};
use guest_pv::mem::Frame;
use guest_pv::tap::Tap;
use guest_pv::{println, traps};
use guests::domain::small;
use guests::values::Line;
use guests::{make_read_only, make_writable, page};
use xen_abi::domctl::XEN_DOMCTL_INTERFACE_VERSION;
use xen_abi::errno::{Errno, is_error};
use xen_abi::hypercall::*;
use xen_abi::ids::DomId;
use xen_abi::platform::XENPF_INTERFACE_VERSION;
use xen_abi::sysctl::XEN_SYSCTL_INTERFACE_VERSION;

guest_pv::test!(run);

const SELF: u64 = 0x7ff0;
/// A domain that there is not.
const ABSENT: u16 = 77;

/// What the pointer argument of a call may be.
const POINTERS: [&str; 7] = ["null", "zero", "ones", "locked", "unmapped", "hypervisor", "noncanonical"];

/// The pages that pointers point to.
struct Pages {
    buffer: Frame,
    locked: Frame,
}

impl Pages {
    /// Fills the buffer and returns the pointer of that name. `head` stands at the start of all that can be written.
    fn pointer(&mut self, name: &str, head: &[u32]) -> u64 {
        let fill = if name == "ones" { 0xff } else { 0 };
        let bytes = self.buffer.bytes_mut();
        bytes.fill(fill);
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(head) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        match name {
            "zero" | "ones" => self.buffer.address(),
            "locked" => self.locked.address(),
            "unmapped" => 0x1000,
            "hypervisor" => 0xffff_82d0_4000_0000,
            "noncanonical" => 1 << 47,
            _ => 0,
        }
    }
}

/// A call: which argument is the pointer, and the others.
struct Probe<'a> {
    name: &'a str,
    number: u32,
    args: [u64; 5],
    pointer: usize,
    /// What the argument begins with.
    head: &'a [u32],
    /// Pointers that would make the call succeed and end us.
    without: &'a [&'a str],
}

/// What a hypercall answered, in words.
fn answer(result: u64) -> String {
    match Errno::from_ret(result) {
        Some(errno) => errno.name().into(),
        None if is_error(result) => format!("{}", result.cast_signed()),
        // How much it is may be a matter of the machine.
        None if result == 0 => "0".into(),
        None => "more".into(),
    }
}

fn ask(number: u32, args: [u64; 5]) -> u64 {
    // SAFETY: see the head of the library.
    unsafe { raw(number.into(), args) }
}

impl Probe<'_> {
    fn run(&self, pages: &mut Pages) {
        let mut line = Line::new(self.name);
        for name in POINTERS {
            if self.without.contains(&name) {
                continue;
            }
            let mut args = self.args;
            args[self.pointer] = pages.pointer(name, self.head);
            line.value(name, &answer(ask(self.number, args)));
        }
        line.print();
    }
}

/// Sub-operations `first..=last` of a call of the shape `call(command, pointer, more...)`.
struct Family {
    name: &'static str,
    number: u32,
    last: u32,
    /// Where the pointer is, and the other arguments (the command is the first).
    pointer: usize,
    args: [u64; 5],
    /// Sub-operations with pointers that are left out.
    without: &'static [(u32, &'static [&'static str])],
}

const ALL: &[&str] = &POINTERS;
/// Pointers to something that can be read.
const GOOD: &[&str] = &["zero", "ones", "locked"];

const fn family(name: &'static str, number: u32, last: u32) -> Family {
    Family { name, number, last, pointer: 1, args: [0; 5], without: &[] }
}

const FAMILIES: &[Family] = &[
    family("memory_op", HYPERVISOR_MEMORY_OP, 30),
    Family {
        // reset and reset_cont close our own ports.
        without: &[(10, &["zero", "locked"]), (14, &["zero", "locked"])],
        ..family("event_channel_op", HYPERVISOR_EVENT_CHANNEL_OP, 16)
    },
    Family { args: [0, 0, 1, 0, 0], ..family("grant_table_op", HYPERVISOR_GRANT_TABLE_OP, 14) },
    Family { args: [0, 0, 0, 0, 0], ..family("grant_table_op none", HYPERVISOR_GRANT_TABLE_OP, 14) },
    Family {
        // block, shutdown, poll without a time, remote_shutdown, shutdown_code, a watchdog that barks at once
        without: &[(1, ALL), (2, GOOD), (3, &["zero", "locked"]), (4, GOOD), (5, GOOD), (6, GOOD)],
        ..family("sched_op", HYPERVISOR_SCHED_OP, 9)
    },
    Family {
        // down, send_nmi
        without: &[(2, ALL), (11, ALL)],
        pointer: 2,
        ..family("vcpu_op", HYPERVISOR_VCPU_OP, 15)
    },
    Family { pointer: 2, args: [0, 1, 0, 0, 0], ..family("vcpu_op absent", HYPERVISOR_VCPU_OP, 15) },
    Family { pointer: 2, args: [0, 8192, 0, 0, 0], ..family("vcpu_op 8192", HYPERVISOR_VCPU_OP, 15) },
    family("physdev_op", HYPERVISOR_PHYSDEV_OP, 32),
    family("xen_version", HYPERVISOR_XEN_VERSION, 12),
    family("callback_op", HYPERVISOR_CALLBACK_OP, 3),
    family("hvm_op", HYPERVISOR_HVM_OP, 27),
    family("nmi_op", HYPERVISOR_NMI_OP, 3),
    family("xsm_op", HYPERVISOR_XSM_OP, 2),
    family("xenpmu_op", HYPERVISOR_XENPMU_OP, 8),
    family("xenoprof_op", HYPERVISOR_XENOPROF_OP, 16),
    // The first ends in the crash kernel, if there is one; Xen believes what is in an image.
    Family { without: &[(0, ALL), (1, &["ones"]), (4, &["ones"])], ..family("kexec_op", HYPERVISOR_KEXEC_OP, 7) },
    family("argo_op", HYPERVISOR_ARGO_OP, 6),
    family("hypfs_op", HYPERVISOR_HYPFS_OP, 3),
    family("tmem_op", HYPERVISOR_TMEM_OP, 1),
    Family { pointer: 2, args: [ABSENT as u64, 1, 0, 0, 0], ..family("dm_op", HYPERVISOR_DM_OP, 0) },
    Family { pointer: 0, ..family("mca", HYPERVISOR_MCA, 0) },
    Family { pointer: 2, args: [0, 0, 0, 0, 0], ..family("console_io none", HYPERVISOR_CONSOLE_IO, 3) },
    Family { pointer: 0, args: [0, 0, 0, 0, 0], ..family("set_gdt 0", HYPERVISOR_SET_GDT, 0) },
    Family { pointer: 0, args: [0, 1, 0, 0, 0], ..family("set_gdt 1", HYPERVISOR_SET_GDT, 0) },
    Family { pointer: 0, args: [0, 7000, 0, 0, 0], ..family("set_gdt 7000", HYPERVISOR_SET_GDT, 0) },
    Family { pointer: 0, args: [0, 7169, 0, 0, 0], ..family("set_gdt 7169", HYPERVISOR_SET_GDT, 0) },
    Family { pointer: 0, args: [0, 0, 0, 0, 0], ..family("multicall 0", HYPERVISOR_MULTICALL, 0) },
    Family {
        pointer: 0,
        // An empty entry is set_trap_table, which would forget our handlers.
        without: &[(0, &["zero", "locked"])],
        args: [0, 1, 0, 0, 0],
        ..family("multicall 1", HYPERVISOR_MULTICALL, 0)
    },
];

fn families(pages: &mut Pages) {
    for family in FAMILIES {
        for command in 0..=family.last {
            let mut args = family.args;
            if family.pointer != 0 {
                args[0] = command.into();
            }
            let without = family.without.iter().find(|(left_out, _)| *left_out == command).map_or(&[][..], |(_, w)| *w);
            let name = &format!("{}.{command}", family.name);
            Probe { name, number: family.number, args, pointer: family.pointer, head: &[], without }.run(pages);
        }
    }
}

/// Calls whose argument begins with command and interface version, then (`domctl`) a domain.
fn versioned(pages: &mut Pages) {
    let call = |pages: &mut Pages, name: &str, number, head: &[u32], without: &[&str]| {
        Probe { name, number, args: [0; 5], pointer: 0, head, without }.run(pages);
    };
    for (name, number, version) in [
        ("domctl", HYPERVISOR_DOMCTL, XEN_DOMCTL_INTERFACE_VERSION),
        ("sysctl", HYPERVISOR_SYSCTL, XEN_SYSCTL_INTERFACE_VERSION),
        ("platform_op", HYPERVISOR_PLATFORM_OP, XENPF_INTERFACE_VERSION),
    ] {
        for wrong in [0, version - 1, version + 1] {
            call(pages, &format!("{name} version {wrong:#x}"), number, &[3, wrong, 0], &[]);
        }
    }
    const NOT_POINTERS: &[&str] = &["null", "locked", "unmapped", "hypervisor", "noncanonical"];
    for command in 0..=31 {
        let head = [command, XEN_SYSCTL_INTERFACE_VERSION];
        call(pages, &format!("sysctl.{command}"), HYPERVISOR_SYSCTL, &head, NOT_POINTERS);
    }
    for command in 0..=66 {
        // Sleep, CPUs on and off, memory added, idle cores: these change the machine. The wall clock is still needed.
        if !matches!(command, 17 | 51 | 56..=60 | 62) {
            let head = [command, XENPF_INTERFACE_VERSION];
            call(pages, &format!("platform_op.{command}"), HYPERVISOR_PLATFORM_OP, &head, NOT_POINTERS);
        }
    }
    let config = small();
    let fresh = domctl::create_domain(DomId(0), &config);
    println!("# value createdomain={:?}", fresh.map(drop));
    // What would end the fresh domain, or create another.
    let own = |command| matches!(command, 1 | 2);
    for command in 0..=90 {
        for (name, domain) in [("absent", ABSENT), ("idle", 0x7fff), ("self", 0x7ff0)] {
            if !own(command) || name != "self" {
                let head = [command, XEN_DOMCTL_INTERFACE_VERSION, domain.into()];
                let name = format!("domctl.{command} {name}");
                call(
                    pages,
                    &name,
                    HYPERVISOR_DOMCTL,
                    &head,
                    &["ones", "null", "locked", "unmapped", "hypervisor", "noncanonical"],
                );
            }
        }
        if let Ok(domain) = fresh
            && !own(command)
        {
            let head = [command, XEN_DOMCTL_INTERFACE_VERSION, domain.0.into()];
            call(pages, &format!("domctl.{command} fresh"), HYPERVISOR_DOMCTL, &head, NOT_POINTERS);
        }
    }
    if let Ok(domain) = fresh {
        println!("# value destroydomain={:?}", domctl::destroy_domain(domain));
    }
}

/// Calls without a pointer, with numbers that mean something and numbers that do not.
fn numbers() {
    const NUMBERS: [u64; 8] = [0, 1, 2, 7, 32, 0x1000, 1 << 47, u64::MAX];
    for (name, number, which) in [
        ("set_debugreg", HYPERVISOR_SET_DEBUGREG, 9),
        ("get_debugreg", HYPERVISOR_GET_DEBUGREG, 9),
        ("vm_assist enable", HYPERVISOR_VM_ASSIST, 0),
        ("set_segment_base", HYPERVISOR_SET_SEGMENT_BASE, 5),
        ("update_descriptor", HYPERVISOR_UPDATE_DESCRIPTOR, 0),
        ("stack_switch", HYPERVISOR_STACK_SWITCH, 0),
        ("set_callbacks", HYPERVISOR_SET_CALLBACKS, 0),
        ("fpu_taskswitch", HYPERVISOR_FPU_TASKSWITCH, 1),
    ] {
        for first in 0..=which {
            let mut line = Line::new(&format!("{name}.{first}"));
            for second in NUMBERS {
                line.value(&format!("{second:#x}"), &answer(ask(number, [first, second, 0, 0, 0])));
            }
            line.print();
        }
    }
    let mut line = Line::new("vm_assist disable");
    for type_ in 0..=40 {
        line.value(&format!("{type_}"), &answer(ask(HYPERVISOR_VM_ASSIST, [1, type_, 0, 0, 0])));
    }
    line.print();
    let mut line = Line::new("hypercall");
    for number in (43..=47).chain(50..=64).chain([0xff, 0x8000_0000, 0xffff_ffff]) {
        line.value(&format!("{number:#x}"), &answer(ask(number, [0; 5])));
    }
    line.print();
    for va in [0, 0x1000, 1 << 47, 0xffff_8000_0000_0000, 0xffff_8300_0000_0000, u64::MAX] {
        let mut line = Line::new(&format!("update_va_mapping {va:#x}"));
        for (name, entry) in [("none", 0), ("mfn0", 0x7), ("alien", 0xfff_ffff_f007), ("reserved", 1 << 51 | 7)] {
            for flags in [0, 1, 2, 3, 5] {
                line.value(
                    &format!("{name}-{flags}"),
                    &answer(ask(HYPERVISOR_UPDATE_VA_MAPPING, [va, entry, flags, 0, 0])),
                );
            }
            line.value(
                &format!("{name}-other"),
                &answer(ask(HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, [va, entry, 0, ABSENT.into(), 0])),
            );
        }
        line.print();
    }
}

/// Page-table calls: every command with every kind of frame and subject.
fn page_tables(pages: &mut Pages) {
    const SUBJECTS: [(&str, u64); 7] = [
        ("self", SELF),
        ("io", 0x7ff1),
        ("xen", 0x7ff2),
        ("cow", 0x7ff3),
        ("invalid", 0x7ff4),
        ("absent", 77),
        ("0x8000", 0x8000),
    ];
    let data = page();
    let frames = [("0", 0), ("own", data.mfn().0), ("alien", 0xf_ffff), ("beyond", 1 << 40)];
    for command in 0..=22u64 {
        for (subject, domain) in SUBJECTS {
            let mut line = Line::new(&format!("mmuext_op.{command} {subject}"));
            for (name, frame) in frames {
                // A new kernel root, should it be taken, would be our end.
                if command == 5 && name == "own" {
                    continue;
                }
                let pointer = pages.pointer("zero", &[command as u32, 0, frame as u32, (frame >> 32) as u32]);
                line.value(name, &answer(ask(HYPERVISOR_MMUEXT_OP, [pointer, 1, 0, domain, 0])));
            }
            line.print();
        }
    }
    for kind in 0..4u64 {
        for (subject, domain) in
            SUBJECTS.into_iter().chain([("self for self", SELF | (SELF + 1) << 16), ("for absent", 78 << 16)])
        {
            let mut line = Line::new(&format!("mmu_update.{kind} {subject}"));
            for (name, frame) in frames {
                let address = frame << 12 | kind;
                let pointer = pages.pointer("zero", &[address as u32, (address >> 32) as u32]);
                line.value(name, &answer(ask(HYPERVISOR_MMU_UPDATE, [pointer, 1, 0, domain, 0])));
            }
            line.print();
        }
    }
}

/// Counts that are none, one, too many, and those that a continuation would leave.
fn counts(pages: &mut Pages) {
    for (name, number, args, at) in [
        ("mmu_update", HYPERVISOR_MMU_UPDATE, [0, 0, 0, SELF, 0], 1),
        ("mmuext_op", HYPERVISOR_MMUEXT_OP, [0, 0, 0, SELF, 0], 1),
        ("grant map", HYPERVISOR_GRANT_TABLE_OP, [0, 0, 0, 0, 0], 2),
        ("grant unmap", HYPERVISOR_GRANT_TABLE_OP, [1, 0, 0, 0, 0], 2),
        ("grant copy", HYPERVISOR_GRANT_TABLE_OP, [5, 0, 0, 0, 0], 2),
        ("grant query_size", HYPERVISOR_GRANT_TABLE_OP, [6, 0, 0, 0, 0], 2),
        ("multicall", HYPERVISOR_MULTICALL, [0, 0, 0, 0, 0], 1),
        ("console write", HYPERVISOR_CONSOLE_IO, [0, 0, 0, 0, 0], 1),
        ("console read", HYPERVISOR_CONSOLE_IO, [1, 0, 0, 0, 0], 1),
    ] {
        let mut args: [u64; 5] = args;
        for pointer in ["null", "noncanonical"] {
            args[if at == 1 { 0 } else { 1 }] = pages.pointer(pointer, &[]);
            if number == HYPERVISOR_CONSOLE_IO {
                args[0] = u64::from(name == "console read");
                args[2] = pages.pointer(pointer, &[]);
            }
            let mut line = Line::new(&format!("{name} {pointer}"));
            for count in [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32] {
                args[at] = count;
                line.value(&format!("{count:#x}"), &answer(ask(number, args)));
            }
            line.print();
        }
    }
}

fn run(tap: &mut Tap) {
    let mut pages = Pages { buffer: page(), locked: page() };
    make_read_only(&pages.locked);
    families(&mut pages);
    // Among the answers were an empty trap table and callbacks at address 0.
    traps::init();
    versioned(&mut pages);
    numbers();
    traps::init();
    page_tables(&mut pages);
    counts(&mut pages);
    tap.is(make_writable(&pages.locked), Ok(()), "the guest can go on after all of that");
}
