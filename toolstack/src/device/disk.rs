//! Disks: nodes as libxl 4.17 writes them; the back end follows them by watches.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use crate::config::disk::{DeviceType, Disk};
use crate::host::{Access, Host, Permission, Seed, Store};
use crate::store::{domain_path, libxl_path};

/// How long the other end may take (libxl's LIBXL_INIT_TIMEOUT and LIBXL_DESTROY_TIMEOUT), nanoseconds.
const PATIENCE: u64 = 10_000_000_000;

/// Why a disk could not be attached or detached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskError {
    /// The domain has one of this number.
    Taken(String),
    /// It has none.
    Missing(String),
    /// The back end refuses.
    Refused(String),
    /// The other end did not do its part in time.
    TimedOut(&'static str),
    /// Another command took it away, or its domain.
    Removed,
    /// The user did not want to wait.
    Interrupted,
    /// xenstore failed.
    Store(Errno),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(name) => write!(f, "disk {name}: the domain has a device of this name"),
            Self::Missing(name) => write!(f, "disk {name} does not exist"),
            Self::Refused(why) => write!(f, "the back end refuses: {why}"),
            Self::TimedOut(who) => write!(f, "{who} does not answer"),
            Self::Removed => f.write_str("it was taken away before it was connected"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Store(errno) => write!(f, "xenstore: {}", errno.name()),
        }
    }
}

impl From<Errno> for DiskError {
    fn from(errno: Errno) -> Self {
        Self::Store(errno)
    }
}

/// Where a domain's disks have their back ends.
#[must_use]
pub fn backends_path(dom: DomId) -> String {
    format!("/local/domain/0/backend/vbd/{dom}")
}

fn backend_path(dom: DomId, number: u32) -> String {
    format!("{}/{number}", backends_path(dom))
}

fn frontend_path(dom: DomId, number: u32) -> String {
    format!("{}/device/vbd/{number}", domain_path(dom))
}

fn text(host: &mut (impl Store + ?Sized), path: &str) -> Option<String> {
    String::from_utf8(host.store_read(path).ok()?).ok()
}

/// Writes a disk's nodes and waits for its back end.
///
/// # Errors
/// What went wrong; nothing is left of it then.
pub fn attach(host: &mut dyn Host, dom: DomId, disk: &Disk) -> Result<(), DiskError> {
    let (back, front) = (backend_path(dom, disk.vdev.number), frontend_path(dom, disk.vdev.number));
    if text(host, &format!("{front}/backend")).is_some() {
        return Err(DiskError::Taken(disk.vdev.name.clone()));
    }
    host.open_volume(&disk.target).map_err(DiskError::Refused)?;
    let result = write(host, dom, disk).map_err(DiskError::from).and_then(|()| {
        let (opened, begun) = (format!("{back}/hotplug-status"), format!("{back}/frontend"));
        wait(host, "the back end", |host| text(host, &opened).is_some() || text(host, &begun).is_none())?;
        match text(host, &opened).as_deref() {
            Some("connected") => Ok(()),
            None => Err(DiskError::Removed),
            Some(_) => Err(DiskError::Refused(text(host, &format!("{back}/hotplug-error")).unwrap_or_default())),
        }
    });
    if result.is_err() {
        remove(host, dom, disk.vdev.number);
    }
    result
}

fn write(host: &mut dyn Host, dom: DomId, disk: &Disk) -> Result<(), Errno> {
    let number = disk.vdev.number;
    let (back, front) = (backend_path(dom, number), frontend_path(dom, number));
    let libxl = format!("{}/device/vbd/{number}", libxl_path(dom));
    let flag = |yes: bool| if yes { "1" } else { "0" };
    let mut backend: Vec<(&str, String)> = [
        ("frontend", front.clone()),
        ("params", disk.target.clone()),
        ("script", "/etc/xen/scripts/block".to_string()),
        ("frontend-id", dom.to_string()),
        ("online", "1".to_string()),
        ("removable", flag(disk.device_type == DeviceType::Cdrom).to_string()),
        ("bootable", "1".to_string()),
        ("state", "1".to_string()),
        ("dev", disk.vdev.name.clone()),
        ("type", "phy".to_string()),
        ("mode", disk.mode.letter().to_string()),
        ("device-type", disk.device_type.name().to_string()),
        ("discard-enable", flag(disk.discard).to_string()),
    ]
    .into();
    // Ours: no other toolstack has limits for disks.
    backend.extend(disk.iops.map(|iops| ("iops", iops.to_string())));
    backend.extend(disk.rate.map(|rate| ("rate", rate.to_string())));
    let frontend: Vec<(&str, String)> = [
        ("backend", back.clone()),
        ("backend-id", "0".to_string()),
        ("state", "1".to_string()),
        ("virtual-device", number.to_string()),
        ("device-type", disk.device_type.name().to_string()),
    ]
    .into();
    let permission = |dom, access| Permission { dom, access };
    let private = [permission(DomId(0), Access::None)];
    // Each end owns its directory, and the other one may read it.
    let backs = [permission(DomId(0), Access::None), permission(dom, Access::Read)];
    let fronts = [permission(dom, Access::None), permission(DomId(0), Access::Read)];
    let mut both = backend.clone();
    both.extend([("backend", back.clone())]);
    // The back end's directory last but one: with it the back end begins, and looks for the front end's.
    for (path, permissions, nodes) in
        [(&libxl, &private[..], &both), (&front, &fronts[..], &frontend), (&back, &backs[..], &backend)]
    {
        let mut seeds = Vec::with_capacity(nodes.len() + 1);
        seeds.push(Seed { path: "".into(), value: "".into(), permissions: Some(permissions) });
        seeds.extend(nodes.iter().map(|(key, value)| Seed {
            path: (*key).into(),
            value: value.into(),
            permissions: None,
        }));
        host.store_plant(path, &seeds)?;
    }
    Ok(())
}

/// Lets the rest of the program run until something is so.
fn wait(host: &mut dyn Host, who: &'static str, mut so: impl FnMut(&mut dyn Host) -> bool) -> Result<(), DiskError> {
    const LONGEST: u64 = 20_000_000;
    let end = host.now().saturating_add(PATIENCE);
    let mut pause = 50_000;
    loop {
        if so(host) {
            return Ok(());
        }
        if host.now() >= end {
            return Err(DiskError::TimedOut(who));
        }
        let deadline = host.now() + pause;
        if !host.wait(deadline) && !so(host) {
            return Err(DiskError::Interrupted);
        }
        pause = (pause * 2).min(LONGEST);
    }
}

/// What becomes of a disk whose guest does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It stays.
    No,
    /// It goes.
    Yes,
}

/// Takes a disk away: asks the guest first.
///
/// # Errors
/// What went wrong; the disk stays then, unless it was forced.
pub fn detach(host: &mut dyn Host, dom: DomId, number: u32, name: &str, force: Force) -> Result<(), DiskError> {
    let back = backend_path(dom, number);
    if text(host, &format!("{back}/frontend")).is_none() {
        return Err(DiskError::Missing(name.to_string()));
    }
    host.store_write(&format!("{back}/online"), b"0")?;
    host.store_write(&format!("{back}/state"), b"5")?;
    let state = format!("{back}/state");
    let closed = wait(host, "the guest", |host| text(host, &state).is_none_or(|state| state == "6"));
    if closed.is_ok() || force == Force::Yes {
        remove(host, dom, number);
        return Ok(());
    }
    closed
}

/// Removes a disk's nodes; its back end lets go then.
fn remove(host: &mut dyn Host, dom: DomId, number: u32) {
    let libxl = format!("{}/device/vbd/{number}", libxl_path(dom));
    for path in [frontend_path(dom, number), backend_path(dom, number), libxl] {
        // What is not there need not be removed.
        let _ = host.store_rm(&path);
    }
    if host.store_list(&backends_path(dom)).is_ok_and(|left| left.is_empty()) {
        let _ = host.store_rm(&backends_path(dom));
    }
    // The back end sees it at once.
    let soon = host.now() + 1;
    host.wait(soon);
}

/// A disk as `block-list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskInfo {
    /// Its number.
    pub number: u32,
    /// The front end's state.
    pub state: u32,
    /// Its event channel; -1 where there is none yet.
    pub port: i64,
    /// Its ring; -1 where there is none yet.
    pub ring: i64,
    /// The back end's directory.
    pub backend: String,
}

/// A domain's disks.
pub fn list(host: &mut dyn Host, dom: DomId) -> Vec<DiskInfo> {
    let names = host.store_list(&format!("{}/device/vbd", libxl_path(dom))).unwrap_or_default();
    let mut all = Vec::new();
    for number in names.iter().filter_map(|name| name.parse().ok()) {
        let front = frontend_path(dom, number);
        let mut get = |key: &str| text(host, &format!("{front}/{key}")).and_then(|value| value.parse::<i64>().ok());
        let state = get("state").and_then(|state| u32::try_from(state).ok()).unwrap_or(0);
        let port = get("event-channel").or_else(|| get("queue-0/event-channel")).unwrap_or(-1);
        let ring = get("ring-ref")
            .or_else(|| get("ring-ref0"))
            .or_else(|| get("queue-0/ring-ref"))
            .or_else(|| get("queue-0/ring-ref0"))
            .unwrap_or(-1);
        all.push(DiskInfo { number, state, port, ring, backend: backend_path(dom, number) });
    }
    all.sort_unstable_by_key(|info| info.number);
    all
}
