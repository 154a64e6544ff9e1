//! `top`: what the domains use, again and again, in xentop's columns.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};

use xen_abi::errno::Errno;
use xen_abi::ids::DomId;
use xen_abi::sched::SHUTDOWN_CRASH;

use super::options::{Options, flag, value};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::calls::{DomainInfo, PhysInfo};
use crate::host::Host;
use crate::store;

pub const COMMAND: Command = Command {
    name: "top",
    usage: "[-b] [-d SECONDS] [-i ITERATIONS]",
    about: "Monitor a host and the domains in real time (Ctrl-C ends it)",
    flags: &[
        flag('b', "batch", "Print one table after the other"),
        flag('f', "full-name", "Show whole names"),
        value('d', "delay", "SECONDS", "Time between two looks, 3 by default"),
        value('i', "iterations", "COUNT", "How often to look"),
    ],
    needs: 0,
    run,
};

/// Seconds between two looks.
const DELAY: u32 = 3;

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let number = |letter, usual| options.get(letter).map_or(Ok(usual), str::parse::<u32>);
    let (Ok(delay), Ok(rounds)) = (number('d', DELAY), number('i', u32::MAX)) else {
        host.print_error("top: -d and -i take numbers\n");
        return FAILURE;
    };
    let batch = options.has('b');
    let mut before = Look::default();
    for round in 0..rounds {
        if round > 0 {
            let deadline = host.now() + u64::from(delay) * 1_000_000_000;
            if !host.wait(deadline) {
                break;
            }
        }
        match look(host, &before, batch, options.has('f')) {
            Ok((text, now)) => {
                host.print(&text);
                before = now;
            }
            Err(errno) => {
                host.print_error(&format!("top: {}\n", errno.name()));
                return FAILURE;
            }
        }
    }
    SUCCESS
}

/// CPU times at a moment.
#[derive(Default)]
struct Look {
    at: u64,
    times: BTreeMap<DomId, u64>,
}

fn look(host: &mut dyn Host, before: &Look, batch: bool, full_names: bool) -> Result<(String, Look), Errno> {
    let (all, phys, at) = (target::all(host)?, host.phys_info()?, host.now());
    let mut text = String::new();
    if !batch {
        let version = host.version()?;
        // To the top left corner, and clear.
        text.push_str(&format!("\x1b[H\x1b[Jxentop - Xen {}.{}{}\n", version.major, version.minor, version.extra));
        text.push_str(&summary(&all, &phys));
    }
    text.push_str(HEADER);
    for info in &all {
        let since = at.saturating_sub(before.at);
        let used = before.times.get(&info.id).map(|time| info.cpu_time.saturating_sub(*time));
        let permille = used.map_or(0, |used| used.saturating_mul(1000) / since.max(1));
        let name = store::name_of(host, info.id).unwrap_or_else(|| format!("{}", info.id));
        let name: String = if full_names { name } else { name.chars().take(10).collect() };
        text.push_str(&row(&name, info, &phys, permille));
    }
    Ok((text, Look { at, times: all.iter().map(|info| (info.id, info.cpu_time)).collect() }))
}

fn crashed(info: &DomainInfo) -> bool {
    info.shutdown_reason() == Some(SHUTDOWN_CRASH)
}

fn summary(all: &[DomainInfo], phys: &PhysInfo) -> String {
    let count = |there: &dyn Fn(&DomainInfo) -> bool| all.iter().filter(|info| there(info)).count();
    let (total, free) = (phys.total_pages * 4, phys.free_pages * 4);
    format!(
        "{} domains: {} running, {} blocked, {} paused, {} crashed, {} dying, {} shutdown\n\
         Mem: {total}k total, {}k used, {free}k free    CPUs: {} @ {}MHz\n",
        all.len(),
        count(&|info| info.is(DomainInfo::RUNNING)),
        count(&|info| info.is(DomainInfo::BLOCKED)),
        count(&|info| info.is(DomainInfo::PAUSED)),
        count(&crashed),
        count(&|info| info.is(DomainInfo::DYING)),
        count(&|info| info.is(DomainInfo::SHUTDOWN)),
        total.saturating_sub(free),
        phys.nr_cpus,
        phys.cpu_khz / 1000,
    )
}

const HEADER: &str = "      NAME  STATE   CPU(sec) CPU(%)     MEM(k) MEM(%)  MAXMEM(k) MAXMEM(%) VCPUS NETS NETTX(k) \
                      NETRX(k) VBDS   VBD_OO   VBD_RD   VBD_WR  VBD_RSECT  VBD_WSECT SSID\n";

fn row(name: &str, info: &DomainInfo, phys: &PhysInfo, cpu_permille: u64) -> String {
    let letter = |there, letter| if there { letter } else { '-' };
    let state: String = [
        letter(info.is(DomainInfo::DYING), 'd'),
        letter(info.is(DomainInfo::SHUTDOWN), 's'),
        letter(info.is(DomainInfo::BLOCKED), 'b'),
        letter(crashed(info), 'c'),
        letter(info.is(DomainInfo::PAUSED), 'p'),
        letter(info.is(DomainInfo::RUNNING), 'r'),
    ]
    .iter()
    .collect();
    let tenths = |permille: u64| format!("{}.{}", permille / 10, permille % 10);
    let share = |pages: u64| tenths(pages.saturating_mul(1000) / phys.total_pages.max(1));
    // dom0 has no limit unless it was given one.
    let limited = info.max_pages < phys.total_pages.max(1) * 2;
    let (max, max_share) = match limited {
        true => ((info.max_pages * 4).to_string(), share(info.max_pages)),
        false => ("no limit".to_string(), "n/a".to_string()),
    };

    format!(
        "{name:>10} {state} {:>10} {:>6} {:>10} {:>6} {max:>10} {max_share:>9} {:>5} {:>4} {:>8} {:>8} {:>4} {:>8} {:>8} {:>8} {:>10} \
         {:>10} {:>4}\n",
        info.cpu_time / 1_000_000_000,
        tenths(cpu_permille),
        info.tot_pages * 4,
        share(info.tot_pages),
        info.online_vcpus,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    )
}
