//! Pointers that no hypercall may follow: those of the control domain, on itself and on a domain that never runs.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::mem::offset_of;
use guest_pv::call::domctl;
use guest_pv::tap::Tap;
use guests::child::Child;
use guests::pointers::Place::*;
use guests::pointers::{Ground, P, Row, error, inout, input, value};
use xen_abi::Errno;
use xen_abi::arch_x86::VcpuGuestContext;
use xen_abi::domctl::*;
use xen_abi::hypercall::*;
use xen_abi::ids::DomId;
use xen_abi::mca::*;
use xen_abi::physdev::*;
use xen_abi::platform::*;
use xen_abi::sysctl::*;
use zerocopy::{Immutable, IntoBytes};

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;

fn run(tap: &mut Tap) {
    let mut ground = Ground::new();
    devices(tap, &mut ground);
    platform(tap, &mut ground);
    system(tap, &mut ground);
    domains(tap, &mut ground);
}

fn devices(tap: &mut Tap, ground: &mut Ground) {
    const D: u32 = HYPERVISOR_PHYSDEV_OP;
    let op = |command: u32| [u64::from(command), P];
    let apic = Apic { apic_physbase: 0xfec0_0000, reg: 1, value: 0 };
    let bitmap = SetIobitmap::default();
    let invalid = error(Errno::EINVAL);
    ground.check(
        tap,
        &[
            input("eoi", D, op(PHYSDEVOP_EOI), &Eoi { irq: 1 << 20 }).but(ReadOnly, invalid),
            input("pirq_eoi_gmfn_v1", D, op(PHYSDEVOP_PIRQ_EOI_GMFN_V1), &PirqEoiGmfn { gmfn: 1 << 40 })
                .but(ReadOnly, invalid),
            input("pirq_eoi_gmfn_v2", D, op(PHYSDEVOP_PIRQ_EOI_GMFN_V2), &PirqEoiGmfn { gmfn: 1 << 40 })
                .but(ReadOnly, invalid),
            inout("irq_status_query", D, op(PHYSDEVOP_IRQ_STATUS_QUERY), &IrqStatusQuery { irq: 1, flags: 0 }),
            input("set_iopl", D, op(PHYSDEVOP_SET_IOPL), &SetIopl { iopl: 1 }).but(ReadOnly, value(0)),
            input("set_iobitmap", D, op(PHYSDEVOP_SET_IOBITMAP), &bitmap).but(ReadOnly, value(0)),
            inout("apic_read", D, op(PHYSDEVOP_APIC_READ), &apic),
            input("apic_write", D, op(PHYSDEVOP_APIC_WRITE), &Apic { apic_physbase: 0, ..apic }),
            inout("alloc_irq_vector", D, op(PHYSDEVOP_ALLOC_IRQ_VECTOR), &Irq { irq: 9, vector: 0 }),
            inout("map_pirq", D, op(PHYSDEVOP_MAP_PIRQ), &MapPirq { domid: SELF, type_: 99, ..Default::default() })
                .without(ReadOnly),
            input("unmap_pirq", D, op(PHYSDEVOP_UNMAP_PIRQ), &UnmapPirq { domid: SELF, pirq: -1, _pad: 0 }),
            input("manage_pci_add", D, op(PHYSDEVOP_MANAGE_PCI_ADD), &[0u8; 2]),
            input("manage_pci_remove", D, op(PHYSDEVOP_MANAGE_PCI_REMOVE), &[0u8; 2]),
            input("restore_msi", D, op(PHYSDEVOP_RESTORE_MSI), &[0u8; 2]),
            input("manage_pci_add_ext", D, op(PHYSDEVOP_MANAGE_PCI_ADD_EXT), &ManagePciExt::default()),
            input("setup_gsi", D, op(PHYSDEVOP_SETUP_GSI), &SetupGsi { gsi: -1, ..Default::default() }),
            inout("get_free_pirq", D, op(PHYSDEVOP_GET_FREE_PIRQ), &GetFreePirq { type_: 0, pirq: 0 }),
            input("pci_mmcfg_reserved", D, op(PHYSDEVOP_PCI_MMCFG_RESERVED), &PciMmcfgReserved::default()),
            input("pci_device_add", D, op(PHYSDEVOP_PCI_DEVICE_ADD), &PciDeviceAdd::default()),
            input("pci_device_remove", D, op(PHYSDEVOP_PCI_DEVICE_REMOVE), &PciDevice::default()),
            input("restore_msi_ext", D, op(PHYSDEVOP_RESTORE_MSI_EXT), &PciDevice::default()),
            input("dbgp_op", D, op(PHYSDEVOP_DBGP_OP), &DbgpOp::default()),
            input("prepare_msix", D, op(PHYSDEVOP_PREPARE_MSIX), &PciDevice::default()),
            input("release_msix", D, op(PHYSDEVOP_RELEASE_MSIX), &PciDevice::default()),
            // Where the guest's bitmap is looked at later, when a port is used.
            inout("set_iobitmap's ports", D, op(PHYSDEVOP_SET_IOBITMAP), &[0xffu8; 8])
                .inside(&SetIobitmap { nr_ports: 64, ..bitmap }, offset_of!(SetIobitmap, bitmap))
                .but(Hypervisor, invalid)
                .but(NotCanonical, invalid)
                .always(value(0)),
        ],
    );
}

fn platform_op<T: IntoBytes + Immutable>(cmd: u32, payload: &T) -> PlatformOp {
    let mut op = PlatformOp { cmd, interface_version: XENPF_INTERFACE_VERSION, ..Default::default() };
    payload.write_to_prefix(&mut op.u).expect("it fits");
    op
}

fn platform(tap: &mut Tap, ground: &mut Ground) {
    const F: u32 = HYPERVISOR_PLATFORM_OP;
    let cpus = McPhyscpuinfo { ncpus: 1, ..Default::default() };
    let mut physical =
        Mc { cmd: XEN_MC_PHYSCPUINFO, interface_version: XEN_MCA_INTERFACE_VERSION, ..Default::default() };
    cpus.write_to_prefix(physical.u.as_mut_bytes()).expect("it fits");
    let info_at = offset_of!(Mc, u) + offset_of!(McPhyscpuinfo, info);
    ground.check(
        tap,
        &[
            inout("platform_op get_cpuinfo", F, [P], &platform_op(XENPF_GET_CPUINFO, &PcpuInfo::default())),
            inout("platform_op get_cpu_version", F, [P], &platform_op(XENPF_GET_CPU_VERSION, &PcpuVersion::default())),
            inout("mca", HYPERVISOR_MCA, [P], &physical),
            inout("mca's CPUs", HYPERVISOR_MCA, [P], &LogicalCpu::default())
                .inside(&physical, info_at)
                .but(Null, value(0)),
        ],
    );
}

fn sysctl<T: IntoBytes + Immutable>(cmd: u32, payload: &T) -> Sysctl {
    let mut op = Sysctl { cmd, interface_version: XEN_SYSCTL_INTERFACE_VERSION, ..Default::default() };
    payload.write_to_prefix(&mut op.u).expect("it fits");
    op
}

fn system(tap: &mut Tap, ground: &mut Ground) {
    const S: u32 = HYPERVISOR_SYSCTL;
    let u = offset_of!(Sysctl, u);
    let within = |row: Row, op: &Sysctl, field: usize| row.inside(op, u + field);
    let console = sysctl(XEN_SYSCTL_READCONSOLE, &ReadConsole { count: 8, ..Default::default() });
    let list = sysctl(XEN_SYSCTL_GETDOMAININFOLIST, &GetDomainInfoList { max_domains: 1, ..Default::default() });
    let keys = sysctl(XEN_SYSCTL_DEBUG_KEYS, &DebugKeys { nr_keys: 1, ..Default::default() });
    let topology = sysctl(XEN_SYSCTL_CPUTOPOINFO, &CpuTopoInfo { num_cpus: 1, ..Default::default() });
    let mask = Bitmap { nr_bits: 8, ..Default::default() };
    let trace = sysctl(
        XEN_SYSCTL_TBUF_OP,
        &TbufOp { cmd: XEN_SYSCTL_TBUFOP_SET_CPU_MASK, cpu_mask: mask, ..Default::default() },
    );
    ground.check(
        tap,
        &[
            inout("sysctl physinfo", S, [P], &sysctl(XEN_SYSCTL_PHYSINFO, &0u64)),
            inout("sysctl sched_id", S, [P], &sysctl(XEN_SYSCTL_SCHED_ID, &0u64)),
            within(inout("readconsole's text", S, [P], &[0u8; 8]), &console, offset_of!(ReadConsole, buffer)),
            within(
                inout("getdomaininfolist's list", S, [P], &GetDomainInfo::default()),
                &list,
                offset_of!(GetDomainInfoList, buffer),
            ),
            within(input("debug_keys' keys", S, [P], b"@"), &keys, offset_of!(DebugKeys, keys)),
            within(
                inout("cputopoinfo's CPUs", S, [P], &CpuTopo::default()),
                &topology,
                offset_of!(CpuTopoInfo, cputopo),
            )
            .but(Null, value(0)),
            within(input("tbuf_op's CPUs", S, [P], &[1u8]), &trace, offset_of!(TbufOp, cpu_mask))
                .but(ReadOnly, value(0)),
        ],
    );
}

fn op<T: IntoBytes + Immutable>(cmd: u32, domain: DomId, payload: &T) -> Domctl {
    let mut op = Domctl { cmd, interface_version: XEN_DOMCTL_INTERFACE_VERSION, domain, ..Default::default() };
    payload.write_to_prefix(&mut op.u).expect("it fits");
    op
}

fn domains(tap: &mut Tap, ground: &mut Ground) {
    const D: u32 = HYPERVISOR_DOMCTL;
    let child = Child::new(16);
    let id = child.id();
    let u = offset_of!(Domctl, u);
    let within = |row: Row, op: &Domctl, field: usize| row.inside(op, u + field);
    let context = op(XEN_DOMCTL_GETVCPUCONTEXT, id, &VcpuContext::default());
    let to_context = op(XEN_DOMCTL_SETVCPUCONTEXT, id, &VcpuContext::default());
    let mask = Bitmap { nr_bits: 8, ..Default::default() };
    let affinity = VcpuAffinity { flags: XEN_VCPUAFFINITY_HARD, cpumap_hard: mask, ..Default::default() };
    let (get, set) = (op(XEN_DOMCTL_GETVCPUAFFINITY, id, &affinity), op(XEN_DOMCTL_SETVCPUAFFINITY, id, &affinity));
    let hard = offset_of!(VcpuAffinity, cpumap_hard);
    let nodes = op(XEN_DOMCTL_SETNODEAFFINITY, id, &NodeAffinity { nodemap: mask });
    ground.check(
        tap,
        &[
            inout("domctl getdomaininfo", D, [P], &op(XEN_DOMCTL_GETDOMAININFO, id, &0u64)),
            inout("domctl getvcpuinfo", D, [P], &op(XEN_DOMCTL_GETVCPUINFO, id, &GetVcpuInfo::default())),
            inout("domctl get_address_size", D, [P], &op(XEN_DOMCTL_GET_ADDRESS_SIZE, id, &0u64)),
            inout("domctl gettscinfo", D, [P], &op(XEN_DOMCTL_GETTSCINFO, id, &0u64)),
            input("domctl max_mem", D, [P], &op(XEN_DOMCTL_MAX_MEM, id, &MaxMem { max_memkb: 64 }))
                .but(ReadOnly, value(0)),
            input("domctl destroydomain", D, [P], &op(XEN_DOMCTL_DESTROYDOMAIN, id, &0u64)),
            input("domctl createdomain", D, [P], &op(XEN_DOMCTL_CREATEDOMAIN, DomId(0), &CreateDomain::default())),
            within(
                inout("getvcpucontext's context", D, [P], &VcpuGuestContext::default()),
                &context,
                offset_of!(VcpuContext, ctxt),
            )
            .always(error(Errno::ENODATA)),
            within(
                input("setvcpucontext's context", D, [P], &VcpuGuestContext::default()),
                &to_context,
                offset_of!(VcpuContext, ctxt),
            )
            // None takes the vCPU out of use.
            .but(Null, value(0)),
            within(inout("getvcpuaffinity's CPUs", D, [P], &[0u8]), &get, hard).but(Null, error(Errno::EINVAL)),
            within(input("setvcpuaffinity's CPUs", D, [P], &[1u8]), &set, hard).but(Null, error(Errno::EINVAL)),
            within(input("setnodeaffinity's nodes", D, [P], &[1u8]), &nodes, 0).but(ReadOnly, value(0)),
        ],
    );
    tap.is(domctl::get_domain_info(id).map(|info| (info.max_pages, info.tot_pages)), Ok((16, 0)), "it is as it was");
}
