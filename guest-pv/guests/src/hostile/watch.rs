//! The vCPUs of a guest in a hardware container look after each other: one that has halted for ever is brought up again, and
//! one that runs in circles gets an NMI, which ends what it is doing.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use guest_pv::traps::{self, Frame};
use guest_pv::{call, smp, time};
use xen_abi::ids::VcpuId;

/// A vCPU looks after the others once in so many of its own steps.
const EVERY: u64 = 8;
/// How long one that has come to its end does so, ticks of the TSC: a few seconds.
const PATIENCE: u64 = 5_000_000_000;
const NMI: u64 = 2;

/// vCPUs that make their calls: how many began, and how many still do.
static BEGAN: AtomicU32 = AtomicU32::new(0);
static BUSY: AtomicU32 = AtomicU32::new(0);
/// How many steps each has made.
static STEPS: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];

/// So many are to begin.
pub fn begin(vcpus: u32) {
    BEGAN.store(vcpus, Ordering::Relaxed);
    BUSY.store(vcpus, Ordering::Relaxed);
}

/// vCPU 0 is where an NMI would be its end: outside of long mode, and not everywhere there with a table for it.
static AWAY: AtomicBool = AtomicBool::new(false);
/// Which vCPUs are about to send one, having looked whether they may.
static SENDING: [AtomicBool; smp::MAX] = [const { AtomicBool::new(false) }; smp::MAX];
/// How often vCPU 0 looks whether they are done: what they do may have been ended by an NMI in its turn.
const LOOKS: usize = 1000;

/// No NMIs for vCPU 0 meanwhile. One that is on its way comes before this returns.
pub fn set_away(away: bool) {
    AWAY.store(away, Ordering::SeqCst);
    if !away {
        return;
    }
    for _ in 0..LOOKS {
        // A hypercall: an NMI that was sent comes when it returns.
        smp::relax();
        if !SENDING.iter().any(|sending| sending.load(Ordering::SeqCst)) {
            return;
        }
    }
}

fn send_nmi(vcpu: u32) {
    let sending = &SENDING[smp::index()];
    sending.store(true, Ordering::SeqCst);
    if vcpu != 0 || !AWAY.load(Ordering::SeqCst) {
        let _ = call::vcpu::send_nmi(VcpuId(vcpu));
    }
    sending.store(false, Ordering::SeqCst);
}

/// An NMI. One that interrupts the same step as the one before ends it.
pub fn take_nmi(frame: &mut Frame) {
    static BEFORE: [AtomicU64; smp::MAX] = [const { AtomicU64::new(u64::MAX) }; smp::MAX];
    let me = smp::index();
    let step = STEPS[me].load(Ordering::Relaxed);
    if BEFORE[me].swap(step, Ordering::Relaxed) == step {
        traps::abandon(frame);
    }
}

/// What one vCPU knows of the others.
#[derive(Default)]
pub struct Watch {
    seen: [u64; smp::MAX],
}

impl Watch {
    /// A step of the vCPU that runs this is over.
    pub fn step(&mut self) {
        let steps = STEPS[smp::index()].fetch_add(1, Ordering::Relaxed);
        if steps.is_multiple_of(EVERY) {
            self.look();
        }
    }

    fn look(&mut self) {
        traps::set_handler(NMI, Some(take_nmi));
        for vcpu in 0..BEGAN.load(Ordering::Relaxed) {
            let now = STEPS[vcpu as usize].load(Ordering::Relaxed);
            if vcpu != smp::this().0 && core::mem::replace(&mut self.seen[vcpu as usize], now) == now {
                let _ = call::vcpu::up(VcpuId(vcpu));
                // One that has not begun has no table for it.
                if now > 0 {
                    send_nmi(vcpu);
                }
            }
        }
    }

    /// The vCPU that runs this is done; the others may still need it.
    pub fn stay(mut self) {
        BUSY.fetch_sub(1, Ordering::Relaxed);
        let end = time::tsc() + PATIENCE;
        while BUSY.load(Ordering::Relaxed) > 0 && time::tsc() < end {
            self.look();
            // They are to get somewhere meanwhile.
            for _ in 0..EVERY {
                smp::relax();
            }
        }
    }
}
