//! CPUID for PVH guests: the domain's policy, what depends on the vCPU, and the hypervisor's own leaves.

use logic::cpuid::{
    Leaf,
    hypervisor::{self, Domain as XenLeaves},
    policy::Live,
};
use logic::emulate::control::cr4;
use machine::arch::x86_64::guest_registers;

use crate::{cpu::Context, trap};

/// Answers the guest's registers.
pub fn cpuid(cx: &mut Context<'_>) {
    #[allow(clippy::cast_possible_truncation, reason = "the instruction reads the low halves")]
    let (leaf, subleaf) = (cx.regs.rax as u32, cx.regs.rcx as u32);
    let answer = if (hypervisor::FIRST..=hypervisor::LAST).contains(&leaf) {
        let leaves = XenLeaves { pv: false, ..trap::cpuid::xen_leaves(cx) };
        hypervisor::answer(leaf, subleaf, &leaves)
    } else {
        ordinary(cx, leaf, subleaf)
    };
    (cx.regs.rax, cx.regs.rbx) = (answer.a.into(), answer.b.into());
    (cx.regs.rcx, cx.regs.rdx) = (answer.c.into(), answer.d.into());
}

fn ordinary(cx: &Context<'_>, leaf: u32, subleaf: u32) -> Leaf {
    let Some(pvh) = cx.state.pvh.as_deref() else { return Leaf::ZERO };
    let osxsave = pvh.container.paging().cr4 & cr4::OSXSAVE != 0;
    let live = Live { in_kernel: false, forced: false, osxsave, xcr0: guest_registers::xcr0() };
    let mut answer = trap::cpuid::policy(cx.domain).answer(leaf, subleaf, &live);
    // Local APICs have even numbers, as Xen's.
    let apic_id = cx.vcpu.id.0 * 2;
    match leaf {
        1 => answer.b = answer.b & 0x00ff_ffff | apic_id << 24,
        0xb if trap::cpuid::policy(cx.domain).answer(0, 0, &live).a >= 0xb => {
            answer = Leaf { c: subleaf & 0xff, d: apic_id, ..answer };
        }
        _ => {}
    }
    answer
}
