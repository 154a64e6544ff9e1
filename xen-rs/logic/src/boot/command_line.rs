//! The hypervisor's command line, with Xen's options and their spelling (docs/misc/xen-command-line of Xen 4.17 names
//! them). Options that are not known, or have a value that makes no sense, are reported and otherwise ignored.
//!
//! A boolean is written `x`, `x=1`, `x=yes`, `x=on`, `x=true`, `x=enable`, or denied as `no-x`, `x=0`, `x=no`, ...

mod values;

use crate::sched::Scheduler;
use arrayvec::ArrayVec;

use crate::speculation::Wishes;
use values::{boolean, dom0_memory, key, log_level, number, serial, size, vcpus};

/// Where console output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// First serial port.
    Com1,
    /// Second serial port.
    Com2,
    /// The screen: accepted, since boot loaders name it, but there is no driver.
    Vga,
}

/// A serial port's settings: `com1=115200,8n1,0x3f8,4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial {
    /// Bits per second; `None` leaves what the firmware set (`auto`).
    pub baud: Option<u32>,
    /// Data bits.
    pub data_bits: u8,
    /// Parity: n, o, e, m or s.
    pub parity: char,
    /// Stop bits.
    pub stop_bits: u8,
    /// Base port, if given.
    pub port: Option<u16>,
    /// Interrupt line, if given; 0 asks for polling.
    pub irq: Option<u8>,
}

impl Default for Serial {
    fn default() -> Self {
        Self { baud: None, data_bits: 8, parity: 'n', stop_bits: 1, port: None, irq: None }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    None,
    /// Errors.
    Error,
    /// And warnings.
    Warning,
    /// And progress.
    Info,
    /// And details.
    Debug,
}

/// Two levels: up to the first all is printed, up to the second at a limited rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevel {
    /// Always printed.
    pub always: Level,
    /// Printed at a limited rate.
    pub limited: Level,
}

/// A size for dom0: bytes, or a share of the host's memory; negative sizes count from the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Bytes, counted from the host's memory when `from_total`.
    pub bytes: u64,
    /// Percent of the host's memory, added to `bytes`.
    pub percent: u8,
    /// `-512M`: all but that.
    pub from_total: bool,
}

/// `dom0_mem=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dom0Memory {
    /// What it gets.
    pub size: Option<Amount>,
    /// At least.
    pub min: Option<Amount>,
    /// What its reservation may grow to.
    pub max: Option<Amount>,
}

/// `clocksource=`: what system time is read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockSource {
    /// The TSC where it can be relied on, else a platform timer.
    #[default]
    Best,
    /// The TSC, even if the CPU does not promise one rate.
    Tsc,
    /// A platform timer; which one is chosen earlier in boot.
    Platform,
}

/// Everything the command line can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `console=`
    pub console: ArrayVec<Console, 4>,
    /// `com1=`
    pub com1: Serial,
    /// `com2=`
    pub com2: Serial,
    /// `loglvl=`
    pub log: LogLevel,
    /// `guest_loglvl=`
    pub guest_log: LogLevel,
    /// `dom0_mem=`
    pub dom0_memory: Dom0Memory,
    /// `dom0_max_vcpus=MIN-MAX`
    pub dom0_vcpus: (u32, u32),
    /// `dom0=pvh`
    pub dom0_pvh: bool,
    /// `dom0_vcpus_pin`
    pub dom0_pinned: bool,
    /// `sched=`: what the first pool of CPUs has.
    pub scheduler: Scheduler,
    /// `sched_credit_tslice_ms=`, where it is given.
    pub credit_slice_ms: Option<u32>,
    /// `sched_ratelimit_us=`, where it is given.
    pub rate_limit_us: Option<u32>,
    /// `noreboot`
    pub no_reboot: bool,
    /// `maxcpus=`, 0 for all
    pub max_cpus: u32,
    /// `nosmp`
    pub no_smp: bool,
    /// `smep`, `smap`, `x2apic`, `pcid`, `xsave`, `hap`, `apicv`, `vpid`, `global-pages`: false when denied.
    pub features: Features,
    /// `mem=`: use no more of the host's memory than that.
    pub memory_limit: Option<u64>,
    /// `watchdog`
    pub watchdog: bool,
    /// `console_timestamps`
    pub timestamps: bool,
    /// `console_to_ring`: what the control domain writes to the console is kept, too.
    pub console_to_ring: bool,
    /// `sync_console`
    pub sync_console: bool,
    /// `conring_size=`
    pub ring_size: Option<u64>,
    /// `clocksource=`
    pub clock_source: ClockSource,
    /// `spec-ctrl=`, `pv-l1tf=`, `ept=exec-sp`
    pub speculation: Wishes,
}

/// CPU features that can be denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "one option each")]
pub struct Features {
    /// Supervisor-mode execution prevention.
    pub smep: bool,
    /// Supervisor-mode access prevention.
    pub smap: bool,
    /// Pages that a load of CR3 does not flush.
    pub global_pages: bool,
    /// x2APIC mode.
    pub x2apic: bool,
    /// Process-context identifiers.
    pub pcid: bool,
    /// XSAVE.
    pub xsave: bool,
    /// Hardware-assisted paging: without it there are no PVH guests.
    pub hap: bool,
    /// A processor may serve local APICs of PVH guests by itself.
    pub apicv: bool,
    /// Translations of PVH guests may stay in the TLB beside the hypervisor's, under an identifier (VT-x).
    pub vpid: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            console: ArrayVec::new(),
            com1: Serial::default(),
            com2: Serial::default(),
            log: LogLevel { always: Level::Info, limited: Level::Info },
            guest_log: LogLevel { always: Level::Error, limited: Level::Warning },
            dom0_memory: Dom0Memory::default(),
            dom0_vcpus: (1, u32::MAX),
            dom0_pvh: false,
            dom0_pinned: false,
            scheduler: Scheduler::Credit2,
            credit_slice_ms: None,
            rate_limit_us: None,
            no_reboot: false,
            max_cpus: 0,
            no_smp: false,
            features: Features {
                smep: true,
                smap: true,
                x2apic: true,
                pcid: true,
                xsave: true,
                hap: true,
                apicv: true,
                vpid: true,
                global_pages: true,
            },
            memory_limit: None,
            watchdog: false,
            timestamps: false,
            sync_console: false,
            console_to_ring: false,
            ring_size: None,
            clock_source: ClockSource::Best,
            speculation: Wishes::default(),
        }
    }
}

/// Something to tell the administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint<'a> {
    /// No such option.
    Unknown(&'a str),
    /// The option exists, its value makes no sense.
    BadValue(&'a str),
    /// Known, but without effect here.
    NoEffect(&'a str),
}

impl core::fmt::Display for Complaint<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unknown(option) => write!(f, "unknown option '{option}'"),
            Self::BadValue(option) => write!(f, "option '{option}' has a bad value, ignored"),
            Self::NoEffect(option) => write!(f, "option '{option}' has no effect here"),
        }
    }
}

/// Options of Xen's that may stand in a boot loader's entry and need no action.
const WITHOUT_EFFECT: &[&str] = &[
    "placeholder",
    "vga",
    "edd",
    "iommu",
    "ucode",
    "xpti",
    "cpufreq",
    "crashkernel",
    "kexec",
    "dom0-iommu",
    "tsx",
    "mce",
    "efi",
    "acpi",
    "apic",
    "cpuidle",
    "max_cstate",
    "gnttab_max_frames",
    "gnttab_max_maptrack_frames",
    "gnttab",
    "credit2_runqueue",
    "psr",
    "vpmu",
    "nmi",
    "pci",
    "low_crashinfo",
    "dma_bits",
    "e820-mtrr-clip",
    "invpcid",
    "pv",
    "vwfi",
    "tboot",
    "noirqbalance",
    "dom0_nodes",
    "trace_buf_size",
    "smt",
    "serial_tx_buffer",
    "sync_console_log",
    "cpuid",
    "dom0-cpuid",
    "flask",
    "argo",
    "allow_unsafe",
    "ats",
    "bootscrub",
    "bootscrub_chunk",
    "gdb",
    "ioapic_ack",
    "ler",
    "nolapic",
    "noapic",
    "idle_latency_factor",
    "loglvl_limit",
    "pku",
    "shim_mem",
    "real-mode",
    "hpet",
    "hardware_dom",
    "extra_guest_irqs",
    "tevt_mask",
    "tsc",
    "tickle_one_idle_cpu",
    "altp2m",
    "branch-harden",
    "asid",
    "viridian",
];

/// Parses a command line. Each complaint is handed to `complain` with the text it is about.
pub fn parse<'a>(line: &'a str, mut complain: impl FnMut(Complaint<'a>)) -> Options {
    let mut options = Options::default();
    for word in Words(line) {
        if word == "--" {
            break; // what follows is for somebody else
        }
        if let Err(complaint) = options.apply(word) {
            complain(complaint);
        }
    }
    options
}

/// Drops the first word when it is the loader's file name: QEMU's multiboot loader puts it there, GRUB 2 does not.
#[must_use]
pub fn without_file_name(line: &str) -> &str {
    let line = line.trim_start();
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    let (first, rest) = line.split_at(end);
    if first.starts_with('/') || first.starts_with('(') || first.starts_with("./") { rest.trim_start() } else { line }
}

/// Splits at white space outside of double quotes.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        if text.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = text
            .find(|c: char| {
                quoted ^= c == '"';
                !quoted && c.is_whitespace()
            })
            .unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        Some(word)
    }
}

impl Options {
    fn apply<'a>(&mut self, word: &'a str) -> Result<(), Complaint<'a>> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.trim_matches('"'))),
            None => (word, None),
        };
        let bad = Complaint::BadValue(word);
        let text = || value.filter(|v| !v.is_empty()).ok_or(bad);
        match name {
            "console" => {
                self.console.clear();
                for part in text()?.split(',') {
                    let to = match part {
                        "com1" => Console::Com1,
                        "com2" => Console::Com2,
                        "vga" => Console::Vga,
                        "none" => continue,
                        _ => return Err(bad),
                    };
                    self.console.try_push(to).map_err(|_| bad)?;
                }
            }
            "com1" => self.com1 = serial(text()?).ok_or(bad)?,
            "com2" => self.com2 = serial(text()?).ok_or(bad)?,
            "loglvl" => self.log = log_level(text()?).ok_or(bad)?,
            "guest_loglvl" => self.guest_log = log_level(text()?).ok_or(bad)?,
            "dom0_mem" => self.dom0_memory = dom0_memory(text()?).ok_or(bad)?,
            "dom0_max_vcpus" => self.dom0_vcpus = vcpus(text()?).ok_or(bad)?,
            "dom0" => {
                for part in text()?.split(',') {
                    match part {
                        "pv" => self.dom0_pvh = false,
                        "pvh" => self.dom0_pvh = true,
                        _ if matches!(key(part), "shadow" | "verbose" | "cpuid-faulting" | "msr-relaxed") => {}
                        _ => return Err(bad),
                    }
                }
            }
            "sched" => {
                self.scheduler = Scheduler::of_name(text()?).ok_or(bad)?;
            }
            "sched_credit_tslice_ms" => {
                self.credit_slice_ms = Some(number(text()?).and_then(|n| n.try_into().ok()).ok_or(bad)?);
            }
            "sched_ratelimit_us" => {
                self.rate_limit_us = Some(number(text()?).and_then(|n| n.try_into().ok()).ok_or(bad)?);
            }
            "maxcpus" => self.max_cpus = number(text()?).and_then(|n| n.try_into().ok()).ok_or(bad)?,
            "clocksource" => {
                self.clock_source = match text()? {
                    "hpet" | "acpi" | "pit" => ClockSource::Platform,
                    "tsc" => ClockSource::Tsc,
                    _ => return Err(bad),
                }
            }
            // Read where it is acted upon, in `machine`.
            "reboot" => {
                let known = |part: &str| part.starts_with(['a', 'c', 'k', 'n', 'p', 't', 'w']);
                if !text()?.split(',').all(known) {
                    return Err(bad);
                }
            }
            "spec-ctrl" => self.speculation.spec_ctrl(text()?).map_err(Complaint::BadValue)?,
            "pv-l1tf" => self.speculation.pv_l1tf(value).map_err(Complaint::BadValue)?,
            // As Xen reads a denied option that has a value.
            "no-spec-ctrl" => self.speculation.spec_ctrl("no").map_err(Complaint::BadValue)?,
            "no-pv-l1tf" => self.speculation.pv_l1tf(Some("no")).map_err(Complaint::BadValue)?,
            "ept" => self.speculation.ept(text()?).map_err(Complaint::BadValue)?,
            "mem" => self.memory_limit = Some(size(text()?).ok_or(bad)?),
            "conring_size" => self.ring_size = Some(size(text()?).ok_or(bad)?),
            _ => return self.apply_switch(word, name, value),
        }
        Ok(())
    }

    fn apply_switch<'a>(&mut self, word: &'a str, name: &'a str, value: Option<&'a str>) -> Result<(), Complaint<'a>> {
        let (plain, denied) = match name.strip_prefix("no-") {
            Some(plain) => (plain, true),
            None => (name, false),
        };
        // Options whose own name begins with "no".
        let (plain, denied) = match plain {
            "nosmp" => ("nosmp", denied),
            "noreboot" => ("noreboot", denied),
            _ => (plain, denied),
        };
        let slot = match plain {
            "noreboot" => &mut self.no_reboot,
            "nosmp" => &mut self.no_smp,
            "smep" => &mut self.features.smep,
            "smap" => &mut self.features.smap,
            "x2apic" => &mut self.features.x2apic,
            "pcid" => &mut self.features.pcid,
            "xsave" => &mut self.features.xsave,
            "hap" => &mut self.features.hap,
            "apicv" => &mut self.features.apicv,
            "vpid" => &mut self.features.vpid,
            "global-pages" => &mut self.features.global_pages,
            "watchdog" => &mut self.watchdog,
            "console_timestamps" => &mut self.timestamps,
            "sync_console" => &mut self.sync_console,
            "console_to_ring" => &mut self.console_to_ring,
            "dom0_vcpus_pin" => &mut self.dom0_pinned,
            _ if WITHOUT_EFFECT.contains(&plain) => return Err(Complaint::NoEffect(word)),
            _ => return Err(Complaint::Unknown(word)),
        };
        let on = match value {
            None => true,
            Some(text) if plain == "console_timestamps" && matches!(text, "date" | "datems" | "boot" | "raw") => true,
            Some("none") if plain == "console_timestamps" => false,
            Some(text) => boolean(text).ok_or(Complaint::BadValue(word))?,
        };
        *slot = on != denied;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
