//! `debug-keys`: keys for the hypervisor's own debugging.

use alloc::format;

use super::options::Options;
use super::{Command, FAILURE, SUCCESS, Status};
use crate::host::Host;

pub const COMMAND: Command =
    Command { name: "debug-keys", usage: "<Keys>", about: "Send debug keys to Xen", flags: &[], needs: 1, run };

fn run(host: &mut dyn Host, options: &Options) -> Status {
    match host.debug_keys(options.arg(0).unwrap_or_default()) {
        Ok(()) => SUCCESS,
        Err(errno) => {
            host.print_error(&format!("cannot send debug keys: {}\n", errno.name()));
            FAILURE
        }
    }
}
