//! `HYPERVISOR_physdev_op`: I/O privilege of a vCPU, and the machine's interrupts and PCI devices for those who own them
//! (public header `physdev.h`).

mod interrupts;
mod io_apic;
mod pci;

use logic::{
    access::{Allowed, PhysdevOp as Op},
    guest::{In, InOut},
    hypercall::Outcome,
    num,
    trap::is_hypervisor_address,
};
use xen_abi::{
    errno::Errno,
    physdev::{self as abi, SetIobitmap, SetIopl},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    cpu::Context,
    guest::{Handle, is_guest_range},
    trap::state::IoBitmap,
};

const PORTS: u32 = 0x1_0000;

/// The hypercall: rdi is the command, rsi points to its argument.
pub fn physdev_op(cx: &mut Context<'_>) -> Outcome {
    let [command, va, ..] = cx.args();
    serve(cx, num::uint(command), va)
}

/// The hypercall from a container: interrupts by a domain's own numbers, for the control domain (`XENFEAT_hvm_pirqs`), and the
/// machine's PCI devices.
#[cold]
pub fn from_container(cx: &mut Context<'_>) -> Outcome {
    let [command, va, ..] = cx.args();
    let command = num::uint(command);
    let served = matches!(
        command,
        abi::PHYSDEVOP_EOI
            | abi::PHYSDEVOP_IRQ_STATUS_QUERY
            | abi::PHYSDEVOP_MAP_PIRQ
            | abi::PHYSDEVOP_UNMAP_PIRQ
            | abi::PHYSDEVOP_GET_FREE_PIRQ
            | abi::PHYSDEVOP_PCI_MMCFG_RESERVED
            | abi::PHYSDEVOP_PCI_DEVICE_ADD
            | abi::PHYSDEVOP_PCI_DEVICE_REMOVE
            | abi::PHYSDEVOP_DBGP_OP
    );
    if served && cx.domain.is_control() { serve(cx, command, va) } else { Outcome::Fail(Errno::ENOSYS) }
}

/// Carries out an operation whose structure is at `va`.
pub fn serve(cx: &mut Context<'_>, command: u32, va: u64) -> Outcome {
    let allowed: Allowed<Op> = match cx.permit(command) {
        Ok(allowed) => allowed,
        Err(errno) => return Outcome::Fail(errno),
    };
    match allowed.op() {
        Op::SetIopl => argument(va).and_then(|wanted| set_iopl(cx, &wanted)).into(),
        Op::SetIobitmap => argument(va).and_then(|wanted| set_iobitmap(cx, &wanted)).into(),
        Op::Eoi => argument(va).and_then(|wanted| interrupts::end(cx, &wanted)).into(),
        Op::IrqStatusQuery => update(cx, va, interrupts::status),
        Op::PirqEoiGmfnV1 => argument(va).and_then(|wanted| interrupts::register_map(cx, &wanted, true)).into(),
        Op::PirqEoiGmfnV2 => argument(va).and_then(|wanted| interrupts::register_map(cx, &wanted, false)).into(),
        Op::MapPirq => interrupts::map(cx, &allowed, Handle::new(va)).into(),
        Op::UnmapPirq => argument(va).and_then(|wanted| interrupts::unmap(cx, &allowed, &wanted)).into(),
        Op::GetFreePirq => update(cx, va, interrupts::find_free),
        Op::SetupGsi => argument(va).and_then(|wanted| interrupts::set_up(cx, &wanted)).into(),
        Op::ApicRead => update(cx, va, |_, op| io_apic::read(op)),
        Op::ApicWrite => argument(va).and_then(|wanted| io_apic::write(cx, &wanted)).into(),
        // Vectors are the hypervisor's own business since Xen 3.4: the line's number stands in for one.
        Op::AllocIrqVector => update(cx, va, |_, op: &mut abi::Irq| {
            op.vector = op.irq;
            Ok(())
        }),
        Op::ManagePciAdd => argument(va).and_then(|wanted| pci::add_old(cx, &wanted)).into(),
        Op::ManagePciAddExt => argument(va).and_then(|wanted| pci::add_extended(cx, &wanted)).into(),
        Op::PciDeviceAdd => argument(va).and_then(|wanted| pci::add(cx, &wanted)).into(),
        Op::ManagePciRemove => argument(va).and_then(|wanted| pci::remove_old(cx, &wanted)).into(),
        Op::PciDeviceRemove => argument(va).and_then(|wanted| pci::remove(cx, &wanted)).into(),
        Op::RestoreMsi => argument(va).and_then(|wanted| pci::restore_old(cx, &wanted)).into(),
        Op::RestoreMsiExt => argument(va).and_then(|wanted| pci::restore(cx, &wanted)).into(),
        Op::PrepareMsix => argument(va).and_then(|wanted| pci::prepare_table(cx, &wanted)).into(),
        Op::ReleaseMsix => argument(va).and_then(|wanted| pci::release_table(cx, &wanted)).into(),
        Op::PciMmcfgReserved => argument(va).and_then(|wanted| pci::mmcfg_reserved(&wanted)).into(),
        Op::DbgpOp => argument(va).and_then(|wanted| pci::debug_port(&wanted)).into(),
    }
}

/// What an operation that tells nothing asks for.
fn argument<T: FromBytes + IntoBytes>(va: u64) -> Result<T, Errno> {
    Handle::<T, In>::new(va).read()
}

/// Reads the structure, carries out the operation on it and writes it back.
fn update<T: FromBytes + IntoBytes + Immutable>(
    cx: &mut Context<'_>,
    va: u64,
    op: fn(&mut Context<'_>, &mut T) -> Result<(), Errno>,
) -> Outcome {
    let read = Handle::<T, InOut>::new(va).read();
    read.and_then(|(mut arg, answer)| op(cx, &mut arg).and_then(|()| answer.write(&arg))).into()
}

fn set_iopl(cx: &mut Context<'_>, wanted: &SetIopl) -> Result<(), Errno> {
    if wanted.iopl > 3 {
        return Err(Errno::EINVAL);
    }
    cx.state.pv.iopl = u64::from(wanted.iopl) << 12;
    Ok(())
}

fn set_iobitmap(cx: &mut Context<'_>, wanted: &SetIobitmap) -> Result<(), Errno> {
    let last = wanted.bitmap.wrapping_add(u64::from(wanted.nr_ports.div_ceil(8).max(1) - 1));
    if wanted.nr_ports > PORTS || !is_guest_range(wanted.bitmap, 1) || is_hypervisor_address(last) {
        return Err(Errno::EINVAL);
    }
    cx.state.pv.io_bitmap = IoBitmap { va: wanted.bitmap, ports: wanted.nr_ports };
    Ok(())
}
