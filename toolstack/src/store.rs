//! A domain's entries in xenstore: which there are, what they say and who may touch them, as libxl 4.17 writes them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use crate::build::Built;
use crate::config::{DomainConfig, Uuid};
use crate::host::{Access, Permission, Store};

/// Bytes of a guest's console output that the console service keeps at most (libxl's LIBXL_XENCONSOLE_LIMIT).
const CONSOLE_LIMIT: u64 = 1 << 20;
/// XenbusStateInitialising.
const INITIALISING: u32 = 1;

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

fn node(store: &mut (impl Store + ?Sized), path: &str, permissions: &[Permission]) -> Result<(), Errno> {
    store.store_mkdir(path)?;
    store.store_set_permissions(path, permissions)
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
    skeleton(store, dom, uuid, config)?;
    console(store, built)?;

    let path = domain_path(dom);
    let mut entries: Vec<(String, String)> = Vec::new();
    let mut add = |key: &str, value: String| entries.push((format!("{path}/{key}"), value));
    add("memory/static-max", config.max_memory_kib.to_string());
    add("memory/target", config.memory_kib.to_string());
    add("memory/videoram", "0".to_string());
    add("domid", dom.to_string());
    add("store/port", built.store_port.to_string());
    add("store/ring-ref", built.store_frame.to_string());
    for vcpu in 0..config.max_vcpus {
        let state = if vcpu < config.vcpus { "online" } else { "offline" };
        add(&format!("cpu/{vcpu}/availability"), state.to_string());
    }
    let vm = vm_path(uuid);
    let mut add = |key: &str, value: String| entries.push((format!("{vm}/{key}"), value));
    add("image/ostype", "linux".to_string());
    add("image/kernel", config.kernel.clone());
    add("start_time", format!("{}.{:02}", start_time / 1_000_000_000, start_time / 10_000_000 % 100));
    if let Some(ramdisk) = &config.ramdisk {
        add("image/ramdisk", ramdisk.clone());
    }
    add("image/cmdline", config.cmdline.clone());
    for (path, value) in &entries {
        store.store_write(path, value.as_bytes())?;
    }
    Ok(())
}

/// The directories, and who may touch them.
fn skeleton(store: &mut (impl Store + ?Sized), dom: DomId, uuid: &Uuid, config: &DomainConfig) -> Result<(), Errno> {
    let (path, vm, libxl) = (domain_path(dom), vm_path(uuid), libxl_path(dom));
    for (path, permissions) in [(&path, &readable(dom)[..]), (&vm, &readable(dom)), (&libxl, &PRIVATE)] {
        remove(store, path)?;
        node(store, path, permissions)?;
    }
    node(store, &format!("{libxl}/device"), &PRIVATE)?;
    store.store_write(&format!("{path}/vm"), vm.as_bytes())?;
    store.store_write(&format!("{path}/name"), config.name.as_bytes())?;
    for key in ["cpu", "memory", "device", "control"] {
        node(store, &format!("{path}/{key}"), &readable(dom))?;
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
        node(store, &format!("{path}/{key}"), &owned(dom))?;
    }
    store.store_write(&format!("{vm}/uuid"), uuid.to_string().as_bytes())?;
    store.store_write(&format!("{vm}/name"), config.name.as_bytes())?;
    store.store_write(&format!("{path}/control/platform-feature-multiprocessor-suspend"), b"1")?;
    store.store_write(&format!("{path}/control/platform-feature-xs_reset_watches"), b"1")?;
    store.store_write(&format!("{libxl}/type"), b"pv")
}

/// The primary console: the front end's directory is the domain's own `console`, which the guest may only read.
fn console(store: &mut (impl Store + ?Sized), built: &Built) -> Result<(), Errno> {
    let dom = built.dom;
    let front = format!("{}/console", domain_path(dom));
    let back = format!("{}/0", console_backend_path(dom));
    let libxl = format!("{}/device/console/0", libxl_path(dom));

    node(store, &front, &readable(dom))?;
    store.store_write(&format!("{front}/backend"), back.as_bytes())?;
    let backend_id = format!("{front}/backend-id");
    store.store_write(&backend_id, b"0")?;
    let front_owned = [owner(dom, Access::None), Permission { dom: DomId(0), access: Access::Read }];
    store.store_set_permissions(&backend_id, &front_owned)?;
    for (key, value) in [
        ("limit", CONSOLE_LIMIT.to_string()),
        ("type", "xenconsoled".to_string()),
        ("output", "pty".to_string()),
        ("tty", String::new()),
        ("port", built.console_port.to_string()),
        ("ring-ref", built.console_frame.to_string()),
    ] {
        store.store_write(&format!("{front}/{key}"), value.as_bytes())?;
    }

    let entries = [
        ("frontend", front),
        ("frontend-id", dom.to_string()),
        ("online", "1".to_string()),
        ("state", INITIALISING.to_string()),
        ("protocol", "vt100".to_string()),
    ];
    node(store, &libxl, &PRIVATE)?;
    store.store_write(&format!("{libxl}/backend"), back.as_bytes())?;
    node(store, &back, &readable(dom))?;
    for (key, value) in &entries {
        store.store_write(&format!("{back}/{key}"), value.as_bytes())?;
        store.store_write(&format!("{libxl}/{key}"), value.as_bytes())?;
    }
    Ok(())
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
    remove(store, &libxl_path(dom))?;
    remove(store, &path)
}

/// A domain's name.
pub fn name_of(store: &mut (impl Store + ?Sized), dom: DomId) -> Option<String> {
    let value = store.store_read(&format!("{}/name", domain_path(dom))).ok()?;
    String::from_utf8(value).ok()
}
