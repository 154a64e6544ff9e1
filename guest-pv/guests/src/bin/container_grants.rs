//! Grants mapped by a domain in a container: at a guest frame, in place of what it has there. In a PV domain there is nothing to
//! see of it (`grants`).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // The domain's number is part of a word.

use core::arch::x86_64::__cpuid_count;
use guest_pv::call::grant_table;
use guest_pv::grants;
use guest_pv::mem::{Access, Mapping};
use guest_pv::tap::Tap;
use guest_pv::{Mode, mode};
use guests::{address_of, call, load, page, store};
use xen_abi::errno::Errno;
use xen_abi::grant_table::*;
use xen_abi::hypercall::HYPERVISOR_GRANT_TABLE_OP;
use xen_abi::ids::{DomId, GrantHandle, GrantRef};
use zerocopy::{FromBytes, IntoBytes};

guest_pv::test!(run);

/// A guest frame above all memory, and below where the runtime puts what it maps.
const PLACE: u64 = 20 << 18;
const NOTHING: u64 = u64::MAX;

fn run(tap: &mut Tap) {
    if mode() == Mode::Pv {
        return tap.skip("a domain in a hardware container", "a PV domain");
    }
    // The hypervisor's leaf for containers says which domain this is.
    let me = DomId(__cpuid_count(0x4000_0004, 0).ecx as u16);
    let window = Mapping::own(&[PLACE], Access::ReadWrite).expect("any frame can be mapped");
    table(tap, me);
    mapping(tap, me, window.address());
    refusals(tap, me, window.address());
    over_memory(tap, me);
}

fn one<T: FromBytes + IntoBytes>(command: u32, argument: T) -> T {
    let mut argument = argument;
    call(HYPERVISOR_GRANT_TABLE_OP, [command.into(), address_of(&mut argument), 1]).expect("the call itself is good");
    argument
}

fn map(host_addr: u64, ref_: GrantRef, flags: u32, dom: DomId) -> (i16, GrantHandle) {
    let op = GnttabMapGrantRef { host_addr, flags, ref_, dom, ..Default::default() };
    let op = one(GNTTABOP_MAP_GRANT_REF, op);
    (op.status, op.handle)
}

fn unmap(host_addr: u64, handle: GrantHandle) -> i16 {
    one(GNTTABOP_UNMAP_GRANT_REF, GnttabUnmapGrantRef { host_addr, handle, ..Default::default() }).status
}

/// What the domain is told of its table's frames are numbers of its own; and which operations there are for it.
fn table(tap: &mut Tap, me: DomId) {
    let data = page();
    let reference = grants::grant(me, data.mfn(), Access::ReadWrite).expect("a free entry");
    let mut frames = [0; 2];
    tap.is(grant_table::setup_table(DomId::SELF, &mut frames), Ok(GNTST_OKAY), "the table's frames");
    let first = Mapping::own(&frames[..1], Access::ReadWrite).expect("any frame can be mapped");
    // An entry of version 1: flags and domain, and the frame behind them.
    tap.is(load(first.address() + u64::from(reference.0) * 8) >> 32, data.mfn().0, "the first one is where it was put");
    tap.is(frames[1], NOTHING, "the second one is nowhere");
    for operation in [GNTTABOP_TRANSFER, GNTTABOP_UNMAP_AND_REPLACE, GNTTABOP_GET_STATUS_FRAMES, GNTTABOP_CACHE_FLUSH] {
        let none = call(HYPERVISOR_GRANT_TABLE_OP, [operation.into(), 0, 0]);
        tap.is(none, Err(Errno::ENOSYS), "an operation that there is not in a container");
    }
    grants::revoke(reference).expect("nobody has mapped it");
}

fn mapping(tap: &mut Tap, me: DomId, va: u64) {
    let data = page();
    store(data.address(), 0x1234);
    let reference = grants::grant(me, data.mfn(), Access::ReadWrite).expect("a free entry");
    let (status, handle) = map(PLACE << 12, reference, GNTMAP_HOST_MAP, me);
    tap.is(status, GNTST_OKAY, "a grant is mapped at a guest frame");
    tap.is(load(va), 0x1234, "the page is there");
    store(va, 0x5678);
    tap.is(load(data.address()), 0x5678, "and can be written to");
    tap.is(unmap((PLACE + 1) << 12, handle), GNTST_GENERAL_ERROR, "it is not at another frame");
    tap.is(load(va), 0x5678, "and stays where it is");
    tap.is(unmap(PLACE << 12, handle), GNTST_OKAY, "it is unmapped");
    tap.is(load(va), NOTHING, "and gone");
    tap.is(unmap(PLACE << 12, handle), GNTST_BAD_HANDLE, "a handle is good for once");

    let (status, handle) = map(PLACE << 12, reference, GNTMAP_HOST_MAP | GNTMAP_READONLY, me);
    tap.is(status, GNTST_OKAY, "it can be mapped read-only");
    store(va, 1);
    tap.is((load(va), load(data.address())), (0x5678, 0x5678), "and what is written there goes nowhere");
    unmap(PLACE << 12, handle);
    tap.ok(grants::revoke(reference).is_ok(), "it is not in use any more");
}

fn refusals(tap: &mut Tap, me: DomId, va: u64) {
    let data = page();
    let reference = grants::grant(me, data.mfn(), Access::ReadOnly).expect("a free entry");
    let writable = map(PLACE << 12, reference, GNTMAP_HOST_MAP, me).0;
    tap.is(writable, GNTST_GENERAL_ERROR, "a read-only grant cannot be mapped writable");
    let flags = GNTMAP_HOST_MAP | GNTMAP_READONLY;
    tap.is(map(PLACE << 12 | 8, reference, flags, me).0, GNTST_GENERAL_ERROR, "nor in the middle of a frame");
    tap.is(load(va), NOTHING, "nothing is there");
    tap.ok(grants::revoke(reference).is_ok(), "and nothing is in use");
}

/// What the domain had there is gone.
fn over_memory(tap: &mut Tap, me: DomId) {
    let (data, own) = (page(), page());
    store(data.address(), 0x1111);
    store(own.address(), 0x2222);
    let (place, va) = (own.mfn().0 << 12, own.address());
    // The frame has no memory from here on: it is never used again.
    own.leak();
    let reference = grants::grant(me, data.mfn(), Access::ReadWrite).expect("a free entry");
    let (status, handle) = map(place, reference, GNTMAP_HOST_MAP, me);
    tap.is(status, GNTST_OKAY, "a grant is mapped over memory");
    tap.is(load(va), 0x1111, "and hides it");
    tap.is(unmap(place, handle), GNTST_OKAY, "it is unmapped");
    tap.is(load(va), NOTHING, "and the memory does not come back");
    tap.ok(grants::revoke(reference).is_ok(), "the grant is free");
}
