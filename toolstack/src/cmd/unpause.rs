//! `unpause`: a paused domain goes on.

use super::options::Options;
use super::{Command, SUCCESS, Status, target};
use crate::host::Host;

pub const COMMAND: Command =
    Command { name: "unpause", usage: "<Domain>", about: "Unpause a paused domain", flags: &[], needs: 1, run };

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    match host.unpause_domain(dom) {
        Ok(()) => SUCCESS,
        Err(errno) => target::failed(host, "unpausing", dom, errno),
    }
}
