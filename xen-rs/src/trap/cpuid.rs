//! CPUID for guests: the host's policies, made once, each domain's, and the hypervisor's own leaves.

use alloc::boxed::Box;

use logic::cpuid::hypervisor::{self, Time};
use logic::cpuid::policy::{Live, Msrs, Policy};
use logic::cpuid::{Leaf, hypervisor::Domain as XenLeaves};
use logic::emulate::control::cr4;
use logic::lock::rank;
use logic::msr::index;
use logic::regs::GuestRegs;
use machine::arch::x86_64::cpu;

use super::PvState;
use crate::cpu::Context;
use crate::domain::Domain;
use crate::hypercall::xen_version::VERSION;
use crate::sync::{Lock, Once};
use crate::{memory, time};

/// The policies of this host.
pub struct Policies {
    /// What the CPUs say.
    pub host: Policy,
    /// The control domain's.
    control: Policy,
    /// What any other PV domain starts with.
    pub guest: Policy,
    /// The most that its toolstack can make of that.
    pub most: Policy,
    /// What a PVH domain starts with.
    pub pvh: Policy,
    /// The most that its toolstack can make of that.
    pub most_pvh: Policy,
}

static POLICIES: Once<Policies> = Once::new();

/// The policies of this host.
pub fn policies() -> &'static Policies {
    POLICIES.call_once(|| {
        let leaves = |leaf, subleaf| {
            let found = cpu::cpuid(leaf, subleaf);
            Leaf { a: found.eax, b: found.ebx, c: found.ecx, d: found.edx }
        };
        #[allow(clippy::cast_possible_truncation, reason = "nothing is defined above")]
        let platform_info = cpu::rdmsr_safe(index::PLATFORM_INFO).unwrap_or(0) as u32;
        let arch_capabilities = cpu::rdmsr_safe(index::ARCH_CAPABILITIES).unwrap_or(0);
        let host = Policy::of_host(leaves, Msrs { platform_info: platform_info & CPUID_FAULTING, arch_capabilities });
        let (control, guest, most) = (host.for_pv(true), host.for_pv(false), host.most_for_pv());
        let (pvh, most_pvh) = (host.for_pvh(), host.most_for_pvh());
        Policies { host, control, guest, most, pvh, most_pvh }
    })
}

/// The bit of `MSR_INTEL_PLATFORM_INFO` that a policy is about.
const CPUID_FAULTING: u32 = 1 << 31;

/// A domain's policy: what its toolstack chose until it runs for the first time, fixed from then on.
#[derive(Default)]
pub struct DomainPolicy {
    chosen: Lock<Option<Box<Policy>>, { rank::LEAF }>,
    fixed: Once<Option<Box<Policy>>>,
}

impl DomainPolicy {
    /// As every domain starts.
    pub const fn new() -> Self {
        Self { chosen: Lock::new(None), fixed: Once::new() }
    }

    /// The domain is about to run: from now on its policy stays.
    pub fn fix(&self) {
        self.chosen.lock_leaf(|chosen| {
            self.fixed.call_once(|| chosen.take());
        });
    }

    /// Whether it may have run.
    pub fn is_fixed(&self) -> bool {
        self.fixed.get().is_some()
    }

    /// Chooses another one. False: it has run already.
    #[must_use]
    pub fn choose(&self, policy: Box<Policy>) -> bool {
        self.chosen.lock_leaf(|chosen| {
            let open = self.fixed.get().is_none();
            if open {
                *chosen = Some(policy);
            }
            open
        })
    }
}

/// Says at start what PV guests can expect of this CPU.
pub fn report_safety() {
    if !machine::arch::x86_64::speculation::keeps_apart() {
        log::warn!("PV guests are NOT kept apart from each other and from the hypervisor on this CPU");
    }
}

/// The policy of a PV domain that runs.
#[must_use]
#[inline]
pub fn policy(domain: &Domain) -> &Policy {
    match domain.cpuid.fixed.get() {
        Some(Some(own)) => own,
        _ => usual(domain),
    }
}

/// What a domain has for which nothing else was chosen.
fn usual(domain: &Domain) -> &'static Policy {
    let all = policies();
    if domain.is_control() { &all.control } else { &all.guest }
}

/// Looks at the policy of a domain that need not have run yet.
pub fn with_policy<T>(domain: &Domain, look: impl FnOnce(&Policy) -> T) -> T {
    if domain.cpuid.fixed.get().is_some() {
        return look(policy(domain));
    }
    domain.cpuid.chosen.lock_leaf(|chosen| look(chosen.as_deref().unwrap_or_else(|| usual(domain))))
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

/// What the hypervisor's own leaves tell a vCPU.
pub fn xen_leaves(cx: &mut Context<'_>) -> XenLeaves {
    let highest = memory::census(&mut cx.held).highest;
    let tsc = cx.domain.tsc.rules();
    XenLeaves {
        version: VERSION,
        pv: true,
        limit: policy(cx.domain).hypervisor_limit(),
        address_bits: 64 - highest.0.leading_zeros() + 12,
        time: Time {
            host_is_safe: cpu::has(cpu::Features::INVARIANT_TSC),
            rdtscp: cpu::has(cpu::Features::RDTSCP),
            cpu_khz: time::tsc_khz(),
            emulated: tsc.is_emulated(),
            mode: tsc.mode,
            guest_khz: tsc.khz,
            incarnation: tsc.incarnation,
            offset: tsc.offset(),
            scale: tsc.scale.mul,
            shift: tsc.scale.shift,
        },
        ids: (cx.vcpu.id.0, cx.vcpu.domain_id.0.into()),
    }
}
