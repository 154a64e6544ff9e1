//! Disks: xl-disk-configuration(5).

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

/// What kind of disk the guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceType {
    /// A disk.
    #[default]
    Disk,
    /// A drive for discs.
    Cdrom,
}

impl DeviceType {
    /// Its name in xenstore.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Cdrom => "cdrom",
        }
    }
}

/// What the guest may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

impl Mode {
    /// Its letter in xenstore.
    #[must_use]
    pub const fn letter(self) -> &'static str {
        match self {
            Self::ReadOnly => "r",
            Self::ReadWrite => "w",
        }
    }
}

/// The name under which the guest sees a disk: `xvda1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vdev {
    /// As it was given.
    pub name: String,
    /// The number for the guest's kernel, which is the device's name in xenstore too (Xen's docs/man/xen-vbd-interface.7).
    pub number: u32,
}

impl Vdev {
    /// Reads a name; a number means itself.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let number = if let Some(rest) = name.strip_prefix("xvd") {
            let (disk, partition) = letters(rest)?;
            xen_disk(disk, partition)?
        } else if let Some(rest) = name.strip_prefix("hd") {
            /// Majors of the kernel's first and second IDE channel.
            const MAJORS: [u32; 2] = [3, 22];
            let (disk, partition) = letters(rest)?;
            let major = MAJORS.get(usize::try_from(disk / 2).ok()?)?;
            (partition < 64).then_some(major << 8 | (disk & 1) << 6 | partition)?
        } else if let Some(rest) = name.strip_prefix("sd") {
            const MAJOR: u32 = 8;
            let (disk, partition) = letters(rest)?;
            (disk < 16 && partition < 16).then_some(MAJOR << 8 | disk << 4 | partition)?
        } else if let Some(rest) = name.strip_prefix('d') {
            let (disk, partition) = rest.split_once('p').unwrap_or((rest, "0"));
            xen_disk(disk.parse().ok()?, partition.parse().ok()?)?
        } else {
            match name.strip_prefix("0x") {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => name.parse().ok()?,
            }
        };
        Some(Self { name: name.to_string(), number })
    }
}

/// Letters count like numbers without a zero, then digits name a partition.
fn letters(text: &str) -> Option<(u32, u32)> {
    let end = text.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(text.len());
    let (letters, digits) = text.split_at(end);
    if letters.is_empty() || letters.len() > 4 {
        return None;
    }
    let disk = letters.bytes().fold(0, |disk, letter| disk * 26 + u32::from(letter - b'a') + 1) - 1;
    let partition = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    Some((disk, partition))
}

fn xen_disk(disk: u32, partition: u32) -> Option<u32> {
    const MAJOR: u32 = 202;
    const EXTENDED: u32 = 1 << 28;
    if disk < 16 && partition < 16 {
        Some(MAJOR << 8 | disk << 4 | partition)
    } else if disk < 1 << 20 && partition < 256 {
        Some(EXTENDED | disk << 8 | partition)
    } else {
        None
    }
}

/// A disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The volume behind it.
    pub target: String,
    /// How the guest sees it.
    pub vdev: Vdev,
    /// What it may do with it.
    pub mode: Mode,
    /// What it is.
    pub device_type: DeviceType,
    /// Whether it may give sectors back.
    pub discard: bool,
    /// Requests per second at most.
    pub iops: Option<u64>,
    /// Bytes per second at most.
    pub rate: Option<u64>,
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.target, self.vdev.name)
    }
}

/// What a specification says so far.
#[derive(Default)]
struct Parts {
    target: Option<String>,
    format: Option<()>,
    vdev: Option<Vdev>,
    mode: Option<Mode>,
    device_type: DeviceType,
    no_discard: bool,
    iops: Option<u64>,
    rate: Option<u64>,
}

/// Prefixes of old; those in the second list name formats or back ends that are not supported.
const OLD: [&str; 4] = ["phy:", "file:", "raw:", "aio:"];
const OLD_OTHERS: [&str; 8] = ["qcow:", "qcow2:", "vhd:", "tap:", "tap2:", "tapdisk:", "qcow2x:", "vmdk:"];

impl Disk {
    /// Reads a specification: positional or named parts with commas between.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Parts::default();
        let mut rest = text.trim();
        let mut old = false;
        while let Some(prefix) = OLD.iter().find(|prefix| rest.starts_with(**prefix)) {
            rest = rest.strip_prefix(prefix).unwrap_or(rest);
            parts.format = Some(());
            old = true;
        }
        if let Some(prefix) = OLD_OTHERS.iter().find(|prefix| rest.starts_with(**prefix)) {
            return Err(format!("\"{prefix}\" is not supported: volumes are raw"));
        }
        loop {
            // A target that is named takes all that follows.
            if let Some(target) = rest.strip_prefix("target=") {
                set(&mut parts.target, "target", target.to_string())?;
                break;
            }
            let (part, next) = match rest.split_once(',') {
                Some((part, next)) => (part.trim(), Some(next.trim_start())),
                None => (rest.trim(), None),
            };
            parts.take(part, old)?;
            match next {
                Some(next) => rest = next,
                None => break,
            }
        }
        parts.finish()
    }
}

/// Bytes per second, as xl-network-configuration(5) has them for networks.
fn rate(text: &str) -> Option<u64> {
    let text = text.strip_suffix("/s")?;
    let (text, bits) = match text.strip_suffix('B') {
        Some(bytes) => (bytes, 1),
        None => (text.strip_suffix('b')?, 8),
    };
    let scales = [('K', 1000), ('M', 1_000_000), ('G', 1_000_000_000)];
    let scaled = scales.into_iter().find_map(|(letter, scale)| Some((text.strip_suffix(letter)?, scale)));
    let (digits, scale) = scaled.unwrap_or((text, 1));
    Some(digits.parse::<u64>().ok()?.checked_mul(scale)? / bits).filter(|rate| *rate > 0)
}

fn set<T>(place: &mut Option<T>, what: &str, value: T) -> Result<(), String> {
    if place.replace(value).is_some() { Err(format!("{what} is given twice")) } else { Ok(()) }
}

impl Parts {
    fn take(&mut self, part: &str, old: bool) -> Result<(), String> {
        if let Some((key, value)) = part.split_once('=') {
            return self.named(key.trim(), value.trim());
        }
        match part {
            "cdrom" => self.device_type = DeviceType::Cdrom,
            "discard" => self.no_discard = false,
            "no-discard" => self.no_discard = true,
            "direct-io-safe" => {}
            "removable" => return Err("removable disks are not supported".into()),
            _ if self.target.is_none() => self.target = Some(part.to_string()),
            _ if self.format.is_none() => self.set_format(part)?,
            _ if self.vdev.is_none() => {
                // Of old the type stood behind the name.
                let (name, kind) = part.split_once(':').filter(|_| old).unwrap_or((part, "disk"));
                self.set_type(kind)?;
                self.set_vdev(name)?;
            }
            _ if self.mode.is_none() => self.set_mode(part)?,
            _ => return Err(format!("unexpected \"{part}\"")),
        }
        Ok(())
    }

    fn named(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "format" if self.format.is_some() => Err("format is given twice".into()),
            "format" => self.set_format(value),
            "vdev" => self.set_vdev(value),
            "access" => self.set_mode(value),
            "devtype" => self.set_type(value),
            "iops" => {
                let iops = value.parse().ok().filter(|iops| *iops > 0);
                set(&mut self.iops, "iops", iops.ok_or_else(|| format!("iops must be a number, not \"{value}\""))?)
            }
            "rate" => {
                let rate = rate(value).ok_or_else(|| format!("rate must be like 10MB/s, not \"{value}\""))?;
                set(&mut self.rate, "rate", rate)
            }
            "backendtype" if value == "phy" => Ok(()),
            "backendtype" => Err(format!("backendtype {value} is not supported, only phy is")),
            "backend" if value == "0" || value == "Domain-0" => Ok(()),
            "backend" => Err("disks of other domains than dom0 are not supported".into()),
            "script" | "specification" | "transport" | "grant_usage" => {
                Err(format!("{key} is not supported for disks"))
            }
            "colo-host" | "colo-port" | "colo-export" | "active-disk" | "hidden-disk" => {
                Err(format!("{key} is not supported: there is no COLO"))
            }
            _ => Err(format!("unknown part \"{key}\"")),
        }
    }

    fn set_format(&mut self, format: &str) -> Result<(), String> {
        self.format = Some(());
        match format {
            "" | "raw" | "aio" => Ok(()),
            "qcow" | "qcow2" | "vhd" | "qed" => Err(format!("format {format} is not supported: volumes are raw")),
            _ => Err(format!("unknown format \"{format}\"")),
        }
    }

    fn set_vdev(&mut self, name: &str) -> Result<(), String> {
        let vdev = Vdev::parse(name).ok_or_else(|| format!("\"{name}\" is no virtual device: xvda is one"))?;
        set(&mut self.vdev, "vdev", vdev)
    }

    fn set_mode(&mut self, mode: &str) -> Result<(), String> {
        let mode = match mode {
            "r" | "ro" => Mode::ReadOnly,
            "w" | "rw" | "" => Mode::ReadWrite,
            "w!" | "rw!" | "!" => return Err("a volume with two writers is refused".into()),
            _ => return Err(format!("access must be ro or rw, not \"{mode}\"")),
        };
        set(&mut self.mode, "access", mode)
    }

    fn set_type(&mut self, kind: &str) -> Result<(), String> {
        match kind {
            "disk" => {}
            "cdrom" => self.device_type = DeviceType::Cdrom,
            _ => return Err(format!("devtype must be disk or cdrom, not \"{kind}\"")),
        }
        Ok(())
    }

    fn finish(self) -> Result<Disk, String> {
        let target = self.target.filter(|target| !target.is_empty()).ok_or("no target: which volume?")?;
        let vdev = self.vdev.ok_or("no vdev specified: under which name is the guest to see it?")?;
        let cdrom = self.device_type == DeviceType::Cdrom;
        let mode = if cdrom { Mode::ReadOnly } else { self.mode.unwrap_or(Mode::ReadWrite) };
        Ok(Disk {
            target,
            vdev,
            mode,
            device_type: self.device_type,
            discard: !self.no_discard,
            iops: self.iops,
            rate: self.rate,
        })
    }
}
