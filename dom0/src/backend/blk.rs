//! The block back end: makes the devices that the toolstack wrote into xenstore, and follows their front ends' states.
//! Nodes are those of `io/blkif.h` and of Linux's xen-blkback, so that any toolstack could drive it.

mod restart;

use super::complaints::Complaints;
use super::copies::Copies;
use super::limit::Limit;
use super::vbd::{Connection, Tags, disk_of};
use crate::disk::{Disks, Volume};
use crate::drivers::Done;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use ring_protocol::blk::connect::{self, MAX_QUEUES, Step};
use ring_protocol::xenbus::State;
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Port};
use xen_abi::io::blkif::{VDISK_CDROM, VDISK_READONLY};
use xenstore::{NO_TRANSACTION, Store};

/// Who writes: dom0.
const SELF: DomId = DomId(0);
/// Where the devices are.
const ROOT: &str = "/local/domain/0/backend/vbd";
/// What stands in the events of our watches.
const TOKEN: &[u8] = b"vbd";
/// Steps that one change may lead to: closed, then offered again.
const STEPS: usize = 4;

/// A device: of which domain, and its number there.
type Key = (DomId, u32);

/// All devices.
#[derive(Debug, Default)]
pub struct Blk {
    /// The disks.
    pub disks: Disks,
    devices: BTreeMap<Key, Device>,
    ports: BTreeMap<Port, Key>,
    tags: Tags,
    copies: Copies,
    complaints: Complaints,
    /// Devices whose nodes have changed.
    changed: BTreeSet<Key>,
    /// All may have: a node above them has.
    all_changed: bool,
    /// It is to start anew when nothing is under way.
    restarting: bool,
}

#[derive(Debug)]
struct Device {
    /// Where the front end's nodes are.
    front: String,
    state: State,
    /// None when it could not be opened, or is over.
    volume: Option<Volume>,
    read_only: bool,
    connection: Option<Connection>,
}

fn back_path((dom, device): Key) -> String {
    format!("{ROOT}/{dom}/{device}")
}

/// Whether a node is this one or below it: `device/vbd/5` is not above `device/vbd/51/state`.
fn is_at_or_below(path: &str, node: &str) -> bool {
    path.strip_prefix(node).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn read(store: &mut Store, path: &str) -> Option<String> {
    let value = store.read(SELF, NO_TRANSACTION, path.as_bytes()).ok()?;
    String::from_utf8(value.to_vec()).ok()
}

fn write(store: &mut Store, path: &str, value: &str) {
    // Only a node's removal by somebody else can be in the way, and that is noticed by its own event.
    let _ = store.write(SELF, NO_TRANSACTION, path.as_bytes(), value.as_bytes());
}

fn exists(store: &mut Store, path: &str) -> bool {
    store.read(SELF, NO_TRANSACTION, path.as_bytes()).is_ok()
}

fn state_of(store: &mut Store, path: &str) -> State {
    let value = store.read(SELF, NO_TRANSACTION, format!("{path}/state").as_bytes());
    value.map_or(State::Unknown, |value| State::parse(&value))
}

impl Blk {
    /// Begins to look for devices.
    pub fn start(disks: Disks, store: &mut Store) -> Result<Self, Errno> {
        store.watch(SELF, ROOT.as_bytes(), TOKEN)?;
        Ok(Self { disks, ..Self::default() })
    }

    /// Event channels in use.
    pub fn ports(&self) -> usize {
        self.ports.len() + self.disks.ports()
    }

    /// Domains that are served.
    pub fn domains(&self) -> impl Iterator<Item = DomId> {
        self.devices.iter().filter(|(_, device)| device.connection.is_some()).map(|((dom, _), _)| *dom)
    }

    /// When time alone gives something to do.
    pub fn deadline(&self) -> Option<u64> {
        let limits = self.devices.values().filter(|_| !self.restarting);
        let limits = limits.filter_map(|device| device.connection.as_ref()?.deadline());
        limits.chain(self.disks.deadline()).min()
    }

    /// Whether there is something to do that neither an event nor a clock tells of.
    pub fn has_news(&self) -> bool {
        let busy = |device: &Device| device.connection.as_ref().is_some_and(Connection::is_busy);
        let changed = self.all_changed || !self.changed.is_empty() || self.restarting;
        changed || self.devices.values().any(busy) || self.disks.has_news()
    }

    /// Takes an event, if it is one of ours; whether it was.
    pub fn event(&mut self, port: Port) -> bool {
        if let Some(key) = self.ports.get(&port) {
            if let Some(connection) = self.devices.get_mut(key).and_then(|device| device.connection.as_mut()) {
                connection.woken(port);
            }
            return true;
        }
        // A disk's says no more than that something is to be collected.
        self.disks.event(port)
    }

    /// A node that is watched has changed.
    pub fn changed(&mut self, path: &str, token: &[u8]) {
        if token != TOKEN {
            return;
        }
        let key = |rest: &str| -> Option<Key> {
            let mut names = rest.split('/').filter(|name| !name.is_empty());
            Some((DomId(names.next()?.parse().ok()?), names.next()?.parse().ok()?))
        };
        match path.strip_prefix(ROOT).map(key) {
            Some(Some(key)) => {
                self.changed.insert(key);
            }
            Some(None) => self.all_changed = true,
            // A front end's state.
            None => {
                let found = self.devices.iter().find(|(_, device)| is_at_or_below(path, &device.front));
                self.changed.extend(found.map(|(key, _)| *key));
            }
        }
    }

    /// Goes on with everything; whether there is more to do at once.
    pub fn serve(&mut self, store: &mut Store) -> bool {
        if core::mem::take(&mut self.all_changed) {
            self.changed.extend(self.devices.keys());
            self.find(store);
        }
        for key in core::mem::take(&mut self.changed) {
            self.follow(key, store);
        }
        let done = self.disks.expire();
        self.finish(&done);
        self.go_on_with_restart(store);
        let mut busy = false;
        let mut broken = Vec::new();
        for (key, device) in self.devices.iter_mut().filter(|_| !self.restarting) {
            let Some(connection) = device.connection.as_mut().filter(|connection| connection.is_busy()) else {
                continue;
            };
            if let Err(fault) = connection.serve(&mut self.disks, &mut self.tags, &mut self.copies) {
                self.complaints.say(key.0, key.1, &fault);
                broken.push(*key);
            } else {
                busy |= connection.is_busy();
            }
        }
        for key in broken {
            self.disconnect(key);
            self.set_state(key, State::Closing, store);
        }
        self.disks.kick();
        let done = self.disks.collect();
        self.finish(&done);
        if self.disks.take_resized() {
            self.resize(store);
        }
        busy || !done.is_empty()
    }

    fn finish(&mut self, done: &[Done]) {
        if done.is_empty() {
            return;
        }
        for done in done {
            if self.disks.take_own(done) {
                continue;
            }
            for device in self.devices.values_mut() {
                if let Some(connection) = &mut device.connection
                    && connection.done(done.tag, done.result, &mut self.disks)
                {
                    break;
                }
            }
        }
        for device in self.devices.values_mut() {
            if let Some(connection) = &mut device.connection {
                connection.settle();
            }
        }
        self.disks.kick();
    }

    /// A disk has another size: tells the guests that have all of it.
    fn resize(&mut self, store: &mut Store) {
        for (key, device) in &mut self.devices {
            let Some(volume) = &mut device.volume else {
                continue;
            };
            let Some(now) = self.disks.find(&volume.path).filter(|now| now.sectors() != volume.sectors()) else {
                continue;
            };
            *volume = now.clone();
            if let Some(connection) = &mut device.connection {
                connection.resize(&now);
                let path = back_path(*key);
                write(store, &format!("{path}/sectors"), &now.sectors().to_string());
                // A front end looks again when the state is written, be it the same.
                write(store, &format!("{path}/state"), device.state.as_str());
            }
        }
    }

    /// A domain is gone, though its nodes may stay: nothing of it may stay mapped.
    pub fn domain_gone(&mut self, dom: DomId) {
        let keys: Vec<Key> = self.devices.keys().filter(|key| key.0 == dom).copied().collect();
        for key in keys {
            self.disconnect(key);
            if let Some(device) = self.devices.get_mut(&key) {
                device.volume = None;
            }
        }
    }

    fn disconnect(&mut self, key: Key) {
        if let Some(connection) = self.devices.get_mut(&key).and_then(|device| device.connection.take()) {
            for port in connection.ports() {
                self.ports.remove(&port);
            }
        }
    }

    fn set_state(&mut self, key: Key, state: State, store: &mut Store) {
        if let Some(device) = self.devices.get_mut(&key) {
            device.state = state;
            let path = back_path(key);
            if exists(store, &path) {
                write(store, &format!("{path}/state"), state.as_str());
            }
        }
    }

    /// Finds devices that are new.
    fn find(&mut self, store: &mut Store) {
        let list = |store: &mut Store, path: &str| -> Vec<String> {
            let names = store.directory(SELF, NO_TRANSACTION, path.as_bytes()).unwrap_or_default();
            names.iter().map(ToString::to_string).collect()
        };
        for dom in list(store, ROOT) {
            for device in list(store, &format!("{ROOT}/{dom}")) {
                if let (Ok(dom), Ok(device)) = (dom.parse(), device.parse()) {
                    self.changed.insert((DomId(dom), device));
                }
            }
        }
    }

    /// Does what a device's nodes say.
    fn follow(&mut self, key: Key, store: &mut Store) {
        let path = back_path(key);
        let Some(front) = read(store, &format!("{path}/frontend")) else {
            self.forget(key, store);
            return;
        };
        // Ours are nodes that the toolstack does not write: without them it is another device by the same name.
        let fresh = !exists(store, &format!("{path}/hotplug-status"));
        if self.devices.get(&key).is_some_and(|device| fresh || device.front != front) {
            self.forget(key, store);
        }
        if !self.devices.contains_key(&key) {
            self.open(key, front, store);
            if let Some(device) = self.devices.get_mut(&key).filter(|_| !fresh) {
                // It was ours before we started anew.
                device.state = state_of(store, &path);
            }
        }
        for _ in 0..STEPS {
            let Some(device) = self.devices.get_mut(&key) else {
                return;
            };
            // The toolstack asks for the end thus.
            if state_of(store, &path) == State::Closing && device.state != State::Closed {
                device.state = State::Closing;
            }
            let online = read(store, &format!("{path}/online")).as_deref() == Some("1");
            if device.volume.is_none() {
                return;
            }
            let front = state_of(store, &device.front);
            // Its rings are there still: no more than to be taken up again.
            let is_left = device.state == State::Connected && device.connection.is_none();
            let own = if is_left && front == State::Connected { State::InitWait } else { device.state };
            match connect::step(own, front, online) {
                Step::Stay => return,
                Step::Offer => self.offer(key, store),
                Step::Connect => {
                    if let Err(why) = self.connect(key, store) {
                        self.complaints.say(key.0, key.1, &why);
                        write(store, &format!("/local/domain/0/error/backend/vbd/{}/{}/error", key.0, key.1), &why);
                        self.set_state(key, State::Closing, store);
                        return;
                    }
                }
                Step::Close => self.set_state(key, State::Closing, store),
                Step::Disconnect => {
                    self.disconnect(key);
                    self.set_state(key, State::Closed, store);
                }
                Step::Remove => {
                    self.disconnect(key);
                    self.set_state(key, State::Closed, store);
                    if let Some(device) = self.devices.get_mut(&key) {
                        device.volume = None;
                    }
                    return;
                }
            }
        }
    }

    fn forget(&mut self, key: Key, store: &mut Store) {
        self.disconnect(key);
        if let Some(device) = self.devices.remove(&key) {
            let _ = store.unwatch(SELF, format!("{}/state", device.front).as_bytes(), TOKEN);
            let _ = store.rm(SELF, NO_TRANSACTION, format!("/local/domain/0/error/backend/vbd/{}", key.0).as_bytes());
        }
    }

    /// Opens a new device's volume.
    fn open(&mut self, key: Key, front: String, store: &mut Store) {
        let path = back_path(key);
        let _ = store.watch(SELF, format!("{front}/state").as_bytes(), TOKEN);
        let params = read(store, &format!("{path}/params")).unwrap_or_default();
        let read_only = read(store, &format!("{path}/mode")).as_deref() != Some("w");
        let volume = self.claim(&params, read_only);
        match &volume {
            Ok(volume) => {
                write(store, &format!("{path}/physical-device-path"), &volume.path);
                write(store, &format!("{path}/hotplug-status"), "connected");
            }
            Err(why) => {
                // As the hotplug scripts of Linux's back end say it.
                write(store, &format!("{path}/hotplug-error"), why);
                write(store, &format!("{path}/hotplug-status"), "error");
            }
        }
        let device = Device { front, state: State::Initialising, volume: volume.ok(), read_only, connection: None };
        self.devices.insert(key, device);
    }

    /// The volume, unless others use it in a way that does not go together.
    fn claim(&self, params: &str, read_only: bool) -> Result<Volume, String> {
        let volume = self.disks.find(params).ok_or_else(|| format!("{params}: no such volume"))?;
        let geometry = self.disks.geometry(&volume).ok_or_else(|| format!("{params}: no such disk"))?;
        if geometry.read_only && !read_only {
            return Err(format!("{params} is read-only"));
        }
        for ((dom, _), device) in &self.devices {
            if let Some(other) = &device.volume
                && other.overlaps(&volume)
                && !(read_only && device.read_only)
            {
                let way = if device.read_only { "read-only, and so cannot be mounted writable" } else { "writable" };
                return Err(format!("{params} is in use by domain {dom} ({}, {way})", other.path));
            }
        }
        Ok(volume)
    }

    fn offer(&mut self, key: Key, store: &mut Store) {
        let Some(device) = self.devices.get(&key) else {
            return;
        };
        if let Some(geometry) = device.volume.as_ref().and_then(|volume| self.disks.geometry(volume)) {
            let disk = disk_of(&geometry, device.read_only);
            let path = back_path(key);
            let queues = u32::try_from(MAX_QUEUES).unwrap_or(1);
            // What is copied from and to the guest's pages without mapping them gains nothing from their being kept, and
            // Linux's front end pays for that with a copy of its own.
            let copied = device.volume.as_ref().is_some_and(|volume| self.disks.bytes(volume).is_some());
            for (name, value) in connect::features(&disk, queues) {
                let value = if copied && name == connect::PERSISTENT { 0 } else { value };
                write(store, &format!("{path}/{name}"), &value.to_string());
            }
        }
        self.set_state(key, State::InitWait, store);
    }

    fn connect(&mut self, key: Key, store: &mut Store) -> Result<(), String> {
        let (dom, _) = key;
        let Some(device) = self.devices.get_mut(&key) else {
            return Ok(());
        };
        let volume = device.volume.as_ref().ok_or("no volume")?;
        let geometry = self.disks.geometry(volume).ok_or("no disk")?;
        let nodes = |name: &str| store.read(SELF, NO_TRANSACTION, format!("{}/{name}", device.front).as_bytes()).ok();
        let frontend = connect::frontend(nodes, MAX_QUEUES).map_err(|unfit| unfit.to_string())?;
        let disk = disk_of(&geometry, device.read_only);
        let mut number = |name: &str| read(store, &format!("{}/{name}", back_path(key)))?.parse().ok();
        let limit = Limit::new(number("iops"), number("rate"));
        let connection = Connection::new(dom, &frontend, disk, volume, geometry.segments, limit)
            .map_err(|errno| format!("its rings cannot be mapped: {}", errno.name()))?;
        for port in connection.ports() {
            self.ports.insert(port, key);
        }
        device.connection = Some(connection);
        let path = back_path(key);
        let cdrom = read(store, &format!("{path}/device-type")).as_deref() == Some("cdrom");
        let info = if disk.read_only { VDISK_READONLY } else { 0 } | if cdrom { VDISK_CDROM } else { 0 };
        for (name, value) in connect::geometry(&disk, geometry.physical_sector_size, info) {
            write(store, &format!("{path}/{name}"), &value.to_string());
        }
        self.set_state(key, State::Connected, store);
        Ok(())
    }
}
