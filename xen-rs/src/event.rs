//! Event channels of domains, joined to their shared pages and to the scheduler.

use logic::lock::Held;

/// `VIRQ_DOM_EXC` to the control domain: some domain shut down or is gone.
pub fn raise_dom_exc(_held: &mut Held<'_, 0>) {}
