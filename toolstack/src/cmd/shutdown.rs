//! `shutdown`: asks a domain to end, and `reboot` to start again: a word in xenstore that its kernel watches.

use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use xen_abi::ids::DomId;

use super::options::{Options, flag};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::calls::DomainInfo;
use crate::host::Host;
use crate::store::domain_path;

pub const COMMAND: Command = Command {
    name: "shutdown",
    usage: "[options] <-a|Domain>",
    about: "Issue a shutdown signal to a domain",
    flags: &[
        flag('a', "all", "All domains but domain 0"),
        flag('w', "wait", "Wait until they have ended"),
        flag('F', "", "For HVM domains"),
    ],
    needs: 0,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    signal(host, options, "poweroff", "Shutting down")
}

/// Writes `word` for the domains that `options` name, and waits for their end if asked to.
pub fn signal(host: &mut dyn Host, options: &Options, word: &str, doing: &str) -> Status {
    let domains: Vec<DomId> = match (options.has('a'), options.arg(0)) {
        (true, _) => match target::all(host) {
            Ok(all) => all.iter().map(|info| info.id).filter(|dom| dom.0 != 0).collect(),
            Err(errno) => return target::failed(host, "listing", DomId(0), errno),
        },
        (false, Some(text)) => match target::resolve(host, text) {
            Ok(dom) => vec![dom],
            Err(status) => return status,
        },
        (false, None) => {
            host.print_error("You must specify -a or a domain id.\n\n");
            return FAILURE;
        }
    };
    let mut status = SUCCESS;
    let mut waiting = Vec::new();
    for dom in domains {
        host.print_error(&format!("{doing} domain {dom}\n"));
        match request(host, dom, word) {
            Ok(()) => waiting.push(dom),
            Err(failed) => {
                // The number is libxl's ERROR_FAIL.
                host.print_error(&format!("{} failed (rc=-3)\n", if word == "reboot" { word } else { "shutdown" }));
                status = failed;
            }
        }
    }
    let waits = options.has('w') && (options.has('a') || !waiting.is_empty());
    if waits && !wait(host, waiting) {
        status = FAILURE;
    }
    status
}

fn request(host: &mut dyn Host, dom: DomId, word: &str) -> Result<(), Status> {
    if dom == DomId(0) {
        host.print_error("domain 0 cannot be shut down so; see \"poweroff\"\n");
        return Err(FAILURE);
    }
    host.domain_info(dom).map_err(|errno| target::failed(host, "shutting down", dom, errno))?;
    let path = format!("{}/control/shutdown", domain_path(dom));
    host.store_write(&path, word.as_bytes()).map_err(|errno| target::failed(host, "shutting down", dom, errno))
}

/// Waits until all of these have ended. False when the user stopped it.
fn wait(host: &mut dyn Host, mut domains: Vec<DomId>) -> bool {
    const POLL: u64 = 100_000_000;
    host.print_error(&format!("Waiting for {} domains\n", domains.len()));
    loop {
        domains.retain(|dom| match host.domain_info(*dom) {
            Ok(info) if !info.is(DomainInfo::SHUTDOWN) && !info.is(DomainInfo::DYING) => true,
            ended => {
                // Whoever reacts to ends may have been here before.
                let reason = ended.ok().and_then(|info| info.shutdown_reason()).or_else(|| host.domains().end_of(*dom));
                let how = match reason {
                    Some(reason) => format!("has been shut down, reason code {reason}"),
                    None => "has been destroyed".to_string(),
                };
                host.print_error(&format!("Domain {dom} {how}\n"));
                false
            }
        });
        if domains.is_empty() {
            return true;
        }
        let deadline = host.now() + POLL;
        if !host.wait(deadline) {
            return false;
        }
    }
}
