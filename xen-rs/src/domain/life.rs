//! From creation to the last page: running, shut down, dying; pausing.

use core::sync::atomic::{AtomicU32, Ordering};

use super::Domain;

/// Where a domain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Alive, perhaps shut down.
    Alive,
    /// `destroydomain` is taking its resources away, step by step.
    Dying,
    /// Everything that can be taken is; others may still hold some of its pages.
    Dead,
}

/// Why a domain stopped itself: the reason codes `SHUTDOWN_*` of the public header `sched.h`, of which there is room for
/// eight bits where the control domain is told (`XEN_DOMINF_shutdownmask` of `domctl.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown(u8);

impl Shutdown {
    /// Stopped by the hypervisor after a fault of its own.
    pub const CRASH: Self = Self::new(xen_abi::sched::SHUTDOWN_CRASH);

    /// The reason that a number means: its low eight bits, as in Xen.
    #[must_use]
    pub const fn new(reason: u32) -> Self {
        Self(reason.to_le_bytes()[0])
    }

    /// The number, below 256.
    #[must_use]
    pub const fn code(self) -> u32 {
        self.0 as u32
    }
}

/// No code of a reason.
const NOT_SHUT_DOWN: u32 = u32::MAX;
const ALIVE: u32 = 0;
const DYING: u32 = 1;
const DEAD: u32 = 2;

/// The state words of a domain's life.
pub struct State {
    life: AtomicU32,
    shutdown: AtomicU32,
    /// The reason that the guest gave in advance.
    code: AtomicU32,
}

impl State {
    pub(super) const fn new() -> Self {
        Self {
            life: AtomicU32::new(ALIVE),
            shutdown: AtomicU32::new(NOT_SHUT_DOWN),
            code: AtomicU32::new(NOT_SHUT_DOWN),
        }
    }

    /// Where the domain stands.
    #[must_use]
    pub fn get(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            ALIVE => Life::Alive,
            DYING => Life::Dying,
            _ => Life::Dead,
        }
    }

    /// Alive to dying; tells whether this call did it.
    pub fn begin_death(&self) -> bool {
        self.life.compare_exchange(ALIVE, DYING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Dying to dead; tells whether this call did it.
    pub fn finish_death(&self) -> bool {
        self.life.compare_exchange(DYING, DEAD, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Why it shut down, if it did.
    #[must_use]
    pub fn shutdown(&self) -> Option<Shutdown> {
        match self.shutdown.load(Ordering::Acquire) {
            NOT_SHUT_DOWN => None,
            reason => Some(Shutdown::new(reason)),
        }
    }

    /// Records the first reason for a shutdown; tells whether it was the first.
    pub fn record_shutdown(&self, reason: Shutdown) -> bool {
        self.shutdown.compare_exchange(NOT_SHUT_DOWN, reason.code(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The reason for its next shutdown, whatever is said then (`SCHEDOP_shutdown_code`). The first one counts.
    pub fn set_code(&self, reason: Shutdown) {
        let _ = self.code.compare_exchange(NOT_SHUT_DOWN, reason.code(), Ordering::AcqRel, Ordering::Acquire);
    }

    /// The reason to record for a shutdown for `reason`.
    #[must_use]
    pub fn code_or(&self, reason: Shutdown) -> Shutdown {
        match self.code.load(Ordering::Acquire) {
            NOT_SHUT_DOWN => reason,
            code => Shutdown::new(code),
        }
    }
}

impl Domain {
    /// The UUID.
    #[must_use]
    pub fn handle(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (low, high) = bytes.split_at_mut(8);
        low.copy_from_slice(&self.handle[0].load(Ordering::Relaxed).to_le_bytes());
        high.copy_from_slice(&self.handle[1].load(Ordering::Relaxed).to_le_bytes());
        bytes
    }

    /// Gives it a UUID (`XEN_DOMCTL_setdomainhandle`).
    pub fn set_handle(&self, handle: [u8; 16]) {
        let value = u128::from_le_bytes(handle);
        #[allow(clippy::cast_possible_truncation, reason = "the two halves of the value")]
        let halves = [value as u64, (value >> 64) as u64];
        self.handle[0].store(halves[0], Ordering::Relaxed);
        self.handle[1].store(halves[1], Ordering::Relaxed);
    }
}
