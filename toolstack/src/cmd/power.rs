//! `poweroff` and `reboot-host`: the end of the machine. Its domains are destroyed first.

use alloc::vec::Vec;

use super::options::Options;
use super::{Command, FAILURE, Status, destroy, target};
use crate::host::{Host, PowerAction};

pub const POWEROFF: Command =
    Command { name: "poweroff", usage: "", about: "Power the machine off", flags: &[], needs: 0, run: poweroff };

pub const REBOOT_HOST: Command =
    Command { name: "reboot-host", usage: "", about: "Restart the machine", flags: &[], needs: 0, run: reboot };

fn poweroff(host: &mut dyn Host, _: &Options) -> Status {
    end(host, PowerAction::Off)
}

fn reboot(host: &mut dyn Host, _: &Options) -> Status {
    end(host, PowerAction::Reboot)
}

fn end(host: &mut dyn Host, action: PowerAction) -> Status {
    let domains: Vec<_> = target::all(host).unwrap_or_default();
    for info in domains.iter().filter(|info| info.id.0 != 0) {
        let _ = destroy::destroy_domain(host, info.id);
    }
    host.power(action);
    host.print_error("the hypervisor refused\n");
    FAILURE
}
