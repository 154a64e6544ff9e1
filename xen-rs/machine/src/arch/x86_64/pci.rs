//! PCI configuration space by mechanism 1: an address port and a data port, one access at a time (PCI Local Bus
//! Specification 3.0, 3.2.2.3.2).
//!
//! Unsafe: I/O ports.

use core::arch::asm;

use logic::lock::{SpinLock, rank};

use crate::mailbox::Poll;

/// The address port.
pub(crate) const ADDRESS: u16 = 0xcf8;
/// The first of the data ports.
pub(crate) const DATA: u16 = 0xcfc;
/// Bit of the address port: the data port leads to configuration space.
pub(crate) const ENABLE: u32 = 1 << 31;

/// A function of a device in segment 0: bus, device and function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Function {
    /// Bus.
    pub bus: u8,
    /// Device in bits 3 to 7, function in bits 0 to 2.
    pub devfn: u8,
}

/// Address and data port are two steps: one CPU at a time, for the hypervisor's own accesses and the control domain's.
pub(crate) static PORTS: SpinLock<(), { rank::LEAF }, Poll> = SpinLock::new(());

/// Capability of messages (PCI Local Bus Specification 3.0, appendix H).
pub const CAPABILITY_MSI: u8 = 0x05;
/// Capability of messages by a table.
pub const CAPABILITY_MSIX: u8 = 0x11;

const COMMAND_AND_STATUS: u8 = 0x04;
const STATUS_CAPABILITIES: u32 = 1 << (16 + 4);
const FIRST_CAPABILITY: u8 = 0x34;
const FIRST_BASE_ADDRESS: u8 = 0x10;

impl Function {
    fn address(self, register: u8) -> u32 {
        ENABLE | u32::from(self.bus) << 16 | u32::from(self.devfn) << 8 | u32::from(register & 0xfc)
    }

    /// Reads a register by the four bytes that hold it.
    #[must_use]
    pub fn read(self, register: u8) -> u32 {
        PORTS.lock_leaf(|()| {
            let value;
            // SAFETY: reading configuration space at an address that was set under the same lock.
            unsafe {
                asm!("out dx, eax", in("dx") ADDRESS, in("eax") self.address(register), options(nostack, preserves_flags));
                asm!("in eax, dx", in("dx") DATA, out("eax") value, options(nostack, preserves_flags));
            }
            value
        })
    }

    /// Writes a register of four bytes.
    ///
    /// # Safety
    /// What the device does then must not break memory safety: the message of a vector for devices, a mask.
    pub(super) unsafe fn write(self, register: u8, value: u32) {
        PORTS.lock_leaf(|()| {
            // SAFETY: as the caller says.
            unsafe {
                asm!("out dx, eax", in("dx") ADDRESS, in("eax") self.address(register), options(nostack, preserves_flags));
                asm!("out dx, eax", in("dx") DATA, in("eax") value, options(nostack, preserves_flags));
            }
        });
    }

    /// Whether there is such a function.
    #[must_use]
    pub fn exists(self) -> bool {
        self.read(0) & 0xffff != 0xffff
    }

    /// Where a capability lies.
    #[must_use]
    pub fn capability(self, id: u8) -> Option<u8> {
        if !self.exists() || self.read(COMMAND_AND_STATUS) & STATUS_CAPABILITIES == 0 {
            return None;
        }
        let [mut at, ..] = self.read(FIRST_CAPABILITY).to_le_bytes();
        // A list that runs in circles ends too: there is room for 48 capabilities.
        for _ in 0..48 {
            at &= 0xfc;
            if at < 0x40 {
                return None;
            }
            let [this, next, ..] = self.read(at).to_le_bytes();
            if this == id {
                return Some(at);
            }
            at = next;
        }
        None
    }

    /// The physical address that a base address register of an ordinary device holds; none if it is no memory.
    #[must_use]
    pub fn memory_bar(self, index: u8) -> Option<u64> {
        const HEADER: u8 = 0x0c;
        if self.read(HEADER) >> 16 & 0x7f != 0 || index > 5 {
            return None;
        }
        let low = self.read(FIRST_BASE_ADDRESS + index * 4);
        let high = match low & 7 {
            0 => 0,
            4 if index < 5 => self.read(FIRST_BASE_ADDRESS + (index + 1) * 4),
            _ => return None,
        };
        Some(u64::from(high) << 32 | u64::from(low & !0xf))
    }
}
