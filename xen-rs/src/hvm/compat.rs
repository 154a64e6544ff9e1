//! Hypercalls of 32-bit code: the same handlers, which find structures that differ (`xen_abi::compat`) in their own form in a
//! window that belongs to the call. Most structures of the calls that there are do not differ.
//!
//! The arguments are in ebx, ecx, edx, esi and edi. What is not served answers `ENOSYS`.

mod control;
mod multicall;

use logic::{
    field,
    guest::{In, InOut, Out},
    hvm::compat::{After, Part, Wide, continued, low},
    hypercall::Outcome,
    memory_op::split_command,
    width::Width,
};
use machine::container::Window;
use xen_abi::{
    compat as abi,
    errno::Errno,
    grant_table::{self, GNTST_BAD_VIRT_ADDR},
    hypercall, memory, sched, vcpu, version,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    cpu::Context,
    guest::{Handle, Series},
    hypercall as calls,
};

/// Where lists lie in the window, behind any structure.
const LIST: u64 = 64;
/// Numbers of 64 bits that a list holds.
const NUMBERS: u32 = 240;
/// Pages of a batch for the physical map that are entered in one go.
const PAGES: u32 = 32;
/// Copies that are done in one go.
const COPIES: u32 = 32;

const _: () = assert!(LIST + NUMBERS as u64 * 8 <= Window::BYTES);
const _: () = assert!(COPIES as u64 * size_of::<grant_table::GnttabCopy>() as u64 <= Window::BYTES);

/// The call that the registers name; on [`Outcome::Again`] they say how it goes on.
#[cold]
#[inline(never)]
pub fn call(cx: &mut Context<'_>) -> Outcome {
    let regs = &*cx.regs;
    let number = low(regs.rax);
    let args = [regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi].map(|value| u64::from(low(value)));
    let kept = cx.args();
    cx.set_args(args);
    let outcome = route(cx, number);
    let [first, second, third, fourth, fifth, _] = cx.args();
    cx.set_args(kept);
    if matches!(outcome, Outcome::Again) {
        let regs = &mut *cx.regs;
        (regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi) = (first, second, third, fourth, fifth);
    }
    outcome
}

fn route(cx: &mut Context<'_>, number: u32) -> Outcome {
    match number {
        hypercall::HYPERVISOR_MULTICALL => multicall::multicall(cx),
        hypercall::HYPERVISOR_XEN_VERSION => xen_version(cx),
        hypercall::HYPERVISOR_SET_TIMER_OP => {
            let [early, late, ..] = cx.args();
            cx.set_arg(0, early | late << 32);
            calls::set_timer_op::set_timer_op(cx)
        }
        hypercall::HYPERVISOR_SCHED_OP => sched_op(cx),
        hypercall::HYPERVISOR_EVENT_CHANNEL_OP => calls::event_channel_op::event_channel_op(cx),
        hypercall::HYPERVISOR_MEMORY_OP => memory_op(cx),
        hypercall::HYPERVISOR_GRANT_TABLE_OP => grant_table_op(cx),
        hypercall::HYPERVISOR_VCPU_OP => vcpu_op(cx),
        hypercall::HYPERVISOR_VM_ASSIST => calls::vm_assist::vm_assist(cx),
        hypercall::HYPERVISOR_CONSOLE_IO => calls::console_io::console_io(cx),
        hypercall::HYPERVISOR_HVM_OP => calls::hvm_op::hvm_op(cx),
        hypercall::HYPERVISOR_MMUEXT_OP => control::mmuext_op(cx).unwrap_or_else(Outcome::Fail),
        // Their structures are the same for all callers: of platform_op's those that are served.
        hypercall::HYPERVISOR_PHYSDEV_OP => control::physdev_op(cx),
        hypercall::HYPERVISOR_PLATFORM_OP => calls::platform_op::platform_op(cx),
        hypercall::HYPERVISOR_SYSCTL => calls::sysctl::sysctl(cx),
        hypercall::HYPERVISOR_DOMCTL => calls::domctl::domctl(cx),
        _ => Outcome::Fail(Errno::ENOSYS),
    }
}

/// Has a handler find the structure that argument `index` points to in its own form. What it answers is written back.
fn widened<T>(cx: &mut Context<'_>, index: usize, answers: Answers, handler: fn(&mut Context<'_>) -> Outcome) -> Outcome
where
    T: Wide<Native: FromBytes + IntoBytes + Immutable> + FromBytes + IntoBytes + Immutable,
{
    let at = cx.args().get(index).copied().unwrap_or(0);
    let begin = || {
        let (given, answer) = Handle::<T, InOut>::new(at).read()?;
        let mut window = Window::open().ok_or(Errno::EFAULT)?;
        window.put(0, &given.widen())?;
        Ok((given, answer, window))
    };
    let (given, answer, window) = match begin() {
        Ok(begun) => begun,
        Err(errno) => return Outcome::Fail(errno),
    };
    cx.set_arg(index, Window::ADDRESS);
    let outcome = handler(cx);
    cx.set_arg(index, at);
    if answers == Answers::There && matches!(outcome, Outcome::Done(_)) {
        let written = window.get(0).and_then(|native| answer.write(&given.narrow(&native)));
        if let Err(errno) = written {
            return Outcome::Fail(errno);
        }
    }
    outcome
}

/// Whether a handler answers in the structure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    There,
    No,
}

fn xen_version(cx: &mut Context<'_>) -> Outcome {
    let [command, va, ..] = cx.args();
    if low(command) != version::XENVER_PLATFORM_PARAMETERS {
        return calls::xen_version::xen_version(cx);
    }
    // No address is the hypervisor's.
    Handle::<_, Out>::new(va).write(&abi::PlatformParameters { virt_start: 0 }).into()
}

fn sched_op(cx: &mut Context<'_>) -> Outcome {
    let [command, ..] = cx.args();
    match low(command) {
        sched::SCHEDOP_POLL => widened::<abi::SchedPoll>(cx, 1, Answers::No, calls::sched_op::sched_op),
        _ => calls::sched_op::sched_op(cx),
    }
}

fn vcpu_op(cx: &mut Context<'_>) -> Outcome {
    let [command, ..] = cx.args();
    let handler = |cx: &mut Context<'_>| calls::vcpu_op::for_code(cx, Width::Long32);
    match low(command) {
        vcpu::VCPUOP_SET_SINGLESHOT_TIMER => widened::<abi::VcpuSetSingleshotTimer>(cx, 2, Answers::No, handler),
        vcpu::VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA => {
            widened::<abi::VcpuRegisterTimeMemoryArea>(cx, 2, Answers::No, handler)
        }
        vcpu::VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA => {
            widened::<abi::VcpuRegisterRunstateMemoryArea>(cx, 2, Answers::No, handler)
        }
        _ => handler(cx),
    }
}

fn memory_op(cx: &mut Context<'_>) -> Outcome {
    let [command, ..] = cx.args();
    let (command, first) = split_command(command);
    let handler = calls::memory_op::memory_op;
    match command {
        memory::XENMEM_INCREASE_RESERVATION | memory::XENMEM_DECREASE_RESERVATION | memory::XENMEM_POPULATE_PHYSMAP => {
            reservation(cx, command, low(first))
        }
        memory::XENMEM_ADD_TO_PHYSMAP_BATCH => add_batch(cx, low(first)).unwrap_or_else(Outcome::Fail),
        memory::XENMEM_ADD_TO_PHYSMAP => widened::<abi::AddToPhysmap>(cx, 1, Answers::No, handler),
        memory::XENMEM_REMOVE_FROM_PHYSMAP => widened::<abi::RemoveFromPhysmap>(cx, 1, Answers::No, handler),
        memory::XENMEM_EXCHANGE => control::exchange(cx).unwrap_or_else(Outcome::Fail),
        memory::XENMEM_ACQUIRE_RESOURCE => control::acquire_resource(cx, low(first)).unwrap_or_else(Outcome::Fail),
        memory::XENMEM_MEMORY_MAP => widened::<abi::MemoryMap>(cx, 1, Answers::There, handler),
        memory::XENMEM_MAXIMUM_RAM_PAGE
        | memory::XENMEM_CURRENT_RESERVATION
        | memory::XENMEM_MAXIMUM_RESERVATION
        | memory::XENMEM_MAXIMUM_GPFN => handler(cx),
        _ => Outcome::Fail(Errno::ENOSYS),
    }
}

/// A reservation, whose extents are numbers of another size: as many as the window holds in one go.
fn reservation(cx: &mut Context<'_>, command: u32, first: u32) -> Outcome {
    let [_, va, ..] = cx.args();
    // Whatever goes wrong, the answer is how many extents were done.
    let stopped = Outcome::Done(first.into());
    let Ok(given) = Handle::<abi::MemoryReservation, In>::new(va).read() else { return stopped };
    let listed = given.extent_start != 0;
    let room = if listed { NUMBERS } else { u32::MAX };
    let (Some(part), Some(mut window)) = (Part::new(first, given.nr_extents, room), Window::open()) else {
        return stopped;
    };
    let list = given.extent_start.into();
    let mut numbers = Series::<u32, In>::new(list).after(first.into());
    let place = |i: u32| LIST + u64::from(i) * 8;
    let mut there = if listed { 0 } else { part.count() };
    while there < part.count()
        && let Ok(number) = numbers.step().read()
        && window.put(place(there), &u64::from(number)).is_ok()
    {
        there += 1;
    }
    let wanted = memory::MemoryReservation {
        extent_start: if listed { Window::ADDRESS + LIST } else { 0 },
        nr_extents: there.into(),
        extent_order: given.extent_order,
        mem_flags: given.mem_flags,
        domid: given.domid,
        ..Default::default()
    };
    if window.put(0, &wanted).is_err() {
        return stopped;
    }
    cx.set_args([command.into(), Window::ADDRESS]);
    let (done, after) = match calls::memory_op::memory_op(cx) {
        Outcome::Done(done) => (low(done), part.ended(low(done))),
        Outcome::Again => {
            let (_, done) = split_command(cx.args()[0]);
            (low(done), part.interrupted(low(done)))
        }
        Outcome::Fail(errno) => return Outcome::Fail(errno),
    };
    if listed && command == memory::XENMEM_INCREASE_RESERVATION {
        for (i, told) in (0..done).zip(Series::<u32, Out>::new(list).after(first.into())) {
            if window.get(place(i)).and_then(|frame| told.write(&low(frame))).is_err() {
                return Outcome::Done((first + i).into());
            }
        }
    }
    match after {
        After::Over(done) => Outcome::Done(done.into()),
        After::From(next) => {
            cx.set_args([continued(command, next).into(), va]);
            Outcome::Again
        }
    }
}

/// Pages for the physical map, from `first` on, each of which is answered: as many as have room in one go.
fn add_batch(cx: &mut Context<'_>, first: u32) -> Result<Outcome, Errno> {
    const COMMAND: u32 = memory::XENMEM_ADD_TO_PHYSMAP_BATCH;
    const INDICES: u64 = LIST;
    const FRAMES: u64 = INDICES + PAGES as u64 * 8;
    const ANSWERS: u64 = FRAMES + PAGES as u64 * 8;
    const { assert!(ANSWERS + PAGES as u64 * 4 <= Window::BYTES) };
    let [_, va, ..] = cx.args();
    let given = Handle::<abi::AddToPhysmapBatch, In>::new(va).read()?;
    let part = Part::new(first, given.size.into(), PAGES).ok_or(Errno::EDOM)?;
    let mut window = Window::open().ok_or(Errno::EFAULT)?;
    for (from, to) in [(given.idxs, INDICES), (given.gpfns, FRAMES)] {
        let numbers = Series::<u32, In>::new(from.into()).after(first.into());
        for (i, number) in (0..u64::from(part.count())).zip(numbers) {
            window.put(to + i * 8, &u64::from(number.read()?))?;
        }
    }
    let size = u16::try_from(part.count()).map_err(|_| Errno::EDOM)?;
    let [idxs, gpfns, errs] = [INDICES, FRAMES, ANSWERS].map(|place| Window::ADDRESS + place);
    let (domid, space, foreign_domid) = (given.domid, given.space, given.foreign_domid);
    window.put(0, &memory::AddToPhysmapBatch { domid, space, size, foreign_domid, idxs, gpfns, errs })?;
    cx.set_args([COMMAND.into(), Window::ADDRESS]);
    let (done, after) = match calls::memory_op::memory_op(cx) {
        Outcome::Done(_) => (part.count(), part.ended(part.count())),
        Outcome::Again => {
            let (_, done) = split_command(cx.args()[0]);
            (low(done), part.interrupted(low(done)))
        }
        Outcome::Fail(errno) => return Err(errno),
    };
    let answers = Series::<i32, Out>::new(given.errs.into()).after(first.into());
    for (i, told) in (0..u64::from(done)).zip(answers) {
        told.write(&window.get::<i32>(ANSWERS + i * 4)?)?;
    }
    Ok(match after {
        After::Over(_) => Outcome::OK,
        After::From(next) => {
            cx.set_args([continued(COMMAND, next).into(), va]);
            Outcome::Again
        }
    })
}

fn grant_table_op(cx: &mut Context<'_>) -> Outcome {
    let [command, _, count, ..] = cx.args();
    match low(command) {
        grant_table::GNTTABOP_COPY if count != 0 => copies(cx).unwrap_or_else(Outcome::Fail),
        grant_table::GNTTABOP_SETUP_TABLE => setup_table(cx).unwrap_or_else(Outcome::Fail),
        _ => super::hypercall::grant_table_op(cx),
    }
}

/// Some copies, each of which is answered.
fn copies(cx: &mut Context<'_>) -> Result<Outcome, Errno> {
    const NATIVE: u64 = size_of::<grant_table::GnttabCopy>() as u64;
    let [command, va, count, ..] = cx.args();
    if i32::try_from(count).is_err() {
        return Err(Errno::EINVAL);
    }
    let mut window = Window::open().ok_or(Errno::EFAULT)?;
    let mut wanted = Series::<abi::GnttabCopy, In>::new(va);
    let mut there = 0;
    while there < count.min(COPIES.into()) {
        match wanted.step().read() {
            Ok(given) => window.put(there * NATIVE, &given.widen())?,
            Err(errno) if there == 0 => return Err(errno),
            // The next round says so.
            Err(_) => break,
        }
        there += 1;
    }
    cx.set_args([command, Window::ADDRESS, there]);
    let done = match calls::grant_table_op::grant_table_op(cx) {
        Outcome::Done(_) => there,
        Outcome::Again => cx.args()[1].saturating_sub(Window::ADDRESS) / NATIVE,
        Outcome::Fail(errno) => return Err(errno),
    };
    let mut answers = Series::<abi::GnttabCopy, Out>::new(va);
    for i in 0..done {
        let answer: grant_table::GnttabCopy = window.get(i * NATIVE)?;
        answers.step().part(field!(abi::GnttabCopy, status)).write(&answer.status)?;
    }
    if done == count {
        return Ok(Outcome::OK);
    }
    cx.set_args([command, answers.address(), count - done]);
    Ok(Outcome::Again)
}

/// Where the frames of the grant table are: numbers of another size again.
fn setup_table(cx: &mut Context<'_>) -> Result<Outcome, Errno> {
    let [command, va, count, ..] = cx.args();
    if count != 1 {
        return Err(Errno::EINVAL);
    }
    let (given, to) = Handle::<abi::GnttabSetupTable, InOut>::new(va).read()?;
    let mut window = Window::open().ok_or(Errno::EFAULT)?;
    // More than there can be stays more.
    let nr_frames = if given.nr_frames > NUMBERS { u32::MAX } else { given.nr_frames };
    let frame_list = Window::ADDRESS + LIST;
    window.put(0, &grant_table::GnttabSetupTable { nr_frames, frame_list, ..given.widen() })?;
    cx.set_args([command, Window::ADDRESS, count]);
    let outcome = calls::grant_table_op::grant_table_op(cx);
    if !matches!(outcome, Outcome::Done(0)) {
        return Ok(outcome);
    }
    let mut answer = given.narrow(&window.get(0)?);
    if answer.status == 0 {
        let list = Series::<u32, Out>::new(given.frame_list.into());
        let told = (0..u64::from(given.nr_frames))
            .zip(list)
            .try_for_each(|(i, told)| told.write(&low(window.get(LIST + i * 8)?)));
        if told.is_err() {
            answer.status = GNTST_BAD_VIRT_ADDR;
        }
    }
    to.write(&answer)?;
    Ok(outcome)
}
