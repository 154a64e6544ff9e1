//! A domain's configuration as JSON, with libxl's names: `list -l`, `create -n`.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::calls::{DomainInfo, Share};
use crate::config::{Action, DomainConfig, DomainType, Uuid};
use crate::json::{self, object, quote};

/// What libxl shows for the number that a domain is to have when none was asked for.
const ANY_NUMBER: u32 = u32::MAX;

/// What a domain's scheduler gives to it, by the scheduler's name.
pub type Shared = (&'static str, Share);

/// The document, so far to the right, with what the domain's scheduler gives to it, where it has one already.
pub fn config(indent: usize, name: &str, uuid: &Uuid, config: &DomainConfig, shared: Option<Shared>) -> String {
    let mut created = creation(name, uuid, config.kind);
    created.insert(2, ("domid", ANY_NUMBER.to_string()));
    created.push(("run_hotplug_scripts", no()));
    let built = built(indent, config, shared);
    let mut fields = vec![("c_info", inner(indent, &created)), ("b_info", inner(indent, &built))];
    if !config.disks.is_empty() {
        let disks: Vec<String> = config.disks.iter().map(|disk| quote(&disk.to_string())).collect();
        fields.push(("disks", json::line(&disks)));
    }
    for (when, action) in [
        ("on_poweroff", config.on_poweroff),
        ("on_reboot", config.on_reboot),
        ("on_watchdog", config.on_watchdog),
        ("on_crash", config.on_crash),
        ("on_soft_reset", config.on_soft_reset),
    ] {
        fields.push((when, word(action)));
    }
    object(indent, &fields)
}

fn creation(name: &str, uuid: &Uuid, kind: DomainType) -> Vec<(&'static str, String)> {
    vec![("type", quote(kind.name())), ("name", quote(name)), ("uuid", quote(&uuid.to_string()))]
}

/// libxl's truth values are words.
fn no() -> String {
    quote("False")
}

/// The document of a domain that was not made here, by what the hypervisor says of it, and its scheduler's name and what that
/// gives to it.
pub fn found(indent: usize, name: &str, info: &DomainInfo, shared: Option<Shared>) -> String {
    const KIB_PER_PAGE: u64 = 4;
    let kind = if info.is(DomainInfo::HVM) { DomainType::Pvh } else { DomainType::Pv };
    let created = creation(name, &info.uuid, kind);
    let shares = shares(shared);
    let built = [
        ("max_memkb", info.max_pages.saturating_mul(KIB_PER_PAGE).to_string()),
        ("target_memkb", info.tot_pages.saturating_mul(KIB_PER_PAGE).to_string()),
        ("sched_params", inner(indent + 4, &shares)),
    ];
    object(indent, &[("c_info", inner(indent, &created)), ("b_info", inner(indent, &built))])
}

fn shares(shared: Option<Shared>) -> Vec<(&'static str, String)> {
    shared.map_or(Vec::new(), |(scheduler, Share { weight, cap })| {
        vec![("sched", quote(scheduler)), ("weight", weight.to_string()), ("cap", cap.to_string())]
    })
}

fn built(indent: usize, config: &DomainConfig, shared: Option<Shared>) -> Vec<(&'static str, String)> {
    let vcpus: Vec<String> = (0..config.vcpus).map(|vcpu| vcpu.to_string()).collect();
    let mut shares = shares(shared);
    if shares.is_empty() {
        shares.extend(config.cpu_weight.map(|weight| ("weight", weight.to_string())));
        shares.extend(config.cap.map(|cap| ("cap", cap.to_string())));
    }
    let mut fields = vec![
        ("max_vcpus", config.max_vcpus.to_string()),
        ("avail_vcpus", json::line(&vcpus)),
        ("max_memkb", config.max_memory_kib.to_string()),
        ("target_memkb", config.target_kib.to_string()),
        ("video_memkb", "0".to_string()),
        ("sched_params", inner(indent + 4, &shares)),
        ("claim_mode", no()),
        ("kernel", quote(&config.kernel)),
        ("cmdline", quote(&config.cmdline)),
    ];
    fields.extend(config.ramdisk.as_ref().map(|ramdisk| ("ramdisk", quote(ramdisk))));
    // libxl has here what only domains of one kind have: nothing of it is served.
    let kind = if config.kind == DomainType::Pv { "type.pv" } else { "type.pvh" };
    fields.push((kind, "{}".to_string()));
    fields.push(("arch_x86", inner(indent + 4, &[("msr_relaxed", no())])));
    fields
}

/// An object behind its key.
fn inner(indent: usize, fields: &[(&str, String)]) -> String {
    object(indent + 4, fields).trim_start().to_string()
}

/// libxl's enumerations have underscores.
fn word(action: Action) -> String {
    quote(&action.name().replace('-', "_"))
}
