//! The runtime's own test: memory, windows, events, time, grants and the balloon, as every other guest relies on them.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // A guest that tests its kernel interface works without a net.

use guest_pv::alloc::vec;
use guest_pv::mem::{Access, Frame, Mapping, balloon, frames, m2p, table};
use guest_pv::tap::Tap;
use guest_pv::{boot, call, events, grants, mem, time, traps};
use xen_abi::Errno;
use xen_abi::ids::{DomId, Pfn};

guest_pv::test!(run);

fn run(tap: &mut Tap) {
    memory(tap);
    faults(tap);
    windows(tap);
    event_loop(tap);
    clock(tap);
    granting(tap);
    ballooning(tap);
}

fn memory(tap: &mut Tap) {
    tap.ok(frames::free() > mem::nr_frames() / 2, "most of the memory is free");
    let present =
        (0..boot().nr_pages).all(|pfn| table::lookup(mem::address(Pfn(pfn))).is_some_and(|entry| entry & 1 != 0));
    tap.ok(present, "all of the memory is mapped");
    let consistent = (0..boot().nr_pages).all(|pfn| mem::p2m(Pfn(pfn)).and_then(m2p) == Some(Pfn(pfn)));
    tap.ok(consistent, "both translations agree for every frame");
    let mut big = vec![1u8; 16 << 20];
    big[5 << 20] = 2;
    tap.is(big.iter().map(|&byte| u64::from(byte)).sum::<u64>(), (16 << 20) + 1, "16 MiB from the heap");
    let free = frames::free();
    let frame = Frame::zeroed().expect("there is memory");
    tap.is(frames::free(), free - 1, "a frame is taken");
    drop(frame);
    tap.is(frames::free(), free, "and given back");
}

fn faults(tap: &mut Tap) {
    tap.is(traps::peek(0x1000), None, "a missing page is noticed");
    tap.ok(traps::peek(mem::address(Pfn(0))).is_some(), "a present one is read");
    // SAFETY: the body owes nothing to anyone.
    let caught = unsafe { traps::catch(|| core::arch::asm!("ud2")) };
    tap.is(caught.map(|frame| frame.vector), Some(6), "an invalid opcode is caught");
    // SAFETY: as above.
    let caught = unsafe { traps::catch(|| (0x1238 as *mut u64).write_volatile(1)) };
    tap.is(caught.map(|frame| (frame.vector, frame.error)), Some((14, 2)), "a write to nowhere is caught");
    tap.is(events::cr2(), 0x1238, "and its address is known");
    // SAFETY: as above.
    tap.ok(unsafe { traps::catch(|| ()) }.is_none(), "a body without a fault returns");
}

fn windows(tap: &mut Tap) {
    let mut first = Frame::zeroed().expect("there is memory");
    let second = Frame::zeroed().expect("there is memory");
    first.bytes_mut()[4095] = 0xa5;
    {
        let window =
            Mapping::foreign(DomId::SELF, &[first.mfn().0, second.mfn().0], Access::ReadWrite).expect("own frames map");
        tap.is(window.len(), 8192, "a window of two pages");
        let mut bytes = [0u8; 3];
        window.read(4094, &mut bytes);
        tap.is(bytes, [0, 0xa5, 0], "is contiguous");
        window.write(4093, &[1, 2, 3, 4, 5]);
        window.zero(4094, 1);
    }
    tap.is(&first.bytes()[4093..], &[1, 0, 3][..], "writes arrive");
    tap.is(&second.bytes()[..3], &[4, 5, 0][..], "on both pages");
    let error = Mapping::foreign(DomId::SELF, &[first.mfn().0, 1 << 39], Access::ReadOnly).map(drop);
    tap.is(error.map_err(|error| error.index), Err(1), "a bad frame is named");
}

fn event_loop(tap: &mut Tap) {
    let port = events::bind_ipi().expect("an IPI port");
    tap.ok(events::poll().is_none(), "nothing is pending at first");
    events::notify(port).expect("a bound port");
    tap.ok(events::is_pending(port), "a notified port is pending");
    events::wait(None);
    tap.is(events::poll(), Some(port), "and comes out of the loop");
    tap.is(events::poll(), None, "once");
    events::mask(port);
    events::notify(port).expect("a bound port");
    tap.is(events::poll(), None, "a masked port does not");
    events::unmask(port);
    tap.is(events::poll(), Some(port), "until it is unmasked");
    let timer = time::timer_port();
    // The last one taken was the one before the timer's, as the search goes round.
    call::vcpu::set_timer(1).expect("a timer can be set");
    while !events::is_pending(timer) {}
    events::notify(port).expect("a bound port");
    let start = time::now();
    events::wait(Some(start + 2_000_000_000));
    tap.is(events::poll(), Some(port), "a port that is announced together with the timer comes out");
    tap.ok(time::now() - start < 1_000_000_000, "and the guest does not sleep over it");
    let ports: [_; 3] = core::array::from_fn(|_| events::bind_ipi().expect("an IPI port"));
    for &port in ports.iter().rev() {
        events::notify(port).expect("a bound port");
    }
    let mut seen: vec::Vec<_> = core::iter::from_fn(events::poll).collect();
    seen.sort();
    tap.is(&seen[..], &ports[..], "several ports come out, each once");
    for port in ports {
        events::close(port).expect("a port of ours");
    }
    tap.is(events::notify(ports[0]), Err(Errno::EINVAL), "a closed port cannot be notified");
}

fn clock(tap: &mut Tap) {
    let start = time::now();
    events::wait(Some(start + 20_000_000));
    let waited = time::now() - start;
    tap.ok((20_000_000..2_000_000_000).contains(&waited), "waiting ends at the deadline");
    time::sleep(5_000_000);
    tap.ok(time::now() - start >= waited + 5_000_000, "and so does sleeping");
    events::wait(Some(1));
    tap.ok(true, "a deadline gone by does not block");
    tap.ok(time::wall_clock() > 1_600_000_000_000_000_000, "the wall clock is in this century");
}

fn granting(tap: &mut Tap) {
    // Domain 0 may map its own grants by its number; DOMID_SELF is for queries only in some calls.
    let mut page = Frame::zeroed().expect("there is memory");
    page.bytes_mut()[..5].copy_from_slice(b"grant");
    let reference = grants::grant(DomId(0), page.mfn(), Access::ReadWrite).expect("a free entry");
    let mapping = grants::map(DomId(0), &[reference], Access::ReadWrite).expect("a valid grant");
    let mut bytes = [0; 5];
    mapping.read(0, &mut bytes);
    tap.is(&bytes, b"grant", "a grant shows the page");
    tap.is(grants::revoke(reference), Err(Errno::EBUSY), "a mapped grant stays");
    drop(mapping);
    tap.is(grants::revoke(reference), Ok(()), "an unmapped one goes");
    tap.ok(grants::map(DomId(0), &[reference], Access::ReadOnly).is_err(), "and cannot be mapped any more");
}

fn ballooning(tap: &mut Tap) {
    let before = guest_pv::call::memory::current_reservation(DomId::SELF);
    let frame = Frame::zeroed().expect("there is memory");
    let pfn = frame.pfn();
    tap.is(balloon::release(frame), Ok(()), "a frame is given back to the hypervisor");
    let after = guest_pv::call::memory::current_reservation(DomId::SELF);
    tap.is(after, before.map(|pages| pages - 1), "the domain has one page less");
    tap.is(traps::peek(mem::address(pfn)), None, "it is not mapped any more");
    let mut back = balloon::reclaim().expect("the hypervisor has memory");
    back.bytes_mut().fill(7);
    tap.is(back.pfn(), pfn, "it comes back in its place");
    tap.is(guest_pv::call::memory::current_reservation(DomId::SELF), before, "the domain has all its pages again");
}
