//! `pause`: a domain stops where it is.

use super::options::Options;
use super::{Command, SUCCESS, Status, target};
use crate::host::Host;

pub const COMMAND: Command =
    Command { name: "pause", usage: "<Domain>", about: "Pause execution of a domain", flags: &[], needs: 1, run };

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    match host.pause_domain(dom) {
        Ok(()) => SUCCESS,
        Err(errno) => target::failed(host, "pausing", dom, errno),
    }
}
