//! The devices that a domain may drive: ports and interrupts. (The frames are with its memory.)

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use logic::{irq::RangeSet, lock::rank};
use xen_abi::errno::Errno;

use crate::sync::Lock;

/// A set that is asked often and changed seldom.
struct Set {
    set: Lock<RangeSet, { rank::LEAF }>,
    any: AtomicBool,
}

impl Set {
    const fn new() -> Self {
        Self { set: Lock::new(RangeSet::new()), any: AtomicBool::new(false) }
    }

    fn change(&self, range: &Range<u64>, allow: bool) -> Result<(), Errno> {
        self.set.lock_leaf(|set| {
            if allow { set.add(range.clone()) } else { set.remove(range) }?;
            self.any.store(!set.is_empty(), Ordering::Release);
            Ok(())
        })
    }

    fn has(&self, range: &Range<u64>) -> bool {
        self.any.load(Ordering::Acquire) && self.set.lock_leaf(|set| set.contains(range))
    }
}

/// What a domain was given.
pub struct DeviceAccess {
    ports: Set,
    irqs: Set,
}

impl DeviceAccess {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { ports: Set::new(), irqs: Set::new() }
    }

    /// Gives or takes ports. `ENOMEM`.
    pub fn change_ports(&self, ports: Range<u32>, allow: bool) -> Result<(), Errno> {
        self.ports.change(&(ports.start.into()..ports.end.into()), allow)
    }

    /// Whether it has all of these ports.
    #[must_use]
    pub fn has_ports(&self, ports: Range<u32>) -> bool {
        self.ports.has(&(ports.start.into()..ports.end.into()))
    }

    /// Whether it has any port.
    #[must_use]
    pub fn has_any_port(&self) -> bool {
        self.ports.any.load(Ordering::Acquire)
    }

    /// Gives or takes interrupts, by the hypervisor's numbers. `ENOMEM`.
    pub fn change_irqs(&self, irqs: Range<u32>, allow: bool) -> Result<(), Errno> {
        self.irqs.change(&(irqs.start.into()..irqs.end.into()), allow)
    }

    /// Whether it has an interrupt.
    #[must_use]
    pub fn has_irq(&self, irq: u32) -> bool {
        self.irqs.has(&(irq.into()..u64::from(irq) + 1))
    }
}
