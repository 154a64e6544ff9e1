//! A domain as `create` builds it, read back from the fake machine's memory and xenstore; and that nothing is left when
//! it cannot be built.

mod support;

use support::{Machine, kernels};
use toolstack::host::Access;
use xen_abi::ids::{DomId, Mfn};

/// Follows the page tables from the root to the frame of a virtual page.
fn walk(machine: &Machine, root: Mfn, virt: u64) -> Option<Mfn> {
    let mut frame = root;
    for level in (0..4).rev() {
        let entry = machine.word(frame, usize::try_from((virt >> (12 + 9 * level)) & 511).unwrap());
        if entry & 1 == 0 {
            return None;
        }
        frame = Mfn((entry & 0x000f_ffff_ffff_f000) >> 12);
    }
    Some(frame)
}

#[test]
fn what_the_kernel_finds() {
    for superpages in [true, false] {
        let mut machine = Machine { superpages, ..Machine::with_guest() };
        assert_eq!(machine.run("create -p /files/debian.cfg"), 0, "{}", machine.err);
        assert_eq!((machine.out.as_str(), machine.err.as_str()), ("", "Parsing config from /files/debian.cfg\n"));
        let domain = &machine.domains[&1];
        assert_eq!((domain.info.tot_pages, domain.max_mem_kib), (4096, 17 * 1024));
        let map = domain.memory_map[0];
        assert_eq!((domain.memory_map.len(), { map.addr }, { map.size }), (1, 0, 16 << 20));
        assert_eq!((domain.new.max_grant_version, domain.pauses), (2, 1));
        let context = domain.context.as_ref().unwrap();
        let root = Mfn(context.ctrlreg[3] >> 12);
        assert_eq!(domain.pinned, Some(root));
        assert_eq!(context.user_regs.rip, kernels::VIRT_BASE + 0x10_0000);

        // The kernel's bytes, and zeros after them.
        let kernel = &machine.files["/files/vmlinuz"];
        let code = walk(&machine, root, kernels::VIRT_BASE + 0x10_0000).unwrap();
        assert!(kernel.windows(4096).any(|w| w == machine.frame(code)));
        let bss = walk(&machine, root, kernels::VIRT_BASE + 0x30_0000).unwrap();
        assert_eq!(machine.frame(bss), [0; 4096]);

        // start_info.
        let info_frame = walk(&machine, root, context.user_regs.rsi).unwrap();
        let info = machine.frame(info_frame);
        assert!(info.starts_with(b"xen-3.0-x86_64\0"));
        let word = |at: usize| machine.word(info_frame, at / 8);
        assert_eq!(word(32), 4096);
        assert_eq!(word(40), domain.info.shared_info_frame.0 << 12);
        let (store, console) = (Mfn(word(56)), Mfn(word(72)));
        assert_eq!((word(64) & 0xffff, word(80) & 0xffff), (1, 2));
        assert_eq!((machine.frame(store), machine.frame(console)), ([0; 4096], [0; 4096]));
        assert_eq!(machine.introduced, [(DomId(1), store, xen_abi::ids::Port(1))]);
        assert_eq!(machine.consoles, [(DomId(1), console, xen_abi::ids::Port(2))]);
        assert!(info[128..].starts_with(b"console=hvc0\0"));

        // The p2m list, and the ramdisk through it.
        let list = walk(&machine, root, kernels::INIT_P2M).unwrap();
        let ramdisk_pfn = usize::try_from(word(112)).unwrap();
        let list_page = walk(&machine, root, kernels::INIT_P2M + (ramdisk_pfn as u64 / 512) * 4096).unwrap();
        let ramdisk = Mfn(machine.word(list_page, ramdisk_pfn % 512));
        assert_eq!(machine.frame(ramdisk)[..], machine.files["/files/initrd"][..4096]);
        assert_eq!(word(120), 70_001);
        assert_eq!(walk(&machine, root, kernels::VIRT_BASE), Some(Mfn(machine.word(list, 0))));

        // Shared info: masked. Grants: the two rings.
        let shared = machine.frame(domain.info.shared_info_frame);
        assert!((0..32).all(|i| shared[64 * i..64 * i + 8] == [0, 1, 0, 0, 0, 0, 0, 0]));
        assert!(shared[2048..].iter().all(|b| *b == 0));
        let grants = Mfn(domain.info.shared_info_frame.0 + 1);
        assert_eq!(machine.word(grants, 0), 1 | console.0 << 32);
        assert_eq!(machine.word(grants, 1), 1 | store.0 << 32);
    }
}

#[test]
fn xenstore_entries() {
    let mut machine = Machine::with_guest();
    assert_eq!(
        machine.run("create -q /files/debian.cfg vcpus=1 maxvcpus=2 uuid=00112233-4455-6677-8899-aabbccddeeff"),
        0
    );
    assert_eq!((machine.out.as_str(), machine.err.as_str()), ("", ""));
    let console = machine.consoles[0];
    let store = machine.introduced[0];
    let expected = [
        ("/local/domain/1/name", "debian".to_string(), "r"),
        ("/local/domain/1/vm", "/vm/00112233-4455-6677-8899-aabbccddeeff".into(), "r"),
        ("/local/domain/1/domid", "1".into(), "r"),
        ("/local/domain/1/memory/target", "16384".into(), "r"),
        ("/local/domain/1/memory/static-max", "16384".into(), "r"),
        ("/local/domain/1/memory/videoram", "0".into(), "r"),
        ("/local/domain/1/cpu/0/availability", "online".into(), "r"),
        ("/local/domain/1/cpu/1/availability", "offline".into(), "r"),
        ("/local/domain/1/store/port", "1".into(), "r"),
        ("/local/domain/1/store/ring-ref", store.1.to_string(), "r"),
        ("/local/domain/1/console/port", "2".into(), "r"),
        ("/local/domain/1/console/ring-ref", console.1.to_string(), "r"),
        ("/local/domain/1/console/type", "xenconsoled".into(), "r"),
        ("/local/domain/1/console/limit", "1048576".into(), "r"),
        ("/local/domain/1/console/output", "pty".into(), "r"),
        ("/local/domain/1/console/backend", "/local/domain/0/backend/console/1/0".into(), "r"),
        ("/local/domain/1/control/shutdown", String::new(), "w"),
        ("/local/domain/1/control/feature-poweroff", String::new(), "w"),
        ("/local/domain/1/control/platform-feature-multiprocessor-suspend", "1".into(), "r"),
        ("/local/domain/1/device/suspend/event-channel", String::new(), "w"),
        ("/local/domain/1/data", String::new(), "w"),
        ("/local/domain/0/backend/console/1/0/frontend", "/local/domain/1/console".into(), "r"),
        ("/local/domain/0/backend/console/1/0/state", "1".into(), "r"),
        ("/libxl/1/type", "pv".into(), "-"),
        ("/libxl/1/device/console/0/backend", "/local/domain/0/backend/console/1/0".into(), "-"),
        ("/vm/00112233-4455-6677-8899-aabbccddeeff/name", "debian".into(), "r"),
        ("/vm/00112233-4455-6677-8899-aabbccddeeff/image/ostype", "linux".into(), "r"),
        ("/vm/00112233-4455-6677-8899-aabbccddeeff/image/cmdline", "console=hvc0".into(), "r"),
        ("/vm/00112233-4455-6677-8899-aabbccddeeff/start_time", "1700000000.12".into(), "r"),
    ];
    for (path, value, guest_may) in expected {
        assert_eq!(machine.text(path), value, "{path}");
        let permissions = &machine.store[path].1;
        let got = match &permissions[..] {
            [owner] if owner.dom == DomId(1) && owner.access == Access::None => "w",
            [owner, guest] if owner.dom == DomId(0) && owner.access == Access::None => {
                assert_eq!((guest.dom, guest.access), (DomId(1), Access::Read), "{path}");
                "r"
            }
            [owner] if owner.dom == DomId(0) && owner.access == Access::None => "-",
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(got, guest_may, "{path}");
    }
}

#[test]
fn nothing_is_left() {
    let mut machine = Machine::with_guest();
    let before = machine.holdings();
    for _ in 0..10 {
        assert_eq!(machine.run("create /files/debian.cfg; destroy debian"), 0, "{}", machine.err);
    }
    // Directories that were made on the way (/vm, /libxl, the backend's) stay, as they do under libxl.
    machine
        .store
        .retain(|path, _| before.3.contains_key(path) || path.contains(char::is_numeric) && !path.ends_with('0'));
    machine.store.retain(|path, _| !path.ends_with("backend") && !path.ends_with("backend/console"));
    assert_eq!(machine.holdings(), before);
}

#[test]
fn nothing_is_left_whatever_fails() {
    let pv = whatever_fails("create -q /files/debian.cfg");
    assert!(pv.len() > 60, "{pv:?}");
    for what in ["create_domain", "populate", "pin_root", "set_vcpu_context", "store_introduce", "console_attach"] {
        assert!(pv.contains(&what), "{what} was never tried");
    }
    let pvh = whatever_fails("create -q /files/debian.cfg type='pvh'");
    for what in ["set_paging_pool", "set_hvm_param", "hvm_context", "set_hvm_context", "set_cpu_policy"] {
        assert!(pvh.contains(&what), "{what} was never tried");
    }
}

/// Runs it again and again, with each of its calls failing once. Which those were.
fn whatever_fails(create: &str) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for fuse in 0.. {
        let mut machine = Machine::with_guest();
        let before = machine.holdings();
        machine.fuse = Some(fuse);
        let status = machine.run(create);
        let Some(what) = machine.blown else {
            assert_eq!(status, 0);
            break;
        };
        assert_eq!(status, 3, "{what}");
        assert!(machine.err.starts_with("create: ") || what == "unpause_domain", "{}", machine.err);
        failed.push(what);
        machine.store.retain(|path, _| before.3.contains_key(path) || path.contains("/1"));
        assert_eq!(machine.holdings(), before, "after {what} failed");
    }
    failed
}

#[test]
fn what_a_pvh_kernel_finds() {
    for superpages in [true, false] {
        let mut machine = Machine { superpages, ..Machine::with_guest() };
        assert_eq!(machine.run("create -p /files/debian.cfg type='pvh' vcpus=2"), 0, "{}", machine.err);
        let domain = &machine.domains[&1];
        // 16 MiB, 8 special pages, one of ACPI tables.
        assert_eq!((domain.info.tot_pages, domain.paging_pool), (4096 + 8 + 1, 3 << 20));
        let map: Vec<_> = domain.memory_map.iter().map(|e| ({ e.addr }, { e.size }, { e.type_ })).collect();
        assert_eq!(
            map,
            [(0, 16 << 20, 1), (0xfc00_0000, 0x1000, 3), (0xfee0_0000, 0x1000, 2), (0xfeff_8000, 0x8000, 2)]
        );

        // The first vCPU, whose record comes after the header's.
        let cpu = &domain.hvm_context[8 + 24 + 8..];
        let word = |at: usize| u64::from_le_bytes(cpu[at..at + 8].try_into().unwrap());
        let (rbx, rip) = (word(512 + 8), word(512 + 16 * 8));
        assert_eq!(rip, 0x10_0040);

        // Start info: a module, a memory map of four, the command line, the RSDP.
        let info = Mfn(rbx >> 12);
        let at = |offset: usize| machine.word(info, offset / 8);
        assert_eq!(at(0), 0x1_336e_c578, "magic and version");
        assert_eq!(at(8) >> 32, 1, "modules");
        let module = usize::try_from(at(16) & 0xfff).unwrap();
        assert_eq!((at(module + 8), at(48)), (70_001, 4));
        let ramdisk = Mfn(at(module) >> 12);
        assert_eq!(machine.frame(ramdisk)[..], machine.files["/files/initrd"][..4096]);
        let text = usize::try_from(at(24) & 0xfff).unwrap();
        assert!(machine.frame(info)[text..].starts_with(b"console=hvc0\0"));
        let rsdp = at(32);
        assert!(machine.frame(Mfn(rsdp >> 12))[usize::try_from(rsdp & 0xfff).unwrap()..].starts_with(b"RSD PTR "));

        // The rings, by parameter, by grant and as the services were told.
        let (store, console) = (0xfeffc, 0xfefff);
        let params: Vec<_> = [1, 2, 17, 18, 12].iter().map(|index| domain.params[index]).collect();
        assert_eq!(params, [store, 1, console, 2, 0xfeff_e000]);
        assert_eq!(machine.introduced, [(DomId(1), Mfn(store), xen_abi::ids::Port(1))]);
        assert_eq!(machine.consoles, [(DomId(1), Mfn(console), xen_abi::ids::Port(2))]);
        let grants = Mfn(domain.info.shared_info_frame.0 + 1);
        assert_eq!((machine.word(grants, 0), machine.word(grants, 1)), (1 | console << 32, 1 | store << 32));
        assert_eq!(machine.text("/libxl/1/type"), "pvh");
    }
}

#[test]
fn a_machine_without_containers_says_so() {
    let mut machine = Machine { capabilities: 0x302, ..Machine::with_guest() };
    assert_eq!(machine.run("create -q /files/debian.cfg type='pvh'"), 3);
    assert!(
        machine.err.starts_with("create: the machine or the hypervisor has no hardware containers"),
        "{}",
        machine.err
    );
    assert_eq!(machine.domains.len(), 1);
    assert_eq!(machine.run("create -q /files/debian.cfg"), 0, "{}", machine.err);
}

#[test]
fn messages() {
    // With xl's statuses: 1 unless they are libxl's, 2 for a command that is not used as it should be.
    let table: &[(i32, &str, &str)] = &[
        (6, "create", "Config file not specified and none in save file\n"),
        (3, "create /nowhere", "Failed to read config file: /nowhere: No such file or directory\n"),
        (
            1,
            "create -q /files/debian.cfg memory=0",
            "create: command line:1:8: memory must be 1 to 1073741824, not 0\n",
        ),
        (3, "create -q /files/debian.cfg kernel=/nowhere", "create: kernel /nowhere: no such file\n"),
        (3, "create -q /files/debian.cfg ramdisk=/nowhere", "create: ramdisk /nowhere: no such file\n"),
        (
            3,
            "create -q /files/debian.cfg kernel=/files/initrd",
            "create: kernel /files/initrd: not an ELF file or bzImage\n",
        ),
        (
            3,
            "create -q /files/debian.cfg memory=4000",
            "create: not enough free memory: 4000 MiB needed, 256 MiB free\n",
        ),
        (
            3,
            "create -q /files/debian.cfg memory=4",
            "create: not enough memory: the kernel and its start-of-day region need 1047 pages, the domain has 1024\n",
        ),
        (3, "create -q /files/debian.cfg name=Domain-0", "create: a domain with name \"Domain-0\" already exists\n"),
        (1, "create -q /files/debian.cfg /files/debian.cfg", "create: unexpected argument \"/files/debian.cfg\"\n"),
        (1, "crate x", "crate: no such command (did you mean \"create\"?)\n"),
        (1, "frob", "frob: no such command, see \"help\"\n"),
        (1, "destroy nobody", "nobody is an invalid domain identifier (rc=-6)\n"),
        (1, "destroy 77", "domain 77 does not exist\ndestroy failed (rc=-21)\n"),
        (
            1,
            "destroy 0",
            "Not destroying domain 0; use -f to force.\nThis can only be done when using a disaggregated hardware domain and toolstack.\n\n",
        ),
        (1, "pause 77", "pausing domain 77 failed: no such domain\n"),
        (1, "list 77", "Error: Domain '77' does not exist.\n"),
        (1, "domid nobody", "Can't get domid of domain name 'nobody', maybe this domain does not exist.\n"),
        (1, "domname 77", "Can't get domain name of domain id '77', maybe this domain does not exist.\n"),
        (2, "pause", "'pause' requires at least 1 argument.\n\n"),
        (2, "list -Q", "option `Q' not supported.\n"),
        (1, "sched-rtds", "sched-rtds: not supported: there is no such scheduler\n"),
        (1, "xl migrate debian host", "migrate: not supported: domains cannot be saved yet\n"),
        (1, "help save", "save: not supported: domains cannot be saved yet\n"),
        (1, "xl -N pause 1", "command does not implement -N (dryrun) option\n"),
        (2, "xl -x list", "xl: unknown global option -x\n"),
        (
            1,
            "button-press 0 lid",
            "WARNING: \"button-press\" is deprecated. Please use \"trigger\"\nlid is an invalid button identifier\n",
        ),
        (1, "console -t serial 0", "console: there is no serial console, only pv\n"),
        (1, "vc 0", "vc: no such command, see \"help\"\n"),
        (2, "list --frob", "unrecognized option '--frob'\n"),
    ];
    let mut machine = Machine::with_guest();
    for (status, line, want) in table {
        assert_eq!(machine.run(line), *status, "{line}");
        assert_eq!(machine.err, *want, "{line}");
        assert_eq!(machine.domains.len(), 1, "{line}");
    }
}
