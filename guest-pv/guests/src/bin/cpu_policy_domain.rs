//! The CPU policy as a domain without privileges asks for it: what `cpuid` by way of the hypervisor shows it, leaf by leaf, and
//! that it can neither read nor set policies by control calls.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // The domain's program is instructions.
#![allow(clippy::cast_possible_truncation)] // Halves of words.

use guest_pv::alloc::vec::Vec;
use guest_pv::alloc::{format, vec};
use guest_pv::call::domctl;
use guest_pv::tap::Tap;
use guests::code;
use guests::domain::{ARGUMENTS, CRASHED, Call, End, Tiny, end_of};
use xen_abi::Errno;
use xen_abi::arch_x86::{CpuidLeaf, MsrEntry, XEN_CPUID_NO_SUBLEAF as NO_SUB};
use xen_abi::domctl::{Domctl, XEN_DOMCTL_GET_CPU_POLICY, XEN_DOMCTL_INTERFACE_VERSION, XEN_DOMCTL_SET_CPU_POLICY};
use xen_abi::hypercall::{HYPERVISOR_DOMCTL, HYPERVISOR_SYSCTL};
use xen_abi::ids::DomId;
use xen_abi::sched::SHUTDOWN_POWEROFF;
use xen_abi::sysctl::{Sysctl, XEN_SYSCTL_GET_CPU_FEATURESET, XEN_SYSCTL_GET_CPU_POLICY, XEN_SYSCTL_INTERFACE_VERSION};
use zerocopy::{FromZeros, IntoBytes};

guest_pv::test!(run);

/// The most leaves that a domain can tell of: their words fill its page.
const MOST: usize = 256;

fn run(tap: &mut Tap) {
    seen(tap);
    beyond(tap);
    refused(tap);
    registers(tap);
}

/// A domain that asks for the leaves in its page of arguments, eight bytes each, and writes down four words for each.
fn asker() -> Tiny {
    Tiny::new(code!(
        "mov r12d, 0x406000",
        "mov r13d, 0x402000",
        "2:",
        "mov rax, [r12]",
        "cmp rax, -1",
        "je 3f",
        "mov eax, [r12]",
        "mov ecx, [r12 + 4]",
        ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2",
        "mov [r13], eax",
        "mov [r13 + 4], ebx",
        "mov [r13 + 8], ecx",
        "mov [r13 + 12], edx",
        "add r12, 8",
        "add r13, 16",
        "jmp 2b",
        "3:",
        "push 0",
        "mov edi, 2",
        "mov rsi, rsp",
        "mov eax, 29",
        "syscall",
    ))
}

/// What a domain is told of some leaves: a, b, c, d.
fn told(tap: &mut Tap, tiny: &Tiny, wanted: &[(u32, u32)]) -> Vec<[u32; 4]> {
    assert!(wanted.len() < MOST, "its page has room for them");
    let mut arguments = Vec::new();
    for (leaf, sub) in wanted {
        arguments.extend_from_slice(&leaf.to_le_bytes());
        arguments.extend_from_slice(&sub.to_le_bytes());
    }
    arguments.extend_from_slice(&u64::MAX.to_le_bytes());
    tap.is(tiny.run_with(&arguments), End::Shutdown(SHUTDOWN_POWEROFF), "a domain asks");
    let words = tiny.results::<{ 2 * MOST }>();
    let halves = |word: u64| [word as u32, (word >> 32) as u32];
    let leaf = |pair: &[u64]| [halves(pair[0]), halves(pair[1])].concat().try_into().unwrap_or_default();
    words.chunks(2).take(wanted.len()).map(leaf).collect()
}

fn policy_of(id: DomId) -> Vec<CpuidLeaf> {
    let (mut leaves, mut msrs) = (vec![CpuidLeaf::new_zeroed(); 200], vec![MsrEntry::new_zeroed(); 8]);
    let count = domctl::get_cpu_policy(id, &mut leaves, &mut msrs).map_or(0, |(leaves, _)| leaves);
    leaves.truncate(count);
    leaves
}

/// Leaves whose words also depend on which vCPU asks, and on what it has switched on; and the hypervisor's own, of which a
/// policy has only how many there are.
const fn is_live(leaf: u32) -> bool {
    matches!(leaf, 1 | 0xb | 0xd | 0x4000_0000)
}

fn seen(tap: &mut Tap) {
    let tiny = asker();
    let policy = policy_of(tiny.id);
    tap.ok((20..MOST).contains(&policy.len()), "a new domain has a policy");
    let wanted: Vec<_> =
        policy.iter().map(|leaf| (leaf.leaf, if leaf.subleaf == NO_SUB { 0 } else { leaf.subleaf })).collect();
    let told = told(tap, &tiny, &wanted);
    for (leaf, [a, b, c, d]) in policy.iter().zip(&told) {
        let (at, sub) = (leaf.leaf, leaf.subleaf);
        if !is_live(at) {
            let same = (*a, *b, *c, *d) == (leaf.a, leaf.b, leaf.c, leaf.d);
            tap.ok(same, &format!("leaf {at:#x}, {sub:#x}: is what its policy says"));
        }
        // The brand is the emulator's.
        if !matches!(at, 0x8000_0002..=0x8000_0004) {
            tap.note(format_args!("values told_{at:x}_{sub:x}: a={a:x} b={b:x} c={c:x} d={d:x}"));
        }
    }
    let one = policy.iter().zip(&told).find(|(leaf, _)| leaf.leaf == 1);
    let same = one.is_some_and(|(leaf, [a, _, _, d])| (leaf.a, leaf.d) == (*a, *d));
    tap.ok(same, "family and features of leaf 1 are the policy's");
}

/// Leaves that are in no policy.
fn beyond(tap: &mut Tap) {
    let tiny = asker();
    let policy = policy_of(tiny.id);
    let most = |from: u32| policy.iter().find(|leaf| leaf.leaf == from).map_or(from, |leaf| leaf.a);
    let wanted = [
        (most(0) + 1, 0, "behind the last basic leaf"),
        (0x1000, 0, "far behind it"),
        (7, 40, "a sub-leaf of leaf 7 that there is not"),
        (0xd, 63, "nor of leaf 13"),
        (most(0x8000_0000) + 1, 0, "behind the last extended leaf"),
        (0x9000_0000, 0, "far behind it"),
        (0x4000_0100, 0, "another hypervisor's"),
        (u32::MAX, 0, "the last of all"),
    ];
    let told = told(tap, &tiny, &wanted.map(|(leaf, sub, _)| (leaf, sub)));
    for (words, (_, _, what)) in told.iter().zip(&wanted) {
        tap.is(*words, [0; 4], what);
    }
}

fn refused(tap: &mut Tap) {
    let tiny = Tiny::caller();
    let (me, mut arguments, mut wanted) = (tiny.id, Vec::<u8>::new(), Vec::new());
    let mut domctl = |cmd, domain, version: u32, errno, what| {
        let op = Domctl { cmd, interface_version: version, domain, ..Default::default() };
        wanted.push((HYPERVISOR_DOMCTL, arguments.len(), errno, what));
        arguments.extend_from_slice(op.as_bytes());
    };
    let version = XEN_DOMCTL_INTERFACE_VERSION;
    domctl(XEN_DOMCTL_GET_CPU_POLICY, me, version, Errno::EPERM, "it cannot read its own policy");
    domctl(XEN_DOMCTL_GET_CPU_POLICY, DomId(0), version, Errno::EPERM, "nor another domain's");
    domctl(XEN_DOMCTL_GET_CPU_POLICY, DomId::SELF, version, Errno::ESRCH, "DOMID_SELF is no domain to this call");
    domctl(XEN_DOMCTL_GET_CPU_POLICY, DomId(1234), version, Errno::ESRCH, "nor is one that does not exist");
    domctl(XEN_DOMCTL_GET_CPU_POLICY, me, version + 1, Errno::EACCES, "another version of the interface");
    domctl(XEN_DOMCTL_SET_CPU_POLICY, me, version, Errno::EPERM, "it cannot set its own");
    domctl(XEN_DOMCTL_SET_CPU_POLICY, DomId(0), version, Errno::EPERM, "nor another's");
    let mut sysctl = |cmd, version: u32, errno, what| {
        let op = Sysctl { cmd, interface_version: version, ..Sysctl::new_zeroed() };
        wanted.push((HYPERVISOR_SYSCTL, arguments.len(), errno, what));
        arguments.extend_from_slice(op.as_bytes());
    };
    let version = XEN_SYSCTL_INTERFACE_VERSION;
    sysctl(XEN_SYSCTL_GET_CPU_POLICY, version, Errno::EPERM, "it cannot read the host's");
    sysctl(XEN_SYSCTL_GET_CPU_FEATURESET, version, Errno::EPERM, "nor its features");
    sysctl(XEN_SYSCTL_GET_CPU_POLICY, version + 1, Errno::EACCES, "whatever version it asks by");
    let call =
        |(number, at, ..): &(u32, usize, Errno, &str)| [u64::from(*number), ARGUMENTS + *at as u64, 0, 0, 0, 0, 0];
    let mut calls: Vec<Call> = wanted.iter().map(call).collect();
    tap.is(tiny.make(&mut calls, &arguments), End::Shutdown(SHUTDOWN_POWEROFF), "a domain asks by control calls");
    for (call, (_, _, errno, what)) in calls.iter().zip(&wanted) {
        tap.is(Errno::from_ret(call[6]).map_or(Ok(call[6]), Err), Err(*errno), what);
    }
}

/// A register that it may not read ends a domain without handlers.
fn registers(tap: &mut Tap) {
    let end =
        end_of(code!("mov ecx, 0x10a", "rdmsr", "push 0", "mov edi, 2", "mov rsi, rsp", "mov eax, 29", "syscall"));
    tap.note(format_args!("value arch_capabilities={}", if end == CRASHED { "fault" } else { "read" }));
    tap.ok(end != End::Running, "what the CPU is free of can be read or not");
    let end = end_of(code!("mov ecx, 0x10a", "xor eax, eax", "xor edx, edx", "wrmsr", "2:", "jmp 2b"));
    tap.is(end, CRASHED, "and not be written");
    let end = end_of(code!("mov ecx, 0xce", "xor eax, eax", "xor edx, edx", "wrmsr", "2:", "jmp 2b"));
    tap.is(end, CRASHED, "nor can the platform's");
}
