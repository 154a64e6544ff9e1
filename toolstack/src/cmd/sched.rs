//! `sched-credit`, `sched-credit2`: show and set what the schedulers give to domains.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use xen_abi::domctl::{XEN_SCHEDULER_CREDIT, XEN_SCHEDULER_CREDIT2};
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use super::options::{Options, flag, value};
use super::{Command, FAILURE, SUCCESS, Status, pools, target};
use crate::calls::{PoolInfo, Schedule, Share};
use crate::host::Host;
use crate::store;

pub const CREDIT2: Command = Command {
    name: "sched-credit2",
    usage: "[-d <Domain> [-w[=WEIGHT]|-c[=CAP]]] [-s [-r RATELIMIT]] [-p CPUPOOL]",
    about: "Get/set credit2 scheduler parameters",
    flags: &[
        value('d', "domain"),
        value('w', "weight"),
        value('c', "cap"),
        flag('s', "schedparam"),
        value('r', "ratelimit_us"),
        value('p', "cpupool"),
    ],
    needs: 0,
    run: credit2,
};

pub const CREDIT: Command = Command {
    name: "sched-credit",
    usage: "[-d <Domain> [-w[=WEIGHT]|-c[=CAP]]] [-s [-t TSLICE] [-r RATELIMIT] [-m DELAY]] [-p CPUPOOL]",
    about: "Get/set credit scheduler parameters",
    flags: &[
        value('d', "domain"),
        value('w', "weight"),
        value('c', "cap"),
        flag('s', "schedparam"),
        value('t', "tslice_ms"),
        value('r', "ratelimit_us"),
        value('m', "migration_delay_us"),
        value('p', "cpupool"),
    ],
    needs: 0,
    run: credit,
};

fn credit(host: &mut dyn Host, options: &Options) -> Status {
    tell(host, "sched-credit", |host| carry_out(host, options, XEN_SCHEDULER_CREDIT))
}

fn credit2(host: &mut dyn Host, options: &Options) -> Status {
    tell(host, "sched-credit2", |host| carry_out(host, options, XEN_SCHEDULER_CREDIT2))
}

fn tell(host: &mut dyn Host, name: &str, act: impl FnOnce(&mut dyn Host) -> Result<()>) -> Status {
    match act(host) {
        Ok(()) => SUCCESS,
        Err(Some(message)) => {
            host.print_error(&format!("{name}: {message}\n"));
            FAILURE
        }
        Err(None) => FAILURE,
    }
}

/// An error that has been told already is none here.
type Result<T> = core::result::Result<T, Option<String>>;

fn carry_out(host: &mut dyn Host, options: &Options, scheduler: u32) -> Result<()> {
    let named = match options.get('p') {
        None => None,
        Some(name) => Some(pools::resolve(host, name).ok_or_else(|| Some(format!("unknown cpupool '{name}'")))?),
    };
    let sets_share = options.has('w') || options.has('c');
    let sets_pool = ['t', 'r', 'm'].into_iter().any(|letter| options.has(letter));
    if (options.has('p') || options.has('s')) && (options.has('d') || sets_share) {
        return Err(Some("specifying a cpupool or schedparam is not allowed with domain options".into()));
    }
    if sets_share && !options.has('d') {
        return Err(Some("must specify a domain".into()));
    }
    if sets_pool && !options.has('s') {
        return Err(Some("must specify schedparam to set schedule parameter values".into()));
    }
    if sets_pool {
        let pool = named.unwrap_or(0);
        let mut wanted = host.schedule(pool, scheduler).map_err(|errno| failed("ask for the parameters", errno))?;
        for (letter, what, range, to) in [
            ('t', "the time slice", 1..=1000, &mut wanted.time_slice_ms),
            ('r', "the rate limit", 0..=500_000, &mut wanted.rate_limit_us),
            ('m', "the migration delay", 0..=100_000, &mut wanted.migration_delay_us),
        ] {
            if let Some(text) = options.get(letter) {
                *to = number(text, what, range)?;
            }
        }
        return host.set_schedule(pool, scheduler, wanted).map_err(|errno| failed("set the parameters", errno));
    }
    if let Some(domain) = options.get('d') {
        let dom = target::resolve(host, domain).map_err(|_| None)?;
        if !sets_share {
            return list(host, scheduler, vec![dom]);
        }
        return set(host, options, scheduler, dom);
    }
    let all = target::all(host).map_err(|errno| failed("list the domains", errno))?;
    let pools = pools::all(host).map_err(|errno| failed("list the pools", errno))?;
    for pool in pools.iter().filter(|pool| pool.scheduler == scheduler && named.is_none_or(|id| pool.id == id)) {
        show(host, pool)?;
        if !options.has('s') {
            let inside = all.iter().filter(|info| info.cpupool == pool.id).map(|info| info.id);
            list(host, scheduler, inside.collect())?;
        }
    }
    Ok(())
}

fn set(host: &mut dyn Host, options: &Options, scheduler: u32, dom: DomId) -> Result<()> {
    let mut share = host.share(dom, scheduler).map_err(|errno| failed("ask for the scheduling parameters", errno))?;
    if let Some(weight) = options.get('w') {
        share.weight = number(weight, "the weight", 1..=0xffff)?;
    }
    if let Some(cap) = options.get('c') {
        share.cap = number(cap, "the cap", 0..=0xffff)?;
    }
    host.set_share(dom, scheduler, share).map_err(|errno| failed("set the scheduling parameters", errno))
}

fn failed(what: &str, errno: Errno) -> Option<String> {
    Some(format!("cannot {what}: {}", errno.name()))
}

fn number<T: TryFrom<u64>>(text: &str, what: &str, range: core::ops::RangeInclusive<u64>) -> Result<T> {
    let number = text.trim_start_matches('=').parse().ok().filter(|number| range.contains(number));
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| Some(format!("{what} must be {} to {}, not \"{text}\"", range.start(), range.end())))
}

fn show(host: &mut dyn Host, pool: &PoolInfo) -> Result<()> {
    let Schedule { time_slice_ms, rate_limit_us, migration_delay_us } =
        host.schedule(pool.id, pool.scheduler).map_err(|errno| failed("ask for the parameters", errno))?;
    let name = pools::name(host, pool.id);
    host.print(&if pool.scheduler == XEN_SCHEDULER_CREDIT {
        format!(
            "Cpupool {name}: tslice={time_slice_ms}ms ratelimit={rate_limit_us}us migration-delay={migration_delay_us}us\n"
        )
    } else {
        format!("Cpupool {name}: ratelimit={rate_limit_us}us\n")
    });
    Ok(())
}

fn list(host: &mut dyn Host, scheduler: u32, domains: Vec<DomId>) -> Result<()> {
    let mut text = format!("{:<33} {:>4} {:>6} {:>4}\n", "Name", "ID", "Weight", "Cap");
    for dom in domains {
        let Share { weight, cap } =
            host.share(dom, scheduler).map_err(|errno| failed("ask for the scheduling parameters", errno))?;
        let name = store::name_of(host, dom).unwrap_or_else(|| "(null)".into());
        text.push_str(&format!("{name:<33} {:>4} {weight:>6} {cap:>4}\n", dom.0));
    }
    host.print(&text);
    Ok(())
}
