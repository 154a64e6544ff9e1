//! The commands' output, character for character, and what happens when domains end.

mod support;

use support::Machine;
use toolstack::calls::DomainInfo;
use toolstack::host::{ConsoleEnd, PowerAction};

const HEADER: &str = "Name                                        ID   Mem VCPUs\tState\tTime(s)";

#[test]
fn list() {
    let mut machine = Machine::with_guest();
    assert_eq!(machine.run("create -pq /files/debian.cfg uuid=00112233445566778899aabbccddeeff; list"), 0);
    let rows = "Domain-0                                     0   128     1     r-----       1.2\n\
                debian                                       1    16     1     --p---       0.0\n";
    assert_eq!(machine.out, format!("{HEADER}\n{rows}"));
    machine.run("list debian");
    assert_eq!(machine.out.lines().count(), 2);
    machine.run("unpause 1");
    machine.domains.get_mut(&1).unwrap().info.flags |= DomainInfo::BLOCKED;
    machine.domains.get_mut(&1).unwrap().info.cpu_time = 99_960_000_000;
    machine.run("list 1");
    assert_eq!(
        machine.out.lines().nth(1).unwrap(),
        "debian                                       1    16     1     -b----     100.0"
    );
    machine.ended(1, 3);
    machine.run("list -v debian");
    assert_eq!(
        machine.out,
        format!(
            "{HEADER}   UUID                            Reason-Code\tSecurity Label\n\
             debian                                       1    16     1     ---sc-     100.0 \
             00112233-4455-6677-8899-aabbccddeeff        3                -\n"
        )
    );
    machine.run("list -l debian");
    for part in ["\"domid\": 1", "\"name\": \"debian\"", "\"target_memkb\": 16384", "\"on_crash\": \"destroy\""] {
        assert!(machine.out.contains(part), "{part} in {}", machine.out);
    }
    machine.store.remove("/local/domain/1/name");
    machine.run("list 1");
    assert!(machine.out.contains("\n(null)    "));
}

#[test]
fn names_and_numbers() {
    let mut machine = Machine::with_guest();
    machine.run("create -q /files/debian.cfg; domid debian");
    assert_eq!(machine.out, "1\n");
    machine.run("domname 1; rename debian web; domname 1; domid web");
    assert_eq!(machine.out, "debian\nweb\n1\n");
    assert_eq!(machine.run("create -q /files/debian.cfg; rename debian web"), 1);
    assert_eq!(machine.err, "Domain 1 with name \"web\" already exists.\nCan't rename domain 'debian'.\n");
    machine.clock += 3_723_000_000_000;
    machine.run("uptime web");
    assert_eq!(
        machine.out,
        "Name                                ID Uptime\nweb                                  1  1:02:03\n"
    );
}

#[test]
fn info() {
    let mut machine = Machine::default();
    assert_eq!(machine.run("info"), 0);
    for line in [
        "nr_cpus                : 1",
        "cpu_mhz                : 2596.122",
        "virt_caps              : pv hvm hap shadow gnttab-v1 gnttab-v2",
        "total_memory           : 512",
        "free_memory            : 256",
        "xen_version            : 4.17.7",
        "xen_scheduler          : credit2",
        "platform_params        : virt_start=0xffff800000000000",
        "xend_config_format     : 4",
    ] {
        assert!(machine.out.lines().any(|l| l == line), "{line} in {}", machine.out);
    }
    machine.run("info -n");
    let tables = "cpu_topology           :\ncpu:    core    socket     node\n  0:       0        0        0\n  1:       1        0        0\n\
                  device topology        :\ndevice           node\nNo device topology data available\n\
                  numa_info              :\nnode:    memsize    memfree    distances\n   0:      1024        256      10\n\
                  xen_major              : 4\n";
    assert!(machine.out.contains(tables), "{}", machine.out);
    machine.run("info free_memory");
    assert_eq!(machine.out, "256\n");
    machine.run("dmesg");
    assert_eq!(machine.out, "(XEN) hello\n");
}

#[test]
fn shares_of_the_cpus() {
    let mut machine = Machine::with_guest();
    machine.run("create -q /files/debian.cfg cpu_weight=512 cap=150; sched-credit2");
    assert_eq!(
        machine.out,
        "Cpupool Pool-0: ratelimit=1000us\n\
         Name                                ID Weight  Cap\n\
         Domain-0                             0    256    0\n\
         debian                               1    512  150\n"
    );
    machine.run("sched-credit2 -d debian -c 0; sched-credit2 -d debian");
    assert!(machine.out.ends_with("debian                               1    512    0\n"), "{}", machine.out);
    machine.run("sched-credit2 -s -r 500; sched-credit2 -s");
    assert_eq!(machine.out, "Cpupool Pool-0: ratelimit=500us\n");
    for (command, message) in [
        ("sched-credit2 -w 5", "Must specify a domain."),
        ("sched-credit2 -d debian -w 0", "the weight must be 1 to 65535, not \"0\""),
        ("sched-credit2 -d debian -s", "Specifying a cpupool or schedparam is not allowed with domain options."),
        ("sched-credit2 -r 5", "Must specify schedparam to set schedule parameter values."),
        ("sched-credit2 -p other", "unknown cpupool 'other'"),
    ] {
        assert_eq!(machine.run(command), 1);
        assert_eq!(machine.err, format!("{message}\n"));
    }
}

#[test]
fn ending_a_domain() {
    let mut machine = Machine::with_guest();
    machine.run("create -q /files/debian.cfg; shutdown debian");
    assert_eq!(machine.err, "Shutting down domain 1\n");
    assert_eq!(machine.text("/local/domain/1/control/shutdown"), "poweroff");
    machine.run("reboot debian");
    assert_eq!(machine.text("/local/domain/1/control/shutdown"), "reboot");
    machine.dying_wish.push((1, 0));
    assert_eq!(machine.run("shutdown -w debian"), 0);
    assert_eq!(
        machine.err,
        "Shutting down domain 1\nWaiting for 1 domains\nDomain 1 has been shut down, reason code 0\n"
    );
    // The same where it is destroyed at once, as it usually is.
    machine.run("create -q /files/debian.cfg 'name=\"gone\"'");
    machine.dying_wish.push((2, 0));
    machine.reacts = true;
    assert_eq!(machine.run("shutdown -w gone"), 0);
    assert_eq!(
        machine.err,
        "Shutting down domain 2\nWaiting for 1 domains\nDomain 2 has been shut down, reason code 0\n"
    );
    assert!(!machine.domains.contains_key(&2));
    machine.run("destroy 1");
    assert_eq!(machine.run("shutdown -a -w"), 0);
    assert_eq!(machine.err, "Waiting for 0 domains\n");
    machine.run("create -q /files/debian.cfg");
    assert_eq!(machine.run("shutdown 0"), 1);
    assert_eq!(machine.run("poweroff"), 1);
    assert_eq!((machine.power, machine.domains.len()), (Some(PowerAction::Off), 1));
}

#[test]
fn consoles() {
    let mut machine = Machine::with_guest();
    assert_eq!(machine.run("create -qc /files/debian.cfg; console --until '~ #' --timeout 60 debian"), 0);
    machine.console_end = ConsoleEnd::TimedOut;
    assert_eq!(machine.run("console --until='~ #' debian"), 1);
    assert_eq!(machine.err, "console: \"~ #\" did not appear in time\n");
    assert_eq!(machine.run("console --until x --timeout soon debian"), 1);
    assert_eq!(machine.run("console 9"), 1);
}

#[test]
fn life_cycle() {
    // Reason, option, what is left: domains, and their names.
    let table: &[(u32, &str, &[&str])] = &[
        (0, "", &[]),
        (1, "", &["2 debian"]),
        (3, "", &[]),
        (3, "on_crash=preserve", &["1 debian"]),
        (3, "on_crash=restart", &["2 debian"]),
        (3, "on_crash=coredump-destroy", &[]),
        (3, "on_crash=coredump-restart", &["2 debian"]),
        (3, "on_crash=rename-restart", &["1 debian-1", "2 debian"]),
        (1, "on_reboot=destroy", &[]),
        (1, "on_reboot=preserve", &["1 debian"]),
        (5, "on_soft_reset=preserve", &["1 debian"]),
        (0, "on_poweroff=rename-restart", &["1 debian-1", "2 debian"]),
        (4, "on_watchdog=preserve", &["1 debian"]),
        (2, "", &["1 debian"]),
        (99, "", &[]),
    ];
    for (reason, option, want) in table {
        let mut machine = Machine::with_guest();
        assert_eq!(machine.run(&format!("create -q /files/debian.cfg {option}")), 0);
        assert_eq!(toolstack::lifecycle::react(&mut machine), [""; 0]);
        machine.ended(1, *reason);
        let log = toolstack::lifecycle::react(&mut machine);
        assert!(!log.is_empty());
        let left: Vec<_> = machine
            .domains
            .keys()
            .filter(|dom| **dom != 0)
            .map(|dom| format!("{dom} {}", machine.text(&format!("/local/domain/{dom}/name"))))
            .collect();
        assert_eq!(left, *want, "{reason} {option}");
        // It is dealt with once.
        assert_eq!(toolstack::lifecycle::react(&mut machine), [""; 0]);
        assert_eq!(machine.records.len(), left.len());
    }
}

#[test]
fn cores_of_crashed_domains() {
    for (action, room, left) in [
        ("coredump-destroy", true, &["Domain-0"][..]),
        ("coredump-restart", true, &["Domain-0", "debian"]),
        ("coredump-destroy", false, &["Domain-0", "debian"]),
        ("coredump-restart", false, &["Domain-0", "debian-1", "debian"]),
    ] {
        let mut machine = Machine::with_guest();
        machine.room = if room { u64::MAX } else { 4096 };
        assert_eq!(machine.run(&format!("create -q /files/debian.cfg on_crash={action}")), 0);
        machine.ended(1, 3);
        let log = toolstack::lifecycle::react(&mut machine).join("\n");
        let core = machine.saved.as_ref().map(|(name, content)| (name.as_str(), content.get(..4)));
        if room {
            assert_eq!(core, Some(("/dump/debian", Some(&b"\x7fELF"[..]))));
            assert!(log.contains("pages dumped to /dump/debian"), "{log}");
        } else {
            assert_eq!(core, None);
            assert!(log.contains("(there is no room for it here); it stays, and \"xrs dump-core 1 FILE\""), "{log}");
        }
        let doms: Vec<u16> = machine.domains.keys().copied().collect();
        let names: Vec<&str> = doms.iter().map(|dom| machine.text(&format!("/local/domain/{dom}/name"))).collect();
        assert_eq!(names, left, "{action} {room}");
    }
}

#[test]
fn tables_of_all_domains() {
    let mut machine = Machine::with_guest();
    machine.run("create -pq /files/debian.cfg uuid=00112233445566778899aabbccddeeff; claims");
    let row = "debian                                       1    16     1     --p---       0.0     0";
    assert_eq!(machine.out.lines().next(), Some(format!("{HEADER}  Claimed").as_str()));
    assert_eq!(machine.out.lines().last(), Some(row));
    machine.run("list -n -c debian");
    assert_eq!(
        machine.out,
        format!(
            "{HEADER}         Cpupool NODE Affinity\n\
             debian                                       1    16     1     --p---       0.0          Pool-0 all\n"
        )
    );
    machine.run("vm-list");
    assert_eq!(
        machine.out.lines().last(),
        Some("00112233-4455-6677-8899-aabbccddeeff  1    debian                        ")
    );
    machine.run("sharing debian");
    assert_eq!(
        machine.out,
        "Name                                        ID   Mem Shared\n\
         debian                                       1    16      0\n"
    );
    machine.run("network-list debian");
    assert!(machine.out.starts_with("Idx BE Mac Addr. ") && machine.out.lines().count() == 1);
    for line in [
        "list -j",
        "claims -j",
        "vm-list --json",
        "sharing --json",
        "vcpu-list -j",
        "uptime -j",
        "cpupool-list -j",
        "block-list -j debian",
        "sched-credit2 -j",
        "sched-credit2 -s -j",
        "network-list --json debian",
    ] {
        assert_eq!(machine.run(line), 0, "{line}");
        assert!(machine.out.starts_with('[') && machine.out.ends_with("]\n"), "{line}: {}", machine.out);
    }
    machine.device_node = 0;
    machine.run("info -n");
    assert!(machine.out.contains("\ndevice           node\n0000:02:03.2      0\nnuma_info"), "{}", machine.out);
    assert_eq!(machine.run("list debian 0"), 1);
}

#[test]
fn rehearsals() {
    let mut machine = Machine::with_guest();
    for line in ["create -n /files/debian.cfg vcpus=2", "xl -N create /files/debian.cfg 'vcpus=2; cpu_weight=99'"] {
        assert_eq!(machine.run(line), 0, "{line}: {}", machine.err);
        for part in ["\"name\": \"debian\"", "\"avail_vcpus\": [0, 1]", "\"on_reboot\": \"restart\""] {
            assert!(machine.out.contains(part), "{part} in {}", machine.out);
        }
        assert_eq!(machine.domains.len(), 1);
    }
    assert!(machine.out.contains("\"weight\": 99"));
    machine.run("xl create -q /files/debian.cfg; xl -N vcpu-pin debian all 0 -");
    assert_eq!(machine.out, "cpumap: all -\n");
}

#[test]
fn the_end_is_waited_for_or_left_alone() {
    let mut machine = Machine::with_guest();
    machine.run("create -q -e /files/debian.cfg");
    machine.ended(1, 3);
    assert_eq!(toolstack::lifecycle::react(&mut machine), [""; 0]);
    assert_eq!(machine.domains.len(), 2, "nobody deals with its end");
}

#[test]
fn every_command_explains_itself() {
    let mut machine = Machine::default();
    for command in toolstack::cmd::COMMANDS {
        for line in [format!("{} --help", command.name), format!("help {}", command.name)] {
            assert_eq!(machine.run(&line), 0, "{line}");
            assert!(machine.out.starts_with(&format!("Usage: {} ", command.name)), "{}", machine.out);
            assert!(machine.out.contains("-h, --help"), "{}", machine.out);
        }
    }
    machine.run("help console");
    assert!(machine.out.contains("\n--timeout=SECONDS  Wait no longer than that\n"), "{}", machine.out);
    assert!(machine.out.contains("\n-t, --type=TYPE "), "{}", machine.out);
    assert_eq!(machine.run("xl cre -n -q name=x kernel=y"), 0, "what is unambiguous is understood");
}

#[test]
fn a_domain_that_went_away_is_forgotten() {
    let mut machine = Machine::with_guest();
    machine.run("create -q /files/debian.cfg");
    machine.domains.remove(&1);
    toolstack::lifecycle::react(&mut machine);
    assert!(machine.records.is_empty());
}

#[test]
fn scripts() {
    let split = |text| toolstack::cmd::split(text);
    assert_eq!(
        split("a 'b c' \"d\\\"e\" f\\ g;h # x\n\n # y\n i;;").unwrap(),
        [vec!["a", "b c", "d\"e", "f g"], vec!["h"], vec!["i"]]
    );
    assert_eq!(split("console --until \"~ #\" x").unwrap(), [["console", "--until", "~ #", "x"]]);
    assert_eq!(split("a '' b").unwrap(), [["a", "", "b"]]);
    assert!(split("a 'b").is_err() && split("a \"b\\").is_err());
    assert_eq!(split("").unwrap(), Vec::<Vec<String>>::new());
    let mut machine = Machine::default();
    assert_eq!(machine.run("xl list"), 0);
    assert_eq!(machine.run("help; help create"), 0);
    assert!(machine.out.contains(" create              Create a domain from config file <filename>\n"));
}
