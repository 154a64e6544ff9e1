//! `HYPERVISOR_vcpu_op`: other vCPUs of the domain, timers and shared areas (`vcpu.h`).

use alloc::{sync::Arc, vec::Vec};

use logic::{
    access::VcpuOp as Op,
    event::EventDomain,
    guest::{In, Out},
    hypercall::Outcome,
    num::{self, index_below},
    time::{Nanos, Periodic},
    width::Width,
};
use machine::mem::shared::SharedPage;
use xen_abi::{
    arch_x86::{VcpuGuestContext, shared_info},
    errno::Errno,
    hvm::VcpuHvmContext,
    vcpu as abi,
};

use super::set_timer_op::set_singleshot;
use crate::{
    cpu::Context,
    cpu_loop,
    guest::{Handle, is_guest_range},
    memory, time,
    vcpu::{Vcpu, VcpuFlags, Wishes},
};

/// The shortest period of a timer.
const SHORTEST: Nanos = Nanos::from_millis(1);
/// The longest: beyond it the sum with the present time could wrap.
const LONGEST: Nanos = Nanos(i64::MAX as u64 >> 2);

/// The hypercall: rdi is the operation, rsi the vCPU, rdx points to the operation's structure.
pub fn vcpu_op(cx: &mut Context<'_>) -> Outcome {
    for_code(cx, Width::Long64)
}

/// The same for code of this width, which decides how run states are written.
pub fn for_code(cx: &mut Context<'_>, width: Width) -> Outcome {
    let [command, id, va, ..] = cx.args();
    let vcpus = cx.domain.vcpus();
    let vcpu = index_below(num::uint(id).into(), vcpus.len()).and_then(|index| vcpus.get(index));
    let Some(vcpu) = vcpu.cloned() else { return Outcome::Fail(Errno::ENOENT) };
    let myself = Arc::ptr_eq(&vcpu, cx.vcpu);
    let op = match cx.permit::<Op>(num::uint(command)) {
        Ok(op) => op,
        Err(errno) => return Outcome::Fail(errno),
    };
    match op.op() {
        Op::Initialise => initialise(cx, &vcpu, va),
        Op::Up => up(cx, &vcpu).into(),
        Op::Down => {
            cx.domain.take_down(&vcpu, &mut cx.held);
            Outcome::OK
        }
        Op::IsUp => Outcome::Done(vcpu.seat.ready.is_up().into()),
        Op::GetRunstateInfo => {
            let record = time::runstate_record(vcpu.seat.clock.at(time::now()));
            time::write_runstate_record(va, &record, width).into()
        }
        Op::RegisterRunstateMemoryArea => register_runstate(cx, &vcpu, Handle::new(va), width).into(),
        Op::SetPeriodicTimer => set_periodic(cx, &vcpu, Handle::new(va)).into(),
        Op::StopPeriodicTimer => {
            change_periodic(cx, &vcpu, None);
            Outcome::OK
        }
        Op::SetSingleshotTimer if myself => Handle::<abi::VcpuSetSingleshotTimer, In>::new(va)
            .read()
            .map(|op| set_singleshot(cx, Nanos(op.timeout_abs_ns), time::now()))
            .into(),
        Op::StopSingleshotTimer if myself => {
            cx.state.timers.singleshot = None;
            Outcome::OK
        }
        Op::SetSingleshotTimer | Op::StopSingleshotTimer => Outcome::Fail(Errno::EINVAL),
        Op::RegisterVcpuInfo => register_vcpu_info(cx, &vcpu, Handle::new(va)).into(),
        Op::RegisterVcpuTimeMemoryArea => register_time(cx, &vcpu, myself, Handle::new(va)).into(),
        // It has no argument.
        Op::SendNmi if va != 0 => Outcome::Fail(Errno::EINVAL),
        Op::SendNmi => {
            if !vcpu.seat.ready.set_nmi() {
                cpu_loop::nudge(&vcpu, &mut cx.held);
            }
            Outcome::OK
        }
        Op::GetPhysid => physical_id(cx, &vcpu, Handle::new(va)).into(),
    }
}

/// `VCPUOP_initialise`: gives a vCPU that is down its first state. EEXIST when it has one.
fn initialise(cx: &mut Context<'_>, vcpu: &Arc<Vcpu>, va: u64) -> Outcome {
    if vcpu.info.get().is_missing() {
        return Outcome::Fail(Errno::EINVAL);
    }
    if cx.domain.pvh().is_some() {
        return initialise_pvh(cx, vcpu, Handle::new(va)).into();
    }
    let wanted = match Handle::<VcpuGuestContext, In>::new(va).read_boxed() {
        Ok(wanted) => wanted,
        Err(errno) => return Outcome::Fail(errno),
    };
    if vcpu.flags().contains(VcpuFlags::INITIALISED) {
        return Outcome::Fail(Errno::EEXIST);
    }
    // While its state is in our hands no CPU may try to run it, whoever else gives it a state and brings it up.
    cpu_loop::pause(vcpu);
    let result = if vcpu.flags().contains(VcpuFlags::INITIALISED) {
        Err(Errno::EEXIST)
    } else {
        crate::domain::context::set(cx.domain, vcpu, &wanted, &mut cx.held)
    };
    cpu_loop::unpause(vcpu, &mut cx.held);
    match result {
        Ok(true) => Outcome::OK,
        Ok(false) => Outcome::Again,
        Err(errno) => Outcome::Fail(errno),
    }
}

#[cold]
fn initialise_pvh(cx: &mut Context<'_>, vcpu: &Arc<Vcpu>, wanted: Handle<VcpuHvmContext, In>) -> Result<(), Errno> {
    let wanted = wanted.read()?;
    if vcpu.flags().contains(VcpuFlags::INITIALISED) {
        return Err(Errno::EEXIST);
    }
    cpu_loop::pause(vcpu);
    // Meanwhile someone else may have given it one.
    let result = if vcpu.flags().contains(VcpuFlags::INITIALISED) {
        Err(Errno::EEXIST)
    } else {
        crate::hvm::context::initialise(cx.domain, vcpu, &wanted, &mut cx.held)
    };
    cpu_loop::unpause(vcpu, &mut cx.held);
    result
}

fn up(cx: &mut Context<'_>, vcpu: &Arc<Vcpu>) -> Result<(), Errno> {
    if !vcpu.flags().contains(VcpuFlags::INITIALISED) {
        return Err(Errno::EINVAL);
    }
    let (_, woken) = vcpu.seat.ready.bring_up();
    cpu_loop::wake(vcpu, woken, &mut cx.held);
    Ok(())
}

/// Whether an area may lie there. In a container no address is the hypervisor's, and what cannot be written is not.
fn may_be_area(cx: &Context<'_>, va: u64) -> bool {
    cx.domain.pvh().is_some() || is_guest_range(va, 1)
}

/// `VCPUOP_register_runstate_memory_area`. As in Xen it is written once as the calling code has it, and from then on as the
/// domain's kernel does, whose width was found out before.
fn register_runstate(
    cx: &mut Context<'_>,
    vcpu: &Arc<Vcpu>,
    op: Handle<abi::VcpuRegisterRunstateMemoryArea, In>,
    width: Width,
) -> Result<(), Errno> {
    let op = op.read()?;
    if !may_be_area(cx, op.addr) {
        return Err(Errno::EFAULT);
    }
    if Arc::ptr_eq(vcpu, cx.vcpu) {
        cx.state.areas.runstate = op.addr;
        if width == cx.domain.width() {
            cx.state.areas.show_runstate(vcpu, cx.domain);
        } else {
            let _ = time::write_runstate_record(op.addr, &time::runstate_record(vcpu.seat.clock.stored()), width);
        }
        return Ok(());
    }
    of_another(cx, vcpu, Wishes { runstate: Some(op.addr), ..Wishes::default() });
    // Shows the state it is in now, in the caller's address space, which is the same kernel's. As with its own, a place that
    // cannot be written is the guest's loss.
    let _ = time::write_runstate_record(op.addr, &time::runstate_record(vcpu.seat.clock.stored()), width);
    Ok(())
}

/// Changes a vCPU's periodic timer: the caller's own, or another one's.
fn change_periodic(cx: &mut Context<'_>, vcpu: &Arc<Vcpu>, periodic: Option<Periodic>) {
    if Arc::ptr_eq(vcpu, cx.vcpu) {
        cx.state.timers.periodic = periodic;
        if let Some(next) = cx.state.timers.next() {
            cpu_loop::arm(&mut cx.cpu.sched.timer, next);
        }
    } else {
        of_another(cx, vcpu, Wishes { periodic: Some(periodic), ..Wishes::default() });
    }
}

/// Changes what is another vCPU's own: at once while no CPU has it, else the CPU that has it takes the change over.
fn of_another(cx: &mut Context<'_>, vcpu: &Vcpu, wishes: Wishes) {
    if let Some(state) = vcpu.parked.lock(&mut cx.held).0.as_mut() {
        // What was wanted before and not done yet comes first.
        state.take_over(vcpu);
        state.grant(wishes);
        return;
    }
    vcpu.wishes.lock_leaf(|all| {
        let all = all.get_or_insert_default();
        all.periodic = wishes.periodic.or(all.periodic);
        all.runstate = wishes.runstate.or(all.runstate);
        all.time = wishes.time.or(all.time);
    });
    cpu_loop::look_again(vcpu.processor());
    cpu_loop::kick(vcpu);
}

fn set_periodic(
    cx: &mut Context<'_>,
    vcpu: &Arc<Vcpu>,
    op: Handle<abi::VcpuSetPeriodicTimer, In>,
) -> Result<(), Errno> {
    let op = op.read()?;
    let period = Nanos(op.period_ns);
    if period < SHORTEST || period > LONGEST {
        return Err(Errno::EINVAL);
    }
    let next = time::now().after(period);
    change_periodic(cx, vcpu, Some(Periodic { period, next }));
    Ok(())
}

/// `VCPUOP_register_vcpu_info`: once, by the vCPU itself or for one that is down.
fn register_vcpu_info(
    cx: &mut Context<'_>,
    vcpu: &Arc<Vcpu>,
    op: Handle<abi::VcpuRegisterVcpuInfo, In>,
) -> Result<(), Errno> {
    let op = op.read()?;
    let offset = op.offset as usize;
    if !offset.is_multiple_of(8) || offset > 4096 - shared_info::VCPU_INFO_STRIDE {
        return Err(Errno::ENXIO);
    }
    if !Arc::ptr_eq(vcpu, cx.vcpu) && vcpu.seat.ready.is_up() {
        return Err(Errno::EINVAL);
    }
    let mfn = cx.domain.frame_of(op.mfn, &mut cx.held).ok_or(Errno::EINVAL)?;
    let mut deferred = Vec::new();
    let page = memory::mmu(cx.held.again(), cx.domain, &mut deferred).hold_writable(mfn, cx.domain.id);
    let page = Arc::new(SharedPage::new(page.ok_or(Errno::EINVAL)?));
    if let Err(page) = vcpu.info.register(page, offset) {
        if let Some(page) = Arc::into_inner(page) {
            memory::mmu(cx.held.again(), cx.domain, &mut deferred).end_shared(page.into_frame());
        }
        return Err(Errno::EINVAL);
    }
    // An event sent while the place changed may have gone to the old one: the guest looks at everything.
    vcpu.info.get().set_all_pending(cx.domain.width());
    time::show_time(vcpu, &cx.domain.tsc);
    cpu_loop::event(vcpu, &mut cx.held);
    Ok(())
}

/// `VCPUOP_register_vcpu_time_memory_area`: for the vCPU itself, or for another one.
fn register_time(
    cx: &mut Context<'_>,
    vcpu: &Arc<Vcpu>,
    myself: bool,
    op: Handle<abi::VcpuRegisterTimeMemoryArea, In>,
) -> Result<(), Errno> {
    let op = op.read()?;
    if op.addr != 0 {
        if !may_be_area(cx, op.addr) {
            return Err(Errno::EFAULT);
        }
        // What is not mapped now may be later.
        let _ = time::write_time_area(op.addr, &cx.domain.tsc);
    }
    if myself {
        cx.state.areas.time = op.addr;
    } else {
        of_another(cx, vcpu, Wishes { time: Some(op.addr), ..Wishes::default() });
    }
    Ok(())
}

/// `VCPUOP_get_physid`: for the hardware domain's vCPUs that are pinned.
fn physical_id(cx: &Context<'_>, vcpu: &Vcpu, told: Handle<abi::VcpuGetPhysid, Out>) -> Result<(), Errno> {
    let pinned = vcpu.seat.hard_affinity().and(cx.domain.pool.cpus());
    if !cx.domain.is_control() || pinned.0.count_ones() != 1 {
        return Err(Errno::EINVAL);
    }
    let cpu = u64::from(pinned.first().unwrap_or(0));
    told.write(&abi::VcpuGetPhysid { phys_id: cpu | cpu << 32 })
}
