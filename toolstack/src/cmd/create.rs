//! `create`: a domain from a configuration file.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use domain_image::{ImageError, Kernel, pvh};
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use super::options::{Options, flag, long_only, value};
use super::{Command, FAILURE, SUCCESS, Status, console, destroy, document, pools, target};
use crate::build::{self, BuildError};
use crate::config::{DomainConfig, DomainType, Uuid};
use crate::device::disk::{self, DiskError};
use crate::domains::Record;
use crate::host::Host;
use crate::store;

pub const COMMAND: Command = Command {
    name: "create",
    usage: "<ConfigFile> [options] [vars]",
    about: "Create a domain from config file <filename>",
    flags: &[
        flag('p', "paused", "Leave the domain paused"),
        flag('c', "console", "Connect to the domain's console"),
        value('f', "defconfig", "FILE", "Use this configuration file"),
        flag('q', "quiet", "Print nothing but errors"),
        flag('n', "dryrun", "Print what the configuration comes to, and create nothing"),
        flag('d', "debug", "Print what the configuration comes to, too"),
        flag('F', "", "Return when the domain has ended"),
        flag('e', "", "Do not deal with the domain's end: it stays"),
        flag('V', "vncviewer", "Accepted: no domain has a display"),
        flag('A', "vncviewer-autopass", "Accepted likewise"),
        flag(long_only(0), "ignore-global-affinity-masks", "Accepted: there are none"),
    ],
    needs: 0,
    run,
};

/// xl's statuses, after libxl's `ERROR_FAIL` and `ERROR_INVAL`.
pub const FAILED: Status = 3;
const INVALID: Status = 6;

/// Why a domain could not be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateError {
    /// There is one of this name.
    NameTaken(String),
    /// There is one with this UUID.
    UuidTaken(Uuid),
    /// There is no such pool of CPUs.
    Pool(String),
    /// A file cannot be read.
    File {
        /// What it was to be.
        what: &'static str,
        /// Its path.
        path: String,
        /// Why.
        errno: Errno,
    },
    /// The kernel cannot be used.
    Kernel {
        /// Its path.
        path: String,
        /// Why.
        error: ImageError,
    },
    /// A disk cannot be attached.
    Disk {
        /// Which, and as what.
        disk: String,
        /// Why.
        error: DiskError,
    },
    /// The domain cannot be built.
    Build(BuildError),
    /// Another command destroyed it before it was whole.
    Destroyed,
    /// A service failed.
    Service {
        /// What it was to do.
        what: &'static str,
        /// Why.
        errno: Errno,
    },
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken(name) => write!(f, "a domain with name \"{name}\" already exists"),
            Self::UuidTaken(uuid) => write!(f, "a domain with UUID {uuid} already exists"),
            Self::Pool(name) => write!(f, "there is no pool of CPUs \"{name}\""),
            Self::File { what, path, errno } => {
                let why = if *errno == Errno::ENOENT { "no such file" } else { errno.name() };
                write!(f, "{what} {path}: {why}")
            }
            Self::Kernel { path, error } => write!(f, "kernel {path}: {error}"),
            Self::Disk { disk, error } => write!(f, "disk {disk}: {error}"),
            Self::Build(error) => error.fmt(f),
            Self::Destroyed => f.write_str("the domain was destroyed while it was being made"),
            Self::Service { what, errno } => write!(f, "cannot {what}: {}", errno.name()),
        }
    }
}

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let config = match read_config(host, COMMAND.name, options, &options.positional) {
        Ok(config) => config,
        Err(status) => return status,
    };
    if options.has('n') || options.has('d') {
        let uuid = config.uuid.unwrap_or_else(|| Uuid::from_random(host.random()));
        let text = document::config(0, &config.name, &uuid, &config, None);
        host.print(&format!("{text}\n"));
    }
    if options.has('n') {
        return SUCCESS;
    }
    let dom = match create_domain(host, &config) {
        Ok(dom) => dom,
        Err(error) => {
            host.print_error(&format!("create: {error}\n"));
            return if matches!(error, CreateError::Pool(_)) { INVALID } else { FAILED };
        }
    };
    if options.has('e') {
        host.domains().settle(dom);
    }
    if !options.has('p')
        && let Err(errno) = host.unpause_domain(dom)
    {
        destroy_domain(host, dom);
        target::failed(host, "unpausing", dom, errno);
        return FAILED;
    }
    let status = if options.has('c') { console::interact(host, dom) } else { SUCCESS };
    if options.has('F') && !follow(host, dom) { FAILURE } else { status }
}

/// Waits until the domain has ended for good. False: the user does not want to.
fn follow(host: &mut dyn Host, dom: DomId) -> bool {
    const POLL: u64 = 100_000_000;
    let Some(name) = host.domains().get(dom).map(|record| record.config.name.clone()) else { return true };
    host.print_error(&format!("Waiting for domain {name} (domid {dom}) to die\n"));
    // A domain that restarts keeps its name and little else; one that is preserved is settled.
    while host.domains().by_name(&name).is_some_and(|record| !record.settled) {
        let deadline = host.now() + POLL;
        if !host.wait(deadline) {
            return false;
        }
    }
    true
}

/// The configuration that `arguments` (a file, and overrides) and the option `-f` name. What is wrong with it is said.
///
/// # Errors
/// The status to end with.
pub fn read_config(
    host: &mut dyn Host,
    command: &str,
    options: &Options,
    arguments: &[String],
) -> Result<DomainConfig, Status> {
    let (mut overrides, mut file) = (Vec::new(), options.get('f'));
    for argument in arguments {
        if argument.contains('=') {
            overrides.push(argument.as_str());
        } else if file.is_none() {
            file = Some(argument);
        } else {
            host.print_error(&format!("{command}: unexpected argument \"{argument}\"\n"));
            return Err(FAILURE);
        }
    }
    let text = match file {
        None if overrides.is_empty() => {
            host.print_error("Config file not specified and none in save file\n");
            return Err(INVALID);
        }
        None => Cow::Borrowed(&b""[..]),
        Some(path) => match host.file(path) {
            Ok(text) => text,
            Err(errno) => {
                let why = if errno == Errno::ENOENT { "No such file or directory" } else { errno.name() };
                host.print_error(&format!("Failed to read config file: {path}: {why}\n"));
                return Err(FAILED);
            }
        },
    };
    let name = file.unwrap_or("command line");
    let quiet = options.has('q');
    // config-update says what it does with it instead.
    if !quiet && file.is_some() && command == COMMAND.name {
        host.print_error(&format!("Parsing config from {name}\n"));
    }
    let parsed = match core::str::from_utf8(&text) {
        Ok(text) => DomainConfig::parse(name, text, &overrides).map_err(|e| e.to_string()),
        Err(_) => Err(format!("{name}: not a text file")),
    };
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(message) => {
            host.print_error(&format!("{command}: {message}\n"));
            return Err(FAILURE);
        }
    };
    if !quiet {
        for warning in &parsed.warnings {
            host.print_error(&format!("WARNING: {warning}\n"));
        }
    }
    Ok(parsed.config)
}

fn destroy_domain(host: &mut dyn Host, dom: DomId) {
    let _ = destroy::destroy_domain(host, dom);
}

/// Creates a domain. It stays paused.
///
/// # Errors
/// What went wrong; nothing is left of the domain then.
pub fn create_domain(host: &mut dyn Host, config: &DomainConfig) -> Result<DomId, CreateError> {
    let uuid = config.uuid.unwrap_or_else(|| Uuid::from_random(host.random()));
    check_unique(host, config, uuid)?;
    let built = build_domain(host, config, uuid)?;
    let dom = built.dom;
    let started = host.now();
    // Its name, its UUID and its files are taken from here on: other commands run while this one waits for disks.
    host.domains().add(Record { dom, uuid, config: config.clone(), settled: false, started });
    if let Err(error) = connect(host, &built, uuid, config) {
        if host.domains().is(dom, &uuid) {
            destroy_domain(host, dom);
        }
        return Err(error);
    }
    Ok(dom)
}

/// Connects a domain that was built with its services and its disks.
fn connect(host: &mut dyn Host, built: &build::Built, uuid: Uuid, config: &DomainConfig) -> Result<(), CreateError> {
    let dom = built.dom;
    let failed = |what| move |errno| CreateError::Service { what, errno };
    if config.target_kib < config.memory_kib {
        // As after mem-set: it keeps no more than that once it has given back the rest.
        host.set_max_mem(dom, config.target_kib + build::MAXMEM_SLACK_KIB)
            .map_err(failed("set the domain's memory limit"))?;
    }
    let start_time = host.wall_clock();
    store::write_domain(host, built, &uuid, config, start_time)
        .map_err(failed("write the domain's xenstore entries"))?;
    host.store_introduce(dom, built.store_frame, built.store_port).map_err(failed("connect the domain to xenstore"))?;
    host.console_attach(dom, built.console_frame, built.console_port)
        .map_err(failed("connect the domain's console"))?;
    for disk in &config.disks {
        let attached = disk::attach(host, dom, disk);
        if !host.domains().is(dom, &uuid) {
            return Err(CreateError::Destroyed);
        }
        attached.map_err(|error| CreateError::Disk { disk: disk.to_string(), error })?;
    }
    Ok(())
}

/// No two domains have one name or one UUID.
fn check_unique(host: &mut dyn Host, config: &DomainConfig, uuid: Uuid) -> Result<(), CreateError> {
    let own = store::name_of(host, DomId(0));
    let (mut name_taken, mut uuid_taken) = (own.as_deref() == Some(&config.name), false);
    if host.is_alone() {
        name_taken |= host.domains().by_name(&config.name).is_some();
        uuid_taken |= host.domains().by_uuid(&uuid).is_some();
    } else {
        let others = target::all(host).map_err(|errno| CreateError::Service { what: "list the domains", errno })?;
        let names = store::names(host);
        name_taken |= others.iter().any(|info| names.get(&info.id) == Some(&config.name));
        uuid_taken |= others.iter().any(|info| info.uuid == uuid);
    }
    if name_taken {
        return Err(CreateError::NameTaken(config.name.clone()));
    }
    if uuid_taken {
        return Err(CreateError::UuidTaken(uuid));
    }
    Ok(())
}

/// Reads the files and builds.
fn build_domain(host: &mut dyn Host, config: &DomainConfig, uuid: Uuid) -> Result<build::Built, CreateError> {
    let file = read(host, "kernel", &config.kernel)?;
    let ramdisk = match &config.ramdisk {
        Some(path) => read(host, "ramdisk", path)?,
        None => Cow::Borrowed(&[][..]),
    };
    let wrong = |error| CreateError::Kernel { path: config.kernel.clone(), error };
    let image = host.images().unpack(file).map_err(wrong)?;
    let pool = match &config.pool {
        Some(name) => pools::resolve(host, name).ok_or_else(|| CreateError::Pool(name.clone()))?,
        None => 0,
    };
    let mut build = |kernel| {
        let request = build::Request { config, uuid, kernel, ramdisk: &ramdisk, pool };
        build::build(host, &request).map_err(CreateError::Build)
    };
    match config.kind {
        DomainType::Pv => build(build::Image::Pv(&Kernel::parse(&image).map_err(wrong)?)),
        DomainType::Pvh => build(build::Image::Pvh(&pvh::Kernel::parse(&image).map_err(wrong)?)),
    }
}

fn read(host: &mut dyn Host, what: &'static str, path: &str) -> Result<Cow<'static, [u8]>, CreateError> {
    host.file(path).map_err(|errno| CreateError::File { what, path: path.to_string(), errno })
}
