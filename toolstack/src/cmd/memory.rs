//! `mem-set` and `mem-max`: the memory that a domain's balloon driver aims at, and the most that it can have.

use alloc::format;
use alloc::string::ToString;

use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

use super::options::Options;
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::build::MAXMEM_SLACK_KIB;
use crate::config::DomainType;
use crate::host::Host;
use crate::store::domain_path;

pub const MEM_SET: Command = Command {
    name: "mem-set",
    usage: "<Domain> <MemMB['b'[bytes]|'k'[KB]|'m'[MB]|'g'[GB]|'t'[TB]]>",
    about: "Set the current memory usage for a domain",
    flags: &[],
    needs: 2,
    run: set,
};

pub const MEM_MAX: Command = Command {
    name: "mem-max",
    usage: "<Domain> <MemMB['b'[bytes]|'k'[KB]|'m'[MB]|'g'[GB]|'t'[TB]]>",
    about: "Set the maximum amount reservation for a domain",
    flags: &[],
    needs: 2,
    run: max,
};

/// KiB, from a number with a unit; MiB without.
fn kib(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    match text.get(digits.len()..)? {
        "t" | "T" => number.checked_mul(1 << 30),
        "g" | "G" => number.checked_mul(1 << 20),
        "" | "m" | "M" => number.checked_mul(1 << 10),
        "k" | "K" => Some(number),
        "b" | "B" => Some(number >> 10),
        _ => None,
    }
}

fn arguments(host: &mut dyn Host, options: &Options) -> Result<(DomId, u64), Status> {
    let dom = target::resolve(host, options.arg(0).unwrap_or_default())?;
    let text = options.arg(1).unwrap_or_default();
    // The hypervisor counts in pages, in 64 bits, and adds to this.
    match kib(text).filter(|kib| *kib < 1 << 50) {
        Some(kib) => Ok((dom, kib)),
        None => {
            host.print_error(&format!("invalid memory size: {text}\n"));
            Err(FAILURE)
        }
    }
}

/// A number of the domain's `memory` directory.
fn entry(host: &mut dyn Host, dom: DomId, key: &str) -> Result<u64, Errno> {
    let value = host.store_read(&format!("{}/memory/{key}", domain_path(dom)))?;
    core::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).ok_or(Errno::EINVAL)
}

fn set(host: &mut dyn Host, options: &Options) -> Status {
    let (dom, kib) = match arguments(host, options) {
        Ok(arguments) => arguments,
        Err(status) => return status,
    };
    let wrong = match set_target(host, dom, kib) {
        Ok(Ok(())) => return SUCCESS,
        Ok(Err(wrong)) => wrong,
        Err(Errno::ESRCH) => "no such domain",
        Err(Errno::ENOENT) => "it has no memory target",
        Err(errno) => errno.name(),
    };
    let size = options.arg(1).unwrap_or_default();
    host.print_error(&format!("domain {dom}: {wrong}\ncannot set domid {dom} dynamic max memory to : {size}\n"));
    FAILURE
}

/// The hypervisor's limit follows the target, so that a guest cannot keep what it was asked to give.
fn set_target(host: &mut dyn Host, dom: DomId, kib: u64) -> Result<Result<(), &'static str>, Errno> {
    host.domain_info(dom)?;
    // What a PVH guest can add to the memory it began with is not in its memory map.
    let most = match entry(host, dom, "hotplug-max") {
        Err(Errno::ENOENT) => entry(host, dom, "static-max")?,
        most => most?,
    };
    if kib > most {
        return Ok(Err("memory_dynamic_max must be less than or equal to memory_static_max"));
    }
    if kib == 0 {
        return Ok(Err("a domain needs memory"));
    }
    host.set_max_mem(dom, kib + MAXMEM_SLACK_KIB)?;
    host.store_write(&format!("{}/memory/target", domain_path(dom)), kib.to_string().as_bytes())?;
    // It is to come back so when it restarts. What a PVH guest begins with is all that its memory map has: it begins with the
    // most that it had, gives back what is above its target, and can have it again.
    host.domains().reconfigure(dom, |config| {
        config.target_kib = kib;
        config.memory_kib = if config.kind == DomainType::Pvh { config.memory_kib.max(kib) } else { kib };
    });
    Ok(Ok(()))
}

fn max(host: &mut dyn Host, options: &Options) -> Status {
    let (dom, kib) = match arguments(host, options) {
        Ok(arguments) => arguments,
        Err(status) => return status,
    };
    let result = host.domain_info(dom).and_then(|_| entry(host, dom, "target"));
    let wrong = match result {
        Ok(target) if kib < target => "memory_static_max must be greater than or or equal to memory_dynamic_max",
        Ok(_) => match host.set_max_mem(dom, kib + MAXMEM_SLACK_KIB) {
            Ok(()) => return SUCCESS,
            Err(errno) => errno.name(),
        },
        Err(Errno::ESRCH) => "no such domain",
        Err(Errno::ENOENT) => "it has no memory target",
        Err(errno) => errno.name(),
    };
    let size = options.arg(1).unwrap_or_default();
    host.print_error(&format!("domain {dom}: {wrong}\ncannot set domid {dom} static max memory to : {size}\n"));
    FAILURE
}

#[cfg(test)]
mod tests {
    use super::kib;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("16", Some(16 << 10)),
            ("16m", Some(16 << 10)),
            ("1G", Some(1 << 20)),
            ("2t", Some(2 << 30)),
            ("64k", Some(64)),
            ("4096b", Some(4)),
            ("16mb", None),
            ("m", None),
            ("", None),
            ("-1", None),
            ("99999999999999999999", None),
            ("99999999999999999t", None),
        ] {
            assert_eq!(kib(text), want, "{text}");
        }
    }
}
