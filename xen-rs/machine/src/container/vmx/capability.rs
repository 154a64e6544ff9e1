//! What the CPU has of VT-x (SDM vol. 3D, appendix A), and the controls that are used on it.
//!
//! Unsafe: none here.

use spin::Once;

use super::fields::{entry, exit, pin, primary, secondary};
use super::virtual_apic::CONTROLS as VIRTUAL_APIC;
use crate::arch::x86_64::cpu::rdmsr_safe;
use crate::arch::x86_64::speculation;
use crate::container::Wishes;

const BASIC: u32 = 0x480;
const PIN: u32 = 0x481;
const PRIMARY: u32 = 0x482;
const EXIT: u32 = 0x483;
const ENTRY: u32 = 0x484;
const MISC: u32 = 0x485;
const CR4_FIXED0: u32 = 0x488;
const CR4_FIXED1: u32 = 0x489;
const SECONDARY: u32 = 0x48b;
const EPT_VPID: u32 = 0x48c;
/// From the pin-based ones, where the first do not say the truth about what may be zero.
const TRUE_OFFSET: u32 = 0xc;
const TRUE_CONTROLS: u64 = 1 << 55;

/// What EPT and VPID can do (`IA32_VMX_EPT_VPID_CAP`).
pub(super) mod ept {
    pub const WALK_4: u64 = 1 << 6;
    pub const WRITE_BACK: u64 = 1 << 14;
    pub const PAGES_2M: u64 = 1 << 16;
    pub const PAGES_1G: u64 = 1 << 17;
    pub const INVEPT: u64 = 1 << 20;
    pub const ACCESSED_DIRTY: u64 = 1 << 21;
    pub const INVEPT_ONE: u64 = 1 << 25;
    pub const INVEPT_ALL: u64 = 1 << 26;
    pub const INVVPID: u64 = 1 << 32;
    pub const INVVPID_ONE: u64 = 1 << 41;
    pub const INVVPID_ALL: u64 = 1 << 42;
}

/// The controls of every vCPU, and what they rest on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capabilities {
    pub revision: u32,
    pub pin: u32,
    pub primary: u32,
    pub secondary: u32,
    pub exit: u32,
    pub entry: u32,
    pub ept: u64,
    /// Interrupts of an x2APIC can be left to the hardware (`virtual_apic`).
    pub virtual_apic: bool,
    /// How much slower than the TSC the preemption timer is.
    pub timer_shift: u8,
    /// Bits of CR4 that are always set, and that may be set.
    pub cr4: [u64; 2],
}

static FOUND: Once<Capabilities> = Once::new();

/// What there is. `None`: no VT-x that is used here.
#[inline(always)]
pub(super) fn get() -> Option<&'static Capabilities> {
    FOUND.get()
}

/// Whether one entry of EPT can map 1 GiB.
pub(in super::super) fn has_huge_pages() -> bool {
    get().is_some_and(|found| found.ept & ept::PAGES_1G != 0)
}

/// Why VT-x is not used.
pub(super) type Reason = &'static str;

/// The control word with these bits, as far as the second are there: `None` if one of the first is not.
fn adjust(msr: u32, required: u32, wished: u32) -> Option<u32> {
    let allowed = rdmsr_safe(msr)?;
    #[allow(clippy::cast_possible_truncation, reason = "two halves")]
    let (must, may) = (allowed as u32, (allowed >> 32) as u32);
    (required & !may == 0).then_some((required | wished) & may | must)
}

/// Bits of the secondary controls that the CPU has.
fn secondary_offered() -> u32 {
    rdmsr_safe(SECONDARY).map_or(0, |allowed| u32::try_from(allowed >> 32).unwrap_or(0))
}

/// Looks at the boot processor.
pub(super) fn look(wishes: Wishes) -> Result<&'static Capabilities, Reason> {
    let basic = rdmsr_safe(BASIC).ok_or("no capability registers")?;
    let truth = if basic & TRUE_CONTROLS != 0 { TRUE_OFFSET } else { 0 };
    let needs_secondary = secondary::EPT | secondary::UNRESTRICTED;
    if adjust(PRIMARY + truth, primary::SECONDARY, 0).is_none() {
        return Err("no Extended Page Tables (EPT)");
    }
    let offered = secondary_offered();
    if offered & secondary::EPT == 0 {
        return Err("no Extended Page Tables (EPT)");
    }
    if offered & needs_secondary != needs_secondary {
        return Err("no Unrestricted Guest");
    }
    let ept = rdmsr_safe(EPT_VPID).unwrap_or(0);
    let wants = ept::WALK_4 | ept::WRITE_BACK | ept::INVEPT | ept::PAGES_2M;
    if ept & wants != wants || ept & (ept::INVEPT_ONE | ept::INVEPT_ALL) == 0 {
        return Err("EPT lacks four levels, write-back tables, 2MB pages or INVEPT");
    }
    let can_vpid = wishes.identifiers && ept & ept::INVVPID != 0 && ept & ept::INVVPID_ALL != 0;
    let vpid = if can_vpid { secondary::VPID } else { 0 };
    // It multiplies where an offset is added.
    let offsetting = adjust(PRIMARY + truth, primary::TSC_OFFSETTING, 0).is_some();
    let scaling = if offsetting { secondary::TSC_SCALING } else { 0 };
    let wished = vpid | scaling | secondary::RDTSCP | secondary::INVPCID | secondary::WBINVD;
    let always = primary::HLT
        | primary::MWAIT
        | primary::RDPMC
        | primary::DEBUG_REGISTERS
        | primary::PORTS
        | primary::MSR_BITMAP
        | primary::MONITOR
        | primary::SECONDARY;
    let mut primary = adjust(PRIMARY + truth, always, primary::TPR_SHADOW).ok_or("a primary control is missing")?;
    // EPT makes these needless; the first CPUs have them always on.
    if primary & (primary::CR3_LOADS | primary::CR3_STORES) != 0 {
        return Err("CR3 cannot be left to the guest");
    }
    if primary & primary::TPR_SHADOW == 0 {
        primary |= primary::CR8_LOADS | primary::CR8_STORES;
    }
    let virtual_apic =
        wishes.virtual_apic && primary & primary::TPR_SHADOW != 0 && offered & VIRTUAL_APIC == VIRTUAL_APIC;
    let exits = exit::SAVE_DEBUG | exit::HOST_64 | exit::LOAD_PAT | exit::SAVE_EFER | exit::LOAD_EFER;
    let entries = entry::LOAD_DEBUG | entry::LOAD_PAT | entry::LOAD_EFER;
    let found = Capabilities {
        revision: u32::try_from(basic & 0x7fff_ffff).unwrap_or(0),
        // Without virtual NMIs nobody would say when a guest's handler has returned.
        pin: adjust(PIN + truth, pin::INTERRUPTS | pin::NMIS | pin::VIRTUAL_NMIS, pin::PREEMPTION_TIMER)
            .ok_or("no virtual NMIs")?,
        // It counts when this bit of the TSC changes.
        timer_shift: rdmsr_safe(MISC).map_or(0, |misc| u8::try_from(misc & 0x1f).unwrap_or(0)),
        primary,
        secondary: adjust(SECONDARY, needs_secondary, wished).ok_or("a secondary control is missing")?,
        exit: adjust(EXIT + truth, exits, exit::SAVE_PREEMPTION_TIMER).ok_or("an exit control is missing")?,
        entry: adjust(ENTRY + truth, entries, 0).ok_or("an entry control is missing")?,
        ept,
        virtual_apic,
        cr4: [rdmsr_safe(CR4_FIXED0).unwrap_or(0), rdmsr_safe(CR4_FIXED1).unwrap_or(0)],
    };
    Ok(FOUND.call_once(|| found))
}

/// Says what is used, as Xen says it, and what there is besides.
pub(super) fn report() {
    let Some(found) = get() else { return };
    let used = [
        (found.primary & primary::TPR_SHADOW != 0, "APIC TPR shadow"),
        (true, "Extended Page Tables (EPT)"),
        (found.secondary & secondary::VPID != 0, "Virtual-Processor Identifiers (VPID)"),
        (true, "Virtual NMI"),
        (true, "MSR direct-access bitmap"),
        (true, "Unrestricted Guest"),
        (found.virtual_apic, "APIC Register Virtualization"),
        (found.virtual_apic, "x2APIC mode virtualisation"),
        (found.virtual_apic, "Virtual Interrupt Delivery"),
        (found.secondary & secondary::RDTSCP != 0, "RDTSCP"),
        (found.secondary & secondary::INVPCID != 0, "INVPCID"),
        (found.secondary & secondary::WBINVD != 0, "WBINVD exiting"),
        (found.pin & pin::PREEMPTION_TIMER != 0, "VMX preemption timer"),
        (found.secondary & secondary::TSC_SCALING != 0, "TSC Scaling"),
        (found.ept & ept::ACCESSED_DIRTY != 0, "EPT accessed and dirty flags"),
    ];
    log::info!("VMX: advanced features in use:");
    for (_, name) in used.iter().filter(|(there, _)| *there) {
        log::info!(" - {name}");
    }
    let offered = secondary_offered();
    let pins = rdmsr_safe(PIN).map_or(0, |allowed| allowed >> 32);
    let has_idle = |bit: u32| !found.virtual_apic && offered & bit != 0;
    let has_vpid = offered & secondary::VPID != 0 && found.secondary & secondary::VPID == 0;
    let has_pin = |bit: u32| pins & u64::from(bit) != 0;
    let idle = [
        (offered & secondary::APIC_ACCESSES != 0, "APIC MMIO access virtualisation"),
        (has_vpid, "Virtual-Processor Identifiers (VPID)"),
        (has_idle(secondary::APIC_REGISTERS), "APIC Register Virtualization"),
        (has_idle(secondary::X2APIC), "x2APIC mode virtualisation"),
        (has_idle(secondary::VIRTUAL_INTERRUPTS), "Virtual Interrupt Delivery"),
        (has_pin(pin::POSTED_INTERRUPTS), "Posted Interrupt Processing"),
        (offered & secondary::PAUSE_LOOP != 0, "PAUSE-loop exiting"),
        (offered & secondary::VMCS_SHADOWING != 0, "VMCS shadowing"),
        (offered & secondary::VM_FUNCTIONS != 0, "VM Functions"),
        (offered & secondary::VIRTUALIZATION_EXCEPTIONS != 0, "Virtualisation Exceptions"),
        (offered & secondary::PML != 0, "Page Modification Logging"),
    ];
    if idle.iter().any(|(there, _)| *there) {
        log::info!("VMX: there, and not used:");
        for (_, name) in idle.iter().filter(|(there, _)| *there) {
            log::info!(" - {name}");
        }
    }
    if found.secondary & secondary::VPID != 0 {
        log::info!("HVM: ASIDs enabled.");
    }
    log::info!("HVM: VMX enabled");
    log::info!("HVM: Hardware Assisted Paging (HAP) detected");
    let huge = if has_huge_pages() { ", 1GB" } else { "" };
    log::info!("HVM: HAP page sizes: 4kB, 2MB{huge}");
    if speculation::plan().small_code {
        log::info!("VMX: no code in EPT superpages (CVE-2018-12207)");
    }
}
