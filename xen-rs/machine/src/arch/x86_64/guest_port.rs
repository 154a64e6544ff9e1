//! I/O ports on behalf of the control domain, which drives the machine's devices.
//!
//! A device that a domain programmes can reach all memory, since there is no IOMMU support: whoever gets a [`Right`] is
//! part of what the host trusts (docs/THREAT-MODEL.md).
//!
//! Unsafe: I/O instructions on behalf of the domain that owns the devices.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use logic::lock::{SpinLock, rank};

use super::pci;
use crate::mailbox::Poll;

const RTC_INDEX: u16 = 0x70;
const RTC_DATA: u16 = 0x71;

/// Width of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PortWidth {
    Byte,
    Word,
    Dword,
}

/// The right to use the machine's ports.
#[derive(Clone, Copy, Debug)]
pub struct Right(());

impl Right {
    /// For a domain that the control domain (or boot, for the control domain itself) has given the ports that it uses.
    #[must_use]
    pub const fn of(was_given_ports: bool) -> Option<Self> {
        if was_given_ports { Some(Self(())) } else { None }
    }
}

/// The first and the last port of the hypervisor's own console.
#[must_use]
pub fn console() -> Option<(u16, u16)> {
    super::serial::base().map(|first| (first, first + 7))
}

/// Index and data port of the RTC are two steps: one CPU at a time.
static RTC: SpinLock<(), { rank::LEAF }, Poll> = SpinLock::new(());
static GUEST_PCI_ADDRESS: AtomicU32 = AtomicU32::new(0);
static GUEST_RTC_INDEX: AtomicU8 = AtomicU8::new(0);

/// Reads a port.
#[must_use]
pub fn read(_right: Right, port: u16, width: PortWidth) -> u32 {
    // SAFETY: what a device does to memory is the control domain's responsibility, which the right stands for; the
    // access itself touches no memory.
    unsafe {
        match width {
            PortWidth::Byte => {
                let value: u8;
                asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags));
                value.into()
            }
            PortWidth::Word => {
                let value: u16;
                asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags));
                value.into()
            }
            PortWidth::Dword => {
                let value: u32;
                asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags));
                value
            }
        }
    }
}

/// Writes a port.
pub fn write(_right: Right, port: u16, width: PortWidth, value: u32) {
    // SAFETY: as in `read`.
    unsafe {
        match width {
            PortWidth::Byte => {
                asm!("out dx, al", in("dx") port, in("al") value as u8, options(nostack, preserves_flags));
            }
            PortWidth::Word => {
                asm!("out dx, ax", in("dx") port, in("ax") value as u16, options(nostack, preserves_flags));
            }
            PortWidth::Dword => {
                asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags));
            }
        }
    }
}

/// The control domain's CONFIG_ADDRESS.
#[must_use]
pub fn pci_address(_right: Right) -> u32 {
    GUEST_PCI_ADDRESS.load(Ordering::Relaxed)
}

/// Sets the control domain's CONFIG_ADDRESS.
pub fn set_pci_address(_right: Right, value: u32) {
    GUEST_PCI_ADDRESS.store(value, Ordering::Relaxed);
}

/// Reads PCI configuration space at the control domain's address.
#[must_use]
pub fn pci_read(right: Right, offset: u8, width: PortWidth) -> u32 {
    pci::PORTS.lock_leaf(|()| {
        write(right, pci::ADDRESS, PortWidth::Dword, pci_address(right) | pci::ENABLE);
        read(right, pci::DATA + u16::from(offset & 3), width)
    })
}

/// Writes PCI configuration space at the control domain's address.
pub fn pci_write(right: Right, offset: u8, width: PortWidth, value: u32) {
    pci::PORTS.lock_leaf(|()| {
        write(right, pci::ADDRESS, PortWidth::Dword, pci_address(right) | pci::ENABLE);
        write(right, pci::DATA + u16::from(offset & 3), width, value);
    });
}

/// Sets which RTC register the control domain means.
pub fn set_rtc_index(_right: Right, index: u8) {
    GUEST_RTC_INDEX.store(index & 0x7f, Ordering::Relaxed);
}

/// Reads that RTC register.
#[must_use]
pub fn rtc_read(right: Right) -> u8 {
    RTC.lock_leaf(|()| {
        write(right, RTC_INDEX, PortWidth::Byte, GUEST_RTC_INDEX.load(Ordering::Relaxed).into());
        read(right, RTC_DATA, PortWidth::Byte) as u8
    })
}

/// Writes that RTC register.
pub fn rtc_write(right: Right, value: u8) {
    RTC.lock_leaf(|()| {
        write(right, RTC_INDEX, PortWidth::Byte, GUEST_RTC_INDEX.load(Ordering::Relaxed).into());
        write(right, RTC_DATA, PortWidth::Byte, value.into());
    });
}
