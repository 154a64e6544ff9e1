//! The hypercalls that the dispatcher has arms for are those that the table says are served. (Their operations need no such
//! check: the tables' types see to it.)

use super::{Finding, finding};
use std::collections::BTreeSet;
use std::path::Path;

/// The table.
pub const TABLE: &str = "xen-rs/logic/src/access/table/hypercall.rs";
/// The dispatcher.
pub const DISPATCHER: &str = "xen-rs/src/hypercall/mod.rs";

/// Compares the two.
pub fn check(table: &str, dispatcher: &str) -> Vec<Finding> {
    let name = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        text.get(..end).unwrap_or_default().to_owned()
    };
    let served: BTreeSet<String> =
        table.lines().filter_map(|line| line.split_once("= HYPERVISOR_")).map(|(_, rest)| name(rest)).collect();
    let arms: BTreeSet<String> = dispatcher
        .lines()
        .filter(|line| line.contains("=>"))
        .filter_map(|line| line.trim().strip_prefix("hypercall::HYPERVISOR_"))
        .map(name)
        .collect();
    let only = |file: &str, names: &BTreeSet<String>, others: &BTreeSet<String>, rule: &str| {
        let missing =
            names.difference(others).map(|name| finding(Path::new(file), 0, format!("HYPERVISOR_{name} {rule}")));
        missing.collect::<Vec<_>>()
    };
    let mut findings = only(TABLE, &served, &arms, "is served, says the table, but has no handler");
    findings.extend(only(DISPATCHER, &arms, &served, "has a handler, but the table does not say that it is served"));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_name_the_same() {
        let table = "served {\n  Iret = HYPERVISOR_IRET, Anyone;\n}\nrefused {\n  HYPERVISOR_HVM_OP, Anyone, ENOSYS, \"no\";\n}\n";
        let arm = |name: &str| format!("        hypercall::HYPERVISOR_{name} => a::a(cx),\n");
        assert!(check(table, &arm("IRET")).is_empty());
        assert_eq!(check(table, &arm("HVM_OP")).len(), 2);
    }
}
