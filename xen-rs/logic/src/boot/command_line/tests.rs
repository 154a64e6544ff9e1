//! What each option means, and what is complained about.

extern crate std;

use super::*;
use std::format;
use std::string::String;
use std::vec::Vec;

fn good(line: &str) -> Options {
    parse(line, |c| panic!("{c}"))
}

fn complaints(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    parse(line, |c| all.push(format!("{c:?}")));
    all
}

const M: u64 = 1 << 20;

#[test]
fn the_usual_line() {
    let options =
        good("console=com1 com1=115200,8n1 loglvl=all guest_loglvl=error/all noreboot dom0_mem=128M,max:1G maxcpus=2");
    assert_eq!(options.console.as_slice(), &[Console::Com1]);
    assert_eq!(options.com1.baud, Some(115_200));
    assert_eq!(options.log.always, Level::Debug);
    assert_eq!(options.guest_log, LogLevel { always: Level::Error, limited: Level::Debug });
    assert!(options.no_reboot);
    assert_eq!(options.max_cpus, 2);
    assert_eq!(options.dom0_memory.size.unwrap().bytes_of(1 << 40), 128 * M);
    assert_eq!(options.dom0_memory.max.unwrap().bytes_of(1 << 40), 1024 * M);
    assert_eq!(options.dom0_memory.min, None);
}

#[test]
fn booleans_in_every_spelling() {
    for (line, smep) in [
        ("smep", true),
        ("smep=1", true),
        ("smep=on", true),
        ("no-smep", false),
        ("smep=no", false),
        ("smep=false", false),
        ("no-smep=off", true),
    ] {
        assert_eq!(good(line).features.smep, smep, "{line}");
    }
    assert!(!good("noreboot no-noreboot").no_reboot);
    assert!(good("noreboot=1").no_reboot);
    assert!(good("dom0_vcpus_pin").dom0_pinned);
}

#[test]
fn sizes() {
    let bytes = |text| dom0_memory(text).unwrap().size.unwrap().bytes_of(1 << 30);
    assert_eq!(bytes("512M"), 512 * M);
    assert_eq!(bytes("262144"), 256 * M, "KiB without a suffix");
    assert_eq!(bytes("-128M"), 896 * M);
    assert_eq!(bytes("25%"), (1 << 30) / 100 * 25);
    assert_eq!(bytes("4096b"), 4096);
    assert_eq!(bytes("0x10M"), 16 * M);
    assert_eq!(bytes("8G"), 1 << 30, "never more than there is");
    assert_eq!(dom0_memory("99999999999999999999G"), None);
    assert_eq!(dom0_memory("12Q"), None);
    assert_eq!(dom0_memory("18446744073709551615T"), None);
}

#[test]
fn vcpu_ranges() {
    assert_eq!(good("dom0_max_vcpus=4").dom0_vcpus, (4, 4));
    assert_eq!(good("dom0_max_vcpus=2-4").dom0_vcpus, (2, 4));
    assert_eq!(good("dom0_max_vcpus=-3").dom0_vcpus, (1, 3));
    assert_eq!(good("dom0_max_vcpus=2-").dom0_vcpus, (2, u32::MAX));
    assert_eq!(complaints("dom0_max_vcpus=4-2").len(), 1);
}

#[test]
fn complaints_do_not_stop_the_rest() {
    let mut seen = Vec::new();
    let options = parse("frobnicate maxcpus=many iommu=0 noreboot", |c| seen.push(c));
    assert_eq!(
        seen,
        [Complaint::Unknown("frobnicate"), Complaint::BadValue("maxcpus=many"), Complaint::NoEffect("iommu=0")]
    );
    assert!(options.no_reboot);
    assert_eq!(complaints("com1=fast").len(), 1);
    assert_eq!(complaints("console=").len(), 1);
    assert_eq!(complaints("dom0=hvm").len(), 1);
}

#[test]
fn the_loaders_file_name() {
    assert_eq!(without_file_name("/boot/xen-rs noreboot"), "noreboot");
    assert_eq!(without_file_name("noreboot x"), "noreboot x");
    assert_eq!(without_file_name("/xen"), "");
    assert_eq!(good("a=1".trim_start_matches("a=1")).max_cpus, 0);
}

#[test]
fn quotes_and_the_end() {
    assert_eq!(Words(r#"a="b c"  d"#).collect::<Vec<_>>(), [r#"a="b c""#, "d"]);
    assert!(!good("-- noreboot").no_reboot);
}

#[test]
fn any_text_is_survived() {
    for line in ["=", "==", "no-", "\"", "com1=,,,", "dom0_mem=,", "dom0_mem=-", "mem=é", "loglvl=/", "no-no-smep"] {
        complaints(line);
    }
}

#[test]
fn a_clock_source_is_named_as_in_xen() {
    for (value, source) in [
        ("hpet", ClockSource::Platform),
        ("acpi", ClockSource::Platform),
        ("pit", ClockSource::Platform),
        ("tsc", ClockSource::Tsc),
    ] {
        let line = alloc::format!("clocksource={value}");
        assert_eq!(parse(&line, |complaint| panic!("{complaint}")).clock_source, source);
    }
    let mut complaints = 0;
    assert_eq!(parse("clocksource=sundial", |_| complaints += 1).clock_source, ClockSource::Best);
    assert_eq!(complaints, 1);
}
