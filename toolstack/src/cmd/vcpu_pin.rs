//! `vcpu-pin`: on which CPUs vCPUs must run, and on which they had better.

use alloc::format;
use alloc::string::String;

use xen_abi::ids::{DomId, VcpuId};

use super::options::{Options, flag, long_only};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::calls::{Affinity, Pinned};
use crate::cpus::CpuSet;
use crate::host::Host;

pub const COMMAND: Command = Command {
    name: "vcpu-pin",
    usage: "[option] <Domain> <VCPU|all> <Hard affinity|-|all> <Soft affinity|-|all>",
    about: "Set which CPUs a VCPU can use",
    flags: &[
        flag('f', "force", "Lift a pin that the domain's kernel asked for"),
        flag('n', "dryrun", "Print what it comes to, and change nothing"),
        flag(long_only(0), "ignore-global-affinity-masks", "Accepted: there are none"),
    ],
    needs: 3,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    let vcpu = options.arg(1).unwrap_or_default();
    let only = match vcpu.parse::<u32>() {
        Ok(number) => Some(VcpuId(number)),
        Err(_) if vcpu == "all" => None,
        Err(_) => {
            host.print_error(&format!("Error: Invalid argument {vcpu} as VCPU.\n"));
            return FAILURE;
        }
    };
    let pinned = if options.has('f') { Pinned::Lifted } else { Pinned::Kept };
    if only.is_none() && pinned == Pinned::Lifted {
        host.print_error("Error: --force and 'all' as VCPU not allowed.\n");
        return FAILURE;
    }
    let info = match host.domain_info(dom).and_then(|info| Ok((info, host.phys_info()?))) {
        Ok(info) => info,
        Err(_) => {
            host.print_error("Could not get domain info\n");
            return FAILURE;
        }
    };
    let (info, phys) = info;
    let set = |index| -> Result<Option<CpuSet>, String> {
        match options.arg(index) {
            None | Some("-") => Ok(None),
            Some(text) => CpuSet::parse(text, phys.max_cpu_id + 1).map(Some),
        }
    };
    let affinity = match (set(2), set(3)) {
        (Ok(hard), Ok(soft)) => Affinity { hard, soft, pinned },
        (Err(message), _) | (_, Err(message)) => {
            host.print_error(&format!("{message}\n"));
            return FAILURE;
        }
    };
    if affinity.hard.is_none() && affinity.soft.is_none() {
        return SUCCESS;
    }
    if options.has('n') {
        let cpus = phys.max_cpu_id + 1;
        let shown = |set: Option<CpuSet>| set.map_or_else(|| "-".into(), |set| format!("{}", set.of(cpus)));
        host.print(&format!("cpumap: {} {}\n", shown(affinity.hard), shown(affinity.soft)));
        return SUCCESS;
    }
    if let (Some(hard), Some(soft)) = (affinity.hard, affinity.soft)
        && !(0..=phys.max_cpu_id).any(|cpu| hard.has(cpu) && soft.has(cpu))
    {
        host.print_error(&format!("domain {dom}: it may run on none of the CPUs on which it had better run\n"));
    }
    match only {
        Some(vcpu) => pin(host, dom, vcpu, &affinity),
        None => {
            let mut status = SUCCESS;
            for vcpu in (0..=info.max_vcpu_id).map(VcpuId) {
                status = status.max(pin(host, dom, vcpu, &affinity));
            }
            status
        }
    }
}

fn pin(host: &mut dyn Host, dom: DomId, vcpu: VcpuId, affinity: &Affinity) -> Status {
    match host.set_vcpu_affinity(dom, vcpu, affinity) {
        Ok(()) => SUCCESS,
        Err(errno) => {
            let (number, why) = (vcpu.0, errno.name());
            host.print_error(&format!("domain {dom}: {why}\nCould not set affinity for vcpu `{number}'.\n"));
            FAILURE
        }
    }
}
