//! CPUID for PVH guests: the domain's policy, what depends on the vCPU, and the hypervisor's own leaves.

use logic::cpuid::{
    Leaf, Vendor,
    hypervisor::{self, Domain as XenLeaves},
    policy::Live,
};
use logic::emulate::control::cr4;
use logic::{hvm::length::Instruction, regs::GuestRegs};
use machine::arch::x86_64::guest_registers;

use super::{PvhVcpu, exit};
use crate::{cpu::Context, domain::Domain, trap, vcpu::Vcpu};

/// Answers the guest's registers.
pub fn cpuid(cx: &mut Context<'_>) {
    let leaves = XenLeaves { pv: false, ..trap::cpuid::xen_leaves(cx) };
    let Some(pvh) = cx.state.pvh.as_deref() else { return };
    let answer = ordinary(pvh, cx.domain, cx.vcpu, cx.regs)
        .unwrap_or_else(|(leaf, subleaf)| hypervisor::answer(leaf, subleaf, &leaves));
    put(cx.regs, answer);
}

/// The same for all but the hypervisor's own leaves, where the guest goes on behind the instruction at `next`. False: nothing
/// is done.
#[inline(always)]
pub fn at_once(pvh: &mut PvhVcpu, domain: &Domain, vcpu: &Vcpu, regs: &mut GuestRegs) -> bool {
    let Some(next) = exit::next_at_once(pvh, regs, Instruction::Cpuid) else { return false };
    let Ok(answer) = ordinary(pvh, domain, vcpu, regs) else { return false };
    put(regs, answer);
    exit::go_on(pvh, regs, next);
    true
}

/// The answer from the domain's policy; or the leaf and subleaf, of the hypervisor's own.
#[inline(always)]
fn ordinary(pvh: &PvhVcpu, domain: &Domain, vcpu: &Vcpu, regs: &GuestRegs) -> Result<Leaf, (u32, u32)> {
    #[allow(clippy::cast_possible_truncation, reason = "the instruction reads the low halves")]
    let (leaf, subleaf) = (regs.rax as u32, regs.rcx as u32);
    if (hypervisor::FIRST..=hypervisor::LAST).contains(&leaf) {
        return Err((leaf, subleaf));
    }
    let osxsave = pvh.container.cr4() & cr4::OSXSAVE != 0;
    let live = Live { in_kernel: false, forced: false, osxsave, xcr0: guest_registers::xcr0() };
    let policy = trap::cpuid::policy(domain);
    let mut answer = policy.answer(leaf, subleaf, &live);
    // Local APICs have even numbers, as Xen's.
    let apic_id = vcpu.id.0 * 2;
    let without_apic = u32::from(!pvh.apic.is_switched_on()) << 9;
    match leaf {
        1 => {
            answer.b = answer.b & 0x00ff_ffff | apic_id << 24;
            answer.d &= !without_apic;
        }
        0xb if policy.answer(0, 0, &live).a >= 0xb => {
            answer = Leaf { c: subleaf & 0xff, d: apic_id, ..answer };
        }
        0x8000_0001 if policy.vendor() == Vendor::Intel => answer.d &= !(u32::from(!in_long_mode(pvh)) << 11),
        0x8000_0001 => answer.d &= !without_apic,
        _ => {}
    }
    Ok(answer)
}

/// Whether the guest is told of SYSCALL by a processor of Intel's.
#[cold]
fn in_long_mode(pvh: &PvhVcpu) -> bool {
    const LONG_MODE_ACTIVE: u64 = 1 << 10;
    pvh.container.state().efer & LONG_MODE_ACTIVE != 0
}

fn put(regs: &mut GuestRegs, answer: Leaf) {
    (regs.rax, regs.rbx) = (answer.a.into(), answer.b.into());
    (regs.rcx, regs.rdx) = (answer.c.into(), answer.d.into());
}
