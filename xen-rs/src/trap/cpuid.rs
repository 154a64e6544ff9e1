//! CPUID for PV guests: the host's policies, made once, and the hypervisor's own leaves.

use logic::cpuid::hypervisor::{self, Time};
use logic::cpuid::policy::{Live, Policy};
use logic::cpuid::{Leaf, hypervisor::Domain as XenLeaves};
use logic::emulate::control::cr4;
use logic::regs::GuestRegs;
use machine::arch::x86_64::cpu;

use super::PvState;
use crate::cpu::Context;
use crate::domain::Domain;
use crate::hypercall::xen_version::VERSION;
use crate::sync::Once;
use crate::{memory, time};

struct Policies {
    control: Policy,
    guest: Policy,
}

static POLICIES: Once<Policies> = Once::new();

fn policies() -> &'static Policies {
    POLICIES.call_once(|| {
        let host = Policy::of_host(|leaf, subleaf| {
            let found = cpu::cpuid(leaf, subleaf);
            Leaf { a: found.eax, b: found.ebx, c: found.ecx, d: found.edx }
        });
        Policies { control: host.for_pv(true), guest: host.for_pv(false) }
    })
}

/// Says at start what PV guests can expect of this CPU.
pub fn report_safety() {
    if !machine::arch::x86_64::speculation::keeps_apart() {
        log::warn!("PV guests are NOT kept apart from each other and from the hypervisor on this CPU");
    }
}

/// The policy of a PV domain.
#[must_use]
pub fn policy(domain: &Domain) -> &'static Policy {
    let all = policies();
    if domain.is_control() { &all.control } else { &all.guest }
}

/// Answers the guest's registers. `forced`: asked by the emulation prefix.
pub fn cpuid(cx: &mut Context<'_>, forced: bool) {
    #[allow(clippy::cast_possible_truncation, reason = "the instruction reads the low halves")]
    let (leaf, subleaf) = (cx.regs.rax as u32, cx.regs.rcx as u32);
    if !at_once(cx.domain, &cx.state.pv, cx.regs, forced) {
        let answer = hypervisor::answer(leaf, subleaf, &xen_leaves(cx));
        put(cx.regs, answer);
    }
}

/// The same for all but the hypervisor's own leaves. False: it is one of those.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the instruction reads the low halves")]
pub fn at_once(domain: &Domain, pv: &PvState, regs: &mut GuestRegs, forced: bool) -> bool {
    let (leaf, subleaf) = (regs.rax as u32, regs.rcx as u32);
    if (hypervisor::FIRST..=hypervisor::LAST).contains(&leaf) {
        return false;
    }
    let osxsave = pv.cr4 & cr4::OSXSAVE != 0;
    let live = Live { in_kernel: pv.in_kernel, forced, osxsave, xcr0: pv.xcr0 };
    put(regs, policy(domain).answer(leaf, subleaf, &live));
    true
}

#[inline(always)]
fn put(regs: &mut GuestRegs, answer: Leaf) {
    regs.rax = answer.a.into();
    regs.rbx = answer.b.into();
    regs.rcx = answer.c.into();
    regs.rdx = answer.d.into();
}

fn xen_leaves(cx: &mut Context<'_>) -> XenLeaves {
    let highest = memory::census(&mut cx.held).highest;
    XenLeaves {
        version: VERSION,
        pv: true,
        address_bits: 64 - highest.0.leading_zeros() + 12,
        time: Time {
            host_is_safe: cpu::has(cpu::Features::INVARIANT_TSC),
            rdtscp: cpu::has(cpu::Features::RDTSCP),
            cpu_khz: time::tsc_khz(),
            // The rest describes an emulated TSC.
            ..Time::default()
        },
        ids: (cx.vcpu.id.0, cx.vcpu.domain_id.0.into()),
    }
}
