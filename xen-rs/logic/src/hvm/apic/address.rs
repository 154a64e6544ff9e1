//! Whom an interrupt is for: numbers of APICs, logical addresses in the flat, the cluster and the x2APIC's model (SDM vol. 3A,
//! 11.6.2).

/// How an APIC is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// It takes interrupts.
    pub enabled: bool,
    /// The hardware's switch is on.
    pub there: bool,
    /// Its numbers have 32 bits.
    pub x2apic: bool,
    /// Its logical address is a set of bits, not a cluster and a set of bits.
    pub flat: bool,
    /// Its logical address: in an x2APIC 16 bits of cluster and 16 bits of which one, else in bits 31:24.
    pub logical: u32,
}

/// The logical address of an x2APIC, which its number makes (SDM vol. 3A, 11.12.10.2).
pub const fn logical_of(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 0xf)
}

impl Address {
    pub const fn after_reset() -> Self {
        Self { enabled: false, there: true, x2apic: false, flat: true, logical: 0 }
    }

    pub const fn packed(self) -> u64 {
        self.logical as u64
            | (self.enabled as u64) << 32
            | (self.there as u64) << 33
            | (self.x2apic as u64) << 34
            | (self.flat as u64) << 35
    }

    pub const fn unpacked(word: u64) -> Self {
        Self {
            enabled: word & 1 << 32 != 0,
            there: word & 1 << 33 != 0,
            x2apic: word & 1 << 34 != 0,
            flat: word & 1 << 35 != 0,
            logical: (word & 0xffff_ffff) as u32,
        }
    }

    const fn has_logical(self, destination: u32) -> bool {
        if self.x2apic {
            return destination == u32::MAX
                || destination >> 16 == self.logical >> 16 && destination & self.logical & 0xffff != 0;
        }
        let (destination, own) = (destination & 0xff, self.logical >> 24);
        if destination == 0xff {
            return true;
        }
        if self.flat {
            destination & own != 0
        } else {
            (destination >> 4 == 0xf || destination >> 4 == own >> 4) && destination & own & 0xf != 0
        }
    }
}

/// Whom an interrupt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The sender.
    Myself,
    /// All.
    All,
    /// All but the sender.
    Others,
    /// The one with this number; all ones: everyone.
    Physical(u32),
    /// Those with this logical address.
    Logical(u32),
}

impl Target {
    /// Whether it reaches the APIC with number `id` at `address`.
    pub(super) const fn reaches(self, id: u32, address: Address, sender: u32) -> bool {
        if !address.there {
            return false;
        }
        match self {
            Self::Myself => id == sender,
            Self::All => true,
            Self::Others => id != sender,
            Self::Physical(number) => number == u32::MAX || !address.x2apic && number & 0xff == 0xff || number == id,
            Self::Logical(number) => address.has_logical(number),
        }
    }
}
