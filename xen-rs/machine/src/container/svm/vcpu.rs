//! A vCPU in AMD's container: its control block, its address space number, and the way in and out.
//!
//! Unsafe: `vmrun`, `vmload` and `vmsave`, debug registers of a guest, and what its TSC is multiplied by.

use alloc::sync::Arc;
use core::arch::asm;
use core::sync::atomic::Ordering;

use logic::hvm::walk::Paging;
use logic::regs::{GuestRegs, rflags};
use logic::time::{Scaling, Way};

use super::enter::svm_enter;
use super::vmcb::{Vmcb, clean};
use super::{EFER_SVME, MSR_TSC_RATIO, SvmFeatures, asids, exits, features, host_state, maps, tsc_scaling};
use crate::arch::x86_64::{cpu, guest_registers, idt, percpu};
use crate::container::exit::{Event, EventKind, Exit};
use crate::container::known::Use;
use crate::container::memory;
use crate::container::state::{BREAKPOINTS, CpuState, DescriptorTable, Segment};
use crate::mem::nested::Tables;

/// Intercepted exceptions: #DB and #AC, which a guest could otherwise raise without end within one instruction, and #MC.
const EXCEPTIONS: u32 = 1 << 1 | 1 << 17 | 1 << 18;

/// First word of intercepted instructions and events: INTR, NMI, INIT, VINTR; RDPMC, CPUID, INVD, HLT, INVLPGA, I/O, MSRs,
/// task switches, shutdown. No guest ever takes a virtual interrupt: one is only there to know when it would be.
const FIRST: u32 = 0b1_1011 | 1 << 15 | 1 << 18 | 1 << 22 | 1 << 24 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29 | 1 << 31;
const FIRST_RDTSC: u32 = 1 << 14;
const FIRST_RSM: u32 = 1 << 19;
const FIRST_IRET: u32 = 1 << 20;
/// Second word: VMRUN to SKINIT, INT1, WBINVD, MONITOR, MWAIT, XSETBV, RDPRU.
const SECOND: u32 = 0x7f | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 13 | 1 << 14;
const SECOND_RDTSCP: u32 = 1 << 7;
const ALL_DEBUG: u16 = 0xffff;
/// All memory of a guest is write-back, whatever its own table says: others have the same frames mapped so.
const ALL_WRITE_BACK: u64 = 0x0606_0606_0606_0606;

/// Fields of the virtual interrupt word.
const V_IRQ: u64 = 1 << 8;
const V_IGNORES_TPR: u64 = 1 << 20;
const V_INTR_MASKING: u64 = 1 << 24;
const V_TPR: u64 = 0xf;
/// In the words of events.
const VALID: u64 = 1 << 31;
const HAS_ERROR: u64 = 1 << 11;

const FLUSH_ALL: u32 = 1;
/// No exit code of the CPU's.
const NOT_LOADED: u64 = u64::MAX;

/// The multiplier of the TSC that changes nothing.
const ONE: u64 = 1 << Scaling::SVM.fraction;

/// Multiplies the TSC of whoever runs in a container on this CPU.
fn multiply_tsc(multiplier: u64) {
    // SAFETY: the CPU has the register, or nobody would have a scaled TSC; the multiplier has no bit but those of the register.
    unsafe { cpu::wrmsr(MSR_TSC_RATIO, multiplier & Scaling::SVM.most) };
}

/// A vCPU's container.
#[derive(Debug)]
pub struct SvmVcpu {
    pub(super) vmcb: Vmcb,
    tables: Arc<Tables>,
    /// What its address space number stands for: the CPU that gave it, that CPU's count, the tables' generation; 0: none.
    cpu: u32,
    round: u64,
    generation: u64,
    /// DR0 to DR3 while they are not in the CPU.
    dr: [u64; 4],
    debug_loaded: bool,
    /// To be delivered at the next entry.
    pending: u64,
    /// What `vmload` loads of the guest is in the CPU, and the hypervisor's own is not.
    swapped: bool,
    /// What it reads as its TSC.
    tsc: Way,
    /// Its page attribute table, which is not the one that counts.
    pub(super) pat: u64,
}

impl SvmVcpu {
    /// A vCPU that translates by these tables, with the state after INIT; `None`: no memory.
    pub(crate) fn new(tables: Arc<Tables>) -> Option<Self> {
        let mut vmcb = Vmcb::new()?;
        vmcb.dr_reads = ALL_DEBUG;
        vmcb.dr_writes = ALL_DEBUG;
        vmcb.exceptions = EXCEPTIONS;
        vmcb.instructions = [FIRST | FIRST_RSM, SECOND, 0];
        vmcb.io_map = maps::io();
        vmcb.msr_map = maps::msr();
        vmcb.virtual_interrupt = V_INTR_MASKING;
        vmcb.nested_paging = 1;
        vmcb.pat = ALL_WRITE_BACK;
        vmcb.nested_cr3 = tables.pointer(false);
        let mut new = Self {
            vmcb,
            tables,
            cpu: u32::MAX,
            round: 0,
            generation: 0,
            dr: [0; 4],
            debug_loaded: false,
            pending: 0,
            swapped: false,
            tsc: Way::Native,
            pat: 0,
        };
        new.set_state(&CpuState::after_init());
        Some(new)
    }

    /// This CPU has it from now on.
    pub(crate) fn load(&mut self) {
        let this = percpu::this();
        this.container_block.store(self.vmcb.address(), Ordering::Relaxed);
        this.container_tables.store(Arc::as_ptr(&self.tables) as u64, Ordering::Relaxed);
        // Another CPU may have changed it since this one has seen it last.
        self.vmcb.clean = 0;
        // Numbers are given to vCPUs that are loaded, so that it cannot get old while it is.
        if self.cpu != percpu::number() || self.round != this.asid_round.load(Ordering::Relaxed) {
            self.generation = 0;
        }
        if let Way::Scaled(scaled) = self.tsc {
            multiply_tsc(scaled.multiplier);
        }
        self.swap_in();
        if self.vmcb.dr7 & BREAKPOINTS != 0 {
            self.take_debug_registers();
        }
    }

    /// What of the CPU a VM entry does not exchange becomes the guest's: FS, GS, TR, LDTR, and where system calls lead. The
    /// hypervisor needs none of it meanwhile but the task register, by which exceptions find stacks of their own.
    fn swap_in(&mut self) {
        idt::load_without_stacks();
        // SAFETY: the block is this vCPU's; what is loaded is not used in ring 0, now that no gate asks for the task register.
        unsafe { asm!("vmload rax", in("rax") self.vmcb.phys(), options(nostack, preserves_flags)) };
        self.swapped = true;
    }

    /// The other way round.
    fn swap_out(&mut self) {
        if core::mem::take(&mut self.swapped) {
            self.store_swapped();
            // SAFETY: what this CPU had when it was switched on.
            unsafe { asm!("vmload rax", in("rax") host_state(), options(nostack, preserves_flags)) };
            idt::load();
        }
    }

    /// Brings the block up to date.
    fn store_swapped(&self) {
        // SAFETY: the block is this vCPU's, and all that is written are fields of it.
        unsafe { asm!("vmsave rax", in("rax") self.vmcb.phys(), options(nostack, preserves_flags)) };
    }

    /// This CPU has it no longer.
    pub(crate) fn leave(&mut self) {
        let this = percpu::this();
        this.container_block.store(0, Ordering::Relaxed);
        this.container_tables.store(0, Ordering::Relaxed);
        self.swap_out();
        self.put_debug_registers_back();
        if matches!(self.tsc, Way::Scaled(_)) {
            multiply_tsc(ONE);
        }
    }

    fn put_debug_registers_back(&mut self) {
        if core::mem::take(&mut self.debug_loaded) {
            self.dr = guest_registers::breakpoints();
            guest_registers::set_breakpoints([0; 4]);
            self.vmcb.dr_reads = ALL_DEBUG;
            self.vmcb.dr_writes = ALL_DEBUG;
            self.vmcb.clean &= !(clean::INTERCEPTS | clean::DEBUG);
        }
    }

    pub(super) fn take_debug_registers(&mut self) {
        guest_registers::set_breakpoints(self.dr);
        self.debug_loaded = true;
        self.vmcb.dr_reads = 0;
        self.vmcb.dr_writes = 0;
        self.vmcb.clean &= !(clean::INTERCEPTS | clean::DEBUG);
    }

    /// A number of this CPU's that no translation in its TLB has.
    #[cold]
    #[inline(never)]
    fn renew_asid(&mut self, generation: u64) {
        let this = percpu::this();
        let mut asid = this.last_asid.load(Ordering::Relaxed) + 1;
        let mut flush = 0;
        if asid >= asids() {
            asid = 1;
            this.asid_round.fetch_add(1, Ordering::Relaxed);
            flush = FLUSH_ALL;
        }
        this.last_asid.store(asid, Ordering::Relaxed);
        self.vmcb.asid = asid;
        self.vmcb.tlb_control = flush;
        self.vmcb.clean &= !clean::ASID;
        self.cpu = percpu::number();
        self.round = this.asid_round.load(Ordering::Relaxed);
        self.generation = generation;
    }

    /// The entry was refused. Whether the CPU has flushed before, if it was to, nobody says: the next number is the first of a
    /// new round.
    #[cold]
    pub(super) fn expect_no_flush(&mut self) {
        percpu::this().last_asid.store(asids(), Ordering::Relaxed);
        self.generation = 0;
    }

    /// Runs the guest until it comes back.
    #[inline(always)]
    pub(crate) fn enter(&mut self, regs: &mut GuestRegs) {
        if !self.swapped {
            // Nobody would call this CPU out of the guest.
            self.vmcb.exit_code = NOT_LOADED;
            return;
        }
        let generation = self.tables.generation();
        if self.generation != generation {
            self.renew_asid(generation);
        }
        let block = self.vmcb.phys();
        let vmcb = &mut *self.vmcb;
        vmcb.rip = regs.rip;
        vmcb.rsp = regs.rsp;
        vmcb.rflags = regs.rflags;
        vmcb.rax = regs.rax;
        vmcb.event = core::mem::take(&mut self.pending);
        // SAFETY: the block is this vCPU's and is complete; its nested tables map this domain's memory only; the entry code
        // keeps what a called function preserves and brings the host's state back.
        unsafe { svm_enter(regs, block) };
        vmcb.tlb_control = 0;
        vmcb.clean = clean::ALL;
        regs.rip = vmcb.rip;
        regs.rsp = vmcb.rsp;
        regs.rflags = vmcb.rflags;
        regs.rax = vmcb.rax;
        if vmcb.exit_event & VALID != 0 {
            self.interrupted_delivery();
        }
    }

    /// Whether it came back for a hypercall.
    #[inline(always)]
    pub(crate) fn is_hypercall(&self) -> bool {
        self.vmcb.exit_code == 0x81
    }

    /// The exit came while an event was being delivered: it is delivered again. An instruction that raised it is executed
    /// again instead.
    #[cold]
    fn interrupted_delivery(&mut self) {
        const SOFTWARE: u64 = 4;
        let (kind, vector) = (self.vmcb.exit_event >> 8 & 7, self.vmcb.exit_event & 0xff);
        let by_instruction = kind == SOFTWARE || (kind == EventKind::Exception as u64 && matches!(vector, 3 | 4));
        if !by_instruction {
            self.pending = self.vmcb.exit_event;
        }
    }

    /// Whether it came back for `cpuid`.
    #[inline(always)]
    pub(crate) fn is_cpuid(&self) -> bool {
        self.vmcb.exit_code == 0x72
    }

    /// Why it came back.
    #[inline(always)]
    pub(crate) fn exit(&mut self, _regs: &mut GuestRegs) -> Exit {
        exits::exit(self)
    }

    /// The instruction pointer behind the instruction that exited, where the CPU says it.
    #[inline(always)]
    pub(crate) fn next_instruction(&self, _rip: u64) -> Option<u64> {
        features().contains(SvmFeatures::NRIP_SAVE).then_some(self.vmcb.next_rip)
    }

    /// The instruction whose access to memory exited, as far as the CPU says what it has fetched.
    pub(crate) fn instruction(&self) -> &[u8] {
        let assists = features().contains(SvmFeatures::DECODE_ASSISTS);
        let fetched = if assists { usize::from(self.vmcb.fetched & 0xf) } else { 0 };
        self.vmcb.instruction.get(..fetched).unwrap_or_default()
    }

    /// Four bytes of its memory, if it is loaded here and where they are is remembered.
    #[inline(always)]
    pub(crate) fn four_at_once(&self, linear: u64, what_for: Use) -> Option<u32> {
        if !self.swapped {
            return None;
        }
        let [cr0, cr3, cr4, efer] = [self.vmcb.cr0, self.vmcb.cr3, self.vmcb.cr4, self.vmcb.efer];
        let paging = Paging { cr0, cr3, cr4, efer };
        memory::four_at_once(&paging, &self.tables, linear, what_for)
    }

    /// An emulated instruction is over: what it held off is held off no longer.
    #[inline(always)]
    pub(crate) fn end_shadow(&mut self) {
        self.vmcb.shadow = 0;
    }

    /// Whether it waits behind `sti` or `mov ss`.
    #[inline(always)]
    pub(crate) fn is_in_shadow(&self) -> bool {
        self.vmcb.shadow & 1 != 0
    }

    /// Whether an interrupt can be injected.
    #[inline(always)]
    pub(crate) fn takes_interrupts(&self, regs: &GuestRegs) -> bool {
        regs.rflags & rflags::IF != 0 && !self.is_in_shadow() && self.pending == 0
    }

    /// Whether an event waits for the next entry already.
    #[inline(always)]
    pub(crate) const fn has_pending(&self) -> bool {
        self.pending != 0
    }

    /// The event that waits for the next entry, or 0.
    pub(crate) const fn pending(&self) -> u64 {
        self.pending
    }

    /// An event for the next entry.
    pub(crate) fn inject(&mut self, event: Event) {
        let error = event.error.map_or(0, |code| HAS_ERROR | u64::from(code) << 32);
        self.pending = VALID | u64::from(event.vector) | u64::from(event.kind as u8) << 8 | error;
    }

    /// Whether to exit as soon as an interrupt can be injected.
    #[inline(always)]
    pub(crate) fn want_window(&mut self, wanted: bool) {
        let others = self.vmcb.virtual_interrupt & !(V_IRQ | V_IGNORES_TPR);
        let control = if wanted { others | V_IRQ | V_IGNORES_TPR } else { others };
        if control != self.vmcb.virtual_interrupt {
            self.vmcb.virtual_interrupt = control;
            self.vmcb.clean &= !clean::INTERRUPTS;
        }
    }

    /// What it reads as its TSC.
    #[inline(always)]
    pub(crate) fn set_tsc(&mut self, way: Way) {
        if self.tsc != way {
            self.change_tsc(way);
        }
    }

    #[cold]
    fn change_tsc(&mut self, way: Way) {
        self.tsc = way;
        let (multiplier, offset) = match way {
            Way::Scaled(scaled) => (scaled.multiplier, scaled.offset),
            Way::Native | Way::Emulated => (ONE, 0),
        };
        if tsc_scaling().is_some() {
            multiply_tsc(multiplier);
        }
        self.vmcb.tsc_offset = offset;
        let [first, second, _] = &mut self.vmcb.instructions;
        let exits = way == Way::Emulated;
        *first = if exits { *first | FIRST_RDTSC } else { *first & !FIRST_RDTSC };
        *second = if exits { *second | SECOND_RDTSCP } else { *second & !SECOND_RDTSCP };
        self.vmcb.clean &= !clean::INTERCEPTS;
    }

    /// To exit when the handler of an NMI returns.
    pub(crate) fn want_nmi_window(&mut self) {
        self.vmcb.instructions[0] |= FIRST_IRET;
        self.vmcb.clean &= !clean::INTERCEPTS;
    }

    /// An emulated instruction was the one of a single step: #DB comes behind it.
    #[cold]
    pub(crate) fn end_step(&mut self) {
        const SINGLE_STEP: u64 = 1 << 14;
        self.vmcb.dr6 |= SINGLE_STEP;
        self.vmcb.clean &= !clean::DEBUG;
        self.inject(Event::exception(1));
    }

    /// To exit when CR8 falls below this. QEMU's emulation takes an interrupt of the same class as CR8 for one that CR8 lets
    /// pass, and would exit for ever; so here the next exit has to do.
    pub(crate) fn watch_priority(&mut self, _class: u8) {}

    /// It has returned.
    pub(super) fn end_nmi_window(&mut self) {
        self.vmcb.instructions[0] &= !FIRST_IRET;
        self.vmcb.clean &= !clean::INTERCEPTS;
    }

    /// The task priority: bits 7:4 of the APIC's register, which CR8 holds.
    #[inline(always)]
    pub(crate) fn cr8(&self) -> u8 {
        (self.vmcb.virtual_interrupt & V_TPR) as u8
    }

    /// Sets CR8.
    pub(crate) fn set_cr8(&mut self, priority: u8) {
        self.vmcb.virtual_interrupt = self.vmcb.virtual_interrupt & !V_TPR | u64::from(priority) & V_TPR;
        self.vmcb.clean &= !clean::INTERRUPTS;
    }

    /// The whole state.
    pub(crate) fn state(&self) -> CpuState {
        if self.swapped {
            self.store_swapped();
        }
        let v = &self.vmcb;
        let table = |segment: &Segment| DescriptorTable { limit: segment.limit, base: segment.base };
        CpuState {
            cr0: v.cr0,
            cr2: v.cr2,
            cr3: v.cr3,
            cr4: v.cr4,
            efer: v.efer & !EFER_SVME,
            cs: v.cs,
            // Its privilege level is kept beside it.
            ss: Segment { attributes: v.ss.attributes & !0x60 | u16::from(v.cpl) << 5, ..v.ss },
            ds: v.ds,
            es: v.es,
            fs: v.fs,
            gs: v.gs,
            ldtr: v.ldtr,
            tr: v.tr,
            gdtr: table(&v.gdtr),
            idtr: table(&v.idtr),
            dr: if self.debug_loaded { guest_registers::breakpoints() } else { self.dr },
            dr6: v.dr6,
            dr7: v.dr7,
            star: v.star,
            lstar: v.lstar,
            cstar: v.cstar,
            sfmask: v.sfmask,
            kernel_gs_base: v.kernel_gs_base,
            sysenter_cs: v.sysenter_cs,
            sysenter_esp: v.sysenter_esp,
            sysenter_eip: v.sysenter_eip,
            pat: self.pat,
        }
    }

    /// Sets the whole state. What the hardware does not take ends in [`Exit::Refused`] at the next entry.
    pub(crate) fn set_state(&mut self, state: &CpuState) {
        self.put_debug_registers_back();
        self.dr = state.dr;
        self.pat = state.pat;
        let swapped = self.swapped;
        self.swap_out();
        let table = |table: &DescriptorTable| Segment { limit: table.limit, base: table.base, ..Segment::default() };
        let v = &mut *self.vmcb;
        v.cr0 = state.cr0;
        v.cr2 = state.cr2;
        v.cr3 = state.cr3;
        v.cr4 = state.cr4;
        v.efer = state.efer | EFER_SVME;
        (v.cs, v.ss, v.ds, v.es) = (state.cs, state.ss, state.ds, state.es);
        (v.fs, v.gs, v.ldtr, v.tr) = (state.fs, state.gs, state.ldtr, state.tr);
        (v.gdtr, v.idtr) = (table(&state.gdtr), table(&state.idtr));
        v.cpl = (state.ss.attributes >> 5 & 3) as u8;
        v.dr6 = state.dr6;
        v.dr7 = state.dr7;
        (v.star, v.lstar, v.cstar, v.sfmask) = (state.star, state.lstar, state.cstar, state.sfmask);
        v.kernel_gs_base = state.kernel_gs_base;
        (v.sysenter_cs, v.sysenter_esp, v.sysenter_eip) = (state.sysenter_cs, state.sysenter_esp, state.sysenter_eip);
        v.shadow = 0;
        self.pending = 0;
        // Translations of another CR3 may have the same number.
        self.generation = 0;
        v.clean = 0;
        if swapped {
            self.swap_in();
        }
    }
}
