//! `reboot`: asks a domain to start again.

use super::options::{Options, flag};
use super::{Command, Status, shutdown};
use crate::host::Host;

pub const COMMAND: Command = Command {
    name: "reboot",
    usage: "[options] <-a|Domain>",
    about: "Issue a reboot signal to a domain",
    flags: &[flag('a', "all"), flag('w', "wait"), flag('F', "")],
    needs: 0,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    shutdown::signal(host, options, "reboot", "Rebooting")
}
