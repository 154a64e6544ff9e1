//! `rdmsr` and `wrmsr` of a PV guest's kernel, carried out as `logic::msr` decides.

use logic::cpuid::features::{ARCH_CAPS, IBPB, ITSC, RDPID, RDTSCP};
use logic::msr::{self, EFER_SHOWN, Fault, Guest, Read, Write, misc_enable};
use machine::arch::x86_64::{cpu, guest_registers, segments};

use xen_abi::ids::VcpuId;

use super::cpuid;
use crate::cpu::Context;
use crate::domain::Domain;

/// What the answers for a vCPU depend on.
pub fn guest(domain: &Domain, vcpu: VcpuId) -> Guest {
    let policy = cpuid::policy(domain);
    let features = policy.features();
    Guest {
        vendor: policy.vendor(),
        bootstrap: vcpu.0 == 0,
        rdtscp: features.has(RDTSCP) || features.has(RDPID),
        itsc: features.has(ITSC),
        ibpb: features.has(IBPB),
        arch_capabilities: features.has(ARCH_CAPS),
    }
}

/// Value of a register.
#[inline(always)]
pub fn read(cx: &Context<'_>, index: u32) -> Result<u64, Fault> {
    // These depend on nothing of the policy. Linux asks for the second at each switch of its processes.
    match index {
        msr::index::EFER => cpu::rdmsr_safe(index).map(|efer| efer & EFER_SHOWN).ok_or(Fault),
        msr::index::SHADOW_GS_BASE => Ok(cx.state.pv.bases.gs_user),
        _ => read_by_policy(cx, index),
    }
}

#[inline(never)]
fn read_by_policy(cx: &Context<'_>, index: u32) -> Result<u64, Fault> {
    let pv = &cx.state.pv;
    Ok(match msr::read(index, &guest(cx.domain, cx.vcpu.id))? {
        Read::Value(value) => value,
        Read::FsBase => segments::fs_base(),
        Read::GsBase => segments::gs_base(),
        Read::ShadowGsBase => pv.bases.gs_user,
        Read::Tsc => cx.domain.tsc.read(),
        Read::Efer => cpu::rdmsr_safe(index).ok_or(Fault)? & EFER_SHOWN,
        Read::TscAux => pv.tsc_aux.into(),
        Read::Host => cpu::rdmsr_safe(index).ok_or(Fault)?,
        Read::MiscEnable => misc_enable(cpu::rdmsr_safe(index).ok_or(Fault)?),
        Read::ArchCapabilities => cpuid::policy(cx.domain).msrs().arch_capabilities,
    })
}

/// A register that the CPU has, but the guest has not, while the guest has no #GP handler yet: it reads as zero (Xen
/// public header `arch-x86/xen.h`, at `set_trap_table`).
pub fn exists_on_host(index: u32) -> bool {
    cpu::rdmsr_safe(index).is_some()
}

/// Takes a write.
pub fn write(cx: &mut Context<'_>, index: u32, value: u64) -> Result<(), Fault> {
    let pv = &mut cx.state.pv;
    match msr::write(index, value, &guest(cx.domain, cx.vcpu.id))? {
        Write::Ignored => {}
        Write::FsBase(base) => {
            segments::set_fs_base(base);
            pv.bases.fs = base;
        }
        Write::GsBase(base) => {
            segments::set_gs_base(base);
            pv.bases.gs_kernel = base;
        }
        Write::ShadowGsBase(base) => {
            segments::set_other_gs_base(base);
            pv.bases.gs_user = base;
        }
        Write::TscAux(value) => {
            guest_registers::set_tsc_aux(value);
            pv.tsc_aux = value;
        }
        Write::PredictionBarrier => guest_registers::prediction_barrier(),
        Write::HypercallPage(gfn) => {
            let domain = cx.domain.clone();
            domain.memory.write_hypercall_page(&domain, xen_abi::ids::Mfn(gfn), &mut cx.held).map_err(|_| Fault)?;
        }
        Write::Efer(value) => {
            if value != cpu::rdmsr_safe(index).ok_or(Fault)? & EFER_SHOWN {
                return Err(Fault);
            }
        }
        Write::MiscEnable(value) => {
            if value != misc_enable(cpu::rdmsr_safe(index).ok_or(Fault)?) {
                return Err(Fault);
            }
        }
    }
    Ok(())
}
