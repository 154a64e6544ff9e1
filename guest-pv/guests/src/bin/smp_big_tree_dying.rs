//! The end of a domain while another vCPU is half way through its page tables, in either direction.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use guest_pv::call::{domctl, memory, sysctl};
use guest_pv::mem::{Access, Mapping};
use guest_pv::smp;
use guest_pv::tap::Tap;
use guests::big_tree::{PAGES, entry};
use guests::child::Child;
use guests::{address_of, call};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_MMUEXT_OP;
use xen_abi::ids::{Mfn, VcpuId};
use xen_abi::mmu::*;

guest_pv::test!(run);

/// The domain whose tree is pinned and destroyed: its number, its root, and whether that goes on.
static VICTIM: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static GOES_ON: AtomicBool = AtomicBool::new(true);

fn run(tap: &mut Tap) {
    for round in 0..8 {
        destroyed_meanwhile(tap, round);
    }
}

/// Another domain's tree is pinned and unpinned by one vCPU while another one destroys the domain.
fn destroyed_meanwhile(tap: &mut Tap, round: u64) {
    let free = || sysctl::physinfo().map_or(0, |info| info.free_pages);
    let before = free();
    let child = Child::new(PAGES as u64 + 8);
    let mut frames: [u64; PAGES] = core::array::from_fn(|index| index as u64);
    let got = memory::populate_physmap(child.id(), &mut frames, 0, 0);
    if got != Ok(PAGES) {
        tap.is(got, Ok(PAGES), "another domain gets pages");
        return;
    }
    {
        let window = Mapping::foreign(child.id(), &frames, Access::ReadWrite).expect("its pages can be mapped");
        for page in 0..PAGES {
            for index in 0..512 {
                window.store_u64(page * 4096 + index * 8, entry(page, index, |page| frames[page]));
            }
        }
    }
    VICTIM[0].store(child.id().0.into(), SeqCst);
    VICTIM[1].store(frames[0], SeqCst);
    GOES_ON.store(true, SeqCst);
    smp::start(VcpuId(1), pin_and_unpin).expect("there is a second vCPU");
    // Let it come to another stage each time.
    for _ in 0..round * 40 {
        let _ = guest_pv::call::mmu::flush_tlb();
    }
    while let Err(Errno::EAGAIN | Errno::ERESTART) = domctl::destroy_domain(child.id()) {}
    GOES_ON.store(false, SeqCst);
    smp::join(VcpuId(1)).expect("it was started");
    // A domain of which a page is left is found still, as one that is dying.
    let found = || memory::current_reservation(child.id());
    let gone = (0..2000).any(|_| found() == Err(Errno::ESRCH) || guest_pv::call::mmu::flush_tlb().is_err());
    tap.ok(gone, "a domain destroyed while its tree is pinned gives back each page");
    // Xen's own records of a domain go later.
    tap.ok(free() + PAGES as u64 > before, "and they are free");
}

fn pin_and_unpin() {
    let domain = VICTIM[0].load(SeqCst);
    let root = Mfn(VICTIM[1].load(SeqCst));
    while GOES_ON.load(SeqCst) {
        for cmd in [MMUEXT_PIN_L4_TABLE, MMUEXT_UNPIN_TABLE] {
            let mut op = MmuextOp { cmd, arg1: root.0, ..Default::default() };
            let _ = call(HYPERVISOR_MMUEXT_OP, [address_of(&mut op), 1, 0, domain]);
        }
    }
}
