//! `list`: the domains there are.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;

use xen_abi::errno::Errno;

use super::options::{JSON, Options, flag};
use super::{Command, FAILURE, SUCCESS, Status, document, help, pools, target};
use crate::calls::DomainInfo;
use crate::host::Host;
use crate::json::{self, quote};
use crate::store;

pub const COMMAND: Command = Command {
    name: "list",
    usage: "[options] [Domain]",
    about: "List information about all/some domains",
    flags: &[
        flag('l', "long", "Print all that the domains were made from, as JSON"),
        flag('v', "verbose", "Show UUIDs, reasons of shutdowns and security labels"),
        flag('Z', "context", "Show security labels"),
        flag('c', "cpupool", "Show pools of CPUs"),
        flag('n', "numa", "Show the nodes of the domains' memory"),
        JSON,
    ],
    needs: 0,
    run,
};

pub const CLAIMS: Command = Command {
    name: "claims",
    usage: "",
    about: "List outstanding claim information about all domains",
    flags: &[JSON],
    needs: 0,
    run: claims,
};

pub const VM_LIST: Command = Command {
    name: "vm-list",
    usage: "",
    about: "List domains with their UUIDs",
    flags: &[JSON],
    needs: 0,
    run: vm_list,
};

pub const SHARING: Command = Command {
    name: "sharing",
    usage: "[Domain]",
    about: "Get information about page sharing",
    flags: &[JSON],
    needs: 0,
    run: sharing,
};

/// Letters for `SHUTDOWN_*`.
const REASONS: &[u8] = b"-rscwS";

fn run(host: &mut dyn Host, options: &Options) -> Status {
    if options.positional.len() > 1 {
        help::usage(host, &COMMAND);
        return FAILURE;
    }
    let domains = match options.arg(0) {
        None => target::all(host),
        Some(text) => {
            let dom = match target::resolve(host, text) {
                Ok(dom) => dom,
                Err(status) => return status,
            };
            match host.domain_info(dom) {
                Err(Errno::ESRCH) => {
                    host.print_error(&format!("Error: Domain '{text}' does not exist.\n"));
                    return FAILURE;
                }
                other => other.map(|info| vec![info]),
            }
        }
    };
    show(host, domains, |host, domains| {
        if options.has('l') || options.has('j') {
            let items: Vec<String> = domains.iter().map(|info| long(host, info)).collect();
            json::list(&items)
        } else {
            table(host, domains, |letter| options.has(letter))
        }
    })
}

/// Prints what is said of domains, if they could be asked for.
fn show(
    host: &mut dyn Host,
    domains: Result<Vec<DomainInfo>, Errno>,
    text: impl FnOnce(&mut dyn Host, &[DomainInfo]) -> String,
) -> Status {
    match domains {
        Ok(domains) => {
            let text = text(host, &domains);
            host.print(&text);
            SUCCESS
        }
        Err(errno) => {
            host.print_error(&format!("cannot list the domains: {}\n", errno.name()));
            FAILURE
        }
    }
}

/// The letter of a column that no option of `list` asks for.
const CLAIM: char = 'C';

fn claims(host: &mut dyn Host, options: &Options) -> Status {
    let all = target::all(host);
    show(host, all, |host, domains| {
        if !options.has('j') {
            return table(host, domains, |letter| letter == CLAIM);
        }
        objects(host, domains, |_, info| vec![("claimed_mb", (info.outstanding_pages / 256).to_string())])
    })
}

fn vm_list(host: &mut dyn Host, options: &Options) -> Status {
    let all = target::all(host);
    show(host, all, |host, domains| {
        if options.has('j') {
            return objects(host, domains, |_, info| vec![("uuid", quote(&info.uuid.to_string()))]);
        }
        let mut text = String::from("UUID                                  ID    name\n");
        let names = store::names(host);
        for info in domains {
            let name = names.get(&info.id).map_or("(null)", String::as_str);
            let _ = writeln!(text, "{}  {}    {name:<30}", info.uuid, info.id.0);
        }
        text
    })
}

/// No domain shares pages.
fn sharing(host: &mut dyn Host, options: &Options) -> Status {
    let domains = match options.arg(0).map(|text| target::resolve(host, text)) {
        None => target::all(host),
        Some(Ok(dom)) => host.domain_info(dom).map(|info| vec![info]),
        Some(Err(status)) => return status,
    };
    show(host, domains, |host, domains| {
        if options.has('j') {
            return objects(host, domains, |_, info| {
                vec![("memory_mb", (info.tot_pages / 256).to_string()), ("shared_mb", "0".to_string())]
            });
        }
        let mut text = String::from("Name                                        ID   Mem Shared\n");
        let names = store::names(host);
        for info in domains {
            let name = names.get(&info.id).map_or("(null)", String::as_str);
            let _ = writeln!(text, "{name:<40} {:>5} {:>5}  {:>5}", info.id.0, info.tot_pages / 256, 0);
        }
        text
    })
}

/// Domains as JSON: name, number, and more.
fn objects(
    host: &mut dyn Host,
    domains: &[DomainInfo],
    more: impl Fn(&mut dyn Host, &DomainInfo) -> Vec<(&'static str, String)>,
) -> String {
    let names = store::names(host);
    let mut items = Vec::new();
    for info in domains {
        let name = names.get(&info.id).map_or("(null)", String::as_str);
        let mut fields = vec![("name", quote(name)), ("domid", info.id.to_string())];
        fields.extend(more(host, info));
        items.push(json::object(4, &fields));
    }
    json::list(&items)
}

/// xl's table, with the columns whose letters `has` wants.
fn table(host: &mut dyn Host, domains: &[DomainInfo], has: impl Fn(char) -> bool) -> String {
    let mut text = String::from("Name                                        ID   Mem VCPUs\tState\tTime(s)");
    if has('v') {
        text.push_str("   UUID                            Reason-Code\tSecurity Label");
    } else if has('Z') {
        text.push_str("   Security Label");
    }
    text.push_str(if has(CLAIM) { "  Claimed" } else { "" });
    text.push_str(if has('c') { "         Cpupool" } else { "" });
    text.push_str(if has('n') { " NODE Affinity" } else { "" });
    text.push('\n');
    let nodes = if has('n') { host.phys_info().map_or(1, |info| info.nr_nodes) } else { 0 };
    let names = if domains.len() > 1 {
        store::names(host)
    } else {
        let names = domains.iter().filter_map(|info| Some((info.id, store::name_of(host, info.id)?)));
        names.collect()
    };
    text.reserve(domains.len() * 100);
    for info in domains {
        row(&mut text, names.get(&info.id).map_or("(null)", String::as_str), info);
        if has('v') {
            let reason = match info.shutdown_reason() {
                Some(reason) => format!("{reason:x}"),
                None => "-".to_string(),
            };
            let _ = write!(text, " {} {reason:>8}", info.uuid);
        }
        if has(CLAIM) {
            let _ = write!(text, " {:>5}", info.outstanding_pages / 256);
        }
        if has('v') || has('Z') {
            let _ = write!(text, " {:>16}", "-");
        }
        if has('c') {
            let pool = pools::name(host, info.cpupool);
            let _ = write!(text, "{pool:>16}");
        }
        if has('n') {
            let set = host.node_affinity(info.id).unwrap_or_default();
            let _ = write!(text, " {}", set.of(nodes));
        }
        text.push('\n');
    }
    text
}

/// Adds a line's columns. The library's own padding goes letter by letter, and here that is most of the work.
fn row(text: &mut String, name: &str, info: &DomainInfo) {
    let letter = |flag, letter| if info.is(flag) { letter } else { b'-' };
    let reason = usize::try_from(info.shutdown_reason().unwrap_or(0)).unwrap_or(usize::MAX);
    let state = [
        letter(DomainInfo::RUNNING, b'r'),
        letter(DomainInfo::BLOCKED, b'b'),
        letter(DomainInfo::PAUSED, b'p'),
        letter(DomainInfo::SHUTDOWN, b's'),
        REASONS.get(reason).copied().unwrap_or(b'?'),
        letter(DomainInfo::DYING, b'd'),
    ];
    text.push_str(name);
    text.push_str(blanks(40usize.saturating_sub(name.chars().count())));
    for number in [u64::from(info.id.0), (info.tot_pages + info.outstanding_pages) / 256, info.online_vcpus.into()] {
        text.push(' ');
        right(text, 5, &number.to_string());
    }
    text.push_str("     ");
    text.push_str(core::str::from_utf8(&state).unwrap_or_default());
    text.push_str("  ");
    right(text, 8, &tenths(info.cpu_time));
}

/// So many spaces, up to 40.
fn blanks(count: usize) -> &'static str {
    const BLANKS: &str = "                                        ";
    BLANKS.get(..count).unwrap_or(BLANKS)
}

fn right(text: &mut String, width: usize, what: &str) {
    text.push_str(blanks(width.saturating_sub(what.len())));
    text.push_str(what);
}

/// Nanoseconds as seconds with one digit after the point.
pub fn tenths(nanoseconds: u64) -> String {
    let tenths = (nanoseconds + 50_000_000) / 100_000_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// What a domain was made from, as JSON with libxl's names.
fn long(host: &mut dyn Host, info: &DomainInfo) -> String {
    let name = store::name_of(host, info.id).unwrap_or_default();
    let all = pools::all(host).unwrap_or_default();
    let scheduler = all.iter().find(|pool| pool.id == info.cpupool).map(|pool| pool.scheduler);
    let shared = scheduler.and_then(|number| Some((pools::scheduler_name(number), host.share(info.id, number).ok()?)));
    let config = match host.domains().get(info.id) {
        Some(record) => document::config(8, &name, &info.uuid, &record.config, shared),
        None => document::found(8, &name, info, shared),
    };
    json::object(4, &[("domid", info.id.to_string()), ("config", config.trim_start().to_string())])
}
