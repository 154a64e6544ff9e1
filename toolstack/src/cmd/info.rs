//! `info`: the machine and its hypervisor.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use xen_abi::errno::Errno;
use xen_abi::physdev::PciDevice;
use xen_abi::sysctl::XEN_INVALID_DEV;

use super::options::{JSON, Options, flag};
use super::{Command, FAILURE, SUCCESS, Status};
use crate::host::Host;
use crate::json;

pub const COMMAND: Command = Command {
    name: "info",
    usage: "[-n] [key]",
    about: "Get information about Xen host",
    flags: &[flag('n', "numa", "Show the places of CPUs, devices and memory"), JSON],
    needs: 0,
    run,
};

/// `XEN_SCHEDULER_*`.
const SCHEDULERS: &[(u32, &str)] =
    &[(4, "sedf"), (5, "credit"), (6, "credit2"), (7, "arinc653"), (8, "rtds"), (9, "null")];

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let numa = if options.has('n') && !options.has('j') { numa(host) } else { Ok(String::new()) };
    let lines = match numa.and_then(|numa| lines(host, &numa)) {
        Ok(lines) => lines,
        Err(errno) => {
            host.print_error(&format!("cannot ask about the machine: {}\n", errno.name()));
            return FAILURE;
        }
    };
    // As in xl, a key is what its name begins with, and only values are printed then.
    let text = match options.arg(0) {
        None if options.has('j') => {
            let fields: Vec<_> = lines.lines().filter_map(|line| line.split_once(": ")).collect();
            let fields: Vec<_> = fields.iter().map(|(key, value)| (key.trim_end(), json::quote(value))).collect();
            json::object(0, &fields) + "\n"
        }
        None => lines,
        Some(key) => lines
            .lines()
            // Those of the tables are not among xl's keys.
            .filter(|line| line.starts_with(key) && line.get(23..25) == Some(": "))
            .filter_map(|line| line.split_once(": "))
            .map(|(_, value)| format!("{value}\n"))
            .collect(),
    };
    host.print(&text);
    SUCCESS
}

/// The tables of option `-n`: CPUs, devices and nodes.
fn numa(host: &mut dyn Host) -> Result<String, Errno> {
    let mut text = format!("{:<23}:\ncpu:    core    socket     node\n", "cpu_topology");
    // A CPU of which the hypervisor does not know the core is left out, as xl does.
    let places = host.cpu_topology()?;
    for (cpu, place) in places.iter().enumerate().filter(|(_, place)| place.core != u32::MAX) {
        text.push_str(&format!("{cpu:>3}:    {:>4}     {:>4}     {:>4}\n", place.core, place.socket, place.node));
    }
    text.push_str(&format!("{:<23}:\ndevice           node\n", "device topology"));
    // So are devices.
    let devices = host.device_nodes()?;
    let mut placed = devices.iter().filter(|(_, node)| *node < XEN_INVALID_DEV).peekable();
    if placed.peek().is_none() {
        text.push_str("No device topology data available\n");
    }
    for (PciDevice { seg, bus, devfn }, node) in placed {
        text.push_str(&format!("{seg:04x}:{bus:02x}:{:02x}.{:01x}      {node}\n", devfn >> 3, devfn & 7));
    }
    text.push_str(&format!("{:<23}:\nnode:    memsize    memfree    distances\n", "numa_info"));
    for (node, (memory, distances)) in host.numa()?.iter().enumerate() {
        let distances: Vec<String> = distances.iter().map(u32::to_string).collect();
        let (size, free) = (memory.memsize >> 20, memory.memfree >> 20);
        text.push_str(&format!("{node:>4}:    {size:>6}     {free:>6}      {}\n", distances.join(",")));
    }
    Ok(text)
}

/// All lines; the tables come between what is said of the machine and of the hypervisor.
fn lines(host: &mut dyn Host, tables: &str) -> Result<String, Errno> {
    let uname = host.uname();
    let phys = host.phys_info()?;
    let version = host.version()?;
    let scheduler = host.scheduler()?;
    let free_cpus = host.free_cpus()?.len();
    let mut text = String::new();
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key:<23}: {value}\n"));

    line("host", &uname.host);
    line("release", &uname.release);
    line("version", &uname.version);
    line("machine", &uname.machine);

    line("nr_cpus", &phys.nr_cpus.to_string());
    line("max_cpu_id", &phys.max_cpu_id.to_string());
    line("nr_nodes", &phys.nr_nodes.to_string());
    line("cores_per_socket", &phys.cores_per_socket.to_string());
    line("threads_per_core", &phys.threads_per_core.to_string());
    line("cpu_mhz", &format!("{}.{:03}", phys.cpu_khz / 1000, phys.cpu_khz % 1000));
    let caps: Vec<_> = phys.hw_cap.iter().map(|word| format!("{word:08x}")).collect();
    line("hw_caps", &caps.join(":"));
    line("virt_caps", virt_caps(phys.capabilities).trim_start());
    let mib = |pages: u64| (pages / 256).to_string();
    line("total_memory", &mib(phys.total_pages));
    line("free_memory", &mib(phys.free_pages.saturating_sub(phys.outstanding_pages)));
    line("sharing_freed_memory", "0");
    line("sharing_used_memory", "0");
    line("outstanding_claims", &mib(phys.outstanding_pages));
    line("free_cpus", &free_cpus.to_string());

    text.push_str(tables);
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key:<23}: {value}\n"));
    line("xen_major", &version.major.to_string());
    line("xen_minor", &version.minor.to_string());
    line("xen_extra", &version.extra);
    line("xen_version", &format!("{}.{}{}", version.major, version.minor, version.extra));
    line("xen_caps", &version.capabilities);
    let name = SCHEDULERS.iter().find(|(id, _)| *id == scheduler).map_or("unknown", |(_, name)| name);
    line("xen_scheduler", name);
    line("xen_pagesize", &version.page_size.to_string());
    line("platform_params", &format!("virt_start={:#x}", version.virt_start));
    line("xen_changeset", &version.changeset);
    line("xen_commandline", &version.commandline);
    line("cc_compiler", &version.compiler);
    line("cc_compile_by", &version.compile_by);
    line("cc_compile_domain", &version.compile_domain);
    line("cc_compile_date", &version.compile_date);
    line("build_id", &version.build_id);
    line("xend_config_format", "4");
    Ok(text)
}

/// `XEN_SYSCTL_PHYSCAP_*` as words.
fn virt_caps(bits: u32) -> String {
    let has = |bit: u32| bits & (1 << bit) != 0;
    let (hvm, pv, directio) = (has(0), has(1), has(2));
    let words = [
        (pv, " pv"),
        (hvm, " hvm"),
        (hvm && directio, " hvm_directio"),
        (pv && directio, " pv_directio"),
        (has(3), " hap"),
        (has(4), " shadow"),
        (has(5), " iommu_hap_pt_share"),
        (has(6), " vmtrace"),
        (has(7), " vpmu"),
        (has(8), " gnttab-v1"),
        (has(9), " gnttab-v2"),
    ];
    words.iter().filter(|(there, _)| *there).map(|(_, word)| *word).collect()
}
