//! xl.cfg files: what they mean, and what is said about wrong ones.

use toolstack::config::{Action, DomainConfig, DomainType, TscMode, Uuid, keys};

const DEBIAN: &str = r#"
# An ordinary guest.
name    = "debian"
type    = 'pv'
kernel  = "/files/vmlinuz"   # the stock kernel
ramdisk = "/files/initrd"
extra   = "console=hvc0 earlyprintk=xen"
memory  = 192; vcpus = 2
disk    = [ ]
on_crash = 'preserve'
"#;

fn parse(text: &str) -> Result<toolstack::config::Parsed, String> {
    DomainConfig::parse("t.cfg", text, &[]).map_err(|e| e.to_string())
}

fn minimal(more: &str) -> String {
    format!("name='a'\nkernel='k'\n{more}")
}

#[test]
fn an_ordinary_file() {
    let parsed = parse(DEBIAN).unwrap();
    assert_eq!(parsed.warnings, []);
    let c = parsed.config;
    assert_eq!((c.name.as_str(), c.kernel.as_str()), ("debian", "/files/vmlinuz"));
    assert_eq!(c.ramdisk.as_deref(), Some("/files/initrd"));
    assert_eq!(c.cmdline, "console=hvc0 earlyprintk=xen");
    assert_eq!((c.memory_kib, c.max_memory_kib, c.vcpus, c.max_vcpus), (192 * 1024, 192 * 1024, 2, 2));
    assert_eq!((c.on_poweroff, c.on_reboot, c.on_crash), (Action::Destroy, Action::Restart, Action::Preserve));
    assert_eq!((c.tsc_mode, c.time_offset), (TscMode::Default, 0));
}

#[test]
fn a_wall_clock_of_its_own() {
    let offset = |text: &str| parse(&minimal(text)).map(|parsed| parsed.config.time_offset);
    assert_eq!(offset("rtc_timeoffset=3600"), Ok(3600));
    assert_eq!(offset("rtc_timeoffset='-7200'"), Ok(-7200));
    assert!(offset("rtc_timeoffset='noon'").is_err());
    assert!(offset("rtc_timeoffset=0x80000000").is_err());
}

#[test]
fn the_grammar() {
    let good: &[(&str, &str)] = &[
        ("extra = \"a\\tb\\x41\\101\\\"\"", "a\tbAA\""),
        ("extra = 'it''s'", ""),
        ("extra = \"a\"\nextra += \" b\"", "a b"),
        ("extra = \\\n  'continued'", "continued"),
        ("root = '/dev/xvda'", "root=/dev/xvda"),
        ("root = '/dev/xvda'\nextra='ro'", "root=/dev/xvda ro"),
        ("vif = [ 'a', # one\n 'b',\n ]\nextra='x'", "x"),
        ("vif = [ ['a', 1], 0x10 ];;;extra='y'", "y"),
        ("extra = 'x'\r\n", "x"),
    ];
    for (text, cmdline) in good {
        match parse(&minimal(text)) {
            Ok(parsed) => assert_eq!(parsed.config.cmdline, *cmdline, "{text}"),
            Err(e) => assert!(cmdline.is_empty(), "{text}: {e}"),
        }
    }
}

#[test]
fn messages() {
    let table: &[(&str, &str)] = &[
        ("memory = ", "t.cfg:3:10: expected a value, found the end of the file"),
        ("memory = \n", "t.cfg:3:10: expected a value, found the end of the line"),
        ("memory 5", "t.cfg:3:8: expected \"=\" after \"memory\", found the number 5"),
        ("memory = 5 6", "t.cfg:3:12: expected the end of the line, found the number 6"),
        ("extra = hvc0", "t.cfg:3:9: expected a value, found \"hvc0\" (strings need quotes)"),
        ("extra = \"abc", "t.cfg:3:9: the string is not closed on its line"),
        ("extra = 'abc\n'", "t.cfg:3:9: the string is not closed on its line"),
        ("extra = \"a\\q\"", "t.cfg:3:11: unknown escape \"\\q\""),
        ("extra = \"a\\xg1\"", "t.cfg:3:11: \\x needs two hexadecimal digits"),
        ("disk = [ 'a' 'b' ]", "t.cfg:3:14: expected \",\" or \"]\", found a string"),
        ("disk = [ 'a'", "t.cfg:3:13: expected \",\" or \"]\", found the end of the file"),
        ("disk = [ , ]", "t.cfg:3:10: expected a value, found \",\""),
        ("= 5", "t.cfg:3:1: expected a key, found \"=\""),
        ("memory = -5", "t.cfg:3:10: numbers cannot be negative"),
        ("memory = 12MB", "t.cfg:3:10: \"12MB\" is not a number"),
        ("memory = 5 \\ 6", "t.cfg:3:12: a \"\\\" outside of a string must end its line"),
        ("memory = 5 @", "t.cfg:3:12: unexpected character '@'"),
        ("memory = 'lots'", "t.cfg:3:10: memory must be a number, not \"lots\""),
        ("memory = ['5']", "t.cfg:3:10: memory must be a number, not a list"),
        ("memory = 0", "t.cfg:3:10: memory must be 1 to 1073741824, not 0"),
        ("memory = 99999999999999999999", "t.cfg:3:10: \"99999999999999999999\" is not a number"),
        ("memory = 64\nmaxmem = 32", "t.cfg:4:10: maxmem (32) is less than memory (64)"),
        ("vcpus = 3\nmaxvcpus = 2", "t.cfg:4:12: maxvcpus (2) is less than vcpus (3)"),
        ("vcpus = 513", "t.cfg:3:9: vcpus must be 1 to 512, not 513"),
        ("ramdisk = 5", "t.cfg:3:11: ramdisk must be a string, not a number"),
        ("type = 'hvm'", "t.cfg:3:8: type \"hvm\" needs a device model, and there is none: \"pv\" and \"pvh\" do not"),
        ("type = 'pvh'\nvcpus = 129", "t.cfg:4:9: vcpus must be 1 to 128, not 129"),
        ("type = 'vm'", "t.cfg:3:8: type must be \"pv\" or \"pvh\", not \"vm\""),
        ("builder = 'pvh'", "t.cfg:3:11: builder must be \"generic\" (an older word for type=\"pv\"), not \"pvh\""),
        ("type = 'linux'", "t.cfg:3:8: type must be \"pv\" or \"pvh\", not \"linux\""),
        (
            "builder = 'hvm'",
            "t.cfg:3:11: builder \"hvm\" needs a device model, and there is none: \"pv\" and \"pvh\" do not",
        ),
        ("builder = 'generic'\ntype = 'pvh'", "t.cfg:3:11: Contradicting \"builder\" and \"type\" options specified."),
        ("type = 'pv'\nbuilder = 'hvm'", "t.cfg:4:11: Contradicting \"builder\" and \"type\" options specified."),
        ("firmware = 'pvgrub64'", "t.cfg:3:12: both kernel and firmware specified"),
        ("uuid = 'abc'", "t.cfg:3:8: uuid must be 32 hexadecimal digits, not \"abc\""),
        (
            "on_crash = 'restrat'",
            "t.cfg:3:12: on_crash must be one of destroy, restart, rename-restart, preserve, coredump-destroy, \
             coredump-restart, soft-reset, not \"restrat\" (did you mean \"restart\"?)",
        ),
        ("cpus = '0-x'", "t.cfg:3:8: cpus: Invalid pcpu range: 0-x."),
        ("cpus = ['0', '600']", "t.cfg:3:14: cpus: there is no CPU 600, only 0 to 511"),
        ("extra = 'a'\nextra += 5", "t.cfg:4:10: cannot append a number to extra, which is a string"),
        ("name = 'a b'", "t.cfg:3:8: name \"a b\" has a slash, a space or a control character"),
        ("name = '17'", "t.cfg:3:8: name \"17\" is a number, which would be taken for a domain's number"),
    ];
    for (text, want) in table {
        assert_eq!(parse(&minimal(text)).expect_err(text), *want, "{text}");
    }
    assert_eq!(parse("memory = 5\n").unwrap_err(), "t.cfg:1:1: name is missing: a domain needs one");
    assert_eq!(parse("name='a'").unwrap_err(), "t.cfg:1:1: kernel is missing: the path of a kernel");
    assert_eq!(
        parse("name='a'\nfirmware='pvgrub64'").unwrap_err(),
        "t.cfg:2:10: firmware \"pvgrub64\" is not there: name the path of a kernel by \"kernel\" instead"
    );
    let deep = minimal(&format!("disk = {}", "[".repeat(100)));
    assert_eq!(parse(&deep).unwrap_err(), "t.cfg:3:24: lists are nested too deep");
}

#[test]
fn kinds() {
    for (text, kind) in [
        ("", DomainType::Pv),
        ("type='pv'", DomainType::Pv),
        ("builder='generic'", DomainType::Pv),
        ("type='pv'\nbuilder='generic'", DomainType::Pv),
        ("type='pvh'", DomainType::Pvh),
    ] {
        assert_eq!(parse(&minimal(text)).unwrap().config.kind, kind, "{text}");
    }
}

#[test]
fn warnings() {
    let table: &[(&str, &[&str])] = &[
        ("memroy = 5", &["t.cfg:3:1: unknown key \"memroy\" has no effect (did you mean \"memory\"?)"]),
        ("frobnicate = 5", &["t.cfg:3:1: unknown key \"frobnicate\" has no effect"]),
        ("vif = [ 'bridge=xenbr0' ]", &["t.cfg:3:1: \"vif\" is not supported yet and has no effect"]),
        ("bootargs = 'quiet'", &["t.cfg:3:1: unknown key \"bootargs\" has no effect"]),
        ("nomigrate = 1", &["t.cfg:3:1: \"nomigrate\" is not supported yet and has no effect"]),
        ("pvshim_path = 'x'", &["t.cfg:3:1: \"pvshim_path\" is not supported yet and has no effect"]),
        ("oos = 1\nmca_caps = ['lmce']\naltp2mhvm = 1\nms_vm_genid = 'generate'\nvncviewer = 1", &[]),
        ("disk = []\nvnc = 1\nboot='c'", &[]),
        ("cmdline = 'x'\nroot = 'y'", &["t.cfg:4:8: root and extra have no effect beside cmdline"]),
    ];
    for (text, want) in table {
        let parsed = parse(&minimal(text)).unwrap();
        let got: Vec<_> = parsed.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(got, *want, "{text}");
    }
}

#[test]
fn every_key_that_counts_as_used_is_read() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let readers = files.filter(|path| !path.ends_with("keys.rs"));
    let code: String = readers.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let unread: Vec<_> = keys::USED.iter().filter(|key| !code.contains(&format!("\"{key}\""))).collect();
    assert!(unread.is_empty(), "{unread:?}");
}

#[test]
fn what_a_pvh_domain_cannot_have_is_refused() {
    let table: &[(&str, Result<&[&str], &str>)] = &[
        ("nestedhvm=1", Err("nestedhvm=1: containers within containers are not supported")),
        ("hap=0", Err("hap=0: memory is mapped by nested page tables, and there are no shadow ones")),
        ("acpi='0'", Err("acpi=0: its kernel finds its CPUs in the ACPI tables")),
        ("pci=['00:1f.0']", Err("pci: it cannot be given devices of the machine")),
        ("passthrough='enabled'", Err("passthrough=\"enabled\": it cannot be given devices of the machine")),
        ("passthrough='share_pt'", Err("passthrough=\"share_pt\": it cannot be given devices of the machine")),
        ("nestedhvm=0\nhap=1\nacpi=1\npci=[]\npassthrough='disabled'", Ok(&[])),
        ("passthrough='default'", Ok(&[])),
        ("apic=0", Ok(&["t.cfg:4:6: apic is for HVM domains and has no effect"])),
        ("viridian=['all']", Ok(&["t.cfg:4:10: viridian is for HVM domains and has no effect"])),
    ];
    for (text, want) in table {
        let parsed = parse(&minimal(&format!("type='pvh'\n{text}")));
        match (parsed, want) {
            (Ok(parsed), Ok(want)) => {
                let got: Vec<_> = parsed.warnings.iter().map(ToString::to_string).collect();
                assert_eq!(got, *want, "{text}");
            }
            (Err(got), Err(want)) => {
                assert!(got.starts_with("t.cfg:4:"), "{got}");
                assert!(got.ends_with(&format!(": a PVH domain cannot have {want}")), "{got}");
            }
            (got, want) => panic!("{text}: {got:?}, not {want:?}"),
        }
    }
    let error = parse(&minimal("passthrough='on'")).unwrap_err();
    let all = "default, disabled, enabled, sync_pt, share_pt";
    assert_eq!(error, format!("t.cfg:3:13: passthrough must be one of {all}, not \"on\""));
    // For a PV domain they say nothing, but for its devices.
    assert_eq!(parse(&minimal("nestedhvm=1\nhap=0\nacpi=0\nviridian=1\nshadow_memory=8")).unwrap().warnings, []);
    let warnings = parse(&minimal("pci=['00:1f.0']")).unwrap().warnings;
    assert_eq!(warnings[0].to_string(), "t.cfg:3:5: pci is not supported yet and has no effect");
    let tables = |text: &str| parse(&minimal(text)).map(|parsed| parsed.config.tables_kib);
    assert_eq!(tables("type='pvh'\nshadow_memory=8"), Ok(Some(8192)));
    assert_eq!((tables("type='pvh'"), tables("shadow_memory=8")), (Ok(None), Ok(None)));
    assert!(tables("type='pvh'\nshadow_memory=0").is_err());
}

#[test]
fn modes_of_the_tsc() {
    let deprecated = |name| vec![format!("t.cfg:3:10: tsc_mode as a number is deprecated: tsc_mode=\"{name}\"")];
    for (text, mode, warnings) in [
        ("'default'", TscMode::Default, vec![]),
        ("'native'", TscMode::Native, vec![]),
        ("0", TscMode::Default, deprecated("default")),
        ("1", TscMode::AlwaysEmulate, deprecated("always_emulate")),
        ("'2'", TscMode::Native, deprecated("native")),
    ] {
        let parsed = parse(&minimal(&format!("tsc_mode={text}"))).unwrap();
        let got: Vec<_> = parsed.warnings.iter().map(ToString::to_string).collect();
        assert_eq!((parsed.config.tsc_mode, got), (mode, warnings), "{text}");
    }
    let removed = "t.cfg:3:10: tsc_mode=\"native_paravirt\" was removed from Xen: \"native\" is what is left of it";
    for (text, want) in [
        ("3", removed),
        ("'native_paravirt'", removed),
        ("4", "t.cfg:3:10: tsc_mode must be 0 to 2, not 4"),
        (
            "'nativ'",
            "t.cfg:3:10: tsc_mode must be one of default, always_emulate, native, not \"nativ\" (did you mean \"native\"?)",
        ),
        ("[]", "t.cfg:3:10: tsc_mode must be a string, not a list"),
    ] {
        assert_eq!(parse(&minimal(&format!("tsc_mode={text}"))).unwrap_err(), want, "{text}");
    }
}

#[test]
fn overrides() {
    let given =
        &["memory=256", "name=web", "extra='quoted words'", "on_crash=destroy", "vcpus=\"4\"", "kernel=/boot/k=v 1"];
    let c = DomainConfig::parse("t.cfg", DEBIAN, given).unwrap().config;
    assert_eq!((c.memory_kib, c.vcpus), (256 << 10, 4));
    assert_eq!((c.name.as_str(), c.cmdline.as_str(), c.kernel.as_str()), ("web", "quoted words", "/boot/k=v 1"));
    assert_eq!(c.on_crash, Action::Destroy);
    let error = DomainConfig::parse("t.cfg", DEBIAN, &["memory=lots"]).unwrap_err();
    assert_eq!(error.to_string(), "command line:1:8: memory must be a number, not \"lots\"");
}

#[test]
fn uuids() {
    let text = "4a3f3c1e-0b5d-4f6a-9c1d-00112233aabb";
    assert_eq!(Uuid::parse(text).unwrap().to_string(), text);
    assert_eq!(Uuid::parse(&text.replace('-', "")).unwrap().to_string(), text);
    for bad in ["", "4a3f", "4a3f3c1e-0b5d-4f6a-9c1d-00112233aabbcc", "4a3f3c1e-0b5d-4f6a-9c1d-00112233aabé"] {
        assert_eq!(Uuid::parse(bad), None, "{bad}");
    }
    assert_eq!(Uuid::from_random([0xff; 16]).to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
}
