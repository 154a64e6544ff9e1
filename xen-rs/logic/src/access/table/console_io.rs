//! `console_io`: which operations there are, and whose they are.

use xen_abi::console::*;

operations! {
    /// An operation on the hypervisor's console.
    ConsoleIo = "console_io" in "xen.h", others: Anyone ENOSYS;
    served {
        Write = CONSOLEIO_WRITE, Anyone, "other domains' text when `guest_loglvl=` shows it; else `EPERM`";
        Read = CONSOLEIO_READ, Control;
    }
    refused {}
}
