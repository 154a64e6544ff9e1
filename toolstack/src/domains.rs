//! The domains this program made: what each was made from, so that its end can be dealt with and it can be made again.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use xen_abi::ids::DomId;
use xen_abi::sched::{
    SHUTDOWN_CRASH, SHUTDOWN_POWEROFF, SHUTDOWN_REBOOT, SHUTDOWN_SOFT_RESET, SHUTDOWN_SUSPEND, SHUTDOWN_WATCHDOG,
};

use crate::calls::DomainInfo;
use crate::config::{Action, DomainConfig, Uuid};

/// One domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub dom: DomId,
    /// Its handle: numbers are used again, these are not.
    pub uuid: Uuid,
    /// What it was made from.
    pub config: DomainConfig,
    /// Whether its end was dealt with and it was left there (preserved).
    pub settled: bool,
    /// When it was made ([`crate::host::Host::now`]).
    pub started: u64,
}

/// All of them. To find one costs the same however many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domains {
    records: BTreeMap<DomId, Record>,
    names: BTreeMap<String, DomId>,
    handles: BTreeMap<Uuid, DomId>,
    /// Why those that ended last did so, for whoever waits for their end.
    ended: VecDeque<(DomId, u32)>,
}

/// How many ends are remembered.
const ENDS: usize = 64;

/// What to do about a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is gone: forget it.
    Forget(Record),
    /// It ended in this way, and the configuration says what to do then.
    Act {
        /// The domain.
        record: Record,
        /// Why it shut down.
        reason: u32,
        /// What to do.
        action: Action,
    },
}

impl Domains {
    /// Adds one.
    pub fn add(&mut self, record: Record) {
        self.forget(record.dom);
        self.ended.retain(|(dom, _)| *dom != record.dom);
        self.names.insert(record.config.name.clone(), record.dom);
        self.handles.insert(record.uuid, record.dom);
        self.records.insert(record.dom, record);
    }

    /// Removes one.
    pub fn forget(&mut self, dom: DomId) -> Option<Record> {
        let record = self.records.remove(&dom)?;
        self.names.remove(&record.config.name);
        self.handles.remove(&record.uuid);
        Some(record)
    }

    /// Looks one up.
    #[must_use]
    pub fn get(&self, dom: DomId) -> Option<&Record> {
        self.records.get(&dom)
    }

    /// Whether the domain of this number is still the one with this handle.
    #[must_use]
    pub fn is(&self, dom: DomId, uuid: &Uuid) -> bool {
        self.get(dom).is_some_and(|record| record.uuid == *uuid)
    }

    /// The one of this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Record> {
        self.records.get(self.names.get(name)?)
    }

    /// The one with this handle.
    #[must_use]
    pub fn by_uuid(&self, uuid: &Uuid) -> Option<&Record> {
        self.records.get(self.handles.get(uuid)?)
    }

    /// Changes what one is made from when it is made again; it goes on under its name. Whether there is such a domain.
    pub fn reconfigure(&mut self, dom: DomId, change: impl FnOnce(&mut DomainConfig)) -> bool {
        let Some(record) = self.records.get_mut(&dom) else { return false };
        let name = record.config.name.clone();
        change(&mut record.config);
        record.config.name = name;
        true
    }

    /// Marks one as dealt with.
    pub fn settle(&mut self, dom: DomId) {
        if let Some(record) = self.records.get_mut(&dom) {
            record.settled = true;
        }
    }

    /// Remembers why one shut down, beyond its destruction.
    pub fn note_end(&mut self, dom: DomId, reason: u32) {
        self.ended.retain(|(ended, _)| *ended != dom);
        if self.ended.len() == ENDS {
            self.ended.pop_front();
        }
        self.ended.push_back((dom, reason));
    }

    /// Why one that is gone has shut down; `None` for one that was destroyed as it ran, or long ago.
    #[must_use]
    pub fn end_of(&self, dom: DomId) -> Option<u32> {
        self.ended.iter().find(|(ended, _)| *ended == dom).map(|(_, reason)| *reason)
    }

    /// Gives one another name.
    pub fn rename(&mut self, dom: DomId, name: &str) {
        if let Some(record) = self.records.get_mut(&dom) {
            let before = mem::replace(&mut record.config.name, String::from(name));
            self.names.remove(&before);
            self.names.insert(String::from(name), dom);
        }
    }

    /// Whether one would be made again from this file.
    #[must_use]
    pub fn uses(&self, file: &str) -> bool {
        self.records
            .values()
            .any(|record| record.config.kernel == file || record.config.ramdisk.as_deref() == Some(file))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What to do, given all domains that there are now. To be asked whenever `VIRQ_DOM_EXC` came: the interrupt only
    /// says that some domain ended.
    #[must_use]
    pub fn decide(&self, now: &[DomainInfo]) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for record in self.records.values() {
            let info = now.iter().find(|info| info.id == record.dom && info.uuid == record.uuid);
            match info {
                None => decisions.push(Decision::Forget(record.clone())),
                Some(info) if record.settled || info.is(DomainInfo::DYING) => {}
                Some(info) => {
                    if let Some(reason) = info.shutdown_reason() {
                        let action = action_for(&record.config, reason);
                        decisions.push(Decision::Act { record: record.clone(), reason, action });
                    }
                }
            }
        }
        decisions
    }
}

/// What the configuration says for a way to end.
#[must_use]
pub fn action_for(config: &DomainConfig, reason: u32) -> Action {
    match reason {
        SHUTDOWN_POWEROFF => config.on_poweroff,
        SHUTDOWN_REBOOT => config.on_reboot,
        SHUTDOWN_CRASH => config.on_crash,
        SHUTDOWN_WATCHDOG => config.on_watchdog,
        SHUTDOWN_SOFT_RESET => config.on_soft_reset,
        // Someone is saving it, and will deal with it.
        SHUTDOWN_SUSPEND => Action::Preserve,
        _ => Action::Destroy,
    }
}
