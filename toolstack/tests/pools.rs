//! Pools of CPUs: xl's output, names in xenstore, and what a new domain is put into.

mod support;

use support::Machine;

#[test]
fn a_pool_is_made_used_and_destroyed() {
    let mut machine = Machine { cpus: 4, ..Machine::with_guest() };
    machine.run("cpupool-list; cpupool-list -c");
    assert_eq!(
        machine.out,
        "Name               CPUs   Sched     Active   Domain count\n\
         Pool-0               4   credit2       y          1\n\
         Name               CPU list\n\
         Pool-0             0,1,2,3\n"
    );
    assert_eq!(machine.run("cpupool-cpu-remove Pool-0 2-3"), 0);
    let create = r#"cpupool-create 'name="second"' 'sched="credit"' 'cpus=["2","3"]'"#;
    assert_eq!(machine.run(create), 0, "{}", machine.err);
    assert_eq!(
        machine.out,
        "Using config file \"command line\"\ncpupool name:   second\nscheduler:      credit\nnumber of cpus: 2\n"
    );
    assert_eq!(machine.text("/local/pool/1/name"), "second");
    assert_eq!(machine.text("/local/pool/1/uuid").len(), 36);
    assert_eq!(machine.run(create), 1);
    assert_eq!(machine.err, "Pool name \"second\" already exists\n");

    assert_eq!(machine.run(r#"create -q /files/debian.cfg 'pool="second"' cpu_weight=512"#), 0, "{}", machine.err);
    machine.run("cpupool-list second; sched-credit; list -c debian");
    let out = machine.out.clone();
    assert!(out.contains("second               2    credit       y          1\n"), "{out}");
    assert!(out.contains("Cpupool second: tslice=30ms ratelimit=1000us migration-delay=0us\n"), "{out}");
    assert!(out.contains("debian                               1    512    0\n"), "{out}");
    assert!(!out.contains("Domain-0  "), "it has another scheduler: {out}");
    assert!(out.ends_with("second\n"), "{out}");
    machine.run("sched-credit -s -p second -t 5 -r 500; sched-credit -s -p 1");
    assert_eq!(machine.out, "Cpupool second: tslice=5ms ratelimit=500us migration-delay=0us\n");

    assert_eq!(machine.run("cpupool-destroy second"), 1);
    assert_eq!(machine.err, "Can't destroy cpupool 'second'\n");
    assert_eq!(machine.run("cpupool-migrate debian Pool-0"), 0);
    assert_eq!(machine.run("cpupool-rename second other"), 0);
    assert_eq!(machine.run("cpupool-destroy other"), 0);
    assert_eq!(machine.run("cpupool-cpu-add Pool-0 node:0; cpupool-list -c"), 0);
    assert_eq!(machine.out, "Name               CPU list\nPool-0             0,1,2,3\n");
    assert!(machine.store.keys().all(|path| !path.starts_with("/local/pool/1")));
}

#[test]
fn what_cannot_be() {
    let mut machine = Machine { cpus: 4, ..Machine::with_guest() };
    for (command, message) in [
        ("cpupool-list none", "Pool 'none' does not exist"),
        ("cpupool-destroy none", "unknown cpupool 'none'"),
        ("cpupool-destroy 0", "Can't destroy cpupool '0'"),
        ("cpupool-migrate 0 none", "unknown cpupool 'none'"),
        ("cpupool-cpu-add Pool-0 1", "some cpus may have not or only partially been added to Pool-0"),
        ("cpupool-cpu-remove Pool-0 0", "some cpus may have not or only partially been removed from 'Pool-0'"),
        (r#"cpupool-create 'name="x"' 'cpus="1"'"#, "cpu 1 illegal or not free"),
        (r#"cpupool-create 'name="x"'"#, "no free cpu found"),
        (r#"cpupool-create 'name="x"' 'sched="round"'"#, "Unknown scheduler"),
    ] {
        assert_eq!(machine.run(command), 1, "{command}");
        assert_eq!(machine.err, format!("{message}\n"), "{command}");
    }
    assert_eq!(machine.run(r#"create -q /files/debian.cfg 'pool="none"'"#), 6);
    assert!(machine.err.contains("there is no pool of CPUs \"none\""), "{}", machine.err);
    assert_eq!(machine.run("cpupool-numa-split; cpupool-list"), 0);
    assert!(machine.out.contains("Pool-node0           4   credit2"), "{}", machine.out);
}
