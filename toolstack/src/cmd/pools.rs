//! `cpupool-*`: pools of CPUs, each with a scheduler of its own. Their names are kept in xenstore, below `/local/pool`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use xen_abi::domctl::{
    XEN_SCHEDULER_ARINC653, XEN_SCHEDULER_CREDIT, XEN_SCHEDULER_CREDIT2, XEN_SCHEDULER_NULL, XEN_SCHEDULER_RTDS,
};
use xen_abi::errno::Errno;

use super::options::{JSON, Options, flag, value};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::calls::{PoolChange, PoolInfo};
use crate::config::Uuid;
use crate::config::syntax::{self, Value};
use crate::cpus::CpuSet;
use crate::host::Host;
use crate::json;

/// By their names in config files.
const SCHEDULERS: [(&str, u32); 5] = [
    ("credit", XEN_SCHEDULER_CREDIT),
    ("credit2", XEN_SCHEDULER_CREDIT2),
    ("arinc653", XEN_SCHEDULER_ARINC653),
    ("rtds", XEN_SCHEDULER_RTDS),
    ("null", XEN_SCHEDULER_NULL),
];

pub const LIST: Command = Command {
    name: "cpupool-list",
    usage: "[-c|--cpus] [<CPU Pool>]",
    about: "List CPU pools on host",
    flags: &[flag('c', "cpus", "Show which CPUs are in a pool"), JSON],
    needs: 0,
    run: list,
};

pub const CREATE: Command = Command {
    name: "cpupool-create",
    usage: "[options] [<ConfigFile>] [Variable=value ...]",
    about: "Create a new CPU pool",
    flags: &[
        value('f', "defconfig", "FILE", "Use this configuration file"),
        flag('n', "dryrun", "Print what it comes to, and create nothing"),
    ],
    needs: 0,
    run: create,
};

pub const DESTROY: Command = Command {
    name: "cpupool-destroy",
    usage: "<CPU Pool>",
    about: "Deactivates a CPU pool",
    flags: &[],
    needs: 1,
    run: destroy,
};

pub const RENAME: Command = Command {
    name: "cpupool-rename",
    usage: "<CPU Pool> <new name>",
    about: "Renames a CPU pool",
    flags: &[],
    needs: 2,
    run: rename,
};

pub const CPU_ADD: Command = Command {
    name: "cpupool-cpu-add",
    usage: "<CPU Pool> <CPU nr>|node:<node nr>",
    about: "Adds a CPU to a CPU pool",
    flags: &[],
    needs: 2,
    run: |host, options| cpus(host, options, true),
};

pub const CPU_REMOVE: Command = Command {
    name: "cpupool-cpu-remove",
    usage: "<CPU Pool> <CPU nr>|node:<node nr>",
    about: "Removes a CPU from a CPU pool",
    flags: &[],
    needs: 2,
    run: |host, options| cpus(host, options, false),
};

pub const MIGRATE: Command = Command {
    name: "cpupool-migrate",
    usage: "<Domain> <CPU Pool>",
    about: "Moves a domain into a CPU pool",
    flags: &[],
    needs: 2,
    run: migrate,
};

pub const NUMA_SPLIT: Command = Command {
    name: "cpupool-numa-split",
    usage: "",
    about: "Splits up the machine into one CPU pool per NUMA node",
    flags: &[],
    needs: 0,
    run: numa_split,
};

/// All pools, by number.
pub fn all(host: &mut dyn Host) -> Result<Vec<PoolInfo>, Errno> {
    let mut pools = Vec::new();
    let mut next = 0;
    loop {
        match host.pool_info(next) {
            Ok(pool) => {
                pools.push(pool);
                let Some(after) = pool.id.checked_add(1) else { return Ok(pools) };
                next = after;
            }
            Err(Errno::ENOENT) => return Ok(pools),
            Err(errno) => return Err(errno),
        }
    }
}

fn path(id: u32) -> String {
    format!("/local/pool/{id}")
}

/// A pool's name.
pub fn name(host: &mut dyn Host, id: u32) -> String {
    match host.store_read(&format!("{}/name", path(id))).ok().and_then(|name| String::from_utf8(name).ok()) {
        Some(name) => name,
        None if id == 0 => "Pool-0".into(),
        None => id.to_string(),
    }
}

/// The pool that `text` names, by name or by number.
pub fn resolve(host: &mut dyn Host, text: &str) -> Option<u32> {
    let pools = all(host).unwrap_or_default();
    let number = text.parse::<u32>().ok();
    let by_number = number.filter(|number| pools.iter().any(|pool| pool.id == *number));
    by_number.or_else(|| pools.iter().map(|pool| pool.id).find(|id| name(host, *id) == text))
}

fn pool_of(host: &mut dyn Host, options: &Options, index: usize) -> Result<u32, Status> {
    let text = options.arg(index).unwrap_or_default();
    resolve(host, text).ok_or_else(|| say(host, &format!("unknown cpupool '{text}'")))
}

fn say(host: &mut dyn Host, message: &str) -> Status {
    host.print_error(&format!("{message}\n"));
    FAILURE
}

pub fn scheduler_name(number: u32) -> &'static str {
    SCHEDULERS.iter().find(|(_, known)| *known == number).map_or("unknown", |(name, _)| name)
}

fn list(host: &mut dyn Host, options: &Options) -> Status {
    let only = match options.arg(0) {
        Some(text) => match resolve(host, text) {
            Some(id) => Some(id),
            None => return say(host, &format!("Pool '{text}' does not exist")),
        },
        None => None,
    };
    let Ok(pools) = all(host) else { return say(host, "error getting cpupool info") };
    if options.has('j') {
        let wanted = pools.iter().filter(|pool| only.is_none_or(|id| pool.id == id));
        let items: Vec<String> = wanted.map(|pool| object(host, pool)).collect();
        host.print(&json::list(&items));
        return SUCCESS;
    }
    let mut text = format!("{:<19}", "Name");
    text.push_str(if options.has('c') { "CPU list\n" } else { "CPUs   Sched     Active   Domain count\n" });
    for pool in pools.iter().filter(|pool| only.is_none_or(|id| pool.id == id)) {
        let name = name(host, pool.id);
        let members: Vec<u32> = (0..CpuSet::CAPACITY).filter(|cpu| pool.cpus.has(*cpu)).collect();
        text.push_str(&format!("{name:<19}"));
        if options.has('c') {
            let names: Vec<String> = members.iter().map(ToString::to_string).collect();
            text.push_str(&names.join(","));
        } else {
            let (count, scheduler) = (members.len(), scheduler_name(pool.scheduler));
            text.push_str(&format!("{count:>3} {scheduler:>9}       y       {:>4}", pool.domains));
        }
        text.push('\n');
    }
    host.print(&text);
    SUCCESS
}

/// A pool as JSON.
fn object(host: &mut dyn Host, pool: &PoolInfo) -> String {
    let cpus: Vec<String> =
        (0..CpuSet::CAPACITY).filter(|cpu| pool.cpus.has(*cpu)).map(|cpu| cpu.to_string()).collect();
    let fields = [
        ("poolid", pool.id.to_string()),
        ("pool_name", json::quote(&name(host, pool.id))),
        ("sched", json::quote(scheduler_name(pool.scheduler))),
        ("n_dom", pool.domains.to_string()),
        ("cpumap", json::line(&cpus)),
    ];
    json::object(4, &fields)
}

/// What a config file or arguments say of a new pool.
#[derive(Default)]
struct Wish {
    name: Option<String>,
    scheduler: Option<u32>,
    cpus: Option<CpuSet>,
}

fn wish(host: &mut dyn Host, options: &Options) -> Result<(Wish, String), String> {
    let (files, overrides): (Vec<&String>, Vec<&String>) =
        options.positional.iter().partition(|arg| !arg.contains('='));
    let file = options.get('f').or(files.first().map(|file| file.as_str()));
    let mut assignments = Vec::new();
    if let Some(file) = file {
        let text = host.file(file).map_err(|_| format!("Failed to read config file: {file}"))?.into_owned();
        let text = String::from_utf8_lossy(&text).into_owned();
        assignments = syntax::parse(file, &text).map_err(|error| error.to_string())?;
    }
    for argument in overrides {
        assignments.extend(syntax::parse_override(argument).map_err(|error| error.to_string())?);
    }
    let nr_cpus = host.phys_info().map_err(|errno| errno.name().to_string())?.max_cpu_id + 1;
    let mut wish = Wish::default();
    for assignment in assignments {
        match (assignment.key.value.as_str(), assignment.value.value) {
            ("name", Value::Text(text)) => wish.name = Some(text),
            ("sched", Value::Text(text)) => {
                let known = SCHEDULERS.iter().find(|(name, _)| *name == text);
                wish.scheduler = Some(known.ok_or("Unknown scheduler")?.1);
            }
            ("cpus", Value::Text(text)) => wish.cpus = Some(CpuSet::parse(&text, nr_cpus)?),
            ("cpus", Value::Number(number)) => wish.cpus = Some(CpuSet::parse(&number.to_string(), nr_cpus)?),
            ("cpus", Value::List(list)) => {
                let texts: Vec<String> = list
                    .into_iter()
                    .map(|item| match item.value {
                        Value::Text(text) => text,
                        Value::Number(number) => number.to_string(),
                        Value::List(_) => String::new(),
                    })
                    .collect();
                wish.cpus = Some(CpuSet::parse(&texts.join(","), nr_cpus)?);
            }
            ("nodes", _) => wish.cpus = Some(CpuSet::ALL),
            (key, _) => return Err(format!("cannot make sense of \"{key}\" for a pool")),
        }
    }
    let shown = file.unwrap_or("command line").to_string();
    if wish.name.is_none() {
        wish.name = file.map(|file| file.rsplit('/').next().unwrap_or(file).to_string());
    }
    Ok((wish, shown))
}

fn create(host: &mut dyn Host, options: &Options) -> Status {
    match try_create(host, options) {
        Ok(()) => SUCCESS,
        Err(message) => say(host, &message),
    }
}

fn try_create(host: &mut dyn Host, options: &Options) -> Result<(), String> {
    let (wish, file) = wish(host, options)?;
    let name = wish.name.ok_or("Missing cpupool name!")?;
    if resolve(host, &name).is_some() {
        return Err(format!("Pool name \"{name}\" already exists"));
    }
    let scheduler = match wish.scheduler {
        Some(scheduler) => scheduler,
        None => host.scheduler().map_err(|_| "Failed to get scheduler")?,
    };
    let free = host.free_cpus().map_err(|_| "libxl_get_freecpus failed")?;
    let everywhere = wish.cpus == Some(CpuSet::ALL);
    let cpus: Vec<u32> = match wish.cpus {
        Some(cpus) => (0..CpuSet::CAPACITY).filter(|cpu| cpus.has(*cpu) && (free.has(*cpu) || !everywhere)).collect(),
        None => (0..CpuSet::CAPACITY).filter(|cpu| free.has(*cpu)).take(1).collect(),
    };
    if let Some(cpu) = cpus.iter().find(|cpu| !free.has(**cpu)) {
        return Err(format!("cpu {cpu} illegal or not free"));
    }
    if cpus.is_empty() {
        return Err("no free cpu found".into());
    }
    host.print(&format!(
        "Using config file \"{file}\"\ncpupool name:   {name}\nscheduler:      {}\nnumber of cpus: {}\n",
        scheduler_name(scheduler),
        cpus.len()
    ));
    if options.has('n') {
        return Ok(());
    }
    let uuid = Uuid::from_random(host.random());
    let id = host.change_pool(PoolChange::Create(scheduler)).map_err(|_| "error on creating cpupool")?;
    let named = host
        .store_write(&format!("{}/uuid", path(id)), uuid.to_string().as_bytes())
        .and_then(|()| host.store_write(&format!("{}/name", path(id)), name.as_bytes()));
    let done =
        named.and_then(|()| cpus.iter().try_for_each(|cpu| host.change_pool(PoolChange::Add(id, *cpu)).map(drop)));
    if done.is_err() {
        // Nothing of it stays.
        for cpu in cpus {
            let _ = host.change_pool(PoolChange::Remove(id, cpu));
        }
        let _ = host.change_pool(PoolChange::Destroy(id));
        let _ = host.store_rm(&path(id));
        return Err("error on creating cpupool".into());
    }
    Ok(())
}

fn destroy(host: &mut dyn Host, options: &Options) -> Status {
    let id = match pool_of(host, options, 0) {
        Ok(id) => id,
        Err(status) => return status,
    };
    let text = options.arg(0).unwrap_or_default();
    let failed = format!("Can't destroy cpupool '{text}'");
    let info = host.pool_info(id).ok().filter(|info| info.id == id && info.domains == 0 && id != 0);
    let Some(info) = info else { return say(host, &failed) };
    for cpu in (0..CpuSet::CAPACITY).filter(|cpu| info.cpus.has(*cpu)) {
        if host.change_pool(PoolChange::Remove(id, cpu)).is_err() {
            return say(host, &failed);
        }
    }
    if host.change_pool(PoolChange::Destroy(id)).is_err() {
        return say(host, &failed);
    }
    let _ = host.store_rm(&path(id));
    SUCCESS
}

fn rename(host: &mut dyn Host, options: &Options) -> Status {
    let id = match pool_of(host, options, 0) {
        Ok(id) => id,
        Err(status) => return status,
    };
    let (old, new) = (options.arg(0).unwrap_or_default(), options.arg(1).unwrap_or_default());
    let taken = resolve(host, new).is_some();
    if taken || host.store_write(&format!("{}/name", path(id)), new.as_bytes()).is_err() {
        return say(host, &format!("Can't rename cpupool '{old}'"));
    }
    SUCCESS
}

fn cpus(host: &mut dyn Host, options: &Options, add: bool) -> Status {
    let id = match pool_of(host, options, 0) {
        Ok(id) => id,
        Err(status) => return status,
    };
    let text = options.arg(1).unwrap_or_default();
    let (Ok(phys), Ok(free)) = (host.phys_info(), host.free_cpus()) else {
        return say(host, "cannot ask for the CPUs");
    };
    let wanted = match text.strip_prefix("node:") {
        // There is one node, with all CPUs.
        Some("0") => Ok(CpuSet::ALL),
        Some(node) => Err(format!("there is no node {node}")),
        None => CpuSet::parse(text, phys.max_cpu_id + 1),
    };
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(message) => return say(host, &message),
    };
    let own = host.pool_info(id).map(|info| info.cpus).unwrap_or_default();
    let every = text.starts_with("node:") || text == "all";
    let mut failed = false;
    for cpu in (0..=phys.max_cpu_id).filter(|cpu| wanted.has(*cpu)) {
        if every && !(if add { free } else { own }).has(cpu) {
            continue;
        }
        let change = if add { PoolChange::Add(id, cpu) } else { PoolChange::Remove(id, cpu) };
        failed |= host.change_pool(change).is_err();
    }
    if failed {
        let name = options.arg(0).unwrap_or_default();
        let what = if add { format!("added to {name}") } else { format!("removed from '{name}'") };
        return say(host, &format!("some cpus may have not or only partially been {what}"));
    }
    SUCCESS
}

fn migrate(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    let id = match pool_of(host, options, 1) {
        Ok(id) => id,
        Err(status) => return status,
    };
    match host.change_pool(PoolChange::Move(id, dom)) {
        Ok(_) => SUCCESS,
        Err(errno) => target::failed(host, "moving to a pool of CPUs", dom, errno),
    }
}

/// With one node all that is left to do is to name the pool after it.
fn numa_split(host: &mut dyn Host, _: &Options) -> Status {
    let (Ok(pools), Ok(phys)) = (all(host), host.phys_info()) else { return say(host, "error getting cpupool info") };
    if pools.len() > 1 {
        return say(host, "splitting not possible, already cpupools in use");
    }
    if phys.nr_nodes > 1 {
        return say(host, "splitting into several nodes is not supported");
    }
    match host.store_write(&format!("{}/name", path(0)), b"Pool-node0") {
        Ok(()) => SUCCESS,
        Err(_) => say(host, "error on renaming Pool 0"),
    }
}
