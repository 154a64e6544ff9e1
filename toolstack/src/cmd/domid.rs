//! `domid`: a name's number.

use alloc::format;

use super::options::Options;
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::host::Host;

pub const COMMAND: Command = Command {
    name: "domid",
    usage: "<DomainName>",
    about: "Convert a domain name to domain id",
    flags: &[],
    needs: 1,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let name = options.arg(0).unwrap_or_default();
    if let Some(dom) = target::by_name(host, name) {
        host.print(&format!("{dom}\n"));
        return SUCCESS;
    }
    host.print_error(&format!("Can't get domid of domain name '{name}', maybe this domain does not exist.\n"));
    FAILURE
}
