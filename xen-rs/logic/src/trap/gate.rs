//! The virtual IDT of a vCPU: 256 gates as `set_trap_table` fills them (Xen public header `arch-x86/xen.h`,
//! `struct trap_info`).

use super::is_canonical;

/// One gate. The code selector is kept only to be reported: a 64-bit kernel is always entered at its flat selector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// Bits 0-1: who may enter by `int n`; bit 2: mask events on entry.
    pub flags: u8,
    /// The selector the guest asked for.
    pub cs: u16,
    /// Handler, 0 if there is none.
    pub address: u64,
}

impl Gate {
    /// The flag that entering the gate masks events (`TI_SET_IF`).
    pub const MASKS_EVENTS: u8 = 1 << 2;

    /// The privilege level that may enter the gate by a software interrupt.
    #[must_use]
    pub const fn dpl(self) -> u8 {
        self.flags & 3
    }

    /// Whether entering the gate masks event delivery.
    #[must_use]
    pub const fn masks_events(self) -> bool {
        self.flags & Self::MASKS_EVENTS != 0
    }

    /// Whether a software interrupt may enter: level 0 nobody, 1 and 2 the kernel, 3 everyone.
    #[must_use]
    pub const fn allows_software(self, in_kernel: bool) -> bool {
        let level = if in_kernel { 1 } else { 3 };
        self.dpl() >= level
    }
}

/// A gate the guest cannot have: its handler lies at a non-canonical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotCanonical;

/// The gates of one vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrapTable {
    gates: [Gate; 256],
}

impl Default for TrapTable {
    fn default() -> Self {
        Self::new()
    }
}

impl TrapTable {
    /// A table without any handler.
    #[must_use]
    pub const fn new() -> Self {
        Self { gates: [Gate { flags: 0, cs: 0, address: 0 }; 256] }
    }

    /// Forgets all gates, as `set_trap_table` with a null pointer does.
    pub fn clear(&mut self) {
        self.gates = [Gate::default(); 256];
    }

    /// The gate of a vector.
    #[must_use]
    pub fn gate(&self, vector: u8) -> Gate {
        self.gates.get(usize::from(vector)).copied().unwrap_or_default()
    }

    /// Sets one gate.
    ///
    /// # Errors
    /// The address is not canonical: the caller answers `-EINVAL`.
    pub fn set(&mut self, vector: u8, gate: Gate) -> Result<(), NotCanonical> {
        if !is_canonical(gate.address) {
            return Err(NotCanonical);
        }
        if let Some(slot) = self.gates.get_mut(usize::from(vector)) {
            *slot = Gate { cs: gate.cs | 3, ..gate };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_interrupts_follow_the_gate_level() {
        let gate = |flags| Gate { flags, cs: 0xe033, address: 0x1000 };
        assert!(!gate(0).allows_software(true));
        assert!(gate(1).allows_software(true));
        assert!(!gate(1).allows_software(false));
        assert!(!gate(2).allows_software(false));
        assert!(gate(3).allows_software(false));
        assert!(gate(7).masks_events());
        assert!(!gate(3).masks_events());
    }

    #[test]
    fn a_wild_handler_is_refused_and_changes_nothing() {
        let mut table = TrapTable::new();
        let good = Gate { flags: 3, cs: 0xe033, address: 0xffff_ffff_8100_0000 };
        table.set(0x80, good).unwrap();
        assert_eq!(table.set(0x80, Gate { address: 0x8000_0000_0000, ..good }), Err(NotCanonical));
        assert_eq!(table.gate(0x80).address, good.address);
        table.clear();
        assert_eq!(table.gate(0x80), Gate::default());
    }
}
