//! Which domain a command is about.

use alloc::format;
use alloc::vec::Vec;

use xen_abi::errno::Errno;
use xen_abi::ids::{DOMID_FIRST_RESERVED, DomId};

use crate::calls::DomainInfo;
use crate::cmd::{FAILURE, Status};
use crate::host::Host;
use crate::store;

/// How many domains are asked for in one hypercall.
const BATCH: usize = 128;

/// All domains, by number.
pub fn all(host: &mut dyn Host) -> Result<Vec<DomainInfo>, Errno> {
    let mut domains: Vec<DomainInfo> = Vec::new();
    let mut next = 0;
    loop {
        let mut some = host.domain_list(DomId(next), BATCH)?;
        let last = some.last().map(|info| info.id.0);
        let full = some.len() >= BATCH;
        domains.append(&mut some);
        match last {
            Some(last) if full && last + 1 < DOMID_FIRST_RESERVED => next = last + 1,
            _ => return Ok(domains),
        }
    }
}

/// The domain of this name.
pub fn by_name(host: &mut dyn Host, name: &str) -> Option<DomId> {
    // Our own are found without a search, if they still have that name.
    if let Some(dom) = host.domains().by_name(name).map(|record| record.dom)
        && store::name_of(host, dom).as_deref() == Some(name)
        && host.domain_info(dom).is_ok()
    {
        return Some(dom);
    }
    let names = store::names(host);
    let mut named = names.iter().filter(|(_, known)| *known == name).map(|(dom, _)| *dom);
    named.find(|dom| host.domain_info(*dom).is_ok())
}

/// The domain that `text` names, by number or by name. As in xl, a number need not be a domain's.
pub fn resolve(host: &mut dyn Host, text: &str) -> Result<DomId, Status> {
    // libxl's ERROR_INVAL.
    resolve_or(host, text, " (rc=-6)")
}

/// As [`resolve`], where xl names no error of libxl's.
pub fn resolve_plainly(host: &mut dyn Host, text: &str) -> Result<DomId, Status> {
    resolve_or(host, text, "")
}

fn resolve_or(host: &mut dyn Host, text: &str, code: &str) -> Result<DomId, Status> {
    if let Ok(number) = text.parse::<u16>()
        && number < DOMID_FIRST_RESERVED
    {
        return Ok(DomId(number));
    }
    by_name(host, text).ok_or_else(|| {
        host.print_error(&format!("{text} is an invalid domain identifier{code}\n"));
        FAILURE
    })
}

/// Says that something failed, and with which error.
pub fn failed(host: &mut dyn Host, what: &str, dom: DomId, errno: Errno) -> Status {
    let why = if errno == Errno::ESRCH { "no such domain" } else { errno.name() };
    host.print_error(&format!("{what} domain {dom} failed: {why}\n"));
    FAILURE
}
