//! `resources`: counts that a domain's whole life must leave as they were, to be compared by eye or by a test.

use alloc::format;

use xen_abi::errno::Errno;

use super::options::Options;
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::calls::PhysInfo;
use crate::host::Host;

pub const COMMAND: Command = Command {
    name: "resources",
    usage: "",
    about: "Count free pages, domains and what dom0's services hold",
    flags: &[],
    needs: 0,
    run,
};

/// The hypervisor gives the last pages of a domain back a little later (Xen after a grace period of its RCU), so what
/// counts is what stays the same for this long, nanoseconds.
const SETTLED: u64 = 500_000_000;
/// How often to look at most.
const LOOKS: usize = 10;

fn settled(host: &mut dyn Host) -> Result<(PhysInfo, usize), Errno> {
    let mut last = (host.phys_info()?, target::all(host)?.len());
    for _ in 0..LOOKS {
        let deadline = host.now() + SETTLED;
        while host.now() < deadline && host.wait(deadline) {}
        let now = (host.phys_info()?, target::all(host)?.len());
        if (now.0.free_pages, now.1) == (last.0.free_pages, last.1) {
            break;
        }
        last = now;
    }
    Ok(last)
}

fn run(host: &mut dyn Host, _: &Options) -> Status {
    let counts = settled(host);
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
