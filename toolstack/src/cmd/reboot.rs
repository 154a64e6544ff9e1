//! `reboot`: asks a domain to start again.

use super::options::{Options, flag};
use super::{Command, Status, shutdown};
use crate::host::Host;

pub const COMMAND: Command = Command {
    name: "reboot",
    usage: "[options] <-a|Domain>",
    about: "Issue a reboot signal to a domain",
    flags: &[
        flag('a', "all", "All domains but domain 0"),
        flag('w', "wait", "Wait until they have begun to"),
        flag('F', "", "For HVM domains"),
    ],
    needs: 0,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    shutdown::signal(host, options, "reboot", "Rebooting")
}
