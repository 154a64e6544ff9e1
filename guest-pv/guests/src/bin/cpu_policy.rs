//! CPU policies as arrays of leaves and registers: the host's, and those of domains, which a toolstack can cut down before a
//! domain runs for the first time.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Structures with pointers; the domain's program is instructions.

use guest_pv::alloc::vec::Vec;
use guest_pv::alloc::{format, vec};
use guest_pv::call::{domctl, sysctl};
use guest_pv::tap::Tap;
use guests::domain::{End, Tiny};
use guests::{address_of, call, code};
use xen_abi::Errno;
use xen_abi::arch_x86::{CpuidLeaf, MsrEntry, XEN_CPUID_NO_SUBLEAF as NO_SUB};
use xen_abi::domctl::{
    CpuPolicy, Domctl, XEN_DOMCTL_GET_CPU_POLICY, XEN_DOMCTL_INTERFACE_VERSION, XEN_DOMCTL_SET_CPU_POLICY,
};
use xen_abi::hypercall::HYPERVISOR_DOMCTL;
use xen_abi::ids::DomId;
use xen_abi::sched::SHUTDOWN_POWEROFF;
use xen_abi::sysctl::{self as abi, CpuFeatureset, CpuPolicy as HostPolicy, MemInfo, NumaInfo};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

guest_pv::test!(run);

/// Leaves that a policy has at most, and registers.
const LEAVES: u32 = 120;
const MSRS: u32 = 2;
const PLATFORM_INFO: u32 = 0xce;
const ARCH_CAPABILITIES: u32 = 0x10a;
/// Leaf 1, ECX.
const SSE3: u32 = 1;
const MONITOR: u32 = 1 << 3;
const AVX: u32 = 1 << 28;

fn run(tap: &mut Tap) {
    host(tap);
    words(tap);
    nodes(tap);
    domain(tap);
    refused(tap);
    shown(tap);
}

/// The host's policy of an index.
fn host_policy(index: u32, leaves: &mut [CpuidLeaf], msrs: &mut [MsrEntry]) -> Result<(u32, u32), Errno> {
    let pointer = |at: u64, empty: bool| if empty { 0 } else { at };
    let mut arg = HostPolicy {
        index,
        nr_leaves: leaves.len().try_into().unwrap_or(0),
        nr_msrs: msrs.len().try_into().unwrap_or(0),
        leaves: pointer(leaves.as_mut_ptr() as u64, leaves.is_empty()),
        msrs: pointer(msrs.as_mut_ptr() as u64, msrs.is_empty()),
        ..Default::default()
    };
    // SAFETY: the arrays are as long as they are said to be.
    unsafe { sysctl::payload(abi::XEN_SYSCTL_GET_CPU_POLICY, &mut arg) }?;
    Ok((arg.nr_leaves, arg.nr_msrs))
}

fn host(tap: &mut Tap) {
    let ask = |index| host_policy(index, &mut [], &mut []);
    let (mut leaves, mut msrs) = (vec![CpuidLeaf::new_zeroed(); 200], vec![MsrEntry::new_zeroed(); 8]);
    for (name, index) in [("raw", 0), ("host", 1), ("PV, most", 2), ("PV, usual", 4)] {
        tap.is(ask(index), Ok((LEAVES, MSRS)), &format!("{name}: how much room is enough"));
        let got = host_policy(index, &mut leaves, &mut msrs);
        let count = got.map_or(0, |(leaves, _)| leaves as usize);
        tap.ok((20..=LEAVES as usize).contains(&count), &format!("{name}: there are leaves, and no more than that"));
        let key = |leaf: &CpuidLeaf| (leaf.leaf, leaf.subleaf);
        let sorted = leaves[..count].windows(2).all(|pair| key(&pair[0]) < key(&pair[1]));
        tap.ok(sorted, &format!("{name}: in order, each once"));
        let indexes: Vec<u32> = msrs.iter().take(2).map(|entry| entry.idx).collect();
        tap.is(indexes, vec![PLATFORM_INFO, ARCH_CAPABILITIES], &format!("{name}: the registers"));
        tap.is(
            host_policy(index, &mut leaves[..5], &mut msrs),
            Err(Errno::ENOBUFS),
            &format!("{name}: room for 5 leaves"),
        );
        tap.is(
            host_policy(index, &mut leaves, &mut msrs[..1]),
            Err(Errno::ENOBUFS),
            &format!("{name}: for a register"),
        );
        let (at, registers) = (leaves.as_mut_ptr() as u64, msrs.as_mut_ptr() as u64);
        let mut arg =
            HostPolicy { index, nr_leaves: 200, nr_msrs: 1, leaves: at, msrs: registers, ..Default::default() };
        // SAFETY: the arrays are as long as they are said to be.
        let got = unsafe { sysctl::payload(abi::XEN_SYSCTL_GET_CPU_POLICY, &mut arg) };
        tap.is(
            (got, arg.nr_leaves as usize),
            (Err(Errno::ENOBUFS), count),
            &format!("{name}: the leaves are told then"),
        );
    }
    tap.is(ask(6), Err(Errno::EINVAL), "there is no policy 6");
    let mut arg = HostPolicy { index: 1, _rsvd: 1, ..Default::default() };
    // SAFETY: no pointers.
    let got = unsafe { sysctl::payload(abi::XEN_SYSCTL_GET_CPU_POLICY, &mut arg) };
    tap.is(got, Err(Errno::EINVAL), "a reserved field");
}

fn words(tap: &mut Tap) {
    let ask = |index: u32, words: &mut [u32]| sysctl::cpu_featureset(index, words);
    let mut arg = CpuFeatureset { index: 9, ..Default::default() };
    // SAFETY: no pointers.
    let got = unsafe { sysctl::payload(abi::XEN_SYSCTL_GET_CPU_FEATURESET, &mut arg) };
    let count = arg.nr_features as usize;
    tap.is(got, Ok(()), "how many words a feature set has");
    tap.note(format_args!("value words={count}"));
    let mut all = vec![0; count];
    for index in [0, 1, 2, 4] {
        tap.is(ask(index, &mut all), Ok(count), &format!("feature set {index}"));
        tap.ok(all[0] & 1 != 0, "it has an FPU");
    }
    tap.is(ask(6, &mut all), Err(Errno::EINVAL), "there is no feature set 6");
    let mut more = vec![0xdead; count + 1];
    tap.is(ask(2, &mut more), Ok(count), "with more room than it takes");
    tap.is(more[count], 0xdead, "what lies behind is left alone");
    let mut some = [0xdead; 3];
    tap.is(ask(2, &mut some[..2]), Err(Errno::ENOBUFS), "with less");
    tap.is((some[0] & 1, some[2]), (1, 0xdead), "what has room is written");
}

fn nodes(tap: &mut Tap) {
    let ask = |room: u32, info: &mut [MemInfo], distance: &mut [u32]| {
        let pointer = |at: u64, empty: bool| if empty { 0 } else { at };
        let mut arg = NumaInfo {
            num_nodes: room,
            meminfo: pointer(info.as_mut_ptr() as u64, info.is_empty()),
            distance: pointer(distance.as_mut_ptr() as u64, distance.is_empty()),
            ..Default::default()
        };
        // SAFETY: the arrays have room for as many nodes as are asked for.
        unsafe { sysctl::payload(abi::XEN_SYSCTL_NUMAINFO, &mut arg) }.map(|()| arg.num_nodes)
    };
    tap.is(ask(0, &mut [], &mut []), Ok(1), "there is one node");
    tap.is(ask(16, &mut [], &mut []), Ok(1), "whatever room there is");
    let (mut info, mut distance) = ([MemInfo::new_zeroed(); 2], [0; 4]);
    tap.is(ask(2, &mut info, &mut distance), Ok(1), "what is known of it");
    let plausible = info[0].memfree > 0 && info[0].memfree <= info[0].memsize && info[0].memsize < 1 << 40;
    tap.ok(plausible, "it has memory, some of it free");
    tap.is(distance, [10, 0, 0, 0], "it is near to itself");
    tap.is(ask(0, &mut info, &mut distance), Ok(0), "no room, no node");
}

/// A domain's leaves.
fn leaves_of(id: DomId) -> Vec<CpuidLeaf> {
    let (mut leaves, mut msrs) = (vec![CpuidLeaf::new_zeroed(); 200], vec![MsrEntry::new_zeroed(); 8]);
    let count = domctl::get_cpu_policy(id, &mut leaves, &mut msrs).map_or(0, |(leaves, _)| leaves);
    leaves.truncate(count);
    leaves
}

fn leaf(leaves: &[CpuidLeaf], at: u32, sub: u32) -> Option<CpuidLeaf> {
    leaves.iter().find(|leaf| leaf.leaf == at && leaf.subleaf == sub).copied()
}

fn nothing() -> Tiny {
    Tiny::new(code!("2:", "jmp 2b"))
}

fn domain(tap: &mut Tap) {
    let tiny = nothing();
    let mut room = CpuPolicy::default();
    // SAFETY: no pointers.
    let got = unsafe { domctl::payload(XEN_DOMCTL_GET_CPU_POLICY, tiny.id, &mut room) };
    tap.is(got.map(drop), Ok(()), "how much room a domain's policy takes");
    tap.is((room.nr_leaves, room.nr_msrs), (LEAVES, MSRS), "as much as the host's");
    let (mut usual, mut msrs) = (vec![CpuidLeaf::new_zeroed(); 200], vec![MsrEntry::new_zeroed(); 8]);
    let count = host_policy(4, &mut usual, &mut msrs).map_or(0, |(count, _)| count as usize);
    usual.truncate(count);
    let before = leaves_of(tiny.id);
    // Some bits of leaf 0x80000001 repeat those of leaf 1 on some CPUs only; the width of addresses is that of its tables.
    let other =
        |(has, is_usual): &(&CpuidLeaf, &CpuidLeaf)| has != is_usual && !matches!(has.leaf, 0x8000_0001 | 0x8000_0008);
    let others = before.iter().zip(&usual).filter(other).count();
    tap.is((before.len(), others), (usual.len(), 0), "a new domain has the usual policy");
    for leaf in before.iter().filter(|leaf| !matches!(leaf.leaf, 0x8000_0002..=0x8000_0004)) {
        let (at, sub) = (leaf.leaf, leaf.subleaf);
        tap.note(format_args!(
            "values leaf_{at:x}_{sub:x}: a={:x} b={:x} c={:x} d={:x}",
            leaf.a, leaf.b, leaf.c, leaf.d
        ));
    }
    let short = domctl::get_cpu_policy(tiny.id, &mut usual[..3], &mut msrs);
    tap.is(short, Err(Errno::ENOBUFS), "there must be room for all of it");
    tap.is(domctl::set_cpu_policy(tiny.id, &before, &msrs[..2]), Ok(()), "it is set as it is");
    tap.ok(leaves_of(tiny.id) == before, "and is as it was");
    tap.is(domctl::set_cpu_policy(tiny.id, &[], &[]), Ok(()), "nothing is set");

    let one = leaf(&before, 1, NO_SUB).unwrap_or_default();
    tap.ok(one.c & (SSE3 | AVX) == SSE3 | AVX && one.c & MONITOR == 0, "it has SSE3 and AVX, and no MONITOR");
    let wish = CpuidLeaf { c: one.c & !AVX | MONITOR, ..one };
    tap.is(domctl::set_cpu_policy(tiny.id, &[wish], &[]), Ok(()), "without AVX, with MONITOR");
    let after = leaves_of(tiny.id);
    let found = leaf(&after, 1, NO_SUB).unwrap_or_default();
    tap.is(found.c & (AVX | MONITOR), 0, "has neither: one was taken away, there is none of the other");
    let seven = leaf(&after, 7, 0).unwrap_or_default();
    tap.is(seven.b & 1 << 5, 0, "AVX2 has gone with AVX");
    let state = leaf(&after, 0xd, 0).unwrap_or_default();
    tap.is((state.a & 7, leaf(&after, 0xd, 2)), (3, None), "and so has its part of the extended state");
    tap.is(domctl::set_cpu_policy(tiny.id, &before, &[]), Ok(()), "all is set as it was");
    tap.ok(leaves_of(tiny.id) == before, "and is there again");

    let first = leaf(&before, 0, NO_SUB).unwrap_or_default();
    tap.is(domctl::set_cpu_policy(tiny.id, &[CpuidLeaf { a: 6, ..first }], &[]), Ok(()), "leaves up to 6");
    let after = leaves_of(tiny.id);
    tap.is(leaf(&after, 7, 0), None, "so there is no leaf 7");
    let found = leaf(&after, 1, NO_SUB).unwrap_or_default();
    tap.is(found.c & (1 << 26 | AVX), 0, "nor extended state without leaf 13");
}

/// What became of a wish, and who is to blame: leaf, sub-leaf, register.
fn wish(id: DomId, leaves: &[CpuidLeaf], msrs: &[MsrEntry]) -> Result<(), (Errno, u32, u32, u32)> {
    let arg = CpuPolicy {
        nr_leaves: leaves.len().try_into().unwrap_or(0),
        nr_msrs: msrs.len().try_into().unwrap_or(0),
        leaves: leaves.as_ptr() as u64,
        msrs: msrs.as_ptr() as u64,
        ..Default::default()
    };
    let mut op = Domctl {
        cmd: XEN_DOMCTL_SET_CPU_POLICY,
        interface_version: XEN_DOMCTL_INTERFACE_VERSION,
        domain: id,
        ..Default::default()
    };
    arg.write_to_prefix(&mut op.u).expect("it fits");
    let result = call(HYPERVISOR_DOMCTL, [address_of(&mut op)]);
    let (said, _) = CpuPolicy::read_from_prefix(&op.u).expect("it fits");
    result.map(drop).map_err(|errno| (errno, said.err_leaf, said.err_subleaf, said.err_msr))
}

fn refused(tap: &mut Tap) {
    const NONE: u32 = u32::MAX;
    let tiny = nothing();
    let before = leaves_of(tiny.id);
    let at = |leaf, subleaf| CpuidLeaf { leaf, subleaf, ..CpuidLeaf::new_zeroed() };
    for (number, sub) in [
        (0xe, NO_SUB),
        (1, 0),
        (4, 6),
        (7, 3),
        (7, NO_SUB),
        (0xb, 2),
        (0xd, 63),
        (0x4000_0000, 0),
        (0x4000_0001, NO_SUB),
        (0x8000_0022, NO_SUB),
        (0x8000_0001, 1),
        (0xffff_ffff, NO_SUB),
    ] {
        let got = wish(tiny.id, &[before[0], at(number, sub)], &[]);
        tap.is(got, Err((Errno::ERANGE, number, sub, NONE)), &format!("leaf {number:#x}, {sub:#x}: in no policy"));
    }
    let more = |number, sub| {
        let is = leaf(&before, number, sub).unwrap_or_default();
        CpuidLeaf { a: is.a + 100, ..is }
    };
    for (number, sub) in [(0, NO_SUB), (7, 0), (0x8000_0000, NO_SUB)] {
        let got = wish(tiny.id, &[more(number, sub)], &[]);
        tap.is(got, Err((Errno::EINVAL, number, sub, NONE)), &format!("leaf {number:#x}: more than there are"));
    }
    let msr = |idx, flags, val| MsrEntry { idx, flags, val };
    let refused = |errno, index| Err((errno, NONE, NONE, index));
    for (entry, errno, why) in [
        (msr(0x10, 0, 0), Errno::ERANGE, "a register that is in no policy"),
        (msr(PLATFORM_INFO, 1, 0), Errno::EINVAL, "a register with a flag"),
        (msr(PLATFORM_INFO, 0, 1 << 32), Errno::EOVERFLOW, "more bits than it has"),
        (msr(PLATFORM_INFO, 0, 1), Errno::EINVAL, "a bit that is not there"),
    ] {
        tap.is(wish(tiny.id, &[], &[entry]), refused(errno, entry.idx), why);
    }
    let many = vec![before[0]; LEAVES as usize + 1];
    tap.is(wish(tiny.id, &many, &[]), refused(Errno::E2BIG, NONE), "more leaves than any policy has");
    tap.is(wish(tiny.id, &many[1..], &[]), Ok(()), "the same leaf as often as that");
    let many = [msr(PLATFORM_INFO, 0, 0); MSRS as usize + 1];
    tap.is(wish(tiny.id, &[], &many), refused(Errno::E2BIG, NONE), "more registers than any policy has");
    tap.is(wish(tiny.id, &[], &[msr(ARCH_CAPABILITIES, 0, 1 << 63)]), Ok(()), "a capability that is not there");
    let (mut leaves, mut msrs) = (before.clone(), vec![MsrEntry::new_zeroed(); 2]);
    let _ = domctl::get_cpu_policy(tiny.id, &mut leaves, &mut msrs);
    tap.is(msrs[1].val >> 63, 0, "still is not there then");
    tap.ok(leaves_of(tiny.id) == before, "nothing of all that has changed the policy");
    tap.is(domctl::set_cpu_policy(DomId(0), &[], &[]), Err(Errno::EINVAL), "a domain's own policy stays");
    let _ = domctl::set_vcpu_context(tiny.id, xen_abi::ids::VcpuId(0), &tiny.context());
    let _ = domctl::unpause_domain(tiny.id);
    tap.is(wish(tiny.id, &[], &[]).map_err(|said| said.0), Err(Errno::EEXIST), "and that of one that has run");
    tap.ok(leaves_of(tiny.id) == before, "which can be read");
}

/// What a domain is told with the prefix that asks the hypervisor.
fn shown(tap: &mut Tap) {
    let tiny = Tiny::new(code!(
        "mov edi, 0x402000",
        "xor eax, eax",
        ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2",
        "mov [rdi], rax",
        "mov eax, 1",
        ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2",
        "mov [rdi + 8], rcx",
        "mov eax, 0x40000000",
        ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2",
        "mov [rdi + 16], rax",
        "mov eax, 0x40000003",
        "xor ecx, ecx",
        ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2",
        "mov [rdi + 24], rcx",
        "push 0",
        "mov edi, 2",
        "mov rsi, rsp",
        "mov eax, 29",
        "syscall",
    ));
    let before = leaves_of(tiny.id);
    let one = leaf(&before, 1, NO_SUB).unwrap_or_default();
    let limit = CpuidLeaf { leaf: 0x4000_0000, subleaf: NO_SUB, a: 2, ..CpuidLeaf::new_zeroed() };
    let got = domctl::set_cpu_policy(tiny.id, &[CpuidLeaf { c: one.c & !SSE3, ..one }, limit], &[]);
    tap.is(got, Ok(()), "a policy without SSE3, with three of the hypervisor's leaves");
    tap.is(tiny.run(&tiny.context()), End::Shutdown(SHUTDOWN_POWEROFF), "its domain runs");
    let [highest, features, hypervisor, time] = tiny.results::<4>();
    let most = leaf(&before, 0, NO_SUB).unwrap_or_default().a;
    tap.is(highest, most.into(), "it has as many leaves as before");
    tap.is(features & u64::from(SSE3 | 1 << 9), 0, "no SSE3, and no SSSE3, which needs it");
    tap.is((hypervisor, time), (0x4000_0002, 0), "and three of the hypervisor's leaves");
}
