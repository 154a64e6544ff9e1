//! The TSC that a guest reads: the CPU's own, that multiplied and with an offset, or an exit (SDM vol. 3C, 25.6.5).
//!
//! Unsafe: none here.

use logic::time::{Scaling, Way};

use super::capability;
use super::fields::{Field, primary, secondary};
use super::vcpu::VmxVcpu;
use super::vmcs::write;

/// How the CPU can make a guest's TSC of its own.
pub(crate) fn scaling() -> Option<Scaling> {
    capability::get().filter(|found| found.secondary & secondary::TSC_SCALING != 0).map(|_| Scaling::VMX)
}

/// In the current VMCS: nothing is multiplied. 0 is not allowed even then.
pub(super) fn begin() {
    if scaling().is_some() {
        write(Field::TSC_MULTIPLIER, 1 << Scaling::VMX.fraction);
    }
}

impl VmxVcpu {
    /// What it reads as its TSC.
    #[inline(always)]
    pub(crate) fn set_tsc(&mut self, way: Way) {
        if self.tsc != way {
            self.change_tsc(way);
        }
    }

    #[cold]
    fn change_tsc(&mut self, way: Way) {
        self.tsc = way;
        if let Way::Scaled(scaled) = way {
            self.with(|| {
                write(Field::TSC_OFFSET, scaled.offset);
                write(Field::TSC_MULTIPLIER, scaled.multiplier);
            });
        }
        self.change_primary(primary::TSC_OFFSETTING, matches!(way, Way::Scaled(_)));
        self.change_primary(primary::RDTSC, way == Way::Emulated);
    }
}
