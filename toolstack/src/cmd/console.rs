//! `console`: a domain's console, for the user or for a script.

use alloc::format;

use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use super::options::{Options, long_only, value};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::host::{ConsoleEnd, Host};

/// Options that xl does not have.
const UNTIL: char = long_only(0);
const TIMEOUT: char = long_only(1);

pub const COMMAND: Command = Command {
    name: "console",
    usage: "[options] <Domain>",
    about: "Attach to domain's console (Ctrl-] detaches)",
    flags: &[
        value('t', "type", "TYPE", "Which kind of console: \"pv\" is all there is"),
        value('n', "num", "NUMBER", "Which console: 0 is all there is"),
        value(UNTIL, "until", "TEXT", "Print what the console says until that appears"),
        value(TIMEOUT, "timeout", "SECONDS", "Wait no longer than that"),
    ],
    needs: 1,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    if let Some(kind) = options.get('t').filter(|kind| *kind != "pv") {
        host.print_error(&format!("console: there is no {kind} console, only pv\n"));
        return FAILURE;
    }
    if options.get('n').is_some_and(|number| number.parse() != Ok(0)) {
        host.print_error("console: there is only console 0\n");
        return FAILURE;
    }
    let timeout = match options.get(TIMEOUT).map(str::parse::<u32>) {
        None => None,
        Some(Ok(seconds)) => Some(u64::from(seconds) * 1_000_000_000),
        Some(Err(_)) => {
            host.print_error("console: --timeout takes a number of seconds\n");
            return FAILURE;
        }
    };
    let Some(text) = options.get(UNTIL) else {
        return interact(host, dom);
    };
    match host.console_until(dom, text, timeout) {
        Ok(ConsoleEnd::Found) => SUCCESS,
        Ok(ConsoleEnd::TimedOut) => {
            host.print_error(&format!("console: {text:?} did not appear in time\n"));
            FAILURE
        }
        Ok(ConsoleEnd::Gone) => {
            host.print_error(&format!("console: domain {dom} ended before {text:?} appeared\n"));
            FAILURE
        }
        Ok(ConsoleEnd::Detached) => FAILURE,
        Err(errno) => unable(host, dom, errno),
    }
}

fn unable(host: &mut dyn Host, dom: DomId, errno: Errno) -> Status {
    let why = if errno == Errno::ESRCH { "it has no console" } else { errno.name() };
    host.print_error(&format!("Unable to attach console of domain {dom}: {why}\n"));
    FAILURE
}

/// The user's side.
pub fn interact(host: &mut dyn Host, dom: DomId) -> Status {
    match host.console_interact(dom) {
        Ok(_) => SUCCESS,
        Err(errno) => unable(host, dom, errno),
    }
}
