//! Trace buffers: made by `XEN_SYSCTL_tbuf_op`, mapped from the hypervisor, read as a monitor reads them.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::vec::Vec;

use guest_pv::mem::{Access, Mapping};
use guest_pv::tap::Tap;
use guest_pv::{events, time};
use guests::{address_of, call};
use xen_abi::Errno;
use xen_abi::hypercall::{HYPERVISOR_SCHED_OP, HYPERVISOR_SYSCTL, HYPERVISOR_VCPU_OP, VIRQ_TBUF};
use xen_abi::ids::DomId;
use xen_abi::sched::SCHEDOP_YIELD;
use xen_abi::sysctl::{
    Sysctl, TbufOp, XEN_SYSCTL_INTERFACE_VERSION, XEN_SYSCTL_TBUF_OP, XEN_SYSCTL_TBUFOP_DISABLE,
    XEN_SYSCTL_TBUFOP_ENABLE, XEN_SYSCTL_TBUFOP_GET_INFO, XEN_SYSCTL_TBUFOP_SET_CPU_MASK,
    XEN_SYSCTL_TBUFOP_SET_EVT_MASK, XEN_SYSCTL_TBUFOP_SET_SIZE,
};
use xen_abi::trace::*;
use zerocopy::{FromBytes, IntoBytes};

guest_pv::test!(run);

const PAGES: u32 = 4;
/// Bytes for records.
const BYTES: u32 = PAGES * 4096 - 8;
/// Class of everything that a PV guest does.
const PV: u32 = 0x0020_f000;
const SCHED: u32 = 0x0002_f000;
const MS: u64 = 1_000_000;

fn buffers(op: &mut TbufOp) -> Result<(), Errno> {
    let mut raw =
        Sysctl { cmd: XEN_SYSCTL_TBUF_OP, interface_version: XEN_SYSCTL_INTERFACE_VERSION, ..Default::default() };
    op.write_to_prefix(&mut raw.u).map_err(|_| Errno::EINVAL)?;
    call(HYPERVISOR_SYSCTL, [address_of(&mut raw)])?;
    *op = TbufOp::read_from_prefix(&raw.u).map_err(|_| Errno::EINVAL)?.0;
    Ok(())
}

fn command(cmd: u32, evt_mask: u32, size: u32) -> Result<(), Errno> {
    buffers(&mut TbufOp { cmd, evt_mask, size, ..Default::default() })
}

fn info() -> TbufOp {
    let mut op = TbufOp { cmd: XEN_SYSCTL_TBUFOP_GET_INFO, ..Default::default() };
    buffers(&mut op).expect("always allowed");
    op
}

/// A monitor of the first CPU's buffer.
struct Monitor(Mapping);

#[derive(Clone)]
struct Record {
    event: u32,
    data: Vec<u32>,
}

impl Monitor {
    fn consumed(&self) -> u32 {
        self.0.load_u32(0)
    }

    fn produced(&self) -> u32 {
        self.0.load_u32(4)
    }

    /// All records there are. `None`: one has no sense.
    fn read(&self) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        let (mut at, end) = (self.consumed(), self.produced());
        while at != end {
            let word = |index: u32| self.0.load_u32(8 + ((at + 4 * index) % BYTES) as usize);
            let (time, count) = (2 * (word(0) >> 31), word(0) >> 28 & 7);
            let size = 4 * (1 + time + count);
            if at % BYTES + size > BYTES {
                return None;
            }
            let event = word(0) & 0x0fff_ffff;
            if event != TRC_TRACE_WRAP_BUFFER {
                records.push(Record { event, data: (0..count).map(|index| word(1 + time + index)).collect() });
            }
            at = (at + size) % (2 * BYTES);
        }
        self.0.store_u32(0, at);
        Some(records)
    }
}

fn run(tap: &mut Tap) {
    let before = info();
    tap.is((before.buffer_mfn, before.size), (0, 0), "there are no buffers at first");
    tap.is(before.evt_mask, TRC_ALL, "all events are wanted");
    tap.is(command(XEN_SYSCTL_TBUFOP_ENABLE, 0, 0), Err(Errno::EINVAL), "nothing is traced without buffers");
    tap.is(command(99, 0, 0), Err(Errno::EINVAL), "an unknown command");
    tap.is(command(XEN_SYSCTL_TBUFOP_SET_SIZE, 0, 0), Err(Errno::EINVAL), "buffers of no size");
    tap.is(command(XEN_SYSCTL_TBUFOP_SET_SIZE, 0, PAGES), Ok(()), "buffers are made");
    tap.is(command(XEN_SYSCTL_TBUFOP_SET_SIZE, 0, PAGES + 1), Err(Errno::EINVAL), "but only once");
    tap.is(command(XEN_SYSCTL_TBUFOP_SET_SIZE, 0, PAGES), Err(Errno::EBUSY), "whatever the size");

    let table = info();
    tap.ok(table.buffer_mfn != 0 && table.size == 4096, "there is a table of them");
    let Ok(table) = Mapping::foreign(DomId::XEN, &[table.buffer_mfn], Access::ReadOnly) else {
        tap.ok(false, "the table can be mapped");
        return;
    };
    let (size, first) = (table.load_u32(0) & 0xffff, table.load_u32(0) >> 16);
    tap.is(size, PAGES, "it says how large they are");
    let frames: Vec<u64> = (first..first + PAGES).map(|at| table.load_u32(4 * at as usize).into()).collect();
    let Ok(pages) = Mapping::foreign(DomId::XEN, &frames, Access::ReadWrite) else {
        tap.ok(false, "a buffer can be mapped");
        return;
    };
    let monitor = Monitor(pages);
    tap.ok(monitor.consumed() == 0 && monitor.produced() > 0, "events are recorded as soon as there are buffers");
    tap.is(command(XEN_SYSCTL_TBUFOP_DISABLE, 0, 0), Ok(()), "until tracing is switched off");
    tap.ok(monitor.read().is_some_and(|records| !records.is_empty()), "records have a sense");

    records(tap, &monitor);
    full(tap, &monitor);
    tap.is(command(XEN_SYSCTL_TBUFOP_SET_CPU_MASK, 0, 0), Ok(()), "no CPU is to be traced");
    let _ = monitor.read();
    let _ = command(XEN_SYSCTL_TBUFOP_ENABLE, 0, 0);
    yields(10);
    tap.is(monitor.read().map(|records| records.len()), Some(0), "then none is");
    // Whatever the monitor does to its buffer is its own loss.
    for wrong in [u32::MAX, 2 * BYTES, BYTES + 1, 3] {
        monitor.0.store_u32(0, wrong);
        monitor.0.store_u32(4, wrong);
        yields(10);
    }
    tap.is(command(XEN_SYSCTL_TBUFOP_DISABLE, 0, 0), Ok(()), "tracing ends");
}

fn yields(count: usize) {
    for _ in 0..count {
        let _ = call(HYPERVISOR_SCHED_OP, [SCHEDOP_YIELD.into(), 0]);
    }
}

fn records(tap: &mut Tap, monitor: &Monitor) {
    tap.is(command(XEN_SYSCTL_TBUFOP_SET_EVT_MASK, PV, 0), Ok(()), "only what PV guests do");
    tap.is(command(XEN_SYSCTL_TBUFOP_ENABLE, 0, 0), Ok(()), "tracing begins");
    yields(20);
    let _ = call(HYPERVISOR_VCPU_OP, [u64::MAX, 0, 0]);
    tap.is(command(XEN_SYSCTL_TBUFOP_DISABLE, 0, 0), Ok(()), "and ends");
    let made = monitor.produced();
    yields(20);
    tap.is(monitor.produced(), made, "no record is made after that");
    let Some(records) = monitor.read() else {
        tap.ok(false, "records have a sense");
        return;
    };
    let calls = |number: u32| {
        let of = |record: &&Record| record.event == TRC_PV_HYPERCALL_V2 && record.data[0] & 0xf_ffff == number;
        records.iter().filter(of).count()
    };
    tap.is((calls(HYPERVISOR_SCHED_OP), calls(HYPERVISOR_VCPU_OP)), (20, 1), "each hypercall has its record");
    tap.ok(records.iter().all(|record| record.event & PV == record.event & 0x0ff0_f000), "nothing else has one");

    let _ = command(XEN_SYSCTL_TBUFOP_SET_EVT_MASK, 0, 0);
    let _ = command(XEN_SYSCTL_TBUFOP_ENABLE, 0, 0);
    yields(10);
    tap.is(monitor.read().map(|records| records.len()), Some(0), "nothing is wanted");
    tap.is(command(XEN_SYSCTL_TBUFOP_SET_EVT_MASK, SCHED, 0), Ok(()), "then scheduling, while tracing goes on");
    time::sleep(5 * MS);
    let _ = command(XEN_SYSCTL_TBUFOP_DISABLE, 0, 0);
    let records = monitor.read().unwrap_or_default();
    let change = |from: u32, to: u32| {
        let event = TRC_SCHED_RUNSTATE_CHANGE | from << 8 | to << 4;
        records.iter().position(|record| record.event == event && record.data[0] == 0)
    };
    let (sleeps, runs) = (change(0, 2), change(1, 0));
    tap.ok(sleeps.is_some() && sleeps < runs, "the vCPU sleeps, and runs again");
    let woken = records.iter().any(|record| record.event == TRC_SCHED_WAKE && record.data == [0, 0]);
    tap.ok(woken, "it was woken");
    let _ = command(XEN_SYSCTL_TBUFOP_SET_EVT_MASK, TRC_ALL, 0);
}

fn full(tap: &mut Tap, monitor: &Monitor) {
    let port = events::bind_virq(VIRQ_TBUF).expect("a free VIRQ");
    events::clear(port);
    let _ = command(XEN_SYSCTL_TBUFOP_SET_EVT_MASK, PV, 0);
    let _ = command(XEN_SYSCTL_TBUFOP_ENABLE, 0, 0);
    yields(50);
    tap.ok(!events::is_pending(port), "a few records interest nobody");
    // A record of a hypercall has at least 16 bytes.
    yields(BYTES as usize / 16);
    let deadline = time::now() + 1_000 * MS;
    while !events::is_pending(port) && time::now() < deadline {
        yields(1);
    }
    tap.ok(events::is_pending(port), "a half full buffer does");
    yields(1000);
    let records = monitor.read();
    tap.ok(records.is_some_and(|records| records.len() > 500), "a full one can be read");
    yields(1);
    let _ = command(XEN_SYSCTL_TBUFOP_DISABLE, 0, 0);
    let lost = monitor.read().unwrap_or_default();
    let count = lost.first().filter(|record| record.event == TRC_LOST_RECORDS).map_or(0, |record| record.data[0]);
    tap.ok(count >= 900, "what found no room was counted");
    let _ = events::close(port);
}
