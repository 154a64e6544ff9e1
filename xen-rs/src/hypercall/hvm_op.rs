//! `HYPERVISOR_hvm_op`: what is set of PVH domains (`hvm/hvm_op.h`, `hvm/params.h`).

use logic::{
    access::{Allowed, HvmOp as Op},
    guest::{In, InOut, Out},
    hypercall::Outcome,
};
use xen_abi::{
    errno::Errno,
    hvm::{self as abi, HvmEvtchnUpcallVector, HvmGetTime, HvmParam},
    sched::SHUTDOWN_MAX,
};

use crate::{cpu::Context, cpu_loop, guest::Handle, hvm, time};

/// The lowest vector an APIC takes.
const LOWEST_VECTOR: u8 = 0x10;

/// The hypercall: rdi is the operation, rsi points to its structure.
pub fn hvm_op(cx: &mut Context<'_>) -> Outcome {
    let [command, va, ..] = cx.args();
    let Ok(command) = u32::try_from(command) else { return Outcome::Fail(Errno::ENOSYS) };
    let op = match cx.permit::<Op>(command) {
        Ok(op) => op,
        Err(errno) => return Outcome::Fail(errno),
    };
    match op.op() {
        Op::SetParam => set_param(cx, &op, Handle::new(va)).into(),
        Op::GetParam => get_param(cx, &op, Handle::new(va)).into(),
        Op::GetTime => Handle::<_, Out>::new(va).write(&HvmGetTime { now: time::now().0 }).into(),
        Op::SetEvtchnUpcallVector => set_upcall_vector(cx, Handle::new(va)).into(),
    }
}

/// Whether a domain may set a parameter of its own.
const fn is_guests_to_set(index: u32) -> bool {
    matches!(
        index,
        abi::HVM_PARAM_CALLBACK_IRQ
            | abi::HVM_PARAM_VM86_TSS
            | abi::HVM_PARAM_VM86_TSS_SIZED
            | abi::HVM_PARAM_ACPI_IOPORTS_LOCATION
            | abi::HVM_PARAM_VM_GENERATION_ID_ADDR
            | abi::HVM_PARAM_STORE_EVTCHN
            | abi::HVM_PARAM_CONSOLE_EVTCHN
            | abi::HVM_PARAM_X87_FIP_WIDTH
    )
}

/// Whether a domain may see a parameter of its own.
const fn is_guests_to_get(index: u32) -> bool {
    is_guests_to_set(index) || matches!(index, abi::HVM_PARAM_STORE_PFN | abi::HVM_PARAM_CONSOLE_PFN)
}

fn set_param(cx: &mut Context<'_>, op: &Allowed<Op>, wanted: Handle<HvmParam, In>) -> Result<(), Errno> {
    let wanted = wanted.read()?;
    if wanted.index >= abi::HVM_NR_PARAMS {
        return Err(Errno::EINVAL);
    }
    let target = cx.target(op, wanted.domid)?;
    let pvh = target.pvh().ok_or(Errno::EINVAL)?;
    if target.id == cx.domain.id && !is_guests_to_set(wanted.index) {
        return Err(Errno::EPERM);
    }
    match wanted.index {
        abi::HVM_PARAM_CALLBACK_IRQ => {
            hvm::set_callback(&target, wanted.value, &mut cx.held);
            if target.id == cx.domain.id {
                hvm::latch_width(cx);
            }
        }
        // What only device models and shadow page tables have a use for.
        abi::HVM_PARAM_VIRIDIAN | abi::HVM_PARAM_NESTEDHVM | abi::HVM_PARAM_ALTP2M if wanted.value != 0 => {
            return Err(Errno::EINVAL);
        }
        abi::HVM_PARAM_TRIPLE_FAULT_REASON if wanted.value > SHUTDOWN_MAX.into() => return Err(Errno::EINVAL),
        _ => {}
    }
    pvh.set_param(wanted.index, wanted.value);
    Ok(())
}

fn get_param(cx: &mut Context<'_>, op: &Allowed<Op>, wanted: Handle<HvmParam, InOut>) -> Result<(), Errno> {
    let (mut wanted, answer) = wanted.read()?;
    if wanted.index >= abi::HVM_NR_PARAMS {
        return Err(Errno::EINVAL);
    }
    let target = cx.target(op, wanted.domid)?;
    let pvh = target.pvh().ok_or(Errno::EINVAL)?;
    if target.id == cx.domain.id && !is_guests_to_get(wanted.index) {
        return Err(Errno::EPERM);
    }
    wanted.value = pvh.param(wanted.index);
    answer.write(&wanted)
}

/// A vector of a vCPU's own for its events.
fn set_upcall_vector(cx: &mut Context<'_>, wanted: Handle<HvmEvtchnUpcallVector, In>) -> Result<(), Errno> {
    // Before its words are read, as in Xen.
    if cx.domain.pvh().is_none() {
        return Err(Errno::EINVAL);
    }
    let wanted = wanted.read()?;
    if wanted.vector < LOWEST_VECTOR {
        return Err(Errno::EINVAL);
    }
    let vcpu = cx.domain.vcpu(wanted.vcpu).ok_or(Errno::ENOENT)?.clone();
    vcpu.set_upcall_vector(wanted.vector);
    cpu_loop::event(&vcpu, &mut cx.held);
    Ok(())
}
