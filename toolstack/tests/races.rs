//! Commands that run while another one waits for a disk's back end.

mod support;

use support::Machine;

const CREATE: &str = "create -q /files/debian.cfg 'disk=[\"/dev/vda,,xvda\", \"/dev/vdb,,xvdb\"]'";

/// Runs one command beside another; its status.
fn beside(machine: &mut Machine, words: &[&str]) -> i32 {
    toolstack::cmd::run(machine, words)
}

#[test]
fn a_domain_that_restarts_keeps_its_files() {
    let mut machine = Machine::with_guest();
    assert_eq!(machine.run(CREATE), 0, "{}", machine.err);
    machine.ended(1, 1);
    machine.meanwhile = Some(|machine| {
        assert!(machine.records.uses("/files/vmlinuz") && machine.records.uses("/files/initrd"));
        assert!(!machine.records.uses("/files/other"));
    });
    let log = toolstack::lifecycle::react(&mut machine);
    assert!(machine.meanwhile.is_none() && log.last().unwrap().ends_with("restarted as 2"), "{log:?}");
}

#[test]
fn of_two_domains_of_one_name_one_is_made() {
    let mut machine = Machine::with_guest();
    // The one that knows its own domains alone.
    machine.alone = true;
    machine.meanwhile = Some(|machine| {
        assert_eq!(beside(machine, &["create", "-q", "/files/debian.cfg"]), 3);
        assert_eq!(machine.err, "create: a domain with name \"debian\" already exists\n");
        let uuid = machine.records.by_name("debian").unwrap().uuid;
        assert_eq!(beside(machine, &["create", "-q", "/files/debian.cfg", "name=two", &format!("uuid={uuid}")]), 3);
        assert!(machine.err.ends_with(&format!("create: a domain with UUID {uuid} already exists\n")));
    });
    assert_eq!(machine.run(CREATE), 0, "{}", machine.err);
    assert_eq!((machine.domains.len(), machine.records.len()), (2, 1));
}

#[test]
fn what_is_destroyed_while_another_restarts_does_not_come_back() {
    let mut machine = Machine::with_guest();
    assert_eq!(machine.run(&format!("{CREATE}; create -q /files/debian.cfg name=two")), 0, "{}", machine.err);
    machine.ended(1, 1);
    machine.ended(2, 1);
    machine.meanwhile = Some(|machine| assert_eq!(beside(machine, &["destroy", "two"]), 0));
    let log = toolstack::lifecycle::react(&mut machine);
    assert_eq!(log.len(), 2, "{log:?}");
    assert_eq!(machine.domains.keys().copied().collect::<Vec<_>>(), [0, 3]);
    assert_eq!(machine.text("/local/domain/3/name"), "debian");
}

#[test]
fn a_domain_destroyed_before_it_is_whole_leaves_nothing() {
    let mut machine = Machine::with_guest();
    assert_eq!(machine.run(&format!("{CREATE}; destroy debian")), 0, "{}", machine.err);
    let before = machine.holdings();
    machine.meanwhile = Some(|machine| assert_eq!(beside(machine, &["destroy", "debian"]), 0));
    assert_eq!(machine.run(CREATE), 3);
    assert_eq!(machine.err, "create: the domain was destroyed while it was being made\n");
    assert!(machine.holdings() == before);
}

#[test]
fn a_disk_of_a_domain_that_goes_leaves_nothing() {
    let mut machine = Machine::with_guest();
    assert_eq!(machine.run(&format!("{CREATE}; destroy debian")), 0, "{}", machine.err);
    let before = machine.holdings();
    assert_eq!(machine.run("create -q /files/debian.cfg"), 0, "{}", machine.err);
    machine.meanwhile = Some(|machine| assert_eq!(beside(machine, &["destroy", "debian"]), 0));
    assert_eq!(machine.run("block-attach debian /dev/vda,,xvda"), 1);
    assert!(machine.err.contains("it was taken away before it was connected"), "{}", machine.err);
    assert!(machine.holdings() == before);
}

#[test]
fn what_is_left_of_a_domain_that_is_gone_can_be_destroyed() {
    let mut machine = Machine::with_guest();
    assert_eq!(machine.run(&format!("{CREATE}; destroy debian")), 0, "{}", machine.err);
    let before = machine.holdings();
    assert_eq!(machine.run(CREATE), 0, "{}", machine.err);
    // The hypervisor has lost it.
    machine.domains.remove(&2);
    machine.free = before.0;
    assert_eq!(machine.run("destroy 2"), 1);
    assert_eq!(machine.err, "domain 2 does not exist\ndestroy failed (rc=-21)\n");
    assert!(machine.holdings() == before);
}
