//! `destroy`: a domain's end without asking it.

use alloc::format;

use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use super::options::{Options, flag};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::host::Host;
use crate::store;

pub const COMMAND: Command = Command {
    name: "destroy",
    usage: "[options] <Domain>",
    about: "Terminate a domain immediately",
    flags: &[flag('f', "", "Try it on domain 0, too")],
    needs: 1,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    if dom == DomId(0) {
        host.print_error(if options.has('f') {
            "destroy: this is domain 0\n"
        } else {
            "Not destroying domain 0; use -f to force.\n\
             This can only be done when using a disaggregated hardware domain and toolstack.\n\n"
        });
        return FAILURE;
    }
    match destroy_domain(host, dom) {
        Ok(()) => SUCCESS,
        // libxl's ERROR_DOMAIN_NOTFOUND and ERROR_FAIL.
        Err(Errno::ESRCH) => {
            host.print_error(&format!("domain {dom} does not exist\ndestroy failed (rc=-21)\n"));
            FAILURE
        }
        Err(errno) => {
            host.print_error(&format!("domain {dom}: {}\ndestroy failed (rc=-3)\n", errno.name()));
            FAILURE
        }
    }
}

/// Takes a domain away: its entries, then its services, so that nothing of it stays mapped here, then the domain.
///
/// # Errors
/// There is no such domain, or the hypervisor refused. What this program has of it is gone all the same.
pub fn destroy_domain(host: &mut dyn Host, dom: DomId) -> Result<(), Errno> {
    // It may be paused, dying or gone already.
    let _ = host.pause_domain(dom);
    // Its entries before its services: once nothing names the domain, xenstore has nothing to look for when it goes.
    let _ = store::remove_domain(host, dom);
    host.console_detach(dom);
    host.store_release(dom);
    let destroyed = loop {
        match host.destroy_domain(dom) {
            Err(Errno::EAGAIN) => {}
            other => break other,
        }
    };
    host.domains().forget(dom);
    destroyed
}
