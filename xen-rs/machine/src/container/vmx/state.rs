//! The guest's state, between the VMCS and the form that both vendors have in common; and the host's.
//!
//! Unsafe: the state that an exit brings back is written.

use super::fields::{Field, Register, entry};
use super::vmcs::{read, write, write_any};
use super::{capability, control_registers, enter, tsc as guest_tsc};
use crate::arch::x86_64::{cpu, guest_registers, percpu, tsc};
use crate::container::state::{CpuState, DescriptorTable, Segment};
use crate::mem::hypervisor_map::idle_root;
use logic::regs::selector;

/// How long a guest runs at most, in milliseconds of the TSC and from entry to entry, before interrupts are let in.
const STAY_MS: u64 = 2;
/// A segment that is not there.
const UNUSABLE: u64 = 1 << 16;

#[allow(clippy::cast_possible_truncation, reason = "the fields have these widths")]
pub(super) fn segment(register: Register) -> Segment {
    Segment {
        selector: read(register.selector()) as u16,
        attributes: attributes(register),
        limit: read(register.limit()) as u32,
        base: read(register.base()),
    }
}

/// The attributes of a segment; 0 for one that is not usable.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "twelve bits")]
pub(super) fn attributes(register: Register) -> u16 {
    let rights = read(register.rights());
    if rights & UNUSABLE != 0 { 0 } else { (rights & 0xff | rights >> 4 & 0xf00) as u16 }
}

fn set_segment(register: Register, from: &Segment) {
    let packed = u64::from(from.attributes);
    let rights = if from.attributes & 0x80 == 0 { UNUSABLE } else { packed & 0xff | (packed & 0xf00) << 4 };
    write(register.selector(), from.selector.into());
    write(register.limit(), from.limit.into());
    write(register.base(), from.base);
    write(register.rights(), rights);
}

/// What of the state is in the VMCS.
#[allow(clippy::cast_possible_truncation, reason = "the fields have these widths")]
pub(super) fn load() -> CpuState {
    let table = |base, limit| DescriptorTable { limit: read(limit) as u32, base: read(base) };
    CpuState {
        cr0: control_registers::cr0(),
        cr3: read(Field::GUEST_CR3),
        cr4: control_registers::cr4(),
        efer: read(Field::GUEST_EFER),
        cs: segment(Register::Cs),
        ss: segment(Register::Ss),
        ds: segment(Register::Ds),
        es: segment(Register::Es),
        fs: segment(Register::Fs),
        gs: segment(Register::Gs),
        ldtr: segment(Register::Ldtr),
        tr: segment(Register::Tr),
        gdtr: table(Field::GUEST_GDTR_BASE, Field::GUEST_GDTR_LIMIT),
        idtr: table(Field::GUEST_IDTR_BASE, Field::GUEST_IDTR_LIMIT),
        dr7: read(Field::GUEST_DR7),
        sysenter_cs: read(Field::GUEST_SYSENTER_CS),
        sysenter_esp: read(Field::GUEST_SYSENTER_ESP),
        sysenter_eip: read(Field::GUEST_SYSENTER_EIP),
        pat: read(Field::GUEST_PAT),
        ..CpuState::default()
    }
}

/// Writes what of the state is in the VMCS.
pub(super) fn store(state: &CpuState) {
    control_registers::set(state.cr0, state.cr4, state.efer);
    write(Field::GUEST_CR3, state.cr3);
    for (register, from) in [
        (Register::Es, &state.es),
        (Register::Cs, &state.cs),
        (Register::Ss, &state.ss),
        (Register::Ds, &state.ds),
        (Register::Fs, &state.fs),
        (Register::Gs, &state.gs),
        (Register::Ldtr, &state.ldtr),
        (Register::Tr, &state.tr),
    ] {
        set_segment(register, from);
    }
    write(Field::GUEST_GDTR_BASE, state.gdtr.base);
    write(Field::GUEST_GDTR_LIMIT, u64::from(state.gdtr.limit) & 0xffff);
    write(Field::GUEST_IDTR_BASE, state.idtr.base);
    write(Field::GUEST_IDTR_LIMIT, u64::from(state.idtr.limit) & 0xffff);
    write(Field::GUEST_DR7, state.dr7);
    write(Field::GUEST_SYSENTER_CS, state.sysenter_cs);
    write(Field::GUEST_SYSENTER_ESP, state.sysenter_esp);
    write(Field::GUEST_SYSENTER_EIP, state.sysenter_eip);
    write(Field::GUEST_PAT, state.pat);
    write(Field::INTERRUPTIBILITY, 0);
    write(Field::ACTIVITY, 0);
    write(Field::PENDING_DEBUG, 0);
}

/// What never changes: the controls, and what the guest has no part in.
pub(super) fn begin(found: &capability::Capabilities, addresses: &Addresses) {
    for (field, value) in [
        (Field::PIN_CONTROLS, found.pin.into()),
        (Field::PRIMARY_CONTROLS, found.primary.into()),
        (Field::SECONDARY_CONTROLS, found.secondary.into()),
        (Field::EXIT_CONTROLS, found.exit.into()),
        (Field::ENTRY_CONTROLS, u64::from(found.entry & !entry::LONG_MODE)),
        (Field::EXCEPTIONS, addresses.exceptions.into()),
        (Field::PAGE_FAULT_MASK, 0),
        (Field::PAGE_FAULT_MATCH, 0),
        (Field::CR3_TARGETS, 0),
        (Field::EXIT_MSR_STORES, 0),
        (Field::EXIT_MSR_LOADS, 0),
        (Field::ENTRY_MSR_LOADS, 0),
        (Field::ENTRY_EVENT, 0),
        (Field::TPR_THRESHOLD, 0),
        (Field::LINK_POINTER, u64::MAX),
        (Field::GUEST_DEBUGCTL, 0),
        (Field::MSR_BITMAP, addresses.msr_bitmap),
        (Field::VIRTUAL_APIC, addresses.virtual_apic),
        (Field::EPT_POINTER, addresses.ept_pointer),
    ] {
        write(field, value);
    }
    guest_tsc::begin();
    control_registers::write_masks();
    start_stay();
}

/// The guest may run for [`STAY_MS`] again.
pub(super) fn start_stay() {
    let Some(found) = capability::get() else { return };
    let ticks = (tsc::hertz() * STAY_MS / 1000) >> found.timer_shift;
    write(Field::PREEMPTION_TIMER, ticks.clamp(1, u32::MAX.into()));
}

/// What the controls point to.
pub(super) struct Addresses {
    pub exceptions: u32,
    pub msr_bitmap: u64,
    pub virtual_apic: u64,
    pub ept_pointer: u64,
}

/// What an exit brings back on this CPU.
pub(super) fn write_host() {
    const TASK_SWITCHED: u64 = 1 << 3;
    let host = percpu::host_tables();
    // SAFETY: each register gets the value that it has now (or had before a guest of this CPU's came), and execution goes on
    // at the way back.
    unsafe {
        for (field, value) in [
            (Field::HOST_CR0, guest_registers::read_cr0() & !TASK_SWITCHED),
            (Field::HOST_CR3, idle_root()),
            (Field::HOST_CR4, cpu::read_cr4()),
            (Field::HOST_CS, selector::HYPERVISOR_CS.into()),
            (Field::HOST_SS, selector::HYPERVISOR_DS.into()),
            (Field::HOST_DS, 0),
            (Field::HOST_ES, 0),
            (Field::HOST_FS, 0),
            (Field::HOST_GS, 0),
            (Field::HOST_TR, host.task),
            (Field::HOST_FS_BASE, 0),
            (Field::HOST_GS_BASE, 0),
            (Field::HOST_TR_BASE, host.task_base),
            (Field::HOST_GDTR_BASE, host.gdt),
            (Field::HOST_IDTR_BASE, host.idt),
            (Field::HOST_SYSENTER_CS, cpu::rdmsr(0x174)),
            (Field::HOST_SYSENTER_ESP, cpu::rdmsr(0x175)),
            (Field::HOST_SYSENTER_EIP, cpu::rdmsr(0x176)),
            (Field::HOST_EFER, cpu::rdmsr(0xc000_0080)),
            (Field::HOST_PAT, cpu::rdmsr(0x277)),
            (Field::HOST_RIP, (&raw const enter::vmx_exit) as u64),
        ] {
            write_any(field, value);
        }
    }
}
