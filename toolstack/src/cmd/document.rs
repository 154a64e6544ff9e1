//! A domain's configuration as JSON, with libxl's names: `list -l`, `create -n`.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::calls::{DomainInfo, Share};
use crate::config::{Action, DomainConfig, DomainType, Uuid};
use crate::json::{self, object, quote};

/// The document, so far to the right. Of a domain that was not made here only its name and UUID are known.
pub fn config(indent: usize, name: &str, uuid: &Uuid, config: Option<&DomainConfig>) -> String {
    let kind = config.map_or(DomainType::Pv, |config| config.kind);
    let created = [("type", quote(kind.name())), ("name", quote(name)), ("uuid", quote(&uuid.to_string()))];
    let mut fields = vec![("c_info", inner(indent, &created))];
    if let Some(config) = config {
        fields.push(("b_info", inner(indent, &built(indent, config))));
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
    }
    object(indent, &fields)
}

/// The document of a domain that was not made here, by what the hypervisor says of it, and its scheduler's name and what that
/// gives to it.
pub fn found(indent: usize, name: &str, info: &DomainInfo, share: Option<(&str, Share)>) -> String {
    const KIB_PER_PAGE: u64 = 4;
    let kind = if info.is(DomainInfo::HVM) { DomainType::Pvh } else { DomainType::Pv };
    let created = [("type", quote(kind.name())), ("name", quote(name)), ("uuid", quote(&info.uuid.to_string()))];
    let shares = share.map_or(Vec::new(), |(scheduler, Share { weight, cap })| {
        vec![("sched", quote(scheduler)), ("weight", weight.to_string()), ("cap", cap.to_string())]
    });
    let built = [
        ("max_memkb", info.max_pages.saturating_mul(KIB_PER_PAGE).to_string()),
        ("target_memkb", info.tot_pages.saturating_mul(KIB_PER_PAGE).to_string()),
        ("sched_params", inner(indent + 4, &shares)),
    ];
    object(indent, &[("c_info", inner(indent, &created)), ("b_info", inner(indent, &built))])
}

fn built(indent: usize, config: &DomainConfig) -> Vec<(&'static str, String)> {
    let vcpus: Vec<String> = (0..config.vcpus).map(|vcpu| vcpu.to_string()).collect();
    let mut shares = Vec::new();
    shares.extend(config.cpu_weight.map(|weight| ("weight", weight.to_string())));
    shares.extend(config.cap.map(|cap| ("cap", cap.to_string())));
    let mut fields = vec![
        ("max_vcpus", config.max_vcpus.to_string()),
        ("avail_vcpus", json::line(&vcpus)),
        ("max_memkb", config.max_memory_kib.to_string()),
        ("target_memkb", config.memory_kib.to_string()),
        ("sched_params", inner(indent + 4, &shares)),
        ("kernel", quote(&config.kernel)),
        ("cmdline", quote(&config.cmdline)),
    ];
    fields.extend(config.ramdisk.as_ref().map(|ramdisk| ("ramdisk", quote(ramdisk))));
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
