//! Commands of xl's that are not here, with the reason: a script should hear that, and not that it made a spelling mistake.

use alloc::format;
use alloc::string::String;

use super::{FAILURE, Status};
use crate::config::keys::nearest_of;
use crate::host::Host;

/// Their names, by the reason.
pub const COMMANDS: &[(&str, &[&str])] = &[
    ("domains cannot be saved yet", &["save", "restore", "migrate", "migrate-receive", "remus"]),
    ("there are no virtual network devices yet", &["network-attach", "network-detach"]),
    ("devices of the machine cannot be given to domains", &["pci-attach", "pci-detach"]),
    ("devices of the machine cannot be given to domains", &["pci-assignable-add", "pci-assignable-remove"]),
    ("there are no HVM domains", &["vncviewer", "cd-insert", "cd-eject", "qemu-monitor-command"]),
    ("there are no virtual TPMs", &["vtpm-attach", "vtpm-detach"]),
    ("there are no virtual keyboards", &["vkb-attach", "vkb-detach"]),
    ("there are no virtual displays", &["vdispl-attach", "vdispl-detach"]),
    ("there are no virtual sound devices", &["vsnd-attach", "vsnd-detach"]),
    ("there is no virtual USB", &["usbctrl-attach", "usbctrl-detach", "usbdev-attach", "usbdev-detach"]),
    ("there is no such scheduler", &["sched-rtds"]),
    ("the hypervisor's parameters are set at its boot alone", &["set-parameters"]),
    ("the hypervisor has no security module (Flask XSM)", &["getenforce", "setenforce", "loadpolicy"]),
    ("all back ends are in dom0", &["devd"]),
    ("the hypervisor does not share out caches", &["psr-hwinfo", "psr-cmt-attach", "psr-cmt-detach", "psr-cmt-show"]),
    ("the hypervisor does not share out caches", &["psr-cat-set", "psr-cat-show", "psr-mba-set", "psr-mba-show"]),
];

/// Says why there is no such command.
pub fn refuse(host: &mut dyn Host, name: &str) -> Status {
    let why = match COMMANDS.iter().find(|(_, names)| names.contains(&name)) {
        Some((why, _)) => format!("not supported: {why}"),
        None => {
            let hint = match nearest_of(name, super::COMMANDS.iter().map(|command| command.name)) {
                Some(near) => format!(" (did you mean \"{near}\"?)"),
                None => String::from(", see \"help\""),
            };
            format!("no such command{hint}")
        }
    };
    host.print_error(&format!("{name}: {why}\n"));
    FAILURE
}
