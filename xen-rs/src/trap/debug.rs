//! #DB of a PV guest.

use logic::trap::debug::DR6_DEFAULT;
use logic::trap::vector;

use super::deliver;
use crate::cpu::Context;

/// The exception, with what the CPU had in DR6.
pub fn debug(cx: &mut Context<'_>, dr6: u64) {
    // Bits gather until the guest clears them.
    cx.state.pv.debug.dr6 |= dr6 & !DR6_DEFAULT;
    deliver::exception(cx, vector::DEBUG, None);
}
