//! `resources`: counts that a domain's whole life must leave as they were, to be compared by eye or by a test.

use alloc::format;

use super::options::Options;
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::host::Host;

pub const COMMAND: Command = Command {
    name: "resources",
    usage: "",
    about: "Count free pages, domains and what dom0's services hold",
    flags: &[],
    needs: 0,
    run,
};

fn run(host: &mut dyn Host, _: &Options) -> Status {
    let counts = host.phys_info().and_then(|info| Ok((info, target::all(host)?.len())));
    let (info, domains) = match counts {
        Ok(counts) => counts,
        Err(errno) => {
            host.print_error(&format!("cannot ask about the machine: {}\n", errno.name()));
            return FAILURE;
        }
    };
    let mut text = format!("{:<23}: {}\n{:<23}: {domains}\n", "free_pages", info.free_pages, "domains");
    for (name, count) in host.resources() {
        text.push_str(&format!("{name:<23}: {count}\n"));
    }
    host.print(&text);
    SUCCESS
}
