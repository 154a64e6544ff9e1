//! What the control domain is told of the machine and of domains' frames: `pcitopoinfo`, `getcpuinfo` and `availheap` of
//! `sysctl.h`, `getpageframeinfo3` of `domctl.h`.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Structures with pointers.

use guest_pv::alloc::vec;
use guest_pv::call::{domctl, physdev, sysctl};
use guest_pv::tap::Tap;
use guest_pv::time;
use guests::child::Child;
use guests::domain::{CRASHED, Tiny};
use guests::{give_up_root, make_writable, mmuext, page, second_root, table_page};
use xen_abi::Errno;
use xen_abi::domctl::*;
use xen_abi::ids::DomId;
use xen_abi::mmu::{MMUEXT_PIN_L1_TABLE, MMUEXT_UNPIN_TABLE};
use xen_abi::physdev::PciDevice;
use xen_abi::sysctl::{
    CpuInfo, GetCpuInfo, PciTopoInfo, XEN_INVALID_DEV, XEN_INVALID_NODE_ID, XEN_SYSCTL_GETCPUINFO,
    XEN_SYSCTL_PCITOPOINFO,
};

guest_pv::test!(run);

/// No address of a guest's.
const BAD: u64 = 0xffff_8300_0000_0000;

fn run(tap: &mut Tap) {
    devices(tap);
    idle(tap);
    free_memory(tap);
    frames(tap);
    frames_of_others(tap);
    nodes(tap);
}

fn devices(tap: &mut Tap) {
    let device = |bus, devfn| PciDevice { seg: 0, bus, devfn };
    physdev::add_device(0, 0xf0).expect("any device can be told of");
    let list = [device(0, 0xf0), device(0xee, 8), device(0, 0xf0)];
    let (unknown_node, unknown) = (XEN_INVALID_NODE_ID, XEN_INVALID_DEV);
    tap.is(sysctl::pci_topology(&list), Ok(vec![unknown_node, unknown, unknown_node]), "known and unknown devices");
    let many = vec![device(0, 0xf0); 200];
    tap.is(sysctl::pci_topology(&many), Ok(vec![unknown_node; 200]), "many, in as many calls as it takes");
    let mut nodes = [7_u32; 3];
    let ask = |num_devs, devs, nodes| {
        let mut arg = PciTopoInfo { num_devs, devs, nodes, ..Default::default() };
        // SAFETY: the addresses are those of the arrays, or nobody's.
        unsafe { sysctl::payload(XEN_SYSCTL_PCITOPOINFO, &mut arg) }.map(|()| arg.num_devs)
    };
    let (from, to) = (list.as_ptr() as u64, nodes.as_mut_ptr() as u64);
    tap.is(ask(0, from, to), Ok(0), "none");
    tap.is(ask(2, from, to), Ok(2), "two");
    tap.is(ask(2, 0, to), Err(Errno::EINVAL), "no list");
    tap.is(ask(2, from, 0), Err(Errno::EINVAL), "no place for the answer");
    tap.is(ask(0, 0, to), Err(Errno::EINVAL), "no list of none");
    tap.is(ask(2, BAD, to), Err(Errno::EFAULT), "a list that is not ours");
    tap.is(ask(2, from, BAD), Err(Errno::EFAULT), "an answer that nobody can read");
    tap.is(nodes, [unknown_node, unknown, 7], "what was asked about is answered");
}

fn idle(tap: &mut Tap) {
    const PAUSE: u64 = 50_000_000;
    let cpus = sysctl::physinfo().expect("it is the control domain").nr_cpus;
    let begun = time::now();
    let before = sysctl::idle_times(cpus).expect("it is the control domain");
    tap.is(before.len(), cpus as usize, "an answer for each CPU");
    // On a busy machine the pause may be over before the CPU has come to idle.
    let (elapsed, grown) = (0..20)
        .map(|_| {
            time::sleep(PAUSE);
            let after = sysctl::idle_times(cpus).expect("as before");
            let elapsed = time::now() - begun;
            (elapsed, after.iter().zip(&before).map(|(after, before)| after - before).sum::<u64>())
        })
        .find(|&(_, grown)| grown > PAUSE / 2)
        .unwrap_or_default();
    tap.ok(grown > PAUSE / 2, "while nothing runs, time is idle");
    tap.ok(grown <= (elapsed + PAUSE / 5) * u64::from(cpus), "and not more than there is");
    let ask = |max_cpus, info| {
        let mut arg = GetCpuInfo { max_cpus, info, ..Default::default() };
        // SAFETY: the addresses have room for the answer, or are nobody's.
        unsafe { sysctl::payload(XEN_SYSCTL_GETCPUINFO, &mut arg) }.map(|()| arg.nr_cpus)
    };
    let mut room = [CpuInfo { idletime: 1 }; 2];
    let to = room.as_mut_ptr() as u64;
    tap.is(ask(0, to), Ok(0), "room for none");
    tap.is(ask(0, BAD), Ok(0), "and none there");
    tap.is(ask(1, to), Ok(1), "room for one");
    tap.is(room[1].idletime, 1, "what lies behind is left alone");
    tap.is(ask(1, BAD), Err(Errno::EFAULT), "an answer that nobody can read");
}

fn free_memory(tap: &mut Tap) {
    let ask = |least, most| sysctl::free_memory(least, most, -1).expect("it is the control domain");
    let all = ask(0, 0);
    let free = sysctl::physinfo().expect("it is the control domain").free_pages * 4096;
    // The hypervisor may be cleaning a few.
    tap.ok(all.abs_diff(free) <= 1 << 20 && all > 0, "all of it is what physinfo says");
    tap.is(ask(0, 64), ask(0, 0), "no address takes more than 64 bits");
    tap.is(ask(0, 12), ask(0, 13), "fewer bits than there are pages");
    tap.is(ask(41, 40), 0, "no width");
    tap.is(ask(53, 0), ask(52, 0), "wider than any address");
    let each: u64 = (13..=52).map(|bits| ask(bits, bits)).sum();
    tap.ok(each.abs_diff(all) <= 1 << 20, "width by width it adds up");
    let (low, high) = (ask(0, 32), ask(33, 0));
    tap.ok((low + high).abs_diff(all) <= 1 << 20, "below 4 GiB and above");
    tap.is(high, 0, "this machine has nothing there");
    let of = |node| sysctl::free_memory(0, 0, node);
    tap.ok(of(0).is_ok_and(|free| free.abs_diff(all) <= 1 << 20), "node 0 has all of it");
    tap.is(of(1), Ok(0), "node 1 does not exist");
    tap.is(of(-2), Ok(0), "nor does node -2");
}

const OURS: DomId = DomId(0);
const NO_PAGE: u64 = XEN_DOMCTL_PFINFO_XTAB as u64;
const PLAIN: u64 = XEN_DOMCTL_PFINFO_NOTAB as u64;
const PINNED: u64 = XEN_DOMCTL_PFINFO_LPINTAB as u64;

fn type_of(domain: DomId, frame: u64) -> Result<u64, Errno> {
    let mut frames = [frame];
    domctl::frame_types(domain, &mut frames).map(|()| frames[0])
}

fn frames(tap: &mut Tap) {
    let data = page();
    let ours = |frame| type_of(OURS, frame);
    tap.is(ours(data.mfn().0), Ok(PLAIN), "a page with data");
    tap.is(ours(guest_pv::boot().shared_info >> 12), Ok(NO_PAGE), "the shared info page is the hypervisor's");
    for (frame, what) in [(1 << 40, "beyond all memory"), (!0, "no number of a frame"), (0xfee00, "a device's")] {
        tap.is(ours(frame), Ok(NO_PAGE), what);
    }
    let table = table_page(&[(3, data.mfn().0 << 12 | 1)]);
    tap.is(ours(table.mfn().0), Ok(PLAIN), "a table that is none yet");
    mmuext(MMUEXT_PIN_L1_TABLE, table.mfn()).expect("an ordinary table");
    tap.is(ours(table.mfn().0), Ok(u64::from(XEN_DOMCTL_PFINFO_L1TAB) | PINNED), "a pinned table");
    mmuext(MMUEXT_UNPIN_TABLE, table.mfn()).expect("it is pinned");
    let after = ours(table.mfn().0);
    tap.ok(matches!(after, Ok(kind) if kind & PINNED == 0), "unpinned");
    make_writable(&table).expect("an ordinary page");
    tap.is(ours(table.mfn().0), Ok(PLAIN), "and an ordinary page again");
    let root = second_root(&[]);
    tap.is(ours(root.mfn().0), Ok(u64::from(XEN_DOMCTL_PFINFO_L4TAB) | PINNED), "a root");
    give_up_root(&root);

    let mut some = [data.mfn().0, 1 << 40, data.mfn().0];
    tap.is(domctl::frame_types(OURS, &mut some), Ok(()), "several");
    tap.is(some, [PLAIN, NO_PAGE, PLAIN], "each for itself");
    let mut many = vec![data.mfn().0; 1025];
    tap.is(domctl::frame_types(OURS, &mut many), Err(Errno::E2BIG), "more than 1024");
    tap.is(domctl::frame_types(OURS, &mut many[..1024]), Ok(()), "1024");
    tap.ok(many[..1024].iter().all(|kind| *kind == PLAIN), "all of them");
    tap.is(domctl::frame_types(OURS, &mut []), Ok(()), "none");
    let at = |num, array| {
        let mut arg = GetPageFrameInfo3 { num, array };
        // SAFETY: nobody's address, or none.
        unsafe { domctl::payload(XEN_DOMCTL_GETPAGEFRAMEINFO3, OURS, &mut arg) }.map(drop)
    };
    tap.is(at(1, BAD), Err(Errno::EFAULT), "an array that is not ours");
    tap.is(at(1 << 32, BAD), Err(Errno::E2BIG), "a number of more than 32 bits");
}

fn frames_of_others(tap: &mut Tap) {
    let data = page();
    let child = Child::new(16);
    tap.is(type_of(child.id(), data.mfn().0), Ok(NO_PAGE), "a page of another domain's");
    tap.is(type_of(DomId(999), data.mfn().0), Err(Errno::ESRCH), "a domain that is not there");
    tap.is(type_of(DomId::SELF, data.mfn().0), Err(Errno::ESRCH), "oneself, who has a number");
    let tiny = Tiny::new(&[0x0f, 0x0b]);
    tap.is(type_of(tiny.id, tiny.root().0), Ok(PLAIN), "another domain's root before it is one");
    tap.is(type_of(OURS, tiny.root().0), Ok(NO_PAGE), "which is none of ours");
    let context = tiny.context();
    tap.is(tiny.run(&context), CRASHED, "it runs an invalid instruction");
    let root = type_of(tiny.id, tiny.root().0);
    tap.is(root, Ok(u64::from(XEN_DOMCTL_PFINFO_L4TAB)), "its root, even after its crash");
    tap.is(type_of(tiny.id, tiny.l1().0), Ok(u64::from(XEN_DOMCTL_PFINFO_L1TAB)), "and a table below it");
}

fn nodes(tap: &mut Tap) {
    let tiny = Tiny::new(&[]);
    let ask = |cmd, domain, map: u64, nr_bits| {
        let mut arg = NodeAffinity { nodemap: Bitmap { bitmap: map, nr_bits, ..Default::default() } };
        // SAFETY: the map has as many bits as are named, or is nobody's.
        unsafe { domctl::payload(cmd, domain, &mut arg) }.map(drop)
    };
    let mut map = [0xaa_u8; 3];
    let at = map.as_mut_ptr() as u64;
    tap.is(ask(XEN_DOMCTL_GETNODEAFFINITY, tiny.id, at, 16), Ok(()), "a domain's nodes");
    tap.is(map, [1, 0, 0xaa], "the one there is");
    tap.is(ask(XEN_DOMCTL_GETNODEAFFINITY, OURS, at, 8), Ok(()), "one's own");
    tap.is(map[0], 1, "the same");
    tap.is(ask(XEN_DOMCTL_GETNODEAFFINITY, DomId(999), at, 8), Err(Errno::ESRCH), "nobody's");
    tap.is(ask(XEN_DOMCTL_GETNODEAFFINITY, tiny.id, BAD, 8), Err(Errno::EFAULT), "an answer that nobody can read");
    map[0] = 1;
    tap.is(ask(XEN_DOMCTL_SETNODEAFFINITY, tiny.id, at, 8), Ok(()), "they are set");
    map[0] = 2;
    tap.is(ask(XEN_DOMCTL_SETNODEAFFINITY, tiny.id, at, 8), Err(Errno::EINVAL), "to a node that is not there");
    tap.is(ask(XEN_DOMCTL_GETNODEAFFINITY, tiny.id, at, 16), Ok(()), "and read");
    tap.is(map[0], 1, "as before");
}
