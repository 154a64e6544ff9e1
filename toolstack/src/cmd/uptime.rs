//! `uptime`: for how long the domains have been there.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;

use super::options::Options;
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::host::Host;
use crate::store;

pub const COMMAND: Command = Command {
    name: "uptime",
    usage: "[Domain]",
    about: "Print uptime for all/some domains",
    flags: &[],
    needs: 0,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let domains = match options.arg(0) {
        Some(text) => match target::resolve(host, text) {
            Ok(dom) => vec![dom],
            Err(status) => return status,
        },
        None => match target::all(host) {
            Ok(all) => all.iter().map(|info| info.id).collect(),
            Err(errno) => {
                host.print_error(&format!("cannot list the domains: {}\n", errno.name()));
                return FAILURE;
            }
        },
    };
    let now = host.now();
    let mut text = format!("{:<33} {:>4} {}\n", "Name", "ID", "Uptime");
    for dom in domains {
        let name = store::name_of(host, dom).unwrap_or_else(|| "(null)".to_string());
        // dom0 began when the clock did.
        let started = if dom.0 == 0 { Some(0) } else { host.domains().get(dom).map(|record| record.started) };
        let up = started.map_or_else(|| "-".to_string(), |started| span(now.saturating_sub(started)));
        text.push_str(&format!("{name:<33} {:>4} {up}\n", dom.0));
    }
    host.print(&text);
    SUCCESS
}

fn span(nanoseconds: u64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    let clock = format!("{hours:>2}:{minutes:02}:{:02}", seconds % 60);
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        n => format!("{n} days, {clock}"),
    }
}
