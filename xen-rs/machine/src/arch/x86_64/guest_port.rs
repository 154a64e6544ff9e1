//! I/O ports on behalf of the control domain, which drives the machine's devices.
//!
//! A device that a domain programmes can reach all memory, since there is no IOMMU support: whoever gets a [`Right`] is
//! part of what the host trusts (docs/THREAT-MODEL.md).
//!
//! Unsafe: I/O instructions on behalf of the domain that owns the devices.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use logic::lock::{SpinLock, rank};

use crate::mailbox::Poll;

/// PCI configuration mechanism 1 (PCI Local Bus Specification 3.0, 3.2.2.3.2).
const PCI_ADDRESS: u16 = 0xcf8;
const PCI_DATA: u16 = 0xcfc;
const PCI_ENABLE: u32 = 1 << 31;
const RTC_INDEX: u16 = 0x70;
const RTC_DATA: u16 = 0x71;
/// The console's UART.
const CONSOLE: (u16, u16) = (0x3f8, 0x3ff);

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
    /// For a caller that says that it is the control domain.
    #[must_use]
    pub const fn of(is_control_domain: bool) -> Option<Self> {
        if is_control_domain { Some(Self(())) } else { None }
    }
}

/// Whether one of the ports belongs to the hypervisor's own console.
#[must_use]
pub const fn is_ours(first: u16, last: u16) -> bool {
    first <= CONSOLE.1 && CONSOLE.0 <= last
}

/// Address and data port are two steps: one CPU at a time.
static PAIRS: SpinLock<(), { rank::LEAF }, Poll> = SpinLock::new(());
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
    PAIRS.lock_leaf(|()| {
        write(right, PCI_ADDRESS, PortWidth::Dword, pci_address(right) | PCI_ENABLE);
        read(right, PCI_DATA + u16::from(offset & 3), width)
    })
}

/// Writes PCI configuration space at the control domain's address.
pub fn pci_write(right: Right, offset: u8, width: PortWidth, value: u32) {
    PAIRS.lock_leaf(|()| {
        write(right, PCI_ADDRESS, PortWidth::Dword, pci_address(right) | PCI_ENABLE);
        write(right, PCI_DATA + u16::from(offset & 3), width, value);
    });
}

/// Sets which RTC register the control domain means.
pub fn set_rtc_index(_right: Right, index: u8) {
    GUEST_RTC_INDEX.store(index & 0x7f, Ordering::Relaxed);
}

/// Reads that RTC register.
#[must_use]
pub fn rtc_read(right: Right) -> u8 {
    PAIRS.lock_leaf(|()| {
        write(right, RTC_INDEX, PortWidth::Byte, GUEST_RTC_INDEX.load(Ordering::Relaxed).into());
        read(right, RTC_DATA, PortWidth::Byte) as u8
    })
}

/// Writes that RTC register.
pub fn rtc_write(right: Right, value: u8) {
    PAIRS.lock_leaf(|()| {
        write(right, RTC_INDEX, PortWidth::Byte, GUEST_RTC_INDEX.load(Ordering::Relaxed).into());
        write(right, RTC_DATA, PortWidth::Byte, value.into());
    });
}
