//! `list`: the domains there are.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use core::fmt::Write;

use super::options::{Options, flag};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::calls::DomainInfo;
use crate::host::Host;
use crate::store;

pub const COMMAND: Command = Command {
    name: "list",
    usage: "[options] [Domain]",
    about: "List information about all/some domains",
    flags: &[flag('l', "long"), flag('v', "verbose")],
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
    if options.has('l') {
        let mut text = String::from("[\n");
        for (i, info) in domains.iter().enumerate() {
            let comma = if i + 1 < domains.len() { "," } else { "" };
            text.push_str(&long(host, info));
            text.push_str(comma);
            text.push('\n');
        }
        text.push_str("]\n");
        host.print(&text);
        return SUCCESS;
    }
    let mut text = String::from("Name                                        ID   Mem VCPUs\tState\tTime(s)");
    if options.has('v') {
        text.push_str("   UUID                            Reason-Code\tSecurity Label");
    }
    text.push('\n');
    for info in &domains {
        let name = store::name_of(host, info.id).unwrap_or_else(|| "(null)".to_string());
        text.push_str(&row(&name, info));
        if options.has('v') {
            let reason = match info.shutdown_reason() {
                Some(reason) => format!("{reason:x}"),
                None => "-".to_string(),
            };
            let _ = write!(text, " {} {reason:>8} {:>16}", info.uuid, "-");
        }
        text.push('\n');
    }
    host.print(&text);
    SUCCESS
}

fn row(name: &str, info: &DomainInfo) -> String {
    let letter = |flag, letter| if info.is(flag) { letter } else { '-' };
    let reason = usize::try_from(info.shutdown_reason().unwrap_or(0)).unwrap_or(usize::MAX);
    let reason = char::from(REASONS.get(reason).copied().unwrap_or(b'?'));
    let tenths = (info.cpu_time + 50_000_000) / 100_000_000;
    format!(
        "{name:<40} {:>5} {:>5} {:>5}     {}{}{}{}{reason}{}  {:>8}",
        info.id.0,
        (info.tot_pages + info.outstanding_pages) / 256,
        info.online_vcpus,
        letter(DomainInfo::RUNNING, 'r'),
        letter(DomainInfo::BLOCKED, 'b'),
        letter(DomainInfo::PAUSED, 'p'),
        letter(DomainInfo::SHUTDOWN, 's'),
        letter(DomainInfo::DYING, 'd'),
        format!("{}.{}", tenths / 10, tenths % 10),
    )
}

/// What a domain was made from, as JSON with libxl's names.
fn long(host: &mut dyn Host, info: &DomainInfo) -> String {
    let quote = |text: &str| {
        let mut out = String::from("\"");
        for c in text.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                c if c.is_control() => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        out.push('"');
        out
    };
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
