//! Lists of devices of kinds that no domain can have yet: what there is of them is said truly, and scripts find the head of
//! the table that they look for.

use super::options::{JSON, Options, flag};
use super::{Command, SUCCESS, Status, target};
use crate::host::Host;

const fn list(name: &'static str, about: &'static str, run: fn(&mut dyn Host, &Options) -> Status) -> Command {
    Command { name, usage: "<Domain(s)>", about, flags: &[JSON], needs: 1, run }
}

pub const NETWORK: Command = list("network-list", "List virtual network interfaces for a domain", |host, options| {
    none(
        host,
        options,
        "Idx BE Mac Addr.         handle state evt-ch   tx-/rx-ring-ref BE-path                       \n",
    )
});

pub const CHANNEL: Command = list("channel-list", "List virtual channel devices for a domain", |host, options| {
    none(host, options, "Idx BE state evt-ch ring-ref connection                               \n")
});

pub const TPM: Command = list("vtpm-list", "List virtual TPM devices for a domain", |host, options| {
    none(host, options, "Idx BE Uuid                                 handle state evt-ch ring-ref BE-path   \n")
});

pub const KEYBOARD: Command = list("vkb-list", "List virtual keyboard devices for a domain", |host, options| {
    none(host, options, "Idx BE handle state evt-ch    ref ID         BE-type    BE-path                       \n")
});

pub const DISPLAY: Command =
    list("vdispl-list", "List virtual display devices for a domain", |host, options| none(host, options, ""));

pub const SOUND: Command =
    list("vsnd-list", "List virtual sound devices for a domain", |host, options| none(host, options, ""));

pub const USB: Command =
    list("usb-list", "List USB controllers and devices for a domain", |host, options| none(host, options, ""));

pub const PCI: Command =
    list("pci-list", "List pass-through PCI devices for a domain", |host, options| none(host, options, ""));

pub const ASSIGNABLE: Command = Command {
    name: "pci-assignable-list",
    usage: "",
    about: "List all the assignable PCI devices",
    flags: &[flag('n', "show-names", "Show the devices' names, where they have one"), JSON],
    needs: 0,
    run: |host, options| none(host, options, ""),
};

fn none(host: &mut dyn Host, options: &Options, head: &str) -> Status {
    let mut status = SUCCESS;
    for text in &options.positional {
        match target::resolve(host, text).map(|dom| (dom, host.domain_info(dom))) {
            Ok((_, Ok(_))) => {}
            Ok((dom, Err(errno))) => status = target::failed(host, "listing the devices of", dom, errno),
            Err(failed) => status = failed,
        }
    }
    host.print(if options.has('j') { "[]\n" } else { head });
    status
}
