//! The names of what went through the privcmd device.

use logic::access::{FAMILIES, Family};

/// Number of the ioctl for a hypercall; others, by the low byte (Linux's `include/uapi/xen/privcmd.h`).
const HYPERCALL: u64 = 0;
const IOCTLS: [(u64, &str); 7] = [
    (2, "mmap of foreign frames"),
    (3, "mmap of foreign frames, batch"),
    (4, "mmap of foreign frames, batch with errors"),
    (5, "dm_op"),
    (6, "restrict to a domain"),
    (7, "mmap of a resource"),
    (0xff, "an ioctl that does not exist"),
];

/// `multicall`: the first entry's hypercall is the first word, its first argument the third.
const MULTICALL: u64 = 13;
/// Hypercalls whose operation is the first word of what their first argument points to.
const BY_STRUCTURE: [&str; 5] = ["domctl", "sysctl", "platform_op", "mmuext_op", "mca"];
/// `memory_op` has a place to go on from above the operation (`MEMOP_EXTENT_SHIFT`).
const MEMORY_OP_BITS: u64 = 0x3f;

/// A line of the trace as `hypercall operation`.
pub fn of(line: &str) -> Option<String> {
    let field = |name: &str| -> Option<u64> {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(name))?;
        match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => word.parse().ok(),
        }
    };
    let ioctl = field("ioctl=")? & 0xff;
    if ioctl != HYPERCALL {
        let known = IOCTLS.iter().find(|(number, _)| *number == ioctl);
        return Some(known.map_or_else(|| format!("privcmd {ioctl}"), |(_, name)| format!("privcmd: {name}")));
    }
    let call = field("call=")?;
    if call == MULTICALL {
        // The library puts single calls with a long result into one of these: the first entry is what it asks for.
        return Some(format!("multicall of {}", operation(field("sub=")?, field("first=")?, None)));
    }
    Some(operation(call, field("a0=")?, field("sub=")))
}

/// The name of a call with its first argument, and the first word of what that points to.
fn operation(call: u64, first: u64, pointed_to: Option<u64>) -> String {
    let by_number = |name: &str| FAMILIES.iter().find(|family| family.name == name);
    let name =
        by_number("hypercalls").and_then(|calls| row(calls, call)).unwrap_or_else(|| format!("hypercall {call}"));
    let Some(family) = by_number(&name) else { return name };
    let number = match family.name {
        name if BY_STRUCTURE.contains(&name) => pointed_to,
        "memory_op" => Some(first & MEMORY_OP_BITS),
        _ => Some(first),
    };
    let Some(number) = number else { return name };
    format!("{name} {}", row(family, number).unwrap_or_else(|| number.to_string()))
}

/// The name of a number, without what all names of its header begin with.
fn row(family: &Family, number: u64) -> Option<String> {
    const PREFIXES: [&str; 14] = [
        "HYPERVISOR_",
        "XEN_DOMCTL_",
        "XEN_SYSCTL_",
        "XENMEM_",
        "XENVER_",
        "EVTCHNOP_",
        "GNTTABOP_",
        "MMUEXT_",
        "PHYSDEVOP_",
        "XENPF_",
        "SCHEDOP_",
        "VCPUOP_",
        "XEN_MC_",
        "CONSOLEIO_",
    ];
    let name = family.rows.iter().find(|row| u64::from(row.number) == number)?.name;
    let short = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    Some(short.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_names() {
        assert_eq!(of("ioctl=0x305000 call=36 a0=0x7f sub=1").unwrap(), "domctl createdomain");
        assert_eq!(of("ioctl=0x305000 call=12 a0=0x146 sub=1").unwrap(), "memory_op populate_physmap");
        assert_eq!(
            of("ioctl=0x205004 call=12 a0=0x6 sub=1").unwrap(),
            "privcmd: mmap of foreign frames, batch with errors"
        );
        assert_eq!(
            of("ioctl=0x305000 call=13 a0=0x7f sub=12 first=0x3").unwrap(),
            "multicall of memory_op current_reservation"
        );
        assert_eq!(of("ioctl=0x305000 call=60 a0=0x6 sub=1").unwrap(), "hypercall 60");
        assert!(of("nothing").is_none());
    }
}
