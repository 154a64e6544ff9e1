//! `sysrq`: a magic key for a domain's kernel, by a word in xenstore that it watches.

use alloc::format;

use super::options::Options;
use super::{Command, FAILURE, SUCCESS, Status, help, target};
use crate::host::Host;
use crate::store::domain_path;

pub const COMMAND: Command =
    Command { name: "sysrq", usage: "<Domain> <letter>", about: "Send a sysrq to a domain", flags: &[], needs: 2, run };

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    let letter = options.arg(1).unwrap_or_default();
    if letter.chars().count() != 1 {
        host.print_error("Invalid sysrq.\n\n");
        help::usage(host, &COMMAND);
        return FAILURE;
    }
    let path = format!("{}/control/sysrq", domain_path(dom));
    match host.domain_info(dom).and_then(|_| host.store_write(&path, letter.as_bytes())) {
        Ok(()) => SUCCESS,
        Err(errno) => target::failed(host, "sending a sysrq to", dom, errno),
    }
}
