//! `vcpu-list`: the vCPUs of domains, what they do and where they may run.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use xen_abi::errno::Errno;
use xen_abi::ids::VcpuId;

use super::list::tenths;
use super::options::{JSON, Options};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::calls::DomainInfo;
use crate::host::Host;
use crate::json;
use crate::store;

pub const COMMAND: Command = Command {
    name: "vcpu-list",
    usage: "[Domain, ...]",
    about: "List the VCPUs for all/some domains",
    flags: &[JSON],
    needs: 0,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let mut status = SUCCESS;
    let domains = if options.positional.is_empty() {
        target::all(host)
    } else {
        let mut some = Vec::new();
        for text in &options.positional {
            match target::resolve(host, text).map(|dom| (dom, host.domain_info(dom))) {
                Ok((_, Ok(info))) => some.push(info),
                Ok((dom, Err(errno))) => status = target::failed(host, "listing the vCPUs of", dom, errno),
                Err(failed) => status = failed,
            }
        }
        Ok(some)
    };
    let nr_cpus = host.phys_info().map(|info| info.nr_cpus);
    let (domains, nr_cpus) = match (domains, nr_cpus) {
        (Ok(domains), Ok(nr_cpus)) => (domains, nr_cpus),
        (Err(errno), _) | (_, Err(errno)) => {
            host.print_error(&format!("cannot list the domains: {}\n", errno.name()));
            return FAILURE;
        }
    };
    let mut rows = if options.has('j') {
        Vec::new()
    } else {
        vec![format!(
            "{:<32} {:>5} {:>5} {:>5} {:>5} {:>9} Affinity (Hard / Soft)\n",
            "Name", "ID", "VCPU", "CPU", "State", "Time(s)"
        )]
    };
    for info in domains {
        // It may have ended meanwhile.
        if let Ok(more) = domain(host, &info, nr_cpus, options.has('j')) {
            rows.extend(more);
        }
    }
    let text = if options.has('j') { json::list(&rows) } else { rows.concat() };
    host.print(&text);
    status
}

/// A line for each vCPU, as text or as JSON.
fn domain(host: &mut dyn Host, info: &DomainInfo, nr_cpus: u32, as_json: bool) -> Result<Vec<String>, Errno> {
    let name = store::name_of(host, info.id).unwrap_or_else(|| "(null)".to_string());
    let mut rows = Vec::new();
    for vcpu in (0..=info.max_vcpu_id).map(VcpuId) {
        let now = host.vcpu_info(info.id, vcpu)?;
        let (hard, soft) = host.vcpu_affinity(info.id, vcpu)?;
        let letter = |there, letter| if there { letter } else { '-' };
        let state = format!("{}{}", letter(now.running, 'r'), letter(now.blocked, 'b'));
        rows.push(if as_json {
            let fields = [
                ("name", json::quote(&name)),
                ("domid", info.id.to_string()),
                ("vcpuid", vcpu.0.to_string()),
                ("cpu", if now.online { now.cpu.to_string() } else { "null".to_string() }),
                ("online", now.online.to_string()),
                ("blocked", now.blocked.to_string()),
                ("running", now.running.to_string()),
                ("vcpu_time", now.cpu_time.to_string()),
                ("cpumap", json::quote(&hard.of(nr_cpus).to_string())),
                ("cpumap_soft", json::quote(&soft.of(nr_cpus).to_string())),
            ];
            json::object(4, &fields)
        } else {
            let place = match now.online {
                true => format!("{:>5} {state:>4}- ", now.cpu),
                false => format!("{:>5} {:>4}p ", '-', "--"),
            };
            format!(
                "{name:<32} {:>5} {:>5}{place}{:>9}  {} / {}\n",
                info.id.0,
                vcpu.0,
                tenths(now.cpu_time),
                hard.of(nr_cpus),
                soft.of(nr_cpus)
            )
        });
    }
    Ok(rows)
}
