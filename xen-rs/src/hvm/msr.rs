//! `rdmsr` and `wrmsr` of a PVH guest, carried out as `logic::hvm::msr` decides, and as for PV guests for the rest.

use logic::cpuid::features::{FFXSR, NX};
use logic::hvm::msr::{self as rules, Place};
use logic::msr::{Fault, Read, Write, misc_enable};
use machine::arch::x86_64::{cpu, guest_registers};

use super::apic;
use crate::{cpu::Context, trap};

const CR0_PG: u64 = 1 << 31;

/// Value of a register.
pub fn read(cx: &mut Context<'_>, number: u32) -> Result<u64, Fault> {
    let pvh = cx.state.pvh.as_deref_mut().ok_or(Fault)?;
    match rules::place(number) {
        Place::Efer => Ok(pvh.container.paging().efer),
        Place::Pat => Ok(pvh.container.pat()),
        Place::Apic(number) => apic::read_msr(pvh, cx.domain, number),
        Place::MtrrCapability => Ok(0),
        Place::MtrrDefault => Ok(pvh.mtrr_default),
        Place::Common => common_read(cx, number).or_else(|Fault| rules::read_missing(number)),
    }
}

fn common_read(cx: &Context<'_>, number: u32) -> Result<u64, Fault> {
    let pvh = cx.state.pvh.as_deref().ok_or(Fault)?;
    Ok(match logic::msr::read(number, &trap::msr::guest(cx.domain, cx.vcpu.id))? {
        Read::Value(value) => value,
        Read::Tsc => cx.domain.tsc.read(),
        Read::TscAux => pvh.tsc_aux.into(),
        Read::Host => cpu::rdmsr_safe(number).ok_or(Fault)?,
        // Linux reads it before it can take a fault, so PVH guests have one on CPUs that have none: fast strings.
        Read::MiscEnable => misc_enable(cpu::rdmsr_safe(number).unwrap_or(1)),
        Read::ArchCapabilities => trap::cpuid::policy(cx.domain).msrs().arch_capabilities,
        // The hardware has them.
        Read::FsBase | Read::GsBase | Read::ShadowGsBase | Read::Efer => return Err(Fault),
    })
}

/// Takes a write.
pub fn write(cx: &mut Context<'_>, number: u32, value: u64) -> Result<(), Fault> {
    let features = trap::cpuid::policy(cx.domain).features();
    let pvh = cx.state.pvh.as_deref_mut().ok_or(Fault)?;
    match rules::place(number) {
        Place::Efer => {
            let paging = pvh.container.paging();
            let (nx, ffxsr) = (features.has(NX), features.has(FFXSR));
            pvh.container.set_efer(rules::efer(paging.efer, value, paging.cr0 & CR0_PG != 0, nx, ffxsr)?);
            Ok(())
        }
        Place::Pat if rules::is_pat(value) => {
            pvh.container.set_pat(value);
            Ok(())
        }
        Place::MtrrDefault if rules::is_mtrr_default(value) => {
            pvh.mtrr_default = value;
            Ok(())
        }
        Place::Apic(number) => apic::write_msr(cx, number, value),
        Place::Pat | Place::MtrrDefault | Place::MtrrCapability => Err(Fault),
        Place::Common => common_write(cx, number, value),
    }
}

fn common_write(cx: &mut Context<'_>, number: u32, value: u64) -> Result<(), Fault> {
    let guest = trap::msr::guest(cx.domain, cx.vcpu.id);
    let pvh = cx.state.pvh.as_deref_mut().ok_or(Fault)?;
    match logic::msr::write(number, value, &guest)? {
        Write::Ignored => Ok(()),
        Write::TscAux(value) => {
            guest_registers::set_tsc_aux(value);
            pvh.tsc_aux = value;
            Ok(())
        }
        Write::PredictionBarrier => {
            guest_registers::prediction_barrier();
            Ok(())
        }
        Write::HypercallPage(gfn) => super::hypercall_page::write(cx, xen_abi::ids::Gfn(gfn)).map_err(|_| Fault),
        Write::MiscEnable(value) if value == misc_enable(cpu::rdmsr_safe(number).unwrap_or(1)) => Ok(()),
        _ => Err(Fault),
    }
}
