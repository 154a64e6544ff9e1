//! `block-attach`, `block-detach`, `block-list`: a running domain's disks.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::options::{JSON, Options, flag};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::config::disk::{Disk, Vdev};
use crate::device::disk::{self, Force};
use crate::host::Host;
use crate::json;

pub const ATTACH: Command = Command {
    name: "block-attach",
    usage: "<Domain> <disk-spec-component(s)>...",
    about: "Create a new virtual block device",
    flags: &[],
    needs: 2,
    run: attach,
};

pub const DETACH: Command = Command {
    name: "block-detach",
    usage: "[option] <Domain> <DevId>",
    about: "Destroy a domain's virtual block device",
    flags: &[flag('f', "force", "Do not wait for the domain to let go of the device")],
    needs: 2,
    run: detach,
};

pub const LIST: Command = Command {
    name: "block-list",
    usage: "<Domain(s)>",
    about: "List virtual block devices for a domain",
    flags: &[JSON],
    needs: 1,
    run: list,
};

fn attach(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve_plainly(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    let spec = options.positional.get(1..).unwrap_or_default().join(",");
    let disk = match Disk::parse(&spec) {
        Ok(disk) => disk,
        Err(why) => {
            host.print_error(&format!("command line: config parsing error in disk specification: {why} in `{spec}'\n"));
            return FAILURE;
        }
    };
    let attached = match host.domain_info(dom) {
        Err(errno) => {
            target::failed(host, "attaching a disk to", dom, errno);
            false
        }
        Ok(_) => match disk::attach(host, dom, &disk) {
            Err(error) => {
                host.print_error(&format!("block-attach: {disk}: {error}\n"));
                false
            }
            Ok(()) => true,
        },
    };
    if !attached {
        host.print_error("libxl_device_disk_add failed.\n");
        return FAILURE;
    }
    // It is to come back when the domain restarts.
    host.domains().reconfigure(dom, |config| config.disks.push(disk));
    SUCCESS
}

fn detach(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    let name = options.arg(1).unwrap_or_default();
    let vdev = Vdev::parse(name).filter(|vdev| disk::list(host, dom).iter().any(|info| info.number == vdev.number));
    let Some(vdev) = vdev else {
        host.print_error(&format!("Error: Device {name} not connected.\n"));
        return FAILURE;
    };
    let (force, done) = if options.has('f') { (Force::Yes, "destroy") } else { (Force::No, "safe_remove") };
    if let Err(error) = disk::detach(host, dom, vdev.number, name, force) {
        host.print_error(&format!("block-detach: {error}\nlibxl_device_disk_{done} failed.\n"));
        return FAILURE;
    }
    host.domains().reconfigure(dom, |config| config.disks.retain(|disk| disk.vdev.number != vdev.number));
    SUCCESS
}

fn list(host: &mut dyn Host, options: &Options) -> Status {
    let mut text = String::from("Vdev  BE  handle state evt-ch ring-ref BE-path                       \n");
    let (mut status, mut items) = (SUCCESS, Vec::new());
    for name in &options.positional {
        let Ok(dom) = target::resolve_plainly(host, name) else {
            status = FAILURE;
            continue;
        };
        if let Err(errno) = host.domain_info(dom) {
            status = target::failed(host, "listing the disks of", dom, errno);
            continue;
        }
        for info in disk::list(host, dom) {
            items.push(json::object(
                4,
                &[
                    ("domid", dom.to_string()),
                    ("devid", info.number.to_string()),
                    ("state", info.state.to_string()),
                    ("evtch", info.port.to_string()),
                    ("rref", info.ring.to_string()),
                    ("backend", json::quote(&info.backend)),
                ],
            ));
            text.push_str(&format!(
                "{:<5} {:<3} {:<6} {:<5} {:<6} {:<8} {:<30}\n",
                info.number, 0, dom.0, info.state, info.port, info.ring, info.backend
            ));
        }
    }
    host.print(&if options.has('j') { json::list(&items) } else { text });
    status
}
