//! `console`: a domain's console, for the user or for a script.

use alloc::format;

use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use super::options::{Options, value};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::host::{ConsoleEnd, Host};

pub const COMMAND: Command = Command {
    name: "console",
    usage: "[--until TEXT [--timeout SECONDS]] <Domain>",
    about: "Attach to domain's console (Ctrl-] detaches)",
    flags: &[value('u', "until"), value('T', "timeout"), value('t', "type"), value('n', "num")],
    needs: 1,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    let timeout = match options.get('T').map(str::parse::<u32>) {
        None => None,
        Some(Ok(seconds)) => Some(u64::from(seconds) * 1_000_000_000),
        Some(Err(_)) => {
            host.print_error("console: --timeout takes a number of seconds\n");
            return FAILURE;
        }
    };
    let Some(text) = options.get('u') else {
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
