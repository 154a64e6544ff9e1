//! Ending the domain.

use crate::call;
use xen_abi::sched::{SHUTDOWN_CRASH, SHUTDOWN_POWEROFF, SHUTDOWN_REBOOT};

/// Powers the domain off.
pub fn off() -> ! {
    shutdown(SHUTDOWN_POWEROFF)
}

/// Asks for a reboot of the domain.
pub fn reboot() -> ! {
    shutdown(SHUTDOWN_REBOOT)
}

/// Ends the domain as crashed.
pub fn crash() -> ! {
    shutdown(SHUTDOWN_CRASH)
}

fn shutdown(reason: u32) -> ! {
    loop {
        // A domain whose shutdown is refused has nowhere left to go; trying again is all it can do.
        let _ = call::sched::shutdown(reason);
    }
}
