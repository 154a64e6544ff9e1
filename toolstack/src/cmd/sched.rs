//! `sched-credit`, `sched-credit2`: show and set what the schedulers give to domains.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use xen_abi::domctl::{XEN_SCHEDULER_CREDIT, XEN_SCHEDULER_CREDIT2};
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use super::options::{JSON, Options, flag, value};
use super::{Command, FAILURE, SUCCESS, Status, pools, target};
use crate::calls::{PoolInfo, Schedule, Share};
use crate::host::Host;
use crate::json;
use crate::store;

pub const CREDIT2: Command = Command {
    name: "sched-credit2",
    usage: "[-d <Domain> [-w[=WEIGHT]|-c[=CAP]]] [-s [-r RATELIMIT]] [-p CPUPOOL]",
    about: "Get/set credit2 scheduler parameters",
    flags: &[
        value('d', "domain", "DOMAIN", "The domain that is meant"),
        value('w', "weight", "WEIGHT", "Its share beside those of others"),
        value('c', "cap", "CAP", "The most it gets, in percent of a CPU; 0 for no limit"),
        flag('s', "schedparam", "Show or set what concerns a whole pool"),
        value('r', "ratelimit_us", "LIMIT", "How long one runs at least, in microseconds"),
        value('p', "cpupool", "CPUPOOL", "This pool alone"),
        JSON,
    ],
    needs: 0,
    run: credit2,
};

pub const CREDIT: Command = Command {
    name: "sched-credit",
    usage: "[-d <Domain> [-w[=WEIGHT]|-c[=CAP]]] [-s [-t TSLICE] [-r RATELIMIT] [-m DELAY]] [-p CPUPOOL]",
    about: "Get/set credit scheduler parameters",
    flags: &[
        value('d', "domain", "DOMAIN", "The domain that is meant"),
        value('w', "weight", "WEIGHT", "Its share beside those of others"),
        value('c', "cap", "CAP", "The most it gets, in percent of a CPU; 0 for no limit"),
        flag('s', "schedparam", "Show or set what concerns a whole pool"),
        value('t', "tslice_ms", "SLICE", "How long one runs while others wait, in milliseconds"),
        value('r', "ratelimit_us", "LIMIT", "How long one runs at least, in microseconds"),
        value('m', "migration_delay_us", "DELAY", "How long one that has run stays where it is, in microseconds"),
        value('p', "cpupool", "CPUPOOL", "This pool alone"),
        JSON,
    ],
    needs: 0,
    run: credit,
};

fn credit(host: &mut dyn Host, options: &Options) -> Status {
    tell(host, |host| carry_out(host, options, XEN_SCHEDULER_CREDIT))
}

fn credit2(host: &mut dyn Host, options: &Options) -> Status {
    tell(host, |host| carry_out(host, options, XEN_SCHEDULER_CREDIT2))
}

fn tell(host: &mut dyn Host, act: impl FnOnce(&mut dyn Host) -> Result<()>) -> Status {
    match act(host) {
        Ok(()) => SUCCESS,
        Err(Some(message)) => {
            host.print_error(&format!("{message}\n"));
            FAILURE
        }
        Err(None) => FAILURE,
    }
}

/// How something is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// An error that has been told already is none here.
type Result<T> = core::result::Result<T, Option<String>>;

fn carry_out(host: &mut dyn Host, options: &Options, scheduler: u32) -> Result<()> {
    let named = match options.get('p') {
        None => None,
        Some(name) => Some(pools::resolve(host, name).ok_or_else(|| Some(format!("unknown cpupool '{name}'")))?),
    };
    let form = if options.has('j') { Form::Json } else { Form::Text };
    let sets_share = options.has('w') || options.has('c');
    let sets_pool = ['t', 'r', 'm'].into_iter().any(|letter| options.has(letter));
    if (options.has('p') || options.has('s')) && (options.has('d') || sets_share) {
        return Err(Some("Specifying a cpupool or schedparam is not allowed with domain options.".into()));
    }
    if sets_share && !options.has('d') {
        return Err(Some("Must specify a domain.".into()));
    }
    if sets_pool && !options.has('s') {
        return Err(Some("Must specify schedparam to set schedule parameter values.".into()));
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
            let text = match list(host, scheduler, vec![dom], form) {
                Err(error) if form == Form::Text => {
                    host.print(&head());
                    return Err(error);
                }
                listed => listed?,
            };
            host.print(&if form == Form::Json { json::list(&text) } else { text.concat() });
            return Ok(());
        }
        return set(host, options, scheduler, dom);
    }
    let all = target::all(host).map_err(|errno| failed("list the domains", errno))?;
    let pools = pools::all(host).map_err(|errno| failed("list the pools", errno))?;
    let mut text = Vec::new();
    for pool in pools.iter().filter(|pool| pool.scheduler == scheduler && named.is_none_or(|id| pool.id == id)) {
        if form == Form::Text || options.has('s') {
            text.push(show(host, pool, form)?);
        }
        if !options.has('s') {
            let inside = all.iter().filter(|info| info.cpupool == pool.id).map(|info| info.id);
            text.extend(list(host, scheduler, inside.collect(), form)?);
        }
    }
    host.print(&if form == Form::Json { json::list(&text) } else { text.concat() });
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

fn show(host: &mut dyn Host, pool: &PoolInfo, form: Form) -> Result<String> {
    let Schedule { time_slice_ms, rate_limit_us, migration_delay_us } =
        host.schedule(pool.id, pool.scheduler).map_err(|errno| failed("ask for the parameters", errno))?;
    let name = pools::name(host, pool.id);
    let is_credit = pool.scheduler == XEN_SCHEDULER_CREDIT;
    if form == Form::Json {
        let mut fields = vec![("pool_name", json::quote(&name)), ("ratelimit_us", rate_limit_us.to_string())];
        if is_credit {
            fields.push(("tslice_ms", time_slice_ms.to_string()));
            fields.push(("vcpu_migr_delay_us", migration_delay_us.to_string()));
        }
        return Ok(json::object(4, &fields));
    }
    Ok(if is_credit {
        format!(
            "Cpupool {name}: tslice={time_slice_ms}ms ratelimit={rate_limit_us}us migration-delay={migration_delay_us}us\n"
        )
    } else {
        format!("Cpupool {name}: ratelimit={rate_limit_us}us\n")
    })
}

/// Why the parameters of a domain cannot be shown: it has another scheduler, perhaps.
fn of_another(host: &mut dyn Host, dom: DomId, wanted: u32, errno: Errno) -> Option<String> {
    let pool = host.domain_info(dom).map(|info| info.cpupool);
    let all = pools::all(host).unwrap_or_default();
    let other = all.iter().find(|known| pool == Ok(known.id)).map(|pool| pool.scheduler);
    match other.filter(|other| *other != wanted) {
        Some(other) => {
            let (other, wanted) = (pools::scheduler_name(other), pools::scheduler_name(wanted));
            Some(format!("libxl_domain_sched_params_get returned {other} not {wanted}."))
        }
        None => failed("ask for the scheduling parameters", errno),
    }
}

/// The head of a list.
fn head() -> String {
    format!("{:<33} {:>4} {:>6} {:>4}\n", "Name", "ID", "Weight", "Cap")
}

/// A line for each domain below a head, or an object for each.
fn list(host: &mut dyn Host, scheduler: u32, domains: Vec<DomId>, form: Form) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    if form == Form::Text {
        rows.push(head());
    }
    for dom in domains {
        let Share { weight, cap } =
            host.share(dom, scheduler).map_err(|errno| of_another(host, dom, scheduler, errno))?;
        let name = store::name_of(host, dom).unwrap_or_else(|| "(null)".into());
        rows.push(if form == Form::Json {
            let fields = [
                ("name", json::quote(&name)),
                ("domid", dom.to_string()),
                ("weight", weight.to_string()),
                ("cap", cap.to_string()),
            ];
            json::object(4, &fields)
        } else {
            format!("{name:<33} {:>4} {weight:>6} {cap:>4}\n", dom.0)
        });
    }
    Ok(rows)
}
