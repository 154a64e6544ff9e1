//! What a configuration adds up to: one domain.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::disk::Disk;
use super::error::{ConfigError, Place};
use super::keys::{self, Support};
use super::kind::DomainType;
use super::syntax::{self, Assignment, Located, Value};
use super::tsc::TscMode;
use super::uuid::Uuid;
use crate::cpus::CpuSet;

/// What to do when a domain ends one way or another (xl.cfg(5), "Event Actions").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Take it away.
    Destroy,
    /// Take it away and create it again.
    Restart,
    /// Rename it and create it again beside.
    RenameRestart,
    /// Leave it as it is.
    Preserve,
    /// Dump its memory, then take it away.
    CoredumpDestroy,
    /// Dump its memory, then create it again.
    CoredumpRestart,
    /// Reset it in place.
    SoftReset,
}

impl Action {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("destroy", Self::Destroy),
        ("restart", Self::Restart),
        ("rename-restart", Self::RenameRestart),
        ("preserve", Self::Preserve),
        ("coredump-destroy", Self::CoredumpDestroy),
        ("coredump-restart", Self::CoredumpRestart),
        ("soft-reset", Self::SoftReset),
    ];

    /// xl.cfg's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, action)| *action == self).map_or("", |(name, _)| name)
    }
}

/// On which CPUs vCPUs are to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cpus {
    /// Nothing is said.
    #[default]
    Any,
    /// All vCPUs on these.
    All(CpuSet),
    /// Each vCPU on its own; vCPUs past the end anywhere.
    Each(Vec<CpuSet>),
}

impl Cpus {
    /// What is said of one vCPU.
    #[must_use]
    pub fn of(&self, vcpu: u32) -> Option<CpuSet> {
        match self {
            Self::Any => None,
            Self::All(set) => Some(*set),
            Self::Each(sets) => sets.get(usize::try_from(vcpu).ok()?).copied(),
        }
    }
}

/// One domain, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainConfig {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: DomainType,
    /// Its UUID; one is made up where there is none.
    pub uuid: Option<Uuid>,
    /// Path of the kernel.
    pub kernel: String,
    /// Path of the ramdisk.
    pub ramdisk: Option<String>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Memory at start, KiB.
    pub memory_kib: u64,
    /// What its balloon driver is to aim at, KiB: less than at start where `mem-set` made it smaller.
    pub target_kib: u64,
    /// The most it may ever have, KiB.
    pub max_memory_kib: u64,
    /// Memory for the hypervisor's tables of a PVH domain, KiB; None for what its size asks for.
    pub tables_kib: Option<u64>,
    /// vCPUs at start.
    pub vcpus: u32,
    /// The most it may ever have.
    pub max_vcpus: u32,
    /// Its share of the CPUs relative to others'; None for the scheduler's default.
    pub cpu_weight: Option<u16>,
    /// The most of the CPUs it may use, in percent of one; None or 0 for all.
    pub cap: Option<u16>,
    /// Its pool of CPUs, by name or number; None for the first one.
    pub pool: Option<String>,
    /// The CPUs its vCPUs must run on.
    pub cpus: Cpus,
    /// The CPUs they had better run on.
    pub cpus_soft: Cpus,
    /// What RDTSC does.
    pub tsc_mode: TscMode,
    /// Seconds that its wall clock is ahead of the host's (`rtc_timeoffset`).
    pub time_offset: i64,
    /// The most event channels.
    pub max_event_channels: u32,
    /// Frames of its grant table, at most; None for the hypervisor's default.
    pub max_grant_frames: Option<u32>,
    /// Frames of its map-track array, at most; None for the hypervisor's default.
    pub max_maptrack_frames: Option<u32>,
    /// The newest version of grant tables it may use; None for the hypervisor's.
    pub max_grant_version: Option<u32>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// On a clean power-off.
    pub on_poweroff: Action,
    /// On a reboot.
    pub on_reboot: Action,
    /// On a crash.
    pub on_crash: Action,
    /// On its watchdog's bite.
    pub on_watchdog: Action,
    /// On a request for a soft reset.
    pub on_soft_reset: Action,
}

/// A configuration and what there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The domain.
    pub config: DomainConfig,
    /// Keys that were not acted upon, and other things that a user should know.
    pub warnings: Vec<ConfigError>,
}

/// The most vCPUs a PV domain can have, and a PVH domain (Xen's HVM_MAX_VCPUS: the numbers of local APICs have 8 bits, and
/// a vCPU takes two).
const MAX_VCPUS: u64 = 512;
const MAX_PVH_VCPUS: u64 = 128;
/// The most memory, MiB (1 PiB).
const MAX_MEMORY_MIB: u64 = 1 << 30;

impl DomainConfig {
    /// Reads a configuration file with overrides after it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(file: &str, text: &str, overrides: &[&str]) -> Result<Parsed, ConfigError> {
        let mut all = syntax::parse(file, text)?;
        for argument in overrides {
            all.extend(syntax::parse_override(argument)?);
        }
        let end =
            Place { file: file.to_string(), line: u32::try_from(text.lines().count()).unwrap_or(0).max(1), column: 1 };
        Reader::new(all, end)?.finish()
    }
}

/// The assignments by key, the last one winning, and a warning for each that nobody asks for.
pub(super) struct Reader {
    values: Vec<(String, Located<Value>)>,
    end: Place,
    pub(super) warnings: Vec<ConfigError>,
}

impl Reader {
    fn new(assignments: Vec<Assignment>, end: Place) -> Result<Self, ConfigError> {
        let mut this = Self { values: Vec::new(), end, warnings: Vec::new() };
        for Assignment { key, value, append } in assignments {
            let message = match keys::support(&key.value) {
                Support::Used => None,
                Support::Meaningless => continue,
                Support::Ignored => Some(format!("\"{}\" is not supported yet and has no effect", key.value)),
                Support::Unknown => Some(match keys::nearest(&key.value) {
                    Some(near) => format!("unknown key \"{}\" has no effect (did you mean \"{near}\"?)", key.value),
                    None => format!("unknown key \"{}\" has no effect", key.value),
                }),
            };
            if let Some(message) = message {
                if value.value != Value::List(Vec::new()) {
                    this.warnings.push(ConfigError { place: key.place, message });
                }
                continue;
            }
            match this.values.iter_mut().find(|(known, _)| *known == key.value) {
                Some((_, old)) if append => join(&key.value, old, value)?,
                Some((_, old)) => *old = value,
                None => this.values.push((key.value, value)),
            }
        }
        Ok(this)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Located<Value>> {
        self.values.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<Located<String>>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Located { value: Value::Text(text), place }) => {
                Ok(Some(Located { value: text.clone(), place: place.clone() }))
            }
            Some(other) => Err(wrong(&other.place, key, "a string", other.value.kind())),
        }
    }

    /// A number; as in xl, a text that holds one will do.
    pub(super) fn number(
        &self,
        key: &str,
        range: core::ops::RangeInclusive<u64>,
    ) -> Result<Option<Located<u64>>, ConfigError> {
        let Some(Located { value, place }) = self.get(key) else {
            return Ok(None);
        };
        let number = match value {
            Value::Number(number) => *number,
            Value::Text(text) => match text.trim().parse() {
                Ok(number) => number,
                Err(_) => return Err(wrong(place, key, "a number", &format!("\"{text}\""))),
            },
            Value::List(_) => return Err(wrong(place, key, "a number", "a list")),
        };
        if !range.contains(&number) {
            let expected = format!("{} to {}", range.start(), range.end());
            return Err(wrong(place, key, &expected, &number.to_string()));
        }
        Ok(Some(Located { value: number, place: place.clone() }))
    }

    /// A number of seconds, which a text may make negative.
    fn seconds(&self, key: &str) -> Result<i64, ConfigError> {
        if let Some(Located { value: Value::Text(text), .. }) = self.get(key)
            && let Ok(seconds) = text.trim().parse::<i32>()
        {
            return Ok(seconds.into());
        }
        let most = i32::MAX.unsigned_abs().into();
        Ok(self.number(key, 0..=most)?.map_or(0, |n| i64::try_from(n.value).unwrap_or(0)))
    }

    fn short(&self, key: &str, range: core::ops::RangeInclusive<u64>) -> Result<Option<u16>, ConfigError> {
        Ok(self.number(key, range)?.map(|n| u16::try_from(n.value).unwrap_or(u16::MAX)))
    }

    fn small(&self, key: &str, range: core::ops::RangeInclusive<u64>) -> Result<Option<u32>, ConfigError> {
        Ok(self.number(key, range)?.map(|n| u32::try_from(n.value).unwrap_or(u32::MAX)))
    }

    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)], default: T) -> Result<T, ConfigError> {
        let Some(Located { value, place }) = self.text(key)? else {
            return Ok(default);
        };
        if let Some((_, found)) = words.iter().find(|(word, _)| *word == value) {
            return Ok(*found);
        }
        let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let near = match keys::nearest_of(&value, all.iter().copied()) {
            Some(near) => format!(" (did you mean \"{near}\"?)"),
            None => String::new(),
        };
        Err(ConfigError { place, message: format!("{key} must be one of {}, not \"{value}\"{near}", all.join(", ")) })
    }

    /// `cpus` and `cpus_soft`: a text for all vCPUs, or a list with one for each.
    fn cpus(&self, key: &str) -> Result<Cpus, ConfigError> {
        let set = |text: &str, place: &Place| {
            let wrong = |message| ConfigError { place: place.clone(), message: format!("{key}: {message}") };
            // Which of them there are is known to the machine alone.
            CpuSet::parse(text, CpuSet::CAPACITY).map_err(wrong)
        };
        match self.get(key) {
            None => Ok(Cpus::Any),
            Some(Located { value: Value::Text(text), place }) => set(text, place).map(Cpus::All),
            Some(Located { value: Value::Number(cpu), place }) => set(&cpu.to_string(), place).map(Cpus::All),
            Some(Located { value: Value::List(items), .. }) => {
                let item = |item: &Located<Value>| match &item.value {
                    Value::Text(text) => set(text, &item.place),
                    Value::Number(cpu) => set(&cpu.to_string(), &item.place),
                    Value::List(_) => Err(wrong(&item.place, key, "a list of strings", "a list of lists")),
                };
                items.iter().map(item).collect::<Result<_, _>>().map(Cpus::Each)
            }
        }
    }

    /// `disk`: a list of specifications. No two of one name.
    fn disks(&self) -> Result<Vec<Disk>, ConfigError> {
        let items = match self.get("disk") {
            None => return Ok(Vec::new()),
            Some(Located { value: Value::List(items), .. }) => items,
            Some(other) => return Err(wrong(&other.place, "disk", "a list of strings", other.value.kind())),
        };
        let mut disks: Vec<Disk> = Vec::with_capacity(items.len());
        for Located { value, place } in items {
            let Value::Text(text) = value else {
                return Err(wrong(place, "disk", "a list of strings", value.kind()));
            };
            let fail = |message| ConfigError { place: place.clone(), message: format!("disk \"{text}\": {message}") };
            let disk = Disk::parse(text).map_err(fail)?;
            if disks.iter().any(|known| known.vdev.number == disk.vdev.number) {
                return Err(fail(format!("there is a disk {} already", disk.vdev.name)));
            }
            disks.push(disk);
        }
        Ok(disks)
    }

    /// In xl `firmware` is one of two boot loaders that come with Xen, in a kernel's place. None come with this.
    fn kernel(&self) -> Result<Option<Located<String>>, ConfigError> {
        let kernel = self.text("kernel")?;
        let Some(Located { value, place }) = self.text("firmware")? else { return Ok(kernel) };
        let message = match kernel {
            Some(_) => "both kernel and firmware specified".to_string(),
            None => format!("firmware \"{value}\" is not there: name the path of a kernel by \"kernel\" instead"),
        };
        Err(ConfigError { place, message })
    }

    fn cmdline(&mut self) -> Result<String, ConfigError> {
        let (cmdline, root, extra) = (self.text("cmdline")?, self.text("root")?, self.text("extra")?);
        Ok(match (cmdline, root, extra) {
            (Some(cmdline), root, extra) => {
                if let Some(ignored) = root.or(extra) {
                    let message = "root and extra have no effect beside cmdline".to_string();
                    self.warnings.push(ConfigError { place: ignored.place, message });
                }
                cmdline.value
            }
            (None, Some(root), Some(extra)) => format!("root={} {}", root.value, extra.value),
            (None, Some(root), None) => format!("root={}", root.value),
            (None, None, Some(extra)) => extra.value,
            (None, None, None) => String::new(),
        })
    }

    fn finish(mut self) -> Result<Parsed, ConfigError> {
        let missing = |key: &str, what: &str| ConfigError {
            place: self.end.clone(),
            message: format!("{key} is missing: {what}"),
        };
        let name = self.text("name")?.ok_or_else(|| missing("name", "a domain needs one"))?;
        check_name(&name)?;
        let kernel = self.kernel()?.ok_or_else(|| missing("kernel", "the path of a kernel"))?;
        let uuid = match self.text("uuid")? {
            None => None,
            Some(Located { value, place }) => Some(
                Uuid::parse(&value)
                    .ok_or_else(|| wrong(&place, "uuid", "32 hexadecimal digits", &format!("\"{value}\"")))?,
            ),
        };

        let memory = self.number("memory", 1..=MAX_MEMORY_MIB)?;
        let maxmem = self.number("maxmem", 1..=MAX_MEMORY_MIB)?;
        // libxl's default for a domain that says nothing.
        let memory_mib = memory.as_ref().or(maxmem.as_ref()).map_or(32, |m| m.value);
        if let Some(maxmem) = maxmem.as_ref().filter(|m| m.value < memory_mib) {
            let message = format!("maxmem ({}) is less than memory ({memory_mib})", maxmem.value);
            return Err(ConfigError { place: maxmem.place.clone(), message });
        }
        let kind = self.kind()?;
        let most = if kind == DomainType::Pvh { MAX_PVH_VCPUS } else { MAX_VCPUS };
        let vcpus = self.number("vcpus", 1..=most)?;
        let max_vcpus = self.number("maxvcpus", 1..=most)?;
        let vcpu_count = vcpus.as_ref().or(max_vcpus.as_ref()).map_or(1, |v| v.value);
        if let Some(max) = max_vcpus.as_ref().filter(|m| m.value < vcpu_count) {
            let message = format!("maxvcpus ({}) is less than vcpus ({vcpu_count})", max.value);
            return Err(ConfigError { place: max.place.clone(), message });
        }
        let max_vcpu_count = max_vcpus.map_or(vcpu_count, |m| m.value);
        let event_channels = match self.small("event_channels", 1..=0x2_0000)? {
            None => self.small("max_event_channels", 1..=0x2_0000)?,
            some => some,
        };
        let config = DomainConfig {
            name: name.value,
            kind,
            uuid,
            kernel: kernel.value,
            ramdisk: self.text("ramdisk")?.map(|r| r.value).filter(|r| !r.is_empty()),
            cmdline: self.cmdline()?,
            memory_kib: memory_mib * 1024,
            target_kib: memory_mib * 1024,
            max_memory_kib: maxmem.map_or(memory_mib, |m| m.value) * 1024,
            tables_kib: self.container(kind)?,
            vcpus: u32::try_from(vcpu_count).unwrap_or(1),
            max_vcpus: u32::try_from(max_vcpu_count).unwrap_or(1),
            cpu_weight: self.short("cpu_weight", 1..=0xffff)?,
            cap: self.short("cap", 0..=0xffff)?,
            pool: self.text("pool")?.map(|pool| pool.value),
            cpus: self.cpus("cpus")?,
            cpus_soft: self.cpus("cpus_soft")?,
            time_offset: self.seconds("rtc_timeoffset")?,
            tsc_mode: TscMode::read(&mut self)?,
            // libxl's default.
            max_event_channels: event_channels.unwrap_or(1023),
            max_grant_frames: self.small("max_grant_frames", 1..=0xffff)?,
            max_maptrack_frames: self.small("max_maptrack_frames", 0..=0xffff)?,
            max_grant_version: self.small("max_grant_version", 1..=2)?,
            disks: self.disks()?,
            on_poweroff: self.word("on_poweroff", Action::NAMES, Action::Destroy)?,
            on_reboot: self.word("on_reboot", Action::NAMES, Action::Restart)?,
            on_crash: self.word("on_crash", Action::NAMES, Action::Destroy)?,
            on_watchdog: self.word("on_watchdog", Action::NAMES, Action::Destroy)?,
            on_soft_reset: self.word("on_soft_reset", Action::NAMES, Action::SoftReset)?,
        };
        Ok(Parsed { config, warnings: self.warnings })
    }
}

pub(super) fn wrong(place: &Place, key: &str, expected: &str, found: &str) -> ConfigError {
    ConfigError { place: place.clone(), message: format!("{key} must be {expected}, not {found}") }
}

fn join(key: &str, old: &mut Located<Value>, new: Located<Value>) -> Result<(), ConfigError> {
    match (&mut old.value, new.value) {
        (Value::List(old), Value::List(new)) => old.extend(new),
        (Value::Text(old), Value::Text(new)) => old.push_str(&new),
        (old, added) => {
            let message = format!("cannot append {} to {key}, which is {}", added.kind(), old.kind());
            return Err(ConfigError { place: new.place, message });
        }
    }
    Ok(())
}

/// Domain names go into xenstore paths and command lines; a number would be taken for a domain's number.
fn check_name(name: &Located<String>) -> Result<(), ConfigError> {
    let text = &name.value;
    let fail = |what: &str| Err(ConfigError { place: name.place.clone(), message: format!("name {text:?} {what}") });
    if text.is_empty() {
        return fail("is empty");
    }
    if text.chars().all(|c| c.is_ascii_digit()) {
        return fail("is a number, which would be taken for a domain's number");
    }
    if text.chars().any(|c| c == '/' || c.is_control() || c.is_whitespace()) {
        return fail("has a slash, a space or a control character");
    }
    Ok(())
}
