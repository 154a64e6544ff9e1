//! `rename`: another name for a domain.

use alloc::format;
use alloc::string::String;

use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use super::options::Options;
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::host::Host;
use crate::store::domain_path;

pub const COMMAND: Command =
    Command { name: "rename", usage: "<Domain> <NewDomainName>", about: "Rename a domain", flags: &[], needs: 2, run };

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    let (text, name) = (options.arg(0).unwrap_or_default(), options.arg(1).unwrap_or_default());
    if let Some(other) = target::by_name(host, name) {
        host.print_error(&format!(
            "Domain {other} with name \"{name}\" already exists.\nCan't rename domain '{text}'.\n"
        ));
        return FAILURE;
    }
    match rename(host, dom, name) {
        Ok(()) => SUCCESS,
        Err(errno) => {
            // xl says no more of a domain that there is not.
            if errno != Errno::ESRCH {
                target::failed(host, "renaming", dom, errno);
            }
            host.print_error(&format!("Can't rename domain '{text}'.\n"));
            FAILURE
        }
    }
}

/// Gives `dom` the name `name`, in both places where it is kept.
pub fn rename(host: &mut dyn Host, dom: DomId, name: &str) -> Result<(), Errno> {
    let path = domain_path(dom);
    host.domain_info(dom)?;
    host.store_write(&format!("{path}/name"), name.as_bytes())?;
    if let Ok(vm) = host.store_read(&format!("{path}/vm"))
        && let Ok(vm) = String::from_utf8(vm)
    {
        host.store_write(&format!("{vm}/name"), name.as_bytes())?;
    }
    host.domains().rename(dom, name);
    Ok(())
}
