//! `trigger`: what a button on a machine does, for a domain.

use alloc::format;

use xen_abi::domctl::{
    XEN_DOMCTL_SENDTRIGGER_INIT, XEN_DOMCTL_SENDTRIGGER_NMI, XEN_DOMCTL_SENDTRIGGER_POWER,
    XEN_DOMCTL_SENDTRIGGER_RESET, XEN_DOMCTL_SENDTRIGGER_SLEEP,
};
use xen_abi::ids::VcpuId;

use super::options::Options;
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::host::Host;

pub const COMMAND: Command = Command {
    name: "trigger",
    usage: "<Domain> <nmi|reset|init|power|sleep|s3resume> [<VCPU>]",
    about: "Send a trigger to a domain",
    flags: &[],
    needs: 2,
    run,
};

pub const BUTTON: Command = Command {
    name: "button-press",
    usage: "<Domain> <power|sleep>",
    about: "Indicate an ACPI button press to the domain",
    flags: &[],
    needs: 2,
    run: press,
};

const TRIGGERS: &[(&str, u32)] = &[
    ("nmi", XEN_DOMCTL_SENDTRIGGER_NMI),
    ("reset", XEN_DOMCTL_SENDTRIGGER_RESET),
    ("init", XEN_DOMCTL_SENDTRIGGER_INIT),
    ("power", XEN_DOMCTL_SENDTRIGGER_POWER),
    ("sleep", XEN_DOMCTL_SENDTRIGGER_SLEEP),
];

fn press(host: &mut dyn Host, options: &Options) -> Status {
    host.print_error("WARNING: \"button-press\" is deprecated. Please use \"trigger\"\n");
    match options.arg(1) {
        Some("power" | "sleep") => run(host, options),
        other => {
            host.print_error(&format!("{} is an invalid button identifier\n", other.unwrap_or_default()));
            FAILURE
        }
    }
}

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    let name = options.arg(1).unwrap_or_default();
    if name == "s3resume" {
        host.print_error("trigger: only HVM domains sleep\n");
        return FAILURE;
    }
    let Some((_, trigger)) = TRIGGERS.iter().find(|(known, _)| *known == name) else {
        host.print_error(&format!("Invalid trigger \"{name}\"\n"));
        return FAILURE;
    };
    let vcpu = match options.arg(2).map_or(Ok(0), str::parse) {
        Ok(vcpu) => VcpuId(vcpu),
        Err(_) => {
            host.print_error(&format!("Invalid VCPU \"{}\"\n", options.arg(2).unwrap_or_default()));
            return FAILURE;
        }
    };
    match host.send_trigger(dom, *trigger, vcpu) {
        Ok(()) => SUCCESS,
        Err(errno) => target::failed(host, &format!("sending the trigger '{name}' to"), dom, errno),
    }
}
