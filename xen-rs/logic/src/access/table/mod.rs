//! The tables, one file per hypercall.

mod callback_op;
mod console_io;
mod domctl;
mod event_channel_op;
mod grant_table_op;
mod hvm_op;
mod hypercall;
mod mca;
mod memory_op;
mod mmu_update;
mod mmuext_op;
mod physdev_op;
mod platform_op;
mod sched_op;
mod sysctl;
#[cfg(test)]
mod tests;
mod vcpu_op;
mod vm_assist;
mod xen_version;

pub use callback_op::CallbackOp;
pub use console_io::ConsoleIo;
pub use domctl::DomctlOp;
pub use event_channel_op::EventChannelOp;
pub use grant_table_op::GrantTableOp;
pub use hvm_op::HvmOp;
pub use hypercall::Hypercall;
pub use mca::McaOp;
pub use memory_op::MemoryOp;
pub use mmu_update::MmuUpdateOp;
pub use mmuext_op::MmuextOp;
pub use physdev_op::PhysdevOp;
pub use platform_op::PlatformOp;
pub use sched_op::SchedOp;
pub use sysctl::SysctlOp;
pub use vcpu_op::VcpuOp;
pub use vm_assist::VmAssistCommand;
pub use xen_version::VersionQuestion;

use super::{Family, Operation};

/// All tables, the hypercalls themselves first.
pub const FAMILIES: [Family; 18] = [
    Hypercall::FAMILY,
    MmuUpdateOp::FAMILY,
    MmuextOp::FAMILY,
    MemoryOp::FAMILY,
    EventChannelOp::FAMILY,
    GrantTableOp::FAMILY,
    SchedOp::FAMILY,
    VcpuOp::FAMILY,
    VersionQuestion::FAMILY,
    CallbackOp::FAMILY,
    VmAssistCommand::FAMILY,
    ConsoleIo::FAMILY,
    PhysdevOp::FAMILY,
    PlatformOp::FAMILY,
    McaOp::FAMILY,
    HvmOp::FAMILY,
    DomctlOp::FAMILY,
    SysctlOp::FAMILY,
];
