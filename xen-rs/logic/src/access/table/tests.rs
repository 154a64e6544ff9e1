//! The tables against the constants of the ABI: nothing is missing, nothing is there twice.

use std::collections::BTreeSet;
use std::string::{String, ToString};
use std::vec::Vec;

use xen_abi::layout::Constant;

use super::*;
use crate::access::{Asked, Caller, Privilege, Rule, Status, permit};
use xen_abi::{errno::Errno, ids::DomId};

const GUEST: Caller = Caller { id: DomId(1), privilege: Privilege::Guest };
const CONTROL: Caller = Caller { id: DomId(0), privilege: Privilege::Control };

/// Every constant whose name starts with `prefix` has a row, but for those that name something else.
fn complete(family: &Family, constants: &[Constant], prefix: &str, others: &[&str]) {
    let rows: BTreeSet<&str> = family.rows.iter().map(|row| row.name).collect();
    assert_eq!(rows.len(), family.rows.len(), "{} has a row twice", family.name);
    let missing: Vec<String> = constants
        .iter()
        .filter(|constant| constant.name.starts_with(prefix) && !others.contains(&constant.name))
        .filter(|constant| !rows.contains(constant.name))
        .map(|constant| constant.name.to_string())
        .collect();
    assert!(missing.is_empty(), "{} lacks {missing:?}", family.name);
}

#[test]
fn no_operation_of_the_headers_is_missing() {
    use xen_abi::*;
    complete(&EventChannelOp::FAMILY, event_channel::__CONSTANTS, "EVTCHNOP_", &[]);
    complete(&GrantTableOp::FAMILY, grant_table::__CONSTANTS, "GNTTABOP_", &[]);
    let memory = ["XENMEM_RDM_ALL", "XENMEM_RESOURCE_IOREQ_SERVER", "XENMEM_RESOURCE_GRANT_TABLE"];
    let others = ["XENMEM_RESOURCE_VMTRACE_BUF", "XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED"];
    let more = ["XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS", "XENMEM_RESOURCE_IOREQ_SERVER_FRAME_BUFIOREQ"];
    complete(&MemoryOp::FAMILY, memory::__CONSTANTS, "XENMEM_", &[&memory[..], &others, &more].concat());
    complete(&MmuextOp::FAMILY, mmu::__CONSTANTS, "MMUEXT_", &[]);
    complete(&SchedOp::FAMILY, sched::__CONSTANTS, "SCHEDOP_", &[]);
    complete(&VcpuOp::FAMILY, vcpu::__CONSTANTS, "VCPUOP_", &[]);
    complete(&VersionQuestion::FAMILY, version::__CONSTANTS, "XENVER_", &[]);
    complete(&CallbackOp::FAMILY, callback::__CONSTANTS, "CALLBACKOP_", &[]);
    complete(&VmAssistCommand::FAMILY, vm_assist::__CONSTANTS, "VMASST_CMD_", &[]);
    complete(&ConsoleIo::FAMILY, console::__CONSTANTS, "CONSOLEIO_", &[]);
    let dbgp = ["PHYSDEVOP_DBGP_RESET_PREPARE", "PHYSDEVOP_DBGP_RESET_DONE"];
    let bus = ["PHYSDEVOP_DBGP_BUS_UNKNOWN", "PHYSDEVOP_DBGP_BUS_PCI", "PHYSDEVOP_PIRQ_EOI_GMFN"];
    complete(&PhysdevOp::FAMILY, physdev::__CONSTANTS, "PHYSDEVOP_", &[&dbgp[..], &bus].concat());
    let platform = ["XENPF_INTERFACE_VERSION", "XENPF_ACPI_SLEEP_EXTENDED"];
    complete(&PlatformOp::FAMILY, platform::__CONSTANTS, "XENPF_", &platform);
    complete(&McaOp::FAMILY, mca::__CONSTANTS, "XEN_MC_", &[]);
    let arch: Vec<String> = [0, 2, 3, 4, 5, 6, 7].map(|n| std::format!("HYPERVISOR_ARCH_{n}")).into();
    let arch: Vec<&str> = arch.iter().map(String::as_str).collect();
    complete(&Hypercall::FAMILY, hypercall::__CONSTANTS, "HYPERVISOR_", &arch);
}

#[test]
fn numbers_are_unique_and_refusals_say_why() {
    for family in FAMILIES {
        let numbers: BTreeSet<u32> = family.rows.iter().map(|row| row.number).collect();
        assert_eq!(numbers.len(), family.rows.len(), "{}", family.name);
        for row in family.rows {
            assert!(row.status == Status::Served || !row.note.is_empty(), "{} does not say why", row.name);
        }
    }
}

fn error<Op: Operation>(caller: Caller, asked: Asked<Op>) -> Option<Errno> {
    permit(caller, asked).err()
}

#[test]
fn the_decoder_says_what_the_rows_say() {
    fn check<Op: Operation>() {
        for row in Op::FAMILY.rows {
            let refused = match row.status {
                Status::Served => None,
                Status::Refused(errno) => Some(errno),
            };
            assert_eq!(error(CONTROL, Op::asked(row.number)), refused, "{}", row.name);
            let guest = if row.rule == Rule::Control { Some(Errno::EPERM) } else { refused };
            assert_eq!(error(GUEST, Op::asked(row.number)), guest, "{}", row.name);
        }
        assert_eq!(error(CONTROL, Op::asked(0xdead)), Some(Op::FAMILY.others));
    }
    check::<Hypercall>();
    check::<MmuUpdateOp>();
    check::<MmuextOp>();
    check::<MemoryOp>();
    check::<EventChannelOp>();
    check::<GrantTableOp>();
    check::<SchedOp>();
    check::<VcpuOp>();
    check::<VersionQuestion>();
    check::<CallbackOp>();
    check::<VmAssistCommand>();
    check::<ConsoleIo>();
    check::<PhysdevOp>();
    check::<PlatformOp>();
    check::<DomctlOp>();
    check::<SysctlOp>();
}
