//! Why the guest came back, in the words of both vendors (APM vol. 2, appendix C).
//!
//! Unsafe: none here.

use super::vcpu::SvmVcpu;
use crate::container::exit::{Access, Exit, PortAccess};

/// Sorts an exit.
#[inline(always)]
pub(super) fn exit(vcpu: &mut SvmVcpu) -> Exit {
    match vcpu.vmcb.exit_code {
        0x60 => Exit::Interrupt,
        0x72 => Exit::Cpuid,
        0x78 => Exit::Hlt,
        0x7b => port(vcpu),
        0x7c => Exit::Msr { writes: vcpu.vmcb.exit_info[0] != 0 },
        0x81 => Exit::Hypercall,
        0x400 => nested_fault(vcpu),
        code => rare_exit(vcpu, code),
    }
}

fn port(vcpu: &SvmVcpu) -> Exit {
    let [info, next] = vcpu.vmcb.exit_info;
    let bytes = match info >> 4 & 7 {
        1 => 1,
        2 => 2,
        _ => 4,
    };
    Exit::Port(PortAccess {
        port: (info >> 16) as u16,
        bytes,
        reads: info & 1 != 0,
        string: info & 1 << 2 != 0,
        repeated: info & 1 << 3 != 0,
        next,
    })
}

fn nested_fault(vcpu: &SvmVcpu) -> Exit {
    const WRITE: u64 = 1 << 1;
    const FETCH: u64 = 1 << 4;
    let [error, address] = vcpu.vmcb.exit_info;
    let access = match error {
        _ if error & WRITE != 0 => Access::Write,
        _ if error & FETCH != 0 => Access::Execute,
        _ => Access::Read,
    };
    Exit::NestedFault { address, access }
}

#[cold]
#[inline(never)]
fn rare_exit(vcpu: &mut SvmVcpu, code: u64) -> Exit {
    match code {
        0x20..=0x3f => {
            vcpu.take_debug_registers();
            Exit::Debug
        }
        0x40..=0x5f => Exit::Exception { vector: (code - 0x40) as u8, error: vcpu.vmcb.exit_info[0] as u32 },
        0x61 => Exit::Nmi,
        // INIT of this CPU: nobody sends one; it waits.
        0x62 | 0x63 => Exit::Interrupt,
        0x64 => {
            vcpu.want_window(false);
            Exit::Window
        }
        0x6e | 0x87 => Exit::ReadTsc { with_aux: code == 0x87 },
        0x6f => Exit::Forbidden,
        0x73 | 0x7a | 0x80 | 0x82..=0x86 | 0x8a..=0x8c | 0x8e => Exit::Undefined,
        0x74 => {
            vcpu.end_nmi_window();
            Exit::NmiReturn
        }
        0x76 | 0x89 => Exit::CacheFlush,
        0x7d => Exit::Task,
        0x7f => Exit::Shutdown,
        0x88 => Exit::Int1,
        0x8d => Exit::Xsetbv,
        code => {
            vcpu.expect_no_flush();
            Exit::Refused(code)
        }
    }
}
