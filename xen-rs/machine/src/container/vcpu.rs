//! The container of one vCPU, of whichever vendor.
//!
//! Unsafe: none here.

use alloc::sync::Arc;

use logic::hvm::apic::{Interrupts, MIRRORED, Vectors};
use logic::hvm::walk::Paging;
use logic::regs::GuestRegs;
use logic::time::Way;
use xen_abi::ids::DomId;

use super::known::Use;
use super::svm::SvmVcpu;
use super::vmx::VmxVcpu;
use super::{CpuState, Event, EventKind, Exit, Segment, Vendor, known, vendor};
use crate::mem::{nested::Tables, tlb};

/// What a vCPU of a PVH guest runs in.
#[derive(Debug)]
pub struct Container(Kind);

#[derive(Debug)]
enum Kind {
    Svm(SvmVcpu),
    Vmx(VmxVcpu),
}

/// Does it with the vendor's.
macro_rules! either {
    ($container:expr, $inner:ident => $what:expr) => {
        match $container {
            Kind::Svm($inner) => $what,
            Kind::Vmx($inner) => $what,
        }
    };
}

impl Container {
    /// With the state after INIT. `None`: there is no such hardware, or no memory.
    #[must_use]
    pub fn new(tables: Arc<Tables>) -> Option<Self> {
        match vendor()? {
            Vendor::Svm => SvmVcpu::new(tables).map(|vcpu| Self(Kind::Svm(vcpu))),
            Vendor::Vmx => VmxVcpu::new(tables).map(|vcpu| Self(Kind::Vmx(vcpu))),
        }
    }

    /// This CPU has it from now on: the tables of whoever was here before are left.
    pub fn load(&mut self, domain: DomId) {
        tlb::enter_container(domain);
        known::forget();
        either!(&mut self.0, vcpu => vcpu.load());
    }

    /// Another CPU may have it.
    pub fn leave(&mut self) {
        either!(&mut self.0, vcpu => vcpu.leave());
        tlb::leave_root();
    }

    /// Runs the guest until something needs the hypervisor. The container is loaded on this CPU.
    #[inline(always)]
    pub fn enter(&mut self, regs: &mut GuestRegs) {
        either!(&mut self.0, vcpu => vcpu.enter(regs));
    }

    /// Whether it came back for a hypercall; else or then, [`Container::exit`] says why.
    #[inline(always)]
    #[must_use]
    pub fn is_hypercall(&self) -> bool {
        either!(&self.0, vcpu => vcpu.is_hypercall())
    }

    /// Whether it came back for `cpuid`.
    #[inline(always)]
    #[must_use]
    pub fn is_cpuid(&self) -> bool {
        either!(&self.0, vcpu => vcpu.is_cpuid())
    }

    /// Why it came back: to be asked once.
    #[inline(always)]
    pub fn exit(&mut self, regs: &mut GuestRegs) -> Exit {
        either!(&mut self.0, vcpu => vcpu.exit(regs))
    }

    /// The instruction pointer behind the instruction at `rip` that exited; `None`: the CPU does not say.
    #[inline(always)]
    #[must_use]
    pub fn next_instruction(&self, rip: u64) -> Option<u64> {
        either!(&self.0, vcpu => vcpu.next_instruction(rip))
    }

    /// The instruction whose access to memory was the last exit, as far as the CPU says what it has fetched; else nothing.
    #[must_use]
    pub fn instruction(&self) -> &[u8] {
        match &self.0 {
            Kind::Svm(vcpu) => vcpu.instruction(),
            Kind::Vmx(_) => &[],
        }
    }

    /// Four bytes of code at a linear address, if where they are is remembered and they do not cross a page.
    #[inline(always)]
    #[must_use]
    pub fn fetch_at_once(&self, linear: u64) -> Option<u32> {
        either!(&self.0, vcpu => vcpu.four_at_once(linear, Use::Code))
    }

    /// The same of data.
    #[inline(always)]
    #[must_use]
    pub fn read_at_once(&self, linear: u64) -> Option<u32> {
        either!(&self.0, vcpu => vcpu.four_at_once(linear, Use::Read))
    }

    /// An emulated instruction is over: it holds off interrupts no longer.
    #[inline(always)]
    pub fn end_shadow(&mut self) {
        either!(&mut self.0, vcpu => vcpu.end_shadow());
    }

    /// Whether an interrupt can be injected now.
    #[inline(always)]
    #[must_use]
    pub fn takes_interrupts(&self, regs: &GuestRegs) -> bool {
        either!(&self.0, vcpu => vcpu.takes_interrupts(regs))
    }

    /// Whether an event waits for the next entry.
    #[inline(always)]
    #[must_use]
    pub fn has_pending(&self) -> bool {
        either!(&self.0, vcpu => vcpu.has_pending())
    }

    /// The event whose delivery was cut short, and which is delivered again at the next entry.
    #[must_use]
    pub fn pending(&self) -> Option<(EventKind, u8)> {
        let event = either!(&self.0, vcpu => vcpu.pending());
        let [vector, kind, ..] = event.to_le_bytes();
        let kinds = [EventKind::Interrupt, EventKind::Nmi, EventKind::Exception];
        let kind = kinds.into_iter().find(|known| *known as u8 == kind & 7)?;
        (event != 0).then_some((kind, vector))
    }

    /// Delivers an event at the next entry, in place of one that waits for it.
    pub fn inject(&mut self, event: Event) {
        either!(&mut self.0, vcpu => vcpu.inject(event));
    }

    /// Whether to come back as soon as an interrupt can be injected.
    #[inline(always)]
    pub fn want_window(&mut self, wanted: bool) {
        either!(&mut self.0, vcpu => vcpu.want_window(wanted));
    }

    /// What it reads as its TSC from now on. It is loaded on this CPU.
    #[inline]
    pub fn set_tsc(&mut self, way: Way) {
        either!(&mut self.0, vcpu => vcpu.set_tsc(way));
    }

    /// Whether the instruction before, `sti` or `mov ss`, holds interrupts off.
    #[must_use]
    pub fn is_in_shadow(&self) -> bool {
        either!(&self.0, vcpu => vcpu.is_in_shadow())
    }

    /// To come back when the handler of an NMI returns.
    pub fn want_nmi_window(&mut self) {
        either!(&mut self.0, vcpu => vcpu.want_nmi_window());
    }

    /// The instruction that was emulated was single-stepped (`rflags::TF`).
    pub fn end_step(&mut self) {
        either!(&mut self.0, vcpu => vcpu.end_step());
    }

    /// The instruction that exited is executed again: if it is single-stepped, the step is not done.
    #[cold]
    pub fn stay_in_step(&mut self) {
        if let Kind::Vmx(vcpu) = &mut self.0 {
            vcpu.stay_in_step();
        }
    }

    /// To come back when CR8 falls below this, which is not above it now. 0: not any more.
    pub fn watch_priority(&mut self, class: u8) {
        either!(&mut self.0, vcpu => vcpu.watch_priority(class));
    }

    /// CR8: the task priority's upper four bits.
    #[inline(always)]
    #[must_use]
    pub fn cr8(&self) -> u8 {
        either!(&self.0, vcpu => vcpu.cr8())
    }

    /// Sets CR8.
    pub fn set_cr8(&mut self, priority: u8) {
        either!(&mut self.0, vcpu => vcpu.set_cr8(priority));
    }

    /// Whether the hardware can serve the interrupts of an x2APIC by itself.
    #[inline(always)]
    #[must_use]
    pub fn can_serve(&self) -> bool {
        match &self.0 {
            Kind::Svm(_) => false,
            Kind::Vmx(vcpu) => vcpu.can_serve(),
        }
    }

    /// The hardware serves from now on, beginning with these. Where it cannot, nothing happens.
    pub fn serve(&mut self, interrupts: Interrupts) {
        if let Kind::Vmx(vcpu) = &mut self.0
            && vcpu.can_serve()
        {
            vcpu.serve(interrupts);
        }
    }

    /// The hardware serves no longer, and this is left. `None`: it did not.
    pub fn end_service(&mut self) -> Option<Interrupts> {
        self.serving()?.end_service()
    }

    /// The vCPU whose interrupts the hardware serves; all that follows does nothing where it does not.
    fn serving(&mut self) -> Option<&mut VmxVcpu> {
        match &mut self.0 {
            Kind::Vmx(vcpu) if vcpu.serves() => Some(vcpu),
            Kind::Svm(_) | Kind::Vmx(_) => None,
        }
    }

    /// Vectors have come for the hardware to serve.
    pub fn request(&mut self, vectors: &Vectors) {
        if let Some(vcpu) = self.serving() {
            vcpu.request(vectors);
        }
    }

    /// A vector that the hardware had begun to deliver, and did not, waits again.
    pub fn put_back(&mut self, vector: u8) {
        if let Some(vcpu) = self.serving() {
            vcpu.put_back(vector);
        }
    }

    /// Whether the hardware serves, and would deliver something to a guest that takes interrupts, if `another` came as well.
    #[must_use]
    pub fn is_due(&self, another: Option<u8>) -> bool {
        match &self.0 {
            Kind::Vmx(vcpu) => vcpu.serves() && vcpu.is_due(another),
            Kind::Svm(_) => false,
        }
    }

    /// What the guest reads of its APIC's registers, where the hardware answers.
    pub fn show_registers(&mut self, words: &[(u32, u32); MIRRORED]) {
        if let Some(vcpu) = self.serving() {
            vcpu.show_registers(words);
        }
    }

    /// The whole state.
    #[must_use]
    pub fn state(&self) -> CpuState {
        either!(&self.0, vcpu => vcpu.state())
    }

    /// Sets the whole state. What the hardware does not take ends in [`Exit::Refused`] at the next entry.
    pub fn set_state(&mut self, state: &CpuState) {
        either!(&mut self.0, vcpu => vcpu.set_state(state));
    }

    /// The privilege level.
    #[inline(always)]
    #[must_use]
    pub fn cpl(&self) -> u8 {
        either!(&self.0, vcpu => vcpu.cpl())
    }

    /// The code segment.
    #[inline(always)]
    #[must_use]
    pub fn code(&self) -> Segment {
        either!(&self.0, vcpu => vcpu.code())
    }

    /// The attributes of the code segment.
    #[inline(always)]
    #[must_use]
    pub fn code_attributes(&self) -> u16 {
        either!(&self.0, vcpu => vcpu.code_attributes())
    }

    /// CR4, without bits that are the machine's.
    #[inline(always)]
    #[must_use]
    pub fn cr4(&self) -> u64 {
        either!(&self.0, vcpu => vcpu.cr4())
    }

    /// The registers of paging, without bits that are the machine's, none of which translates addresses.
    #[inline(always)]
    #[must_use]
    pub fn paging(&self) -> Paging {
        let [cr0, cr3, cr4, efer] = either!(&self.0, vcpu => vcpu.paging());
        Paging { cr0, cr3, cr4, efer }
    }

    /// Sets EFER, of which the caller has checked every bit.
    pub fn set_efer(&mut self, value: u64) {
        either!(&mut self.0, vcpu => vcpu.set_efer(value));
    }

    /// The page attribute table.
    #[must_use]
    pub fn pat(&self) -> u64 {
        either!(&self.0, vcpu => vcpu.pat())
    }

    /// Sets it: each byte is a memory type.
    pub fn set_pat(&mut self, value: u64) {
        either!(&mut self.0, vcpu => vcpu.set_pat(value));
    }
}
