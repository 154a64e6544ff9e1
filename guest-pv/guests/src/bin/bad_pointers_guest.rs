//! Pointers that no hypercall may follow, from a domain without rights: which answer comes first, that it may not or that
//! nothing is there. And what of that domain its creator cannot have written to nowhere.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::mem::offset_of;
use guest_pv::alloc::vec::Vec;
use guest_pv::tap::Tap;
use guests::domain::{Call, End, HOLE, Tiny};
use guests::pointers::{Ground, P, inout, input};
use xen_abi::Errno;
use xen_abi::arch_x86::VcpuGuestContext;
use xen_abi::domctl::*;
use xen_abi::event_channel::*;
use xen_abi::grant_table::*;
use xen_abi::hypercall::*;
use xen_abi::memory::*;
use xen_abi::physdev::*;
use xen_abi::sched::*;
use xen_abi::vcpu::*;
use xen_abi::version::*;
use zerocopy::IntoBytes;

guest_pv::test!(run);

fn run(tap: &mut Tap) {
    let tiny = Tiny::caller();
    calls(tap, &tiny);
    context(tap, &tiny);
}

/// A call whose pointer is the argument of that number.
type Row = (&'static str, u32, u64, usize, Result<u64, Errno>);

const NOTHING: Result<u64, Errno> = Ok(0);
const FAULT: Result<u64, Errno> = Err(Errno::EFAULT);
const DENIED: Result<u64, Errno> = Err(Errno::EPERM);
/// `EFAULT` from Xen, which reads the argument of an operation that the domain may not ask for; `EPERM` from xen-rs, which
/// looks at rights before it reads anything, wherever the operation is in a register.
const EITHER: Result<u64, Errno> = Err(Errno::ENOTEMPTY);

const M: u32 = HYPERVISOR_MEMORY_OP;
const D: u32 = HYPERVISOR_PHYSDEV_OP;
const E: u32 = HYPERVISOR_EVENT_CHANNEL_OP;
const G: u32 = HYPERVISOR_GRANT_TABLE_OP;
const X: u32 = HYPERVISOR_XEN_VERSION;

const fn row(name: &'static str, number: u32, command: u32, want: Result<u64, Errno>) -> Row {
    (name, number, command as u64, 1, want)
}

const ROWS: [Row; 58] = [
    ("domctl", HYPERVISOR_DOMCTL, 0, 0, FAULT),
    ("sysctl", HYPERVISOR_SYSCTL, 0, 0, FAULT),
    ("platform_op", HYPERVISOR_PLATFORM_OP, 0, 0, FAULT),
    ("mca", HYPERVISOR_MCA, 0, 0, DENIED),
    row("increase_reservation", M, XENMEM_INCREASE_RESERVATION, NOTHING),
    row("decrease_reservation", M, XENMEM_DECREASE_RESERVATION, NOTHING),
    row("populate_physmap", M, XENMEM_POPULATE_PHYSMAP, NOTHING),
    row("current_reservation", M, XENMEM_CURRENT_RESERVATION, FAULT),
    row("machphys_mfn_list", M, XENMEM_MACHPHYS_MFN_LIST, FAULT),
    row("machphys_mapping", M, XENMEM_MACHPHYS_MAPPING, FAULT),
    row("memory_map", M, XENMEM_MEMORY_MAP, FAULT),
    row("machine_memory_map", M, XENMEM_MACHINE_MEMORY_MAP, DENIED),
    row("set_memory_map", M, XENMEM_SET_MEMORY_MAP, FAULT),
    row("add_to_physmap", M, XENMEM_ADD_TO_PHYSMAP, FAULT),
    row("remove_from_physmap", M, XENMEM_REMOVE_FROM_PHYSMAP, FAULT),
    row("exchange", M, XENMEM_EXCHANGE, FAULT),
    row("claim_pages", M, XENMEM_CLAIM_PAGES, EITHER),
    row("acquire_resource", M, XENMEM_ACQUIRE_RESOURCE, FAULT),
    row("get_vnumainfo", M, XENMEM_GET_VNUMAINFO, FAULT),
    row("get_sharing_freed_pages", M, XENMEM_GET_SHARING_FREED_PAGES, NOTHING),
    row("bind_interdomain", E, EVTCHNOP_BIND_INTERDOMAIN, FAULT),
    row("bind_pirq", E, EVTCHNOP_BIND_PIRQ, FAULT),
    row("alloc_unbound", E, EVTCHNOP_ALLOC_UNBOUND, FAULT),
    row("status", E, EVTCHNOP_STATUS, FAULT),
    row("reset", E, EVTCHNOP_RESET, FAULT),
    row("poll", HYPERVISOR_SCHED_OP, SCHEDOP_POLL, FAULT),
    row("shutdown", HYPERVISOR_SCHED_OP, SCHEDOP_SHUTDOWN, FAULT),
    row("remote_shutdown", HYPERVISOR_SCHED_OP, SCHEDOP_REMOTE_SHUTDOWN, FAULT),
    row("watchdog", HYPERVISOR_SCHED_OP, SCHEDOP_WATCHDOG, FAULT),
    row("pin_override", HYPERVISOR_SCHED_OP, SCHEDOP_PIN_OVERRIDE, DENIED),
    ("get_physid", HYPERVISOR_VCPU_OP, VCPUOP_GET_PHYSID as u64, 2, Err(Errno::EINVAL)),
    ("get_runstate_info", HYPERVISOR_VCPU_OP, VCPUOP_GET_RUNSTATE_INFO as u64, 2, FAULT),
    ("register_vcpu_info", HYPERVISOR_VCPU_OP, VCPUOP_REGISTER_VCPU_INFO as u64, 2, FAULT),
    row("extraversion", X, XENVER_EXTRAVERSION, FAULT),
    row("changeset", X, XENVER_CHANGESET, FAULT),
    row("commandline", X, XENVER_COMMANDLINE, FAULT),
    row("build_id", X, XENVER_BUILD_ID, DENIED),
    row("get_features", X, XENVER_GET_FEATURES, FAULT),
    row("eoi", D, PHYSDEVOP_EOI, FAULT),
    row("irq_status_query", D, PHYSDEVOP_IRQ_STATUS_QUERY, FAULT),
    row("set_iopl", D, PHYSDEVOP_SET_IOPL, FAULT),
    row("set_iobitmap", D, PHYSDEVOP_SET_IOBITMAP, FAULT),
    row("apic_read", D, PHYSDEVOP_APIC_READ, EITHER),
    row("apic_write", D, PHYSDEVOP_APIC_WRITE, EITHER),
    row("alloc_irq_vector", D, PHYSDEVOP_ALLOC_IRQ_VECTOR, EITHER),
    row("map_pirq", D, PHYSDEVOP_MAP_PIRQ, EITHER),
    row("unmap_pirq", D, PHYSDEVOP_UNMAP_PIRQ, EITHER),
    row("manage_pci_add", D, PHYSDEVOP_MANAGE_PCI_ADD, EITHER),
    row("restore_msi", D, PHYSDEVOP_RESTORE_MSI, EITHER),
    row("setup_gsi", D, PHYSDEVOP_SETUP_GSI, EITHER),
    row("get_free_pirq", D, PHYSDEVOP_GET_FREE_PIRQ, FAULT),
    row("pci_mmcfg_reserved", D, PHYSDEVOP_PCI_MMCFG_RESERVED, DENIED),
    row("pci_device_add", D, PHYSDEVOP_PCI_DEVICE_ADD, EITHER),
    row("dbgp_op", D, PHYSDEVOP_DBGP_OP, DENIED),
    row("prepare_msix", D, PHYSDEVOP_PREPARE_MSIX, EITHER),
    row("query_size", G, GNTTABOP_QUERY_SIZE, FAULT),
    row("map_grant_ref", G, GNTTABOP_MAP_GRANT_REF, FAULT),
    ("console_io read", HYPERVISOR_CONSOLE_IO, 1, 2, DENIED),
];

fn calls(tap: &mut Tap, tiny: &Tiny) {
    let mut calls: Vec<Call> = Vec::new();
    for &(_, number, command, at, _) in &ROWS {
        let mut call = [number.into(), command, 0, 0, 0, 0, 0x5eed];
        if number == G {
            call[3] = 1;
        } else if number == HYPERVISOR_CONSOLE_IO {
            call[2] = 8;
        }
        call[1 + at] = HOLE;
        calls.push(call);
    }
    tap.is(tiny.make(&mut calls, &[]), End::Shutdown(SHUTDOWN_POWEROFF), "the domain makes its calls");
    for (row, call) in ROWS.iter().zip(&calls) {
        let got = Errno::from_ret(call[6]).map_or(Ok(call[6]), Err);
        if row.4 == EITHER {
            tap.ok(got == FAULT || got == DENIED, row.0);
        } else {
            tap.is(got, row.4, row.0);
        }
    }
}

/// The state of a vCPU that has run.
fn context(tap: &mut Tap, tiny: &Tiny) {
    let mut ground = Ground::new();
    let op = |cmd: u32| {
        let mut op =
            Domctl { cmd, interface_version: XEN_DOMCTL_INTERFACE_VERSION, domain: tiny.id, ..Default::default() };
        VcpuContext::default().write_to_prefix(&mut op.u).expect("it fits");
        op
    };
    let at = offset_of!(Domctl, u) + offset_of!(VcpuContext, ctxt);
    let rows = [
        inout("getvcpucontext", HYPERVISOR_DOMCTL, [P], &VcpuGuestContext::default())
            .inside(&op(XEN_DOMCTL_GETVCPUCONTEXT), at),
        input("setvcpucontext", HYPERVISOR_DOMCTL, [P], &VcpuGuestContext::default())
            .inside(&op(XEN_DOMCTL_SETVCPUCONTEXT), at)
            .without(guests::pointers::Place::Null),
    ];
    ground.check(tap, &rows);
}
