//! Ending the domain.

use crate::call;

const SHUTDOWN_POWEROFF: u32 = 0;
const SHUTDOWN_REBOOT: u32 = 1;
const SHUTDOWN_CRASH: u32 = 3;

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
