//! What 32-bit code hands over in its hypercalls, in the form that the handlers know, and their answers the other way round.
//!
//! A structure is [`Wide::widen`]ed before the handler sees it, and an answer [`Wide::narrow`]ed into what the caller had put
//! there. Pointers keep their value: what they point to is the same in both forms, or the caller's affair.

use xen_abi::{compat, grant_table, memory, mmu, multicall, physdev, sched, vcpu};

/// How many bits of a command of `memory_op` are the command itself (`MEMOP_EXTENT_SHIFT`).
const EXTENT_SHIFT: u32 = 6;

/// A structure of 32-bit code.
pub trait Wide: Copy {
    /// The same for 64-bit code.
    type Native: Copy;

    /// The same for 64-bit code.
    fn widen(self) -> Self::Native;

    /// With what a handler has answered: nothing, where it does not answer there.
    #[must_use]
    fn narrow(self, _answer: &Self::Native) -> Self {
        self
    }
}

/// A 64-bit number in two halves, the low one first.
const fn joined([low, high]: [u32; 2]) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Two halves of a 64-bit number, the low one first.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "halves")]
pub const fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// What 32-bit code sees of a number: its low half.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "that is what it is for")]
pub const fn low(value: u64) -> u32 {
    value as u32
}

impl Wide for compat::SchedPoll {
    type Native = sched::SchedPoll;

    fn widen(self) -> Self::Native {
        let timeout = joined(self.timeout);
        sched::SchedPoll { ports: self.ports.into(), nr_ports: self.nr_ports, _pad: 0, timeout }
    }
}

impl Wide for compat::AddToPhysmap {
    type Native = memory::AddToPhysmap;

    fn widen(self) -> Self::Native {
        let (idx, gpfn) = (self.idx.into(), self.gpfn.into());
        memory::AddToPhysmap { domid: self.domid, size: self.size, space: self.space, idx, gpfn }
    }
}

impl Wide for compat::RemoveFromPhysmap {
    type Native = memory::RemoveFromPhysmap;

    fn widen(self) -> Self::Native {
        memory::RemoveFromPhysmap { domid: self.domid, gpfn: self.gpfn.into(), ..Default::default() }
    }
}

impl Wide for compat::MemoryReservation {
    type Native = memory::MemoryReservation;

    fn widen(self) -> Self::Native {
        memory::MemoryReservation {
            extent_start: self.extent_start.into(),
            nr_extents: self.nr_extents.into(),
            extent_order: self.extent_order,
            mem_flags: self.mem_flags,
            domid: self.domid,
            ..Default::default()
        }
    }
}

impl Wide for compat::MemoryExchange {
    type Native = memory::MemoryExchange;

    fn widen(self) -> Self::Native {
        let (in_, out) = (self.in_.widen(), self.out.widen());
        memory::MemoryExchange { in_, out, nr_exchanged: self.nr_exchanged.into() }
    }
}

impl Wide for compat::MemAcquireResource {
    type Native = memory::MemAcquireResource;

    fn widen(self) -> Self::Native {
        memory::MemAcquireResource {
            domid: self.domid,
            type_: self.type_,
            id: self.id,
            nr_frames: self.nr_frames,
            pad: self.pad,
            frame: joined(self.frame),
            frame_list: self.frame_list.into(),
        }
    }

    fn narrow(self, answer: &Self::Native) -> Self {
        Self { nr_frames: answer.nr_frames, ..self }
    }
}

impl Wide for compat::MapPirq {
    type Native = physdev::MapPirq;

    fn widen(self) -> Self::Native {
        physdev::MapPirq {
            domid: self.domid,
            _pad0: 0,
            type_: self.type_,
            index: self.index,
            pirq: self.pirq,
            bus: self.bus,
            devfn: self.devfn,
            entry_nr: self.entry_nr,
            _pad1: 0,
            table_base: joined(self.table_base),
        }
    }

    fn narrow(self, answer: &Self::Native) -> Self {
        Self { pirq: answer.pirq, entry_nr: answer.entry_nr, ..self }
    }
}

impl Wide for compat::MmuextOp {
    type Native = mmu::MmuextOp;

    fn widen(self) -> Self::Native {
        mmu::MmuextOp { cmd: self.cmd, _pad: 0, arg1: self.arg1.into(), arg2: self.arg2.into() }
    }
}

impl Wide for compat::MemoryMap {
    type Native = memory::MemoryMap;

    fn widen(self) -> Self::Native {
        memory::MemoryMap { nr_entries: self.nr_entries, _pad: 0, buffer: self.buffer.into() }
    }

    fn narrow(self, answer: &Self::Native) -> Self {
        Self { nr_entries: answer.nr_entries, ..self }
    }
}

impl Wide for compat::VcpuRunstateInfo {
    type Native = vcpu::VcpuRunstateInfo;

    fn widen(self) -> Self::Native {
        let (state_entry_time, time) = (joined(self.state_entry_time), self.time.map(joined));
        vcpu::VcpuRunstateInfo { state: self.state, _pad: 0, state_entry_time, time }
    }

    fn narrow(self, answer: &Self::Native) -> Self {
        let (state_entry_time, time) = (halves(answer.state_entry_time), answer.time.map(halves));
        Self { state: answer.state, state_entry_time, time }
    }
}

impl Wide for compat::VcpuSetSingleshotTimer {
    type Native = vcpu::VcpuSetSingleshotTimer;

    fn widen(self) -> Self::Native {
        vcpu::VcpuSetSingleshotTimer { timeout_abs_ns: joined(self.timeout_abs_ns), flags: self.flags, _pad: 0 }
    }
}

impl Wide for compat::VcpuRegisterRunstateMemoryArea {
    type Native = vcpu::VcpuRegisterRunstateMemoryArea;

    fn widen(self) -> Self::Native {
        vcpu::VcpuRegisterRunstateMemoryArea { addr: self.addr.into() }
    }
}

impl Wide for compat::MulticallEntry {
    type Native = multicall::MulticallEntry;

    fn widen(self) -> Self::Native {
        multicall::MulticallEntry { op: self.op.into(), result: self.result.into(), args: self.args.map(u64::from) }
    }
}

impl Wide for compat::VcpuRegisterTimeMemoryArea {
    type Native = vcpu::VcpuRegisterTimeMemoryArea;

    fn widen(self) -> Self::Native {
        vcpu::VcpuRegisterTimeMemoryArea { addr: self.addr.into() }
    }
}

impl Wide for compat::GnttabSetupTable {
    type Native = grant_table::GnttabSetupTable;

    /// The list is elsewhere.
    fn widen(self) -> Self::Native {
        grant_table::GnttabSetupTable { dom: self.dom, nr_frames: self.nr_frames, ..Default::default() }
    }

    fn narrow(self, answer: &Self::Native) -> Self {
        Self { status: answer.status, ..self }
    }
}

impl Wide for compat::GnttabCopy {
    type Native = grant_table::GnttabCopy;

    fn widen(self) -> Self::Native {
        let end = |end: compat::GnttabCopyPtr| grant_table::GnttabCopyPtr {
            u: end.u.into(),
            domid: end.domid,
            offset: end.offset,
            _pad: 0,
        };
        let (source, dest) = (end(self.source), end(self.dest));
        grant_table::GnttabCopy { source, dest, len: self.len, flags: self.flags, status: self.status, _pad: 0 }
    }

    fn narrow(self, answer: &Self::Native) -> Self {
        Self { status: answer.status, ..self }
    }
}

/// A part of the extents of a reservation: what is done in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    first: u32,
    count: u32,
    all: u32,
}

/// How a call goes on after a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It is over, and so many extents are done.
    Over(u32),
    /// It is made again from this extent on.
    From(u32),
}

impl Part {
    /// From extent `first` of `all`, as many as there is `room` for. `None`: there are more than a call can say how far it is.
    #[must_use]
    pub fn new(first: u32, all: u32, room: u32) -> Option<Self> {
        let count = all.saturating_sub(first).min(room);
        (all <= u32::MAX >> EXTENT_SHIFT).then_some(Self { first, count, all })
    }

    /// How many extents it has.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// So many of them are done, and the handler does no more.
    #[must_use]
    pub const fn ended(&self, done: u32) -> After {
        let at = self.first.saturating_add(done);
        if done == self.count && done != 0 && at < self.all { After::From(at) } else { After::Over(at) }
    }

    /// So many are done, and the handler wants to be called again.
    #[must_use]
    pub const fn interrupted(&self, done: u32) -> After {
        After::From(self.first.saturating_add(done))
    }
}

/// The command of a call that goes on at an extent.
#[must_use]
pub const fn continued(command: u32, extent: u32) -> u32 {
    command & ((1 << EXTENT_SHIFT) - 1) | extent << EXTENT_SHIFT
}

#[cfg(all(test, not(loom)))]
mod unit {
    use super::*;
    use xen_abi::ids::DomId;

    #[test]
    fn numbers_of_64_bits_come_in_halves() {
        let poll = compat::SchedPoll { ports: 0x8000_0000, nr_ports: 2, timeout: [5, 7] };
        let wide = poll.widen();
        assert_eq!((wide.ports, wide.nr_ports, wide.timeout), (0x8000_0000, 2, 7 << 32 | 5));
        let answer = vcpu::VcpuRunstateInfo {
            state: 1,
            _pad: 0,
            state_entry_time: 1 << 33 | 3,
            time: [1 << 32, 2, 3, u64::MAX],
        };
        let seen = compat::VcpuRunstateInfo::default().narrow(&answer);
        assert_eq!((seen.state, seen.state_entry_time), (1, [3, 2]));
        assert_eq!(seen.time, [[0, 1], [2, 0], [3, 0], [u32::MAX, u32::MAX]]);
        assert_eq!(seen.widen(), answer);
    }

    #[test]
    fn a_copy_keeps_what_it_is_not_told() {
        let end = |u| compat::GnttabCopyPtr { u, domid: DomId(3), offset: 16 };
        let copy = compat::GnttabCopy { source: end(9), dest: end(u32::MAX), len: 64, flags: 1, status: 7, _pad: 0 };
        let wide = copy.widen();
        assert_eq!((wide.source.u, wide.dest.u, wide.dest.offset), (9, 0xffff_ffff, 16));
        let answered = copy.narrow(&grant_table::GnttabCopy { status: -4, ..wide });
        assert_eq!(answered, compat::GnttabCopy { status: -4, ..copy });
    }

    #[test]
    fn a_call_of_a_list_keeps_its_arguments() {
        let call = compat::MulticallEntry { op: 12, result: 7, args: [1, 2, 3, 4, 5, u32::MAX] };
        let wide = call.widen();
        assert_eq!((wide.op, wide.result, wide.args), (12, 7, [1, 2, 3, 4, 5, 0xffff_ffff]));
    }

    #[test]
    fn extents_are_done_in_parts() {
        let first = Part::new(0, 500, 200).expect("a few");
        assert_eq!((first.count(), first.ended(200), first.ended(199)), (200, After::From(200), After::Over(199)));
        assert_eq!(first.interrupted(7), After::From(7));
        let last = Part::new(400, 500, 200).expect("a few");
        assert_eq!((last.count(), last.ended(100), last.ended(0)), (100, After::Over(500), After::Over(400)));
        // Nothing to do, or a beginning behind the end: the answer is where the caller was.
        assert_eq!(Part::new(0, 0, 200).map(|part| part.ended(0)), Some(After::Over(0)));
        assert_eq!(Part::new(9, 3, 200).map(|part| (part.count(), part.ended(0))), Some((0, After::Over(9))));
        assert_eq!(Part::new(0, 1 << 26, 200), None);
        assert_eq!(continued(6 | 77 << 6, 3), 6 | 3 << 6);
    }

    #[test]
    fn what_a_control_domain_asks() {
        let list =
            |extent_start, nr_extents| compat::MemoryReservation { extent_start, nr_extents, ..Default::default() };
        let trade = compat::MemoryExchange { in_: list(5, 2), out: list(u32::MAX, 1), nr_exchanged: 7 }.widen();
        assert_eq!((trade.in_.extent_start, trade.in_.nr_extents, trade.nr_exchanged), (5, 2, 7));
        assert_eq!((trade.out.extent_start, trade.out.nr_extents), (0xffff_ffff, 1));
        let frames = compat::MemAcquireResource { id: 3, frame: [1, 2], frame_list: 9, ..Default::default() };
        assert_eq!((frames.widen().frame, frames.widen().frame_list), (2 << 32 | 1, 9));
        let told = frames.narrow(&memory::MemAcquireResource { nr_frames: 6, ..frames.widen() });
        assert_eq!(told, compat::MemAcquireResource { nr_frames: 6, ..frames });
        let map = compat::MapPirq { pirq: -1, table_base: [3, 4], ..Default::default() };
        let given = map.narrow(&physdev::MapPirq { pirq: 17, ..map.widen() });
        assert_eq!((map.widen().table_base, given), (4 << 32 | 3, compat::MapPirq { pirq: 17, ..map }));
        let op = compat::MmuextOp { cmd: 6, arg1: u32::MAX, arg2: 2 }.widen();
        assert_eq!((op.cmd, op.arg1, op.arg2), (6, 0xffff_ffff, 2));
    }
}
