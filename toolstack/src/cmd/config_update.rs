//! `config-update`: what a domain is made from when it restarts.

use alloc::format;

use super::options::{Options, flag, value};
use super::{Command, FAILURE, SUCCESS, Status, create, help, target};
use crate::host::Host;

pub const COMMAND: Command = Command {
    name: "config-update",
    usage: "<Domain> <ConfigFile> [options] [vars]",
    about: "Update a running domain's saved configuration, used when rebuilding the domain after reboot",
    flags: &[
        value('f', "defconfig", "FILE", "Use this configuration file"),
        flag('d', "debug", "Tell more"),
        flag('q', "quiet", "Tell less"),
    ],
    needs: 0,
    run,
};

/// The configuration cannot be read.
const UNREADABLE: Status = 253;

fn run(host: &mut dyn Host, options: &Options) -> Status {
    if options.positional.is_empty() {
        host.print_error("config-update requires a domain argument\n");
        help::usage(host, &COMMAND);
        return FAILURE;
    }
    host.print_error(
        "WARNING: xl now has better capability to manage domain configuration, avoid using this command when possible\n",
    );
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    if options.positional.len() < 2 && !options.has('f') {
        host.print_error("Config file not specified\n");
        return FAILURE;
    }
    let config = match create::read_config(host, COMMAND.name, options, options.positional.get(1..).unwrap_or_default())
    {
        Ok(config) => config,
        // libxl's ERROR_FAIL, which xl ends with as it is.
        Err(create::FAILED) => return UNREADABLE,
        Err(status) => return status,
    };
    host.print_error(&format!("setting dom{dom} configuration\n"));
    if !host.domains().reconfigure(dom, |record| *record = config) {
        host.print_error(&format!("config-update: domain {dom} was not made here\n"));
        return FAILURE;
    }
    SUCCESS
}
