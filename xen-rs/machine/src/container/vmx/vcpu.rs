//! A vCPU in Intel's container.
//!
//! Its VMCS is the current one of the CPU that has it loaded, and on no CPU otherwise: what asks for its state then borrows it
//! (`vmcs::borrowed`).
//!
//! Unsafe: the VMCS is loaded, the guest is entered, and registers of its own that no VM entry loads are exchanged.

use alloc::sync::Arc;
use core::arch::asm;
use core::sync::atomic::Ordering;

use logic::regs::{GuestRegs, rflags};
use logic::time::Way;

use super::capability::{Capabilities, ept};
use super::fields::{Field, primary, secondary};
use super::registers::{canonical, cr2, debug_status, set_cr2, set_debug_status, write_call_register};
use super::state::{self, Addresses};
use super::vmcs::{self, Page, read, write};
use super::{CALL_REGISTERS, call_register, capability, control_registers, enter, exits, msr_bitmap};
use crate::arch::x86_64::{cpu, guest_registers, percpu, speculation};
use crate::container::exit::{Event, Exit};
use crate::container::known::Use;
use crate::container::memory;
use crate::container::state::{BREAKPOINTS, CpuState};
use crate::mem::nested::Tables;

/// Exceptions that exit: #DB and #AC, which a guest could otherwise raise without end within one instruction, and #MC.
const EXCEPTIONS: u32 = 1 << 1 | 1 << 17 | 1 << 18;
/// In the words of events.
pub(super) const VALID: u64 = 1 << 31;
const HAS_ERROR: u64 = 1 << 11;
/// What holds interrupts off: `sti`, `mov ss`; and NMIs.
pub(super) const SHADOWS: u64 = 0b11;
pub(super) const NMI_BLOCKED: u64 = 1 << 3;
/// A single step among the causes of a #DB.
pub(super) const SINGLE_STEP: u64 = 1 << 14;
/// Offset of the task priority in the page of the virtual APIC.
const TASK_PRIORITY: usize = 0x80;
const FLUSH_CMD: u32 = 0x10b;

/// A vCPU's container.
#[derive(Debug)]
pub struct VmxVcpu {
    vmcs: Page,
    pub(super) apic: Page,
    /// The hardware serves its interrupts ([`super::virtual_apic`]).
    pub(super) serves: bool,
    pub(super) tables: Arc<Tables>,
    pub(super) found: &'static Capabilities,
    /// This CPU has it.
    loaded: bool,
    launched: bool,
    /// The stack pointer that exits come back with, as the VMCS has it.
    host_rsp: u64,
    /// Whose translations its VPID stands for: of which CPU, which count, which generation of the tables.
    cpu: u32,
    round: u64,
    generation: u64,
    vpid: u64,
    cr2: u64,
    /// Values of [`CALL_REGISTERS`] while they are not in the CPU.
    calls: [u64; 5],
    dr: [u64; 4],
    pub(super) dr6: u64,
    pub(super) debug_loaded: bool,
    /// To be delivered at the next entry: the event, its error code.
    pub(super) pending: u64,
    pub(super) pending_error: u64,
    /// Of the task priority: [`Self::watch_priority`].
    watched: u8,
    /// Whether its controls ask for an interrupt window.
    window: bool,
    /// What it reads as its TSC.
    pub(super) tsc: Way,
    flush_cache: bool,
    clear_buffers: bool,
    /// Whether a new state's page-directory pointers are to be loaded.
    pointers_due: bool,
    /// Why the guest came back last, or that it was not entered.
    pub(super) reason: u64,
}

/// No reason of the CPU's: the entry was refused, with an error in the low half.
const REFUSED: u64 = 1 << 32;
/// `vmcall`.
const HYPERCALL: u64 = 18;
/// `cpuid`.
const CPUID: u64 = 10;

impl VmxVcpu {
    /// A vCPU that translates by these tables, with the state after INIT; `None`: no memory.
    pub(crate) fn new(tables: Arc<Tables>) -> Option<Self> {
        let found = capability::get()?;
        let (mut vmcs, apic) = (Page::new()?, Page::new()?);
        vmcs.write(0, found.revision);
        // SAFETY: VMX is on where it was found; nobody else has this page.
        unsafe { vmcs::clear(vmcs.phys()) };
        let addresses = Addresses {
            exceptions: EXCEPTIONS,
            msr_bitmap: msr_bitmap::address(),
            virtual_apic: apic.phys(),
            ept_pointer: tables.pointer(found.ept & ept::ACCESSED_DIRTY != 0),
        };
        vmcs::borrowed(&vmcs, || state::begin(found, &addresses));
        let mut new = Self {
            vmcs,
            apic,
            serves: false,
            tables,
            found,
            loaded: false,
            launched: false,
            host_rsp: 0,
            cpu: u32::MAX,
            round: 0,
            generation: 0,
            vpid: 0,
            cr2: 0,
            calls: [0; 5],
            dr: [0; 4],
            dr6: 0,
            debug_loaded: false,
            pending: 0,
            pending_error: 0,
            watched: 0,
            window: false,
            tsc: Way::Native,
            flush_cache: speculation::plan().l1d_flush,
            clear_buffers: speculation::plan().verw_containers,
            pointers_due: false,
            reason: REFUSED,
        };
        new.set_state(&CpuState::after_init());
        Some(new)
    }

    /// Works on the VMCS, wherever it is.
    #[inline(always)]
    pub(super) fn with<R>(&self, work: impl FnOnce() -> R) -> R {
        if self.loaded { work() } else { vmcs::borrowed(&self.vmcs, work) }
    }

    /// This CPU has it from now on.
    pub(crate) fn load(&mut self) {
        let this = percpu::this();
        // SAFETY: VMX is on; no other CPU has it, says the caller's `&mut`, and it was cleared when one left it.
        unsafe { vmcs::make_current(self.vmcs.phys()) };
        self.loaded = true;
        self.launched = false;
        state::write_host();
        for (number, value) in CALL_REGISTERS.into_iter().zip(self.calls) {
            // SAFETY: the registers exist, the values were a guest's before or are zero, and nothing here uses them until
            // `leave`.
            unsafe { cpu::wrmsr(number, value) };
        }
        this.container_block.store(self.vmcs.phys(), Ordering::Relaxed);
        this.container_tables.store(Arc::as_ptr(&self.tables) as u64, Ordering::Relaxed);
        if read(Field::GUEST_DR7) & BREAKPOINTS != 0 {
            self.take_debug_registers();
        }
        if self.pointers_due {
            self.load_pointers_due();
        }
    }

    /// Loads the page-directory pointers that a new state has, on the CPU that runs it: others may not look at its tables.
    #[cold]
    fn load_pointers_due(&mut self) {
        self.pointers_due = false;
        // Where there is no memory, the entry is refused or the first access faults.
        exits::load_pointers(self);
    }

    /// This CPU has it no longer.
    pub(crate) fn leave(&mut self) {
        let this = percpu::this();
        this.container_block.store(0, Ordering::Relaxed);
        this.container_tables.store(0, Ordering::Relaxed);
        self.put_debug_registers_back();
        for (i, (number, value)) in CALL_REGISTERS.into_iter().zip(&mut self.calls).enumerate() {
            // SAFETY: the registers exist, and get what they had when this CPU was switched on.
            unsafe {
                *value = cpu::rdmsr(number);
                cpu::wrmsr(number, call_register(i).read());
            }
        }
        self.loaded = false;
        // SAFETY: it was this CPU's.
        unsafe { vmcs::clear(self.vmcs.phys()) };
        // An exit leaves both with the largest limits there are.
        percpu::restore_table_limits();
    }

    pub(super) fn put_debug_registers_back(&mut self) {
        if core::mem::take(&mut self.debug_loaded) {
            self.dr = guest_registers::breakpoints();
            self.dr6 = debug_status();
            guest_registers::set_breakpoints([0; 4]);
            set_debug_status(0xffff_0ff0);
            self.change_primary(primary::DEBUG_REGISTERS, true);
        }
    }

    pub(super) fn take_debug_registers(&mut self) {
        guest_registers::set_breakpoints(self.dr);
        set_debug_status(self.dr6);
        self.debug_loaded = true;
        self.change_primary(primary::DEBUG_REGISTERS, false);
    }

    /// A #DB has these causes; the CPU leaves it to us to note them (SDM vol. 3C, 28.2).
    pub(super) fn add_debug_causes(&mut self, causes: u64) {
        if self.debug_loaded {
            set_debug_status(debug_status() | causes);
        } else {
            self.dr6 |= causes;
        }
    }

    pub(super) fn change_primary(&self, bit: u32, on: bool) {
        self.with(|| {
            let old = read(Field::PRIMARY_CONTROLS);
            let new = if on { old | u64::from(bit) } else { old & !u64::from(bit) };
            if new != old {
                write(Field::PRIMARY_CONTROLS, new);
            }
        });
    }

    /// Drops what this CPU knows of the guest's translations.
    #[cold]
    #[inline(never)]
    fn renew_translations(&mut self, generation: u64) {
        let this = percpu::this();
        let kind = if self.found.ept & ept::INVEPT_ONE != 0 { 1 } else { 2 };
        vmcs::invalidate_ept(read(Field::EPT_POINTER), kind);
        if self.found.secondary & secondary::VPID != 0 {
            let mut vpid = this.last_asid.load(Ordering::Relaxed) + 1;
            if vpid > 0xffff {
                vpid = 1;
                this.asid_round.fetch_add(1, Ordering::Relaxed);
                vmcs::invalidate_vpid(0, 2);
            }
            this.last_asid.store(vpid, Ordering::Relaxed);
            self.vpid = vpid.into();
            write(Field::VPID, self.vpid);
        }
        self.cpu = percpu::number();
        self.round = this.asid_round.load(Ordering::Relaxed);
        self.generation = generation;
    }

    /// Drops translations of linear addresses.
    pub(super) fn flush_linear(&mut self) {
        if self.vpid != 0 {
            let kind = if self.found.ept & ept::INVVPID_ONE != 0 { 1 } else { 2 };
            vmcs::invalidate_vpid(self.vpid, kind);
        }
    }

    /// An emulated instruction was the last one of the lower half of the addresses: the next one's fetch is #GP. The processor
    /// says where that would have been, but is not entered there (SDM vol. 3C, 27.3.1.4; XSA-170).
    #[cold]
    fn leave_lower_half(&mut self, regs: &mut GuestRegs) {
        regs.rip = canonical(regs.rip);
        if self.pending == 0 {
            self.inject(Event::general_protection());
        }
    }

    /// Runs the guest until it comes back. It is loaded on this CPU.
    #[inline(always)]
    pub(crate) fn enter(&mut self, regs: &mut GuestRegs) {
        let this = percpu::this();
        let generation = self.tables.generation();
        if self.generation != generation
            || self.cpu != this.number.load(Ordering::Relaxed)
            || self.round != this.asid_round.load(Ordering::Relaxed)
        {
            self.renew_translations(generation);
        }
        if canonical(regs.rip) != regs.rip {
            self.leave_lower_half(regs);
        }
        write(Field::GUEST_RIP, regs.rip);
        write(Field::GUEST_RSP, regs.rsp);
        write(Field::GUEST_RFLAGS, regs.rflags);
        if self.pending != 0 {
            self.deliver_pending();
        }
        self.mitigate();
        set_cr2(self.cr2);
        // SAFETY: the VMCS is this vCPU's, current and complete; its nested tables map this domain's memory only; an exit
        // brings the host's state back, and the entry code keeps what a called function preserves.
        let refused = unsafe { enter::vmx_enter(regs, self.launched.into(), &raw mut self.host_rsp) };
        if refused != 0 {
            self.reason = REFUSED | read(Field::INSTRUCTION_ERROR);
            return;
        }
        self.launched = true;
        self.cr2 = cr2();
        regs.rip = read(Field::GUEST_RIP);
        regs.rsp = read(Field::GUEST_RSP);
        regs.rflags = read(Field::GUEST_RFLAGS);
        self.reason = read(Field::EXIT_REASON);
    }

    /// Whether it came back for a hypercall.
    #[inline(always)]
    pub(crate) fn is_hypercall(&self) -> bool {
        self.reason == HYPERCALL
    }

    /// Whether it came back for `cpuid`.
    #[inline(always)]
    pub(crate) fn is_cpuid(&self) -> bool {
        self.reason == CPUID
    }

    /// Why it came back.
    #[inline(always)]
    pub(crate) fn exit(&mut self, regs: &mut GuestRegs) -> Exit {
        if self.reason & REFUSED != 0 { Exit::Refused(self.reason) } else { exits::exit(self, regs) }
    }

    /// What the CPU suffers from: its first-level cache must hold nothing of others (L1TF), nor its buffers (MDS).
    #[inline(always)]
    fn mitigate(&self) {
        if self.flush_cache {
            // SAFETY: the CPU has the register, says the plan; the cache is written back.
            unsafe { cpu::wrmsr(FLUSH_CMD, 1) };
        } else if self.clear_buffers {
            let data = logic::regs::selector::HYPERVISOR_DS;
            // SAFETY: `verw` checks a selector.
            unsafe { asm!("verw [{}]", in(reg) &raw const data, options(nostack, readonly)) };
        }
    }

    #[cold]
    fn deliver_pending(&mut self) {
        const NMI: u64 = 2;
        let mut event = core::mem::take(&mut self.pending);
        // In real mode nothing has an error code.
        if event & HAS_ERROR != 0 && control_registers::cr0() & 1 == 0 {
            event &= !HAS_ERROR;
        }
        if event & HAS_ERROR != 0 {
            write(Field::ENTRY_ERROR, self.pending_error);
        }
        // Delivering an NMI blocks others by itself, and must not find them blocked (SDM vol. 3C, 27.3.1.5).
        if event >> 8 & 7 == NMI {
            write(Field::INTERRUPTIBILITY, read(Field::INTERRUPTIBILITY) & !(NMI_BLOCKED | SHADOWS));
        }
        write(Field::ENTRY_EVENT, event);
    }

    /// The instruction pointer behind the instruction that exited.
    #[inline(always)]
    pub(crate) fn next_instruction(&self, rip: u64) -> Option<u64> {
        self.with(|| Some(rip.wrapping_add(read(Field::INSTRUCTION_LENGTH))))
    }

    /// Four bytes of its memory, if it is loaded here and where they are is remembered.
    #[inline(always)]
    pub(crate) fn four_at_once(&self, linear: u64, what_for: Use) -> Option<u32> {
        if !self.loaded {
            return None;
        }
        let paging = super::paging_here();
        memory::four_at_once(&paging, &self.tables, linear, what_for)
    }

    /// An emulated instruction is over: what it held off is held off no longer.
    #[inline(always)]
    pub(crate) fn end_shadow(&mut self) {
        self.with(|| {
            let old = read(Field::INTERRUPTIBILITY);
            if old & SHADOWS != 0 {
                write(Field::INTERRUPTIBILITY, old & !SHADOWS);
            }
        });
    }

    /// Whether it waits behind `sti` or `mov ss`.
    #[inline(always)]
    pub(crate) fn is_in_shadow(&self) -> bool {
        self.with(|| read(Field::INTERRUPTIBILITY)) & SHADOWS != 0
    }

    /// Whether an interrupt can be injected.
    #[inline(always)]
    pub(crate) fn takes_interrupts(&self, regs: &GuestRegs) -> bool {
        regs.rflags & rflags::IF != 0 && self.pending == 0 && !self.is_in_shadow()
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
        let error = if event.error.is_some() { HAS_ERROR } else { 0 };
        self.pending = VALID | u64::from(event.vector) | u64::from(event.kind as u8) << 8 | error;
        self.pending_error = event.error.unwrap_or(0).into();
    }

    /// Whether to exit as soon as an interrupt can be injected.
    #[inline(always)]
    pub(crate) fn want_window(&mut self, wanted: bool) {
        if self.window != wanted {
            self.window = wanted;
            self.change_primary(primary::INTERRUPT_WINDOW, wanted);
        }
    }

    /// To exit when the handler of an NMI returns.
    pub(crate) fn want_nmi_window(&mut self) {
        self.change_primary(primary::NMI_WINDOW, true);
    }

    /// An emulated instruction was the one of a single step: #DB comes behind it.
    #[cold]
    pub(crate) fn end_step(&mut self) {
        self.add_debug_causes(SINGLE_STEP);
        self.inject(Event::exception(1));
    }

    /// The instruction that exited is executed again. Of one that is single-stepped Bochs 2.7 notes that the step is done, and
    /// would have #DB come before it.
    pub(crate) fn stay_in_step(&mut self) {
        self.with(|| write(Field::PENDING_DEBUG, read(Field::PENDING_DEBUG) & !SINGLE_STEP));
    }

    /// The task priority: bits 7:4 of the APIC's register, which CR8 holds.
    #[inline(always)]
    pub(crate) fn cr8(&self) -> u8 {
        (self.apic.read(TASK_PRIORITY) >> 4 & 0xf) as u8
    }

    /// Sets CR8.
    pub(crate) fn set_cr8(&mut self, priority: u8) {
        self.watch_priority(0);
        self.apic.write(TASK_PRIORITY, u32::from(priority & 0xf) << 4);
    }

    /// To exit when CR8 falls below this, which it is not at the moment (SDM vol. 3C, 27.2.1.1, demands it).
    pub(crate) fn watch_priority(&mut self, class: u8) {
        if self.watched != class {
            self.watched = class;
            self.with(|| write(Field::TPR_THRESHOLD, class.into()));
        }
    }

    /// The whole state.
    pub(crate) fn state(&self) -> CpuState {
        let (dr, dr6) =
            if self.debug_loaded { (guest_registers::breakpoints(), debug_status()) } else { (self.dr, self.dr6) };
        let mut calls = self.calls;
        if self.loaded {
            for (number, value) in CALL_REGISTERS.into_iter().zip(&mut calls) {
                // SAFETY: the registers exist.
                *value = unsafe { cpu::rdmsr(number) };
            }
        }
        let [star, lstar, cstar, sfmask, kernel_gs_base] = calls;
        CpuState { cr2: self.cr2, dr, dr6, star, lstar, cstar, sfmask, kernel_gs_base, ..self.with(state::load) }
    }

    /// Sets the whole state. What the hardware does not take ends in [`Exit::Refused`] at the next entry.
    pub(crate) fn set_state(&mut self, state: &CpuState) {
        self.put_debug_registers_back();
        self.dr = state.dr;
        self.dr6 = state.dr6;
        self.cr2 = state.cr2;
        self.calls = [state.star, state.lstar, state.cstar, state.sfmask, state.kernel_gs_base];
        if self.loaded {
            for (number, value) in CALL_REGISTERS.into_iter().zip(self.calls) {
                // SAFETY: as in `load`; an address that is not canonical is not written.
                unsafe { write_call_register(number, value) };
            }
        }
        self.calls = self.calls.map(canonical);
        self.with(|| state::store(state));
        self.pointers_due = true;
        if self.loaded {
            self.load_pointers_due();
        }
        self.pending = 0;
        // Translations of another CR3 may have the same number.
        self.cpu = u32::MAX;
    }
}
