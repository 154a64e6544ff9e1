//! What happens when a domain ends by itself: the decisions are [`Domains::decide`](crate::domains::Domains::decide)'s,
//! this carries them out.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use crate::build::BuildError;
use crate::cmd::{self, CreateError};
use crate::config::Action;
use crate::domains::{Decision, Record};
use crate::host::Host;

/// Where the cores of crashed domains are saved, under the domains' names.
const DUMPS: &str = "/dump";

/// To be called whenever `VIRQ_DOM_EXC` came. Returns lines for the log.
pub fn react(host: &mut dyn Host) -> Vec<String> {
    let mut log = Vec::new();
    let Ok(now) = cmd::all_domains(host) else {
        return log;
    };
    for decision in host.domains().decide(&now) {
        let (Decision::Forget(before) | Decision::Act { record: before, .. }) = &decision;
        // Other commands run while a domain is made again: the next one may be gone or changed by then.
        let Some(record) = host.domains().get(before.dom).filter(|record| record.uuid == before.uuid).cloned() else {
            continue;
        };
        match decision {
            Decision::Forget(_) => {
                host.domains().forget(record.dom);
            }
            Decision::Act { reason, action, .. } => {
                host.domains().note_end(record.dom, reason);
                log.push(format!(
                    "Domain {} ({}) has shut down, reason code {reason}: {}",
                    record.dom,
                    record.config.name,
                    action.name()
                ));
                act(host, &record, action, &mut log);
            }
        }
    }
    log
}

fn act(host: &mut dyn Host, record: &Record, action: Action, log: &mut Vec<String>) {
    match action {
        Action::Preserve => host.domains().settle(record.dom),
        Action::Destroy => destroy(host, record.dom, log),
        Action::Restart => {
            destroy(host, record.dom, log);
            restart(host, record, log);
        }
        Action::RenameRestart => rename_and_restart(host, record, log),
        Action::CoredumpDestroy if dump(host, record, log) => destroy(host, record.dom, log),
        Action::CoredumpRestart if dump(host, record, log) => {
            destroy(host, record.dom, log);
            restart(host, record, log);
        }
        // What happened to it is not to be lost.
        Action::CoredumpDestroy => host.domains().settle(record.dom),
        Action::CoredumpRestart => rename_and_restart(host, record, log),
        Action::SoftReset => {
            log.push(format!("Domain {}: soft reset is not supported yet", record.dom));
            destroy(host, record.dom, log);
        }
    }
}

fn destroy(host: &mut dyn Host, dom: DomId, log: &mut Vec<String>) {
    if let Err(errno) = cmd::destroy_domain(host, dom) {
        log.push(format!("Domain {dom} cannot be destroyed: {}", errno.name()));
        host.domains().settle(dom);
    }
}

fn rename_and_restart(host: &mut dyn Host, record: &Record, log: &mut Vec<String>) {
    host.domains().settle(record.dom);
    let name = format!("{}-{}", record.config.name, record.dom);
    match cmd::rename_domain(host, record.dom, &name) {
        Ok(()) => restart(host, record, log),
        Err(errno) => log.push(format!("Domain {} cannot be renamed: {}", record.dom, errno.name())),
    }
}

/// Saves the domain's memory and registers. False: they are still to be found in the domain alone.
fn dump(host: &mut dyn Host, record: &Record, log: &mut Vec<String>) -> bool {
    let path = format!("{DUMPS}/{}", record.config.name);
    match cmd::dump_domain(host, record.dom, &path) {
        Ok(pages) => {
            log.push(format!("Domain {}: {pages} pages dumped to {path}", record.dom));
            true
        }
        Err(errno) => {
            let why = if errno == Errno::ENOSPC { "there is no room for it here" } else { errno.name() };
            log.push(format!(
                "Domain {}: its core cannot be dumped ({why}); it stays, and \"xrs dump-core {} FILE\" dumps it",
                record.dom, record.dom
            ));
            false
        }
    }
}

/// Makes the domain again. It keeps its UUID, unless the old one stays beside.
fn restart(host: &mut dyn Host, record: &Record, log: &mut Vec<String>) {
    let mut config = record.config.clone();
    if host.domains().get(record.dom).is_none() {
        config.uuid = Some(record.uuid);
    } else {
        config.uuid = None;
    }
    let mut made = cmd::create_domain(host, &config);
    if let Err(CreateError::Build(BuildError::NoMemory { .. })) = made
        && config.target_kib < config.memory_kib
    {
        // What it gave back has gone to others.
        config.memory_kib = config.target_kib;
        made = cmd::create_domain(host, &config);
    }
    let made = made.map_err(|error| format!("{error}")).and_then(|dom| match host.unpause_domain(dom) {
        Ok(()) => Ok(dom),
        Err(errno) => {
            let _ = cmd::destroy_domain(host, dom);
            Err(String::from(errno.name()))
        }
    });
    match made {
        Ok(dom) => log.push(format!("Domain {} ({}) restarted as {dom}", record.dom, record.config.name)),
        Err(error) => log.push(format!("Domain {} cannot be restarted: {error}", record.config.name)),
    }
}
