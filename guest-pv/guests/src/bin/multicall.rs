//! `multicall`: results, errors inside and outside, nesting, and calls that change the ground under the batch.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::mem::table::READ_WRITE;
use guest_pv::mem::{Access, Mapping};
use guest_pv::tap::Tap;
use guest_pv::{Mode, events, mode};
use guests::{Cliff, address_of, call, load, page, store};
use xen_abi::Errno;
use xen_abi::event_channel::{EVTCHNOP_SEND, EvtchnSend};
use xen_abi::hypercall::*;
use xen_abi::multicall::MulticallEntry;

guest_pv::test!(run);

fn entry<const N: usize>(op: u32, args: [u64; N]) -> MulticallEntry {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&args);
    MulticallEntry { op: op.into(), result: 0xdead, args: all }
}

fn multicall(entries: &mut [MulticallEntry]) -> Result<u64, Errno> {
    let count = entries.len() as u64;
    call(HYPERVISOR_MULTICALL, [address_of(entries), count])
}

fn run(tap: &mut Tap) {
    let version = || entry(HYPERVISOR_XEN_VERSION, [0, 0]);
    let mut calls = [version(), entry(63, []), version()];
    tap.is(multicall(&mut calls), Ok(0), "a batch");
    tap.is(calls[0].result, 0x4_0011, "the first result");
    tap.is(Errno::from_ret(calls[1].result), Some(Errno::ENOSYS), "an unknown call fails alone");
    tap.is(calls[2].result, 0x4_0011, "the one after it is made");
    tap.is(calls[0].op, HYPERVISOR_XEN_VERSION.into(), "the entries are as before");
    tap.is(calls[0].args, [0; 6], "with their arguments");

    tap.is(call(HYPERVISOR_MULTICALL, [0x1000, 0]), Ok(0), "an empty batch");
    tap.is(call(HYPERVISOR_MULTICALL, [0x1000, 1]), Err(Errno::EFAULT), "a batch that is not mapped");
    tap.is(call(HYPERVISOR_MULTICALL, [1 << 47, 1]), Err(Errno::EFAULT), "nor canonical");
    tap.is(call(HYPERVISOR_MULTICALL, [0xffff_8300_0000_0000, 1]), Err(Errno::EFAULT), "in the hypervisor");

    let mut inner = [version()];
    let mut nested = [entry(HYPERVISOR_MULTICALL, [address_of(&mut inner), 1])];
    tap.is(multicall(&mut nested), Ok(0), "a batch in a batch");
    tap.is(Errno::from_ret(nested[0].result), Some(Errno::EINVAL), "is refused");

    let mut many = [version(); 200];
    tap.is(multicall(&mut many), Ok(0), "200 calls");
    tap.ok(many.iter().all(|call| call.result == 0x4_0011), "all of them are made");

    if mode() == Mode::Pv {
        ground_that_moves(tap);
    }

    let port = events::bind_ipi().expect("a free port");
    let mut send = EvtchnSend { port };
    let mut calls = [entry(HYPERVISOR_EVENT_CHANNEL_OP, [EVTCHNOP_SEND.into(), address_of(&mut send)])];
    tap.is(multicall(&mut calls), Ok(0), "an event from a batch");
    tap.is(events::poll(), Some(port), "arrives");
    events::close(port).expect("a port of ours");

    // A batch whose second entry lies in a hole.
    let mut cliff = Cliff::new();
    let bytes = version();
    let last = zerocopy::IntoBytes::as_bytes(&bytes);
    cliff.page.bytes_mut()[4096 - last.len()..].copy_from_slice(last);
    let start = cliff.edge() - last.len() as u64;
    tap.is(call(HYPERVISOR_MULTICALL, [start, 2]), Err(Errno::EFAULT), "a batch that runs into a hole");
    tap.is(load(start + 8), 0x4_0011, "its first call was made");
}

/// The second call runs on the mapping that the first has made.
fn ground_that_moves(tap: &mut Tap) {
    let (first, second) = (page(), page());
    store(first.address(), 1);
    store(second.address(), 2);
    let window = Mapping::own(&[first.mfn().0], Access::ReadWrite).expect("own memory can be mapped");
    let va = window.address();
    let map = |mfn: u64| entry(HYPERVISOR_UPDATE_VA_MAPPING, [va, mfn << 12 | READ_WRITE, 2]);
    let mut calls = [map(second.mfn().0), map(first.mfn().0), map(second.mfn().0)];
    tap.is(multicall(&mut calls), Ok(0), "three mappings");
    tap.is(load(va), 2, "the last one holds");
    tap.ok(calls.iter().all(|call| call.result == 0), "and all went well");
    let mut calls = [map(1 << 39), map(first.mfn().0)];
    tap.is(multicall(&mut calls), Ok(0), "a bad mapping and a good one");
    tap.is(Errno::from_ret(calls[0].result), Some(Errno::EPERM), "the bad one fails");
    tap.is(load(va), 1, "the good one holds");
}
