//! `vcpu-set`: how many vCPUs a domain's kernel is to have up: a word for each in xenstore, which it watches.

use alloc::format;

use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use super::options::{Options, flag};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::host::Host;
use crate::store::domain_path;

pub const COMMAND: Command = Command {
    name: "vcpu-set",
    usage: "[option] <Domain> <vCPUs>",
    about: "Set the number of active VCPUs allowed for the domain",
    flags: &[flag('i', "ignore-host", "Allow more vCPUs than there are CPUs")],
    needs: 2,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    let Some(wanted) = options.arg(1).and_then(|text| text.parse::<u32>().ok()) else {
        host.print_error("Error: Invalid argument.\n");
        return FAILURE;
    };
    let info = match host.domain_info(dom) {
        Ok(info) => info,
        Err(errno) => return target::failed(host, "setting the vCPUs of", dom, errno),
    };
    if !options.has('i')
        && wanted > info.online_vcpus
        && let Ok(phys) = host.phys_info()
        && wanted > phys.nr_cpus
    {
        host.print_error(&format!(
            "You are overcommmitting! You have {} physical CPUs and want {wanted} vCPUs! Aborting, use --ignore-host to \
             continue\n",
            phys.nr_cpus
        ));
        return FAILURE;
    }
    let most = info.max_vcpu_id + 1;
    if wanted > most && !options.has('i') {
        host.print_error("Error: Cannot set vcpus greater than max vcpus on running domain or lesser than 1.\n");
        return FAILURE;
    }
    if wanted == 0 || wanted > most {
        // The number is libxl's ERROR_FAIL.
        host.print_error(&format!(
            "domain {dom}: {wanted} vCPUs are wanted, of {most}\n\
             libxl_set_vcpuonline failed domid={dom} max_vcpus={wanted}, rc: -3\n"
        ));
        return FAILURE;
    }
    match set(host, dom, wanted, info.max_vcpu_id) {
        Ok(()) => SUCCESS,
        Err(errno) => target::failed(host, "setting the vCPUs of", dom, errno),
    }
}

fn set(host: &mut dyn Host, dom: DomId, wanted: u32, max_vcpu_id: u32) -> Result<(), Errno> {
    for vcpu in 0..=max_vcpu_id {
        let word: &[u8] = if vcpu < wanted { b"online" } else { b"offline" };
        host.store_write(&format!("{}/cpu/{vcpu}/availability", domain_path(dom)), word)?;
    }
    // It is to come back so when it restarts.
    host.domains().reconfigure(dom, |config| config.vcpus = wanted);
    Ok(())
}
