//! `uptime`: for how long the domains have been there.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use xen_abi::ids::DomId;

use super::options::{JSON, Options, flag};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::host::Host;
use crate::json;
use crate::store;

pub const COMMAND: Command = Command {
    name: "uptime",
    usage: "[-s] [Domain]",
    about: "Print uptime for all/some domains",
    flags: &[flag('s', "short", "A line without seconds for each"), JSON],
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
    let mut rows = Vec::new();
    for dom in domains {
        let name = store::name_of(host, dom).unwrap_or_else(|| "(null)".to_string());
        // dom0 began when the clock did.
        let started = if dom.0 == 0 { Some(0) } else { host.domains().get(dom).map(|record| record.started) };
        rows.push((name, dom, started.map(|started| now.saturating_sub(started) / 1_000_000_000)));
    }
    let text = if options.has('j') {
        let item = |(name, dom, up): &(String, DomId, Option<u64>)| {
            let up = up.map_or_else(|| "null".to_string(), |seconds| seconds.to_string());
            json::object(4, &[("name", json::quote(name)), ("domid", dom.to_string()), ("uptime", up)])
        };
        json::list(&rows.iter().map(item).collect::<Vec<_>>())
    } else if options.has('s') {
        let seconds = host.wall_clock() / 1_000_000_000;
        let clock = format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        rows.iter()
            .map(|(name, dom, up)| format!(" {clock} up {}, {name} ({dom})\n", span(*up, Precision::Minutes)))
            .collect()
    } else {
        let head = format!("{:<33} {:>4} {}\n", "Name", "ID", "Uptime");
        let row = |(name, dom, up): &(String, DomId, Option<u64>)| {
            format!("{name:<33} {:>4} {}\n", dom.0, span(*up, Precision::Seconds))
        };
        core::iter::once(head).chain(rows.iter().map(row)).collect()
    };
    host.print(&text);
    SUCCESS
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Precision {
    Minutes,
    Seconds,
}

fn span(seconds: Option<u64>, precision: Precision) -> String {
    let Some(seconds) = seconds else {
        return "-".to_string();
    };
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    let mut clock = format!("{hours:>2}:{minutes:02}");
    if precision == Precision::Seconds {
        clock.push_str(&format!(":{:02}", seconds % 60));
    }
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        n => format!("{n} days, {clock}"),
    }
}
