//! What is done against speculation on this machine: decided once, on the boot processor, by `logic::speculation`.
//!
//! What comes before each return to a guest, or after each entry, is not there at all where it is not needed: the entry code
//! is changed at boot (see [`super::alternatives`]), so that nothing has to be asked there.
//!
//! Unsafe: model-specific registers are written.

use super::cpu::{Features, cpuid, has, rdmsr, rdmsr_safe, wrmsr};
use crate::command_line::CommandLine;
use core::arch::x86_64::CpuidResult;
use core::sync::atomic::{AtomicBool, Ordering};
use logic::boot::command_line;
use logic::cpuid::{Leaf, Vendor};
use logic::speculation::{Hardware, Plan, Vulnerable};
use spin::Once;

/// `IA32_SPEC_CTRL` with IBRS, `IA32_PRED_CMD` with IBPB, `IA32_ARCH_CAPABILITIES` (SDM vol. 4, table 2-2).
const SPEC_CTRL: u32 = 0x48;
const SPEC_CTRL_IBRS: u64 = 1;
pub(crate) const PRED_CMD: u32 = 0x49;
pub(crate) const PRED_CMD_IBPB: u64 = 1;
const ARCH_CAPABILITIES: u32 = 0x10a;
/// AMD's DE_CFG with LFENCE_SERIALIZE, and EFER.AIBRSE (APM vol. 2, 3.1.7 and 3.2.8).
const DE_CFG: u32 = 0xc001_1029;
const DE_CFG_LFENCE: u64 = 1 << 1;
const EFER: u32 = 0xc000_0080;
const EFER_AUTOMATIC_IBRS: u64 = 1 << 21;

static DECIDED: Once<(Hardware, Plan)> = Once::new();
/// [`Plan::ibpb`], where it is asked on each switch.
static IBPB: AtomicBool = AtomicBool::new(false);

/// Decides.
pub(super) fn init(line: CommandLine<'_>) -> &'static Plan {
    let (hardware, plan) = DECIDED.call_once(|| {
        let hardware = look();
        (hardware, Plan::new(&hardware, &command_line::parse(line.0, |_| {}).speculation))
    });
    IBPB.store(plan.ibpb, Ordering::Relaxed);
    let vulnerable = hardware.vulnerable();
    let yes_no = |vulnerable| if vulnerable { "vulnerable" } else { "not affected" };
    let Vulnerable { meltdown, l1tf, mds, retbleed, multihit } = vulnerable;
    let [meltdown, l1tf, mds, retbleed, multihit] = [meltdown, l1tf, mds, retbleed, multihit].map(yes_no);
    log::info!(
        "Speculation: Meltdown: {meltdown}, L1TF: {l1tf}, MDS: {mds}, Retbleed: {retbleed}, iTLB multihit: {multihit}"
    );
    log::info!("Speculation: Xen settings:{plan}");
    plan
}

fn look() -> Hardware {
    const NOTHING: CpuidResult = CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
    let first = cpuid(0, 0);
    let last = cpuid(0x8000_0000, 0).eax;
    let extended = |leaf: u32| if leaf <= last { cpuid(leaf, 0) } else { NOTHING };
    let leaf_7 = if first.eax >= 7 { cpuid(7, 0) } else { NOTHING };
    let leaf_8 = extended(0x8000_0008);
    Hardware {
        vendor: Some(Vendor::of(Leaf { a: first.eax, b: first.ebx, c: first.ecx, d: first.edx })),
        signature: cpuid(1, 0).eax,
        leaf_7_ebx: leaf_7.ebx,
        leaf_7_edx: leaf_7.edx,
        leaf_8_eax: leaf_8.eax,
        leaf_8_ebx: leaf_8.ebx,
        leaf_21_eax: extended(0x8000_0021).eax,
        arch_capabilities: if leaf_7.edx >> 29 & 1 != 0 { rdmsr_safe(ARCH_CAPABILITIES) } else { None },
        smep: has(Features::SMEP),
    }
}

/// What was decided.
#[must_use]
pub fn plan() -> Plan {
    DECIDED.get().map_or(Plan::default(), |(_, plan)| *plan)
}

/// Whether a PV guest is kept apart from others, and from the hypervisor, by what is done here.
#[must_use]
pub fn keeps_apart() -> bool {
    DECIDED.get().is_none_or(|(hardware, plan)| {
        let vulnerable = hardware.vulnerable();
        !vulnerable.meltdown && (!vulnerable.l1tf || plan.l1tf_guests)
    })
}

/// Whether an entry that is not present, by the address in it, makes the CPU read what its first-level cache holds.
#[must_use]
pub fn is_terminal_fault(entry: u64) -> bool {
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    let safe = DECIDED.get().map_or(u64::MAX, |(hardware, _)| hardware.l1tf_safe_from());
    entry & ADDRESS != 0 && entry & ADDRESS < safe
}

/// Registers of the running CPU that stay as they are set here.
pub(super) fn init_this() {
    let plan = plan();
    // SAFETY: the CPU has what is written, by its CPUID; none of it changes what memory holds.
    unsafe {
        if plan.ibrs {
            wrmsr(SPEC_CTRL, SPEC_CTRL_IBRS);
        }
        if plan.automatic_ibrs {
            wrmsr(EFER, rdmsr(EFER) | EFER_AUTOMATIC_IBRS);
        }
        if plan.lfence
            && let Some(value) = rdmsr_safe(DE_CFG)
            && value & DE_CFG_LFENCE == 0
        {
            wrmsr(DE_CFG, value | DE_CFG_LFENCE);
        }
    }
}

/// This CPU goes to another vCPU: what the last one has taught its branch predictor is forgotten.
#[inline]
pub fn switch_barrier() {
    if IBPB.load(Ordering::Relaxed) {
        // SAFETY: the CPU has it; it forgets predictions.
        unsafe { wrmsr(PRED_CMD, PRED_CMD_IBPB) };
    }
}
