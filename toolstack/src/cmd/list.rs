//! `list`: the domains there are.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;

use super::options::{Options, flag};
use super::{Command, FAILURE, SUCCESS, Status, pools, target};
use crate::calls::DomainInfo;
use crate::host::Host;
use crate::json::{self, quote};
use crate::store;

pub const COMMAND: Command = Command {
    name: "list",
    usage: "[options] [Domain]",
    about: "List information about all/some domains",
    flags: &[flag('l', "long"), flag('v', "verbose"), flag('Z', "context"), flag('c', "cpupool"), flag('j', "json")],
    needs: 0,
    run,
};

/// Letters for `SHUTDOWN_*`.
const REASONS: &[u8] = b"-rscwS";

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let domains = match options.arg(0) {
        None => target::all(host),
        Some(text) => {
            let dom = match target::resolve(host, text) {
                Ok(dom) => dom,
                Err(status) => return status,
            };
            match host.domain_info(dom) {
                Err(xen_abi::errno::Errno::ESRCH) => {
                    host.print_error(&format!("Error: Domain '{text}' does not exist.\n"));
                    return FAILURE;
                }
                other => other.map(|info| vec![info]),
            }
        }
    };
    let domains = match domains {
        Ok(domains) => domains,
        Err(errno) => {
            host.print_error(&format!("cannot list the domains: {}\n", errno.name()));
            return FAILURE;
        }
    };
    if options.has('l') || options.has('j') {
        let items: Vec<String> = domains.iter().map(|info| long(host, info)).collect();
        host.print(&json::list(&items));
        return SUCCESS;
    }
    let mut text = String::from("Name                                        ID   Mem VCPUs\tState\tTime(s)");
    if options.has('v') {
        text.push_str("   UUID                            Reason-Code\tSecurity Label");
    } else if options.has('Z') {
        text.push_str("   Security Label");
    }
    if options.has('c') {
        text.push_str("         Cpupool");
    }
    text.push('\n');
    let names = if domains.len() > 1 {
        store::names(host)
    } else {
        let names = domains.iter().filter_map(|info| Some((info.id, store::name_of(host, info.id)?)));
        names.collect()
    };
    text.reserve(domains.len() * 100);
    for info in &domains {
        row(&mut text, names.get(&info.id).map_or("(null)", String::as_str), info);
        if options.has('v') {
            let reason = match info.shutdown_reason() {
                Some(reason) => format!("{reason:x}"),
                None => "-".to_string(),
            };
            let _ = write!(text, " {} {reason:>8}", info.uuid);
        }
        if options.has('v') || options.has('Z') {
            let _ = write!(text, " {:>16}", "-");
        }
        if options.has('c') {
            let pool = pools::name(host, info.cpupool);
            let _ = write!(text, "{pool:>16}");
        }
        text.push('\n');
    }
    host.print(&text);
    SUCCESS
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
    let mut text = format!("    {{\n        \"domid\": {},\n        \"config\": {{\n", info.id);
    let _ = write!(
        text,
        "            \"c_info\": {{\n                \"type\": \"pv\",\n                \"name\": {},\n                \
         \"uuid\": \"{}\"\n            }}",
        quote(&name),
        info.uuid
    );
    if let Some(record) = host.domains().get(info.id) {
        let config = &record.config;
        let _ = write!(
            text,
            ",\n            \"b_info\": {{\n                \"max_vcpus\": {},\n                \"max_memkb\": {},\n                \
             \"target_memkb\": {},\n                \"kernel\": {},\n                \"cmdline\": {}",
            config.max_vcpus,
            config.max_memory_kib,
            config.memory_kib,
            quote(&config.kernel),
            quote(&config.cmdline)
        );
        if let Some(ramdisk) = &config.ramdisk {
            let _ = write!(text, ",\n                \"ramdisk\": {}", quote(ramdisk));
        }
        let _ = write!(
            text,
            "\n            }},\n            \"on_poweroff\": \"{}\",\n            \"on_reboot\": \"{}\",\n            \
             \"on_watchdog\": \"{}\",\n            \"on_crash\": \"{}\",\n            \"on_soft_reset\": \"{}\"",
            config.on_poweroff.name(),
            config.on_reboot.name(),
            config.on_watchdog.name(),
            config.on_crash.name(),
            config.on_soft_reset.name()
        );
    }
    text.push_str("\n        }\n    }");
    text
}
