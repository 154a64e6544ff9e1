//! `domname`: a number's name.

use alloc::format;

use xen_abi::ids::DomId;

use super::options::Options;
use super::{Command, FAILURE, SUCCESS, Status};
use crate::host::Host;
use crate::store;

pub const COMMAND: Command = Command {
    name: "domname",
    usage: "<DomainId>",
    about: "Convert a domain id to domain name",
    flags: &[],
    needs: 1,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let text = options.arg(0).unwrap_or_default();
    let Ok(number) = text.parse() else {
        host.print_error("Invalid domain id.\n\n");
        return FAILURE;
    };
    if let Some(name) = store::name_of(host, DomId(number)) {
        host.print(&format!("{name}\n"));
        return SUCCESS;
    }
    host.print_error(&format!("Can't get domain name of domain id '{text}', maybe this domain does not exist.\n"));
    FAILURE
}
