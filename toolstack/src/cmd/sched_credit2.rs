//! `sched-credit2`: shows and sets what the scheduler gives to domains.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use super::options::{Options, value};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::calls::Share;
use crate::host::Host;
use crate::store;

pub const COMMAND: Command = Command {
    name: "sched-credit2",
    usage: "[-d <Domain> [-w[=WEIGHT]|-c[=CAP]]] [-s [-r RATELIMIT]] [-p CPUPOOL]",
    about: "Get/set credit2 scheduler parameters",
    flags: &[
        value('d', "domain"),
        value('w', "weight"),
        value('c', "cap"),
        super::options::flag('s', "schedparam"),
        value('r', "ratelimit_us"),
        value('p', "cpupool"),
    ],
    needs: 0,
    run,
};

/// The only pool.
const POOL: &str = "Pool-0";

fn run(host: &mut dyn Host, options: &Options) -> Status {
    match carry_out(host, options) {
        Ok(()) => SUCCESS,
        Err(Some(message)) => {
            host.print_error(&format!("sched-credit2: {message}\n"));
            FAILURE
        }
        Err(None) => FAILURE,
    }
}

/// An error that has been told already is none here.
type Result<T> = core::result::Result<T, Option<alloc::string::String>>;

fn carry_out(host: &mut dyn Host, options: &Options) -> Result<()> {
    if let Some(pool) = options.get('p').filter(|pool| *pool != POOL && *pool != "0") {
        return Err(Some(format!("unknown cpupool '{pool}'")));
    }
    let sets_share = options.has('w') || options.has('c');
    if (options.has('p') || options.has('s')) && (options.has('d') || sets_share) {
        return Err(Some("specifying a cpupool or schedparam is not allowed with domain options".into()));
    }
    if sets_share && !options.has('d') {
        return Err(Some("must specify a domain".into()));
    }
    if options.has('r') && !options.has('s') {
        return Err(Some("must specify schedparam to set schedule parameter values".into()));
    }
    if let Some(limit) = options.get('r') {
        let limit = number(limit, "the rate limit", 0..=500_000)?;
        return host.set_rate_limit(limit).map_err(|errno| failed("set the rate limit", errno));
    }
    if options.has('s') {
        return pool(host);
    }
    let Some(domain) = options.get('d') else {
        pool(host)?;
        let all = target::all(host).map_err(|errno| failed("list the domains", errno))?;
        return list(host, all.iter().map(|info| info.id).collect());
    };
    let dom = target::resolve(host, domain).map_err(|_| None)?;
    if !sets_share {
        return list(host, vec![dom]);
    }
    let mut share = host.share(dom).map_err(|errno| failed("ask for the scheduling parameters", errno))?;
    if let Some(weight) = options.get('w') {
        share.weight = number(weight, "the weight", 1..=0xffff)?;
    }
    if let Some(cap) = options.get('c') {
        share.cap = number(cap, "the cap", 0..=0xffff)?;
    }
    host.set_share(dom, share).map_err(|errno| failed("set the scheduling parameters", errno))
}

fn failed(what: &str, errno: Errno) -> Option<alloc::string::String> {
    Some(format!("cannot {what}: {}", errno.name()))
}

fn number<T: TryFrom<u64>>(text: &str, what: &str, range: core::ops::RangeInclusive<u64>) -> Result<T> {
    let number = text.trim_start_matches('=').parse().ok().filter(|number| range.contains(number));
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| Some(format!("{what} must be {} to {}, not \"{text}\"", range.start(), range.end())))
}

fn pool(host: &mut dyn Host) -> Result<()> {
    let limit = host.rate_limit().map_err(|errno| failed("ask for the rate limit", errno))?;
    host.print(&format!("Cpupool {POOL}: ratelimit={limit}us\n"));
    Ok(())
}

fn list(host: &mut dyn Host, domains: Vec<DomId>) -> Result<()> {
    let mut text = format!("{:<33} {:>4} {:>6} {:>4}\n", "Name", "ID", "Weight", "Cap");
    for dom in domains {
        let Share { weight, cap } =
            host.share(dom).map_err(|errno| failed("ask for the scheduling parameters", errno))?;
        let name = store::name_of(host, dom).unwrap_or_else(|| "(null)".into());
        text.push_str(&format!("{name:<33} {:>4} {weight:>6} {cap:>4}\n", dom.0));
    }
    host.print(&text);
    Ok(())
}
