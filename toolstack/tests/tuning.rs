//! Commands that change a domain that is there: vCPUs, memory, keys, its saved configuration.

mod support;

use support::Machine;

fn machine(config: &str) -> Machine {
    let mut machine = Machine::with_guest();
    assert_eq!(machine.run(&format!("create -pq /files/debian.cfg {config}")), 0, "{}", machine.err);
    machine
}

#[test]
fn vcpus_are_listed() {
    let mut machine = machine("maxvcpus=2 vcpus=1");
    assert_eq!(machine.run("vcpu-list debian"), 0);
    let head = "Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)";
    let rows = "debian                               1     0    0   -b-       1.3  all / all\n\
                debian                               1     1    -   --p       1.3  all / all\n";
    assert_eq!(machine.out, format!("{head}\n{rows}"));
    assert_eq!(machine.run("vcpu-list"), 0);
    assert!(machine.out.lines().nth(1).unwrap().starts_with("Domain-0  "), "{}", machine.out);
    assert_eq!(machine.out.lines().count(), 4);
    assert_eq!(machine.run("vcpu-list 1 nobody 9"), 1);
    assert_eq!(machine.out.lines().count(), 3);
    assert_eq!(machine.run("vcpu-list --json 1"), 0);
    assert!(machine.out.starts_with("[\n    {\n        \"name\": \"debian\",\n"), "{}", machine.out);
    assert!(machine.out.contains("\"cpu\": null,\n        \"online\": false"));
}

#[test]
fn vcpus_are_set() {
    let mut machine = machine("maxvcpus=4 vcpus=1");
    assert_eq!(machine.run("vcpu-set debian 2"), 1);
    assert!(machine.err.starts_with("You are overcommmitting! You have 1 physical CPUs and want 2 vCPUs!"));
    assert_eq!(machine.run("vcpu-set -i debian 3"), 0);
    let words: Vec<_> = (0..4).map(|n| machine.text(&format!("/local/domain/1/cpu/{n}/availability"))).collect();
    assert_eq!(words, ["online", "online", "online", "offline"]);
    for wrong in ["0", "5"] {
        assert_eq!(machine.run(&format!("vcpu-set -i debian {wrong}")), 1);
        let message = format!("libxl_set_vcpuonline failed domid=1 max_vcpus={wrong}, rc: -3\n");
        assert!(machine.err.ends_with(&message), "{}", machine.err);
    }
    assert_eq!(machine.run("vcpu-set debian many"), 1);
    assert_eq!(machine.err, "Error: Invalid argument.\n");
    // It restarts with as many.
    machine.ended(1, 1);
    toolstack::lifecycle::react(&mut machine);
    assert_eq!(machine.text("/local/domain/2/cpu/2/availability"), "online");
}

#[test]
fn vcpus_are_pinned() {
    let mut machine = machine("maxvcpus=2 vcpus=2");
    assert_eq!(machine.run("vcpu-pin debian 0 0; vcpu-pin debian 1 - 0; vcpu-pin debian all all all"), 0);
    assert_eq!(machine.domains[&1].affinity.len(), 2);
    machine.run("vcpu-pin debian 0 0 ; vcpu-list debian");
    assert_eq!(machine.run("vcpu-pin debian 7 0"), 1);
    assert_eq!(machine.err, "domain 1: EINVAL\nCould not set affinity for vcpu `7'.\n");
    assert_eq!(machine.run("vcpu-pin debian x 0"), 1);
    assert_eq!(machine.err, "Error: Invalid argument x as VCPU.\n");
    assert_eq!(machine.run("vcpu-pin debian 0 5"), 1);
    assert_eq!(machine.err, "there is no CPU 5, only 0 to 0\n");
    assert_eq!(machine.run("vcpu-pin -f debian all 0"), 1);
    assert_eq!(machine.run("vcpu-pin debian 0"), 2);
    assert!(machine.err.starts_with("'vcpu-pin' requires at least 3 arguments.\n"));
}

#[test]
fn memory_is_set() {
    let mut machine = machine("maxmem=32");
    assert_eq!(machine.run("mem-set debian 8"), 0);
    assert_eq!(machine.text("/local/domain/1/memory/target"), "8192");
    assert_eq!(machine.domains[&1].max_mem_kib, 8192 + 1024);
    assert_eq!(machine.run("mem-set debian 24576k"), 0);
    assert_eq!(machine.text("/local/domain/1/memory/target"), "24576");
    assert_eq!(machine.run("mem-set debian 33"), 1);
    assert_eq!(
        machine.err,
        "domain 1: memory_dynamic_max must be less than or equal to memory_static_max\n\
         cannot set domid 1 dynamic max memory to : 33\n"
    );
    assert_eq!(machine.run("mem-set debian lots"), 1);
    assert_eq!(machine.err, "invalid memory size: lots\n");
    assert_eq!(machine.run("mem-set 7 8"), 1);
    assert_eq!(machine.run("mem-max debian 64"), 0);
    assert_eq!(machine.domains[&1].max_mem_kib, 65536 + 1024);
    assert_eq!(machine.run("mem-max debian 8"), 1);
    assert!(machine.err.contains("memory_static_max must be greater than or or equal to memory_dynamic_max"));
}

/// A PVH guest's Linux keeps as much less than its target as its memory map has less than `static-max`.
#[test]
fn memory_of_a_pvh_guest_is_added_to() {
    let mut machine = machine("type='pvh' memory=16 maxmem=32");
    assert_eq!(machine.text("/local/domain/1/memory/static-max"), "16384");
    assert_eq!(machine.text("/local/domain/1/memory/hotplug-max"), "32768");
    assert_eq!(machine.run("mem-set debian 32"), 0, "{}", machine.err);
    assert_eq!(machine.text("/local/domain/1/memory/target"), "32768");
    assert_eq!(machine.domains[&1].max_mem_kib, 32768 + 1024);
    assert_eq!(machine.run("mem-set debian 33"), 1);
    assert!(machine.err.contains("must be less than or equal to memory_static_max"), "{}", machine.err);
    assert_eq!(machine.run("destroy debian; create -q /files/debian.cfg type='pvh' memory=16"), 0, "{}", machine.err);
    assert!(!machine.store.contains_key("/local/domain/2/memory/hotplug-max"));
    assert_eq!(machine.run("mem-set 2 17"), 1);
}

/// It begins with the most that it had, and with a target below: its memory map has what it may get back.
#[test]
fn a_smaller_pvh_guest_restarts_with_its_whole_memory_map() {
    let memory = |machine: &Machine, dom: u16| {
        let entry = |key| machine.text(&format!("/local/domain/{dom}/memory/{key}")).to_string();
        let map = machine.domains[&dom].memory_map.iter().filter(|entry| entry.type_ == 1);
        (entry("static-max"), entry("target"), map.map(|entry| entry.size).sum::<u64>() >> 20)
    };
    let mut machine = machine("type='pvh' memory=32");
    let whole = memory(&machine, 1).2;
    assert_eq!(machine.run("mem-set debian 16"), 0, "{}", machine.err);
    machine.ended(1, 1);
    toolstack::lifecycle::react(&mut machine);
    assert_eq!(memory(&machine, 2), ("32768".into(), "16384".into(), whole));
    assert_eq!((machine.domains[&2].max_mem_kib, machine.domains[&2].info.tot_pages / 256), (16384 + 1024, whole));
    assert!(!machine.store.contains_key("/local/domain/2/memory/hotplug-max"));
    assert_eq!(machine.run("list -l debian"), 0);
    assert!(machine.out.contains("\"target_memkb\": 16384"), "{}", machine.out);
    assert_eq!(machine.run("mem-set debian 32"), 0, "{}", machine.err);
    assert_eq!(machine.run("mem-set debian 16"), 0, "{}", machine.err);
    // Where others have what it gave back it comes again with what it is to have.
    machine.free = 0;
    machine.ended(2, 1);
    let given_back: Vec<u64> =
        machine.frames.keys().copied().filter(|frame| (1 << 12..2 << 12).contains(frame)).collect();
    given_back.iter().for_each(|frame| drop(machine.frames.remove(frame)));
    toolstack::lifecycle::react(&mut machine);
    assert_eq!(memory(&machine, 3), ("16384".into(), "16384".into(), whole - 16));
}

#[test]
fn memory_for_the_tables_of_a_pvh_guest() {
    assert_eq!(machine("type='pvh' shadow_memory=9").domains[&1].paging_pool, 9 << 20);
    assert_eq!(machine("type='pvh' memory=16").domains[&1].paging_pool, 2 << 20);
}

#[test]
fn keys_and_triggers() {
    let mut machine = machine("");
    assert_eq!(machine.run("sysrq debian h"), 0);
    assert_eq!(machine.text("/local/domain/1/control/sysrq"), "h");
    assert_eq!(machine.run("sysrq debian help"), 1);
    assert!(machine.err.starts_with("Invalid sysrq.\n"));
    assert_eq!(machine.run("trigger debian nmi; trigger debian nmi 3"), 0);
    assert_eq!(machine.domains[&1].triggers, [(0, 0), (0, 3)]);
    assert_eq!(machine.run("trigger debian reset"), 1);
    assert_eq!(machine.err, "sending the trigger 'reset' to domain 1 failed: ENOSYS\n");
    assert_eq!(machine.run("trigger debian kick"), 1);
    assert_eq!(machine.err, "Invalid trigger \"kick\"\n");
}

#[test]
fn the_saved_configuration_is_changed() {
    let mut machine = machine("");
    assert_eq!(machine.run("config-update debian /files/debian.cfg memory=24 name=other"), 0);
    assert!(machine.err.starts_with("WARNING: "));
    assert_eq!(machine.run("config-update debian /files/none.cfg"), 253);
    assert_eq!(machine.run("config-update 0 memory=24"), 1);
    machine.ended(1, 1);
    toolstack::lifecycle::react(&mut machine);
    assert_eq!(machine.domains[&2].info.tot_pages, 24 * 256);
    assert_eq!(machine.text("/local/domain/2/name"), "debian");
}

#[test]
fn listings_as_json() {
    let mut machine = machine("uuid=00112233445566778899aabbccddeeff");
    machine.run("list --json debian");
    let as_json = machine.out.clone();
    machine.run("list -l debian");
    assert_eq!(machine.out, as_json);
    machine.run("uptime --json debian");
    assert_eq!(
        machine.out,
        "[\n    {\n        \"name\": \"debian\",\n        \"domid\": 1,\n        \"uptime\": 0\n    }\n]\n"
    );
    machine.run("info --json");
    assert!(machine.out.contains("    \"nr_cpus\": \"1\",\n"), "{}", machine.out);
    machine.run("uptime -s debian");
    assert_eq!(machine.out, " 22:13:20 up  0:00, debian (1)\n");
}

#[test]
fn top_shows_what_is_used() {
    let mut machine = machine("");
    assert_eq!(machine.run("top -b -i 1"), 0);
    let names: Vec<_> = machine.out.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(names, ["NAME", "Domain-0", "debian"]);
    let columns = |line: &str| line.split_whitespace().count();
    let mut lines = machine.out.lines();
    assert_eq!(columns(lines.next().unwrap()), 19);
    assert_eq!(columns(lines.nth(1).unwrap()), 19);
    assert_eq!(machine.run("top -i 1"), 0);
    assert!(machine.out.contains("2 domains: 1 running, 0 blocked, 1 paused, 0 crashed, 0 dying, 0 shutdown\n"));
    assert_eq!(machine.run("top -d soon"), 1);
}

#[test]
fn vcpus_are_pinned_from_the_start() {
    let shown = |config: &str| {
        let machine = machine(&format!("maxvcpus=3 {config}"));
        let set = |vcpu| {
            machine.domains[&1].affinity.get(&vcpu).map(|(hard, soft)| (hard.of(8).to_string(), soft.of(8).to_string()))
        };
        [set(0), set(1), set(2)]
    };
    let both = |hard: &str, soft: &str| Some((hard.to_string(), soft.to_string()));
    assert_eq!(shown("cpus=2-3"), [both("2-3", "all"), both("2-3", "all"), both("2-3", "all")]);
    assert_eq!(shown("'cpus=[\"1\", \"0,4\"]'"), [both("1", "all"), both("0,4", "all"), None]);
    assert_eq!(shown("cpus_soft=0 'cpus=[7]'"), [both("7", "0"), both("all", "0"), both("all", "0")]);
    assert_eq!(shown(""), [None, None, None]);
}
