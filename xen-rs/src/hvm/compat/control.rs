//! What of 32-bit code's calls is for a control domain that builds others: their page tables, and pages that the hypervisor
//! keeps for them. Other domains get their errors, which are those of 64-bit code.

use logic::{
    guest::{In, InOut},
    hvm::compat::{After, Part, Wide, continued, low},
    hypercall::Outcome,
    memory_op::split_command,
};
use machine::container::Window;
use xen_abi::{compat as abi, errno::Errno, ids::DomId, memory, mmu::MmuextOp, physdev};

use super::{Answers, LIST, PAGES, widened};
use crate::{
    cpu::Context,
    guest::{Handle, Series},
    hypercall::{self as calls, batch},
};

/// Operations on page tables that are done in one go.
const OPERATIONS: u32 = 64;
/// `MMU_UPDATE_PREEMPTED`: of what was counted before more is done.
const PREEMPTED: u32 = 1 << 31;
const NATIVE: u64 = size_of::<MmuextOp>() as u64;
const COMPAT: u64 = size_of::<abi::MmuextOp>() as u64;

const _: () = assert!(OPERATIONS as u64 * NATIVE <= Window::BYTES);

/// Operations on page tables, which are of another size.
pub(super) fn mmuext_op(cx: &mut Context<'_>) -> Result<Outcome, Errno> {
    let [va, count, done_out, owner, ..] = cx.args();
    if batch::is_end_of_call(va, count) {
        return Ok(calls::mmuext_op::of_others(cx));
    }
    let (mut preempted, count) = (low(count) & PREEMPTED, low(count) & !PREEMPTED);
    if count == 0 {
        return Ok(Outcome::OK);
    }
    let mut window = Window::open().ok_or(Errno::EFAULT)?;
    let mut wanted = Series::<abi::MmuextOp, In>::new(va);
    let mut there = 0;
    while there < count.min(OPERATIONS) {
        // The next round says that it cannot be read, and the last one whether anything may be asked at all.
        let Ok(given) = wanted.step().read() else { break };
        window.put(u64::from(there) * NATIVE, &given.widen())?;
        there += 1;
    }
    cx.set_args([Window::ADDRESS, (there | preempted).into(), done_out, owner]);
    let done = match calls::mmuext_op::of_others(cx) {
        Outcome::Done(0) if there == count => return Ok(Outcome::OK),
        Outcome::Done(0) if there == 0 => return Err(Errno::EFAULT),
        Outcome::Done(0) => there,
        Outcome::Again => {
            let [next, left, _, result, ..] = cx.args();
            if !batch::is_end_of_call(next, left) {
                there - (low(left) & !PREEMPTED).min(there)
            } else if low(result) == 0 && there < count {
                there
            } else {
                return Ok(Outcome::Again);
            }
        }
        other => return Ok(other),
    };
    if done != 0 {
        preempted = PREEMPTED;
    }
    cx.set_args([va + u64::from(done) * COMPAT, ((count - done) | preempted).into(), done_out, owner]);
    Ok(Outcome::Again)
}

/// The machine's devices. Only what maps an interrupt has another size.
pub(super) fn physdev_op(cx: &mut Context<'_>) -> Outcome {
    let [command, ..] = cx.args();
    match low(command) {
        physdev::PHYSDEVOP_MAP_PIRQ if cx.domain.is_control() => {
            widened::<abi::MapPirq>(cx, 1, Answers::There, calls::physdev_op::from_container)
        }
        _ => calls::physdev_op::from_container(cx),
    }
}

/// A trade of frames. A domain in a container has none to trade: no list is read. Those of others are traded by 64-bit code.
pub(super) fn exchange(cx: &mut Context<'_>) -> Result<Outcome, Errno> {
    let [command, va, ..] = cx.args();
    let given = Handle::<abi::MemoryExchange, In>::new(va).read()?;
    if given.in_.domid != DomId::SELF {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut window = Window::open().ok_or(Errno::EFAULT)?;
    window.put(0, &given.widen())?;
    cx.set_args([command, Window::ADDRESS]);
    Ok(calls::memory_op::memory_op(cx))
}

/// Pages that the hypervisor keeps for a domain, from frame `first` on, as many as have room in one go.
pub(super) fn acquire_resource(cx: &mut Context<'_>, first: u32) -> Result<Outcome, Errno> {
    const COMMAND: u32 = memory::XENMEM_ACQUIRE_RESOURCE;
    const _: () = assert!(LIST + PAGES as u64 * 8 <= Window::BYTES);
    let [_, va, ..] = cx.args();
    let (given, to) = Handle::<abi::MemAcquireResource, InOut>::new(va).read()?;
    let mut wanted = given.widen();
    let listed = given.frame_list != 0;
    let part = Part::new(first, given.nr_frames, if listed { PAGES } else { u32::MAX }).ok_or(Errno::EINVAL)?;
    let mut window = Window::open().ok_or(Errno::EFAULT)?;
    if listed {
        wanted.nr_frames = part.count();
        wanted.frame = wanted.frame.checked_add(first.into()).ok_or(Errno::EINVAL)?;
        wanted.frame_list = Window::ADDRESS + LIST;
        let places = Series::<u32, In>::new(given.frame_list.into()).after(first.into());
        // Who may not ask is told so first.
        for (i, place) in (0..u64::from(part.count())).zip(places).filter(|_| cx.domain.is_control()) {
            window.put(LIST + i * 8, &u64::from(place.read()?))?;
        }
    }
    window.put(0, &wanted)?;
    cx.set_args([COMMAND.into(), Window::ADDRESS]);
    let after = match calls::memory_op::memory_op(cx) {
        Outcome::Done(_) if !listed => {
            to.write(&given.narrow(&window.get(0)?))?;
            return Ok(Outcome::OK);
        }
        Outcome::Done(_) => part.ended(part.count()),
        Outcome::Again => part.interrupted(low(split_command(cx.args()[0]).1)),
        Outcome::Fail(errno) => return Err(errno),
    };
    Ok(match after {
        After::Over(_) => Outcome::OK,
        After::From(next) => {
            cx.set_args([continued(COMMAND, next).into(), va]);
            Outcome::Again
        }
    })
}
