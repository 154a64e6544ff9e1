//! The keys of xl.cfg: those that mean something here, and those that xl knows and we do not act upon yet.

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It is acted upon.
    Used,
    /// xl.cfg has it; it is accepted with a warning.
    Ignored,
    /// xl.cfg has it for HVM domains; here it says nothing, so no warning either.
    Meaningless,
    /// Neither.
    Unknown,
}

/// Keys that are acted upon.
pub const USED: &[&str] = &[
    "acpi",
    "apic",
    "builder",
    "cap",
    "cmdline",
    "cpu_weight",
    "cpus",
    "cpus_soft",
    "disk",
    "event_channels",
    "extra",
    "firmware",
    "hap",
    "kernel",
    "max_event_channels",
    "max_grant_frames",
    "max_grant_version",
    "max_maptrack_frames",
    "maxmem",
    "maxvcpus",
    "memory",
    "name",
    "nestedhvm",
    "on_crash",
    "on_poweroff",
    "on_reboot",
    "on_soft_reset",
    "on_watchdog",
    "passthrough",
    "pci",
    "pool",
    "ramdisk",
    "root",
    "rtc_timeoffset",
    "shadow_memory",
    "tsc_mode",
    "type",
    "uuid",
    "vcpus",
    "viridian",
];

/// Keys of xl.cfg(5) whose absence changes what the domain gets.
const IGNORED: &[&str] = &[
    "altp2m",
    "argo",
    "bootloader",
    "bootloader_args",
    "channel",
    "claim_mode",
    "cpuid",
    "device_tree",
    "driver_domain",
    "dtdev",
    "e820_host",
    "exec_ssidref",
    "ioports",
    "iomem",
    "irqs",
    "localtime",
    "msr_relaxed",
    "numa_placement",
    "nodes",
    "p9",
    "pci_msitranslate",
    "pci_permissive",
    "pci_power_mgmt",
    "pci_seize",
    "poolid",
    "pvcalls",
    "pvshim",
    "rdm",
    "rdm_mem_boundary",
    "seclabel",
    "init_seclabel",
    "swiotlb",
    "usbctrl",
    "usbdev",
    "vdispl",
    "vfb",
    "vif",
    "vkb",
    "vnuma",
    "vpmu",
    "vsnd",
    "vtpm",
    "vuart",
    "virtio",
    "xend_suspend_evtchn_compat",
    "suppress_spurious_page_faults",
    "default_bridge",
    "timer_mode",
    "xenstore_quota",
    "vmtrace_buf_kb",
    "xen_platform_pci",
    "rambase",
    "extratime",
    "gic_version",
    "latency",
    "nomigrate",
    "period",
    "pvshim_cmdline",
    "pvshim_extra",
    "pvshim_path",
    "slice",
    "tee",
    "vif2",
];

/// Keys of HVM domains.
const MEANINGLESS: &[&str] = &[
    "acpi_firmware",
    "acpi_s3",
    "acpi_s4",
    "acpi_laptop_slate",
    "bios",
    "bios_path_override",
    "boot",
    "device_model_override",
    "device_model_version",
    "device_model_args",
    "device_model_user",
    "firmware_override",
    "gfx_passthru",
    "gpio",
    "hdtype",
    "hpet",
    "keymap",
    "mmio_hole",
    "monitor",
    "nographic",
    "nx",
    "ovmf_path",
    "pae",
    "parallel",
    "sdl",
    "serial",
    "smbios_firmware",
    "soundhw",
    "spice",
    "spicehost",
    "spiceport",
    "stdvga",
    "system_firmware",
    "usb",
    "usbdevice",
    "vga",
    "vendor_device",
    "videoram",
    "vnc",
    "vnclisten",
    "vncpasswd",
    "vncunused",
    "vpt_align",
    "xen_extended_power_mgmt",
    "altp2mhvm",
    "device_model",
    "device_model_args_hvm",
    "device_model_args_pv",
    "device_model_stubdomain_override",
    "device_model_stubdomain_seclabel",
    "display",
    "dm_restrict",
    "mca_caps",
    "ms_vm_genid",
    "oos",
    "opengl",
    "spice_clipboard_sharing",
    "spice_image_compression",
    "spice_streaming_video",
    "spiceagent_mouse",
    "spicedisable_ticketing",
    "spicepasswd",
    "spicetls_port",
    "spiceusbredirection",
    "spicevdagent",
    "stubdomain_kernel",
    "stubdomain_memory",
    "stubdomain_ramdisk",
    "usbversion",
    "vkb_device",
    "vncdisplay",
    "vncviewer",
    "xauthority",
];

/// What becomes of `key`.
#[must_use]
pub fn support(key: &str) -> Support {
    if USED.contains(&key) {
        Support::Used
    } else if IGNORED.contains(&key) {
        Support::Ignored
    } else if MEANINGLESS.contains(&key) {
        Support::Meaningless
    } else {
        Support::Unknown
    }
}

/// The known key that is most like `key`, if one is like it at all.
#[must_use]
pub fn nearest(key: &str) -> Option<&'static str> {
    nearest_of(key, USED.iter().chain(IGNORED).chain(MEANINGLESS).copied())
}

/// The word of `words` that is most like `word`: at most a third of its letters (and at least one) may differ.
pub fn nearest_of<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.len() / 3).max(1);
    words.map(|known| (distance(word, known), known)).filter(|(d, _)| *d <= allowed).min().map(|(_, known)| known)
}

/// Letters to insert, delete, replace or swap with a neighbour to make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 32;
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() > LONGEST || b.len() > LONGEST {
        return usize::MAX;
    }
    let mut rows = [[0usize; LONGEST + 1]; LONGEST + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + same);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}
