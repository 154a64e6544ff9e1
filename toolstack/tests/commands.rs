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
    assert_eq!(machine.err, "rename: domain 1 already has the name \"web\"\n");
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
        ("sched-credit2 -w 5", "must specify a domain"),
        ("sched-credit2 -d debian -w 0", "the weight must be 1 to 65535, not \"0\""),
        ("sched-credit2 -d debian -s", "specifying a cpupool or schedparam is not allowed with domain options"),
        ("sched-credit2 -r 5", "must specify schedparam to set schedule parameter values"),
        ("sched-credit2 -p other", "unknown cpupool 'other'"),
    ] {
        assert_eq!(machine.run(command), 1);
        assert_eq!(machine.err, format!("sched-credit2: {message}\n"));
    }
}

#[test]
fn ending_a_domain() {
    let mut machine = Machine::with_guest();
    machine.run("create -q /files/debian.cfg; shutdown debian");
    assert_eq!(machine.out, "Shutting down domain 1\n");
    assert_eq!(machine.text("/local/domain/1/control/shutdown"), "poweroff");
    machine.run("reboot debian");
    assert_eq!(machine.text("/local/domain/1/control/shutdown"), "reboot");
    machine.dying_wish.push((1, 0));
    assert_eq!(machine.run("shutdown -w debian"), 0);
    assert_eq!(machine.out, "Shutting down domain 1\nDomain 1 has been shut down, reason code 0\n");
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
