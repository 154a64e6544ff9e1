//! A domain's entries in xenstore: which there are, what they say and who may touch them, as libxl 4.17 writes them.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use crate::build::Built;
use crate::config::{DomainConfig, DomainType, Uuid};
use crate::host::{Access, Permission, Seed, Store};

/// Bytes of a guest's console output that the console service keeps at most (libxl's LIBXL_XENCONSOLE_LIMIT).
const CONSOLE_LIMIT: &str = "1048576";
/// XenbusStateInitialising.
const INITIALISING: &str = "1";

/// A domain's directory.
#[must_use]
pub fn domain_path(dom: DomId) -> String {
    format!("/local/domain/{dom}")
}

/// Its directory by UUID.
#[must_use]
pub fn vm_path(uuid: &Uuid) -> String {
    format!("/vm/{uuid}")
}

/// Its directory for the toolstack alone.
#[must_use]
pub fn libxl_path(dom: DomId) -> String {
    format!("/libxl/{dom}")
}

fn console_backend_path(dom: DomId) -> String {
    format!("/local/domain/0/backend/console/{dom}")
}

/// Removes a node; one that is not there is fine.
fn remove(store: &mut (impl Store + ?Sized), path: &str) -> Result<(), Errno> {
    match store.store_rm(path) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

const fn owner(dom: DomId, others: Access) -> Permission {
    Permission { dom, access: others }
}

/// Owned by dom0, for nobody else.
const PRIVATE: [Permission; 1] = [owner(DomId(0), Access::None)];

/// Owned by dom0, readable for the guest.
const fn readable(dom: DomId) -> [Permission; 2] {
    [owner(DomId(0), Access::None), Permission { dom, access: Access::Read }]
}

/// Owned by the guest.
const fn owned(dom: DomId) -> [Permission; 1] {
    [owner(dom, Access::None)]
}

/// A tree to be written in one go.
#[derive(Default)]
struct Tree<'a>(Vec<Seed<'a>>);

impl<'a> Tree<'a> {
    /// A tree whose root says nothing.
    fn new(permissions: &'a [Permission]) -> Self {
        let mut this = Self(Vec::with_capacity(48));
        this.node("", permissions);
        this
    }

    /// An empty node with permissions of its own.
    fn node(&mut self, path: impl Into<Cow<'a, str>>, permissions: &'a [Permission]) {
        self.0.push(Seed { path: path.into(), value: Cow::Borrowed(""), permissions: Some(permissions) });
    }

    /// A value, for those who may touch what is above it.
    fn value(&mut self, path: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        self.0.push(Seed { path: path.into(), value: value.into(), permissions: None });
    }
}

/// Writes all entries of a new domain.
///
/// # Errors
/// What xenstore said. What was written stays, for [`remove_domain`].
pub fn write_domain(
    store: &mut (impl Store + ?Sized),
    built: &Built,
    uuid: &Uuid,
    config: &DomainConfig,
    start_time: u64,
) -> Result<(), Errno> {
    let dom = built.dom;
    let (readable, owned) = (readable(dom), owned(dom));
    let path = domain_path(dom);
    let vm = vm_path(uuid);
    let libxl = libxl_path(dom);
    let back = format!("{}/0", console_backend_path(dom));
    let (front, number) = (format!("{path}/console"), dom.to_string());
    // What the back end is told, and its copy for the toolstack, which a front end cannot change.
    let back_entries = [
        ("frontend", "device/console/0/frontend", &*front),
        ("frontend-id", "device/console/0/frontend-id", &*number),
        ("online", "device/console/0/online", "1"),
        ("state", "device/console/0/state", INITIALISING),
        ("protocol", "device/console/0/protocol", "vt100"),
    ];

    let mut tree = Tree::new(&PRIVATE);
    tree.node("device", &PRIVATE);
    tree.value("type", config.kind.name());
    tree.node("device/console/0", &PRIVATE);
    tree.value("device/console/0/backend", &*back);
    for (_, copy, value) in back_entries {
        tree.value(copy, value);
    }
    store.store_plant(&libxl, &tree.0)?;

    let mut tree = Tree::new(&readable);
    tree.value("uuid", uuid.to_string());
    tree.value("name", &*config.name);
    tree.value("image/ostype", "linux");
    tree.value("image/kernel", &*config.kernel);
    tree.value("start_time", format!("{}.{:02}", start_time / 1_000_000_000, start_time / 10_000_000 % 100));
    if let Some(ramdisk) = &config.ramdisk {
        tree.value("image/ramdisk", &**ramdisk);
    }
    tree.value("image/cmdline", &*config.cmdline);
    store.store_plant(&vm, &tree.0)?;

    let mut tree = Tree::new(&readable);
    for (key, _, value) in back_entries {
        tree.value(key, value);
    }
    store.store_plant(&back, &tree.0)?;

    let mut tree = Tree::new(&readable);
    tree.value("vm", &*vm);
    tree.value("name", &*config.name);
    own_entries(&mut tree, built, &number, config, &readable, &owned);
    // The primary console: the front end's directory is the domain's own `console`, which the guest may only read.
    let front_owned = [owner(dom, Access::None), Permission { dom: DomId(0), access: Access::Read }];
    tree.node("console", &readable);
    tree.value("console/backend", &*back);
    tree.0.push(Seed { path: "console/backend-id".into(), value: "0".into(), permissions: Some(&front_owned) });
    tree.value("console/limit", CONSOLE_LIMIT);
    tree.value("console/type", "xenconsoled");
    tree.value("console/output", "pty");
    tree.value("console/tty", "");
    tree.value("console/port", built.console_port.to_string());
    tree.value("console/ring-ref", built.console_frame.to_string());
    store.store_plant(&path, &tree.0)
}

/// What is in the domain's own directory, but for devices.
fn own_entries<'a>(
    tree: &mut Tree<'a>,
    built: &Built,
    number: &'a str,
    config: &DomainConfig,
    readable: &'a [Permission],
    owned: &'a [Permission],
) {
    for key in ["cpu", "memory", "device", "control"] {
        tree.node(key, readable);
    }
    for key in [
        "device/suspend/event-channel",
        "control/shutdown",
        "control/feature-poweroff",
        "control/feature-reboot",
        "control/feature-suspend",
        "control/sysrq",
        "data",
        "drivers",
        "feature",
        "attr",
        "error",
    ] {
        tree.node(key, owned);
    }
    tree.value("control/platform-feature-multiprocessor-suspend", "1");
    tree.value("control/platform-feature-xs_reset_watches", "1");
    // A PVH guest's Linux takes this for what its memory map has, and keeps so much less than its target as it finds missing.
    let mapped = if config.kind == DomainType::Pvh { config.memory_kib } else { config.max_memory_kib };
    tree.value("memory/static-max", mapped.to_string());
    if mapped != config.max_memory_kib {
        tree.value("memory/hotplug-max", config.max_memory_kib.to_string());
    }
    tree.value("memory/target", config.target_kib.to_string());
    tree.value("memory/videoram", "0");
    tree.value("domid", number);
    tree.value("store/port", built.store_port.to_string());
    tree.value("store/ring-ref", built.store_frame.to_string());
    for vcpu in 0..config.max_vcpus {
        let state = if vcpu < config.vcpus { "online" } else { "offline" };
        tree.value(format!("cpu/{vcpu}/availability"), state);
    }
}

/// Removes all entries of a domain.
///
/// # Errors
/// What xenstore said.
pub fn remove_domain(store: &mut (impl Store + ?Sized), dom: DomId) -> Result<(), Errno> {
    let path = domain_path(dom);
    if let Ok(vm) = store.store_read(&format!("{path}/vm"))
        && let Ok(vm) = String::from_utf8(vm)
        && vm.starts_with("/vm/")
    {
        remove(store, &vm)?;
    }
    remove(store, &console_backend_path(dom))?;
    remove(store, &crate::device::disk::backends_path(dom))?;
    remove(store, &libxl_path(dom))?;
    remove(store, &path)
}

/// A domain's name.
pub fn name_of(store: &mut (impl Store + ?Sized), dom: DomId) -> Option<String> {
    let value = store.store_read(&format!("{}/name", domain_path(dom))).ok()?;
    String::from_utf8(value).ok()
}

/// The names of all domains, by number.
pub fn names(store: &mut (impl Store + ?Sized)) -> BTreeMap<DomId, String> {
    let all = store.store_each_child("/local/domain", "name").unwrap_or_default();
    let pair = |(dom, name): (String, Vec<u8>)| Some((DomId(dom.parse().ok()?), String::from_utf8(name).ok()?));
    all.into_iter().filter_map(pair).collect()
}
