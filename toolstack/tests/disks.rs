//! Disks: how they are written in configurations, and what becomes of them in xenstore.

mod support;

use support::Machine;
use toolstack::config::disk::{DeviceType, Disk, Mode, Vdev};

fn parse(text: &str) -> Result<(String, String, Mode), String> {
    Disk::parse(text).map(|disk| (disk.target, disk.vdev.name, disk.mode))
}

#[test]
fn specifications() {
    let writable = Ok(("/dev/vda".into(), "xvda".into(), Mode::ReadWrite));
    // The forms that xl-disk-configuration(5) gives as equal.
    for text in [
        "/dev/vda,raw,xvda,rw",
        "/dev/vda,,xvda",
        "format=raw, vdev=xvda, access=rw, target=/dev/vda",
        "raw:/dev/vda,xvda,w",
        "phy:/dev/vda,xvda,w",
        "file:/dev/vda,xvda:disk,w",
        " vdev=xvda,format=aio,backendtype=phy,target=/dev/vda",
    ] {
        assert_eq!(parse(text), writable, "{text}");
    }
    // A target that is named takes all that follows.
    assert_eq!(parse("vdev=xvdb,access=r,target=/x,y=z").unwrap(), ("/x,y=z".into(), "xvdb".into(), Mode::ReadOnly));
    let disc = Disk::parse("/dev/sr0,,hdc,devtype=cdrom").unwrap();
    assert_eq!((disc.device_type, disc.mode, disc.vdev.number), (DeviceType::Cdrom, Mode::ReadOnly, 22 << 8));
    assert!(!Disk::parse("/dev/vda,,xvda,rw,no-discard").unwrap().discard);
}

#[test]
fn what_is_wrong_is_said() {
    for (text, want) in [
        ("", "no target: which volume?"),
        ("/dev/vda", "no vdev specified: under which name is the guest to see it?"),
        ("/dev/vda,qcow2,xvda", "format qcow2 is not supported: volumes are raw"),
        ("tap:/x,xvda,w", "\"tap:\" is not supported: volumes are raw"),
        ("/dev/vda,raw,xvda,w!", "a volume with two writers is refused"),
        ("/dev/vda,raw,xvda,x", "access must be ro or rw, not \"x\""),
        ("/dev/vda,raw,yvda", "\"yvda\" is no virtual device: xvda is one"),
        ("/dev/vda,raw,xvda,rw,more", "unexpected \"more\""),
        ("vdev=xvda,vdev=xvdb,target=/dev/vda", "vdev is given twice"),
        ("vdev=xvda,colour=red,target=/dev/vda", "unknown part \"colour\""),
        ("vdev=xvda,backend=storage,target=/dev/vda", "disks of other domains than dom0 are not supported"),
        ("vdev=xvda,backendtype=qdisk,target=/dev/vda", "backendtype qdisk is not supported, only phy is"),
        ("vdev=xvda,script=x,target=/dev/vda", "script is not supported for disks"),
    ] {
        assert_eq!(Disk::parse(text).unwrap_err(), want, "{text}");
    }
}

#[test]
fn numbers_of_virtual_devices() {
    for (name, number) in [
        ("xvda", 51712),
        ("xvda1", 51713),
        ("xvdb", 51728),
        ("xvdp15", 202 << 8 | 15 << 4 | 15),
        ("xvdq", 1 << 28 | 16 << 8),
        ("xvdaa", 1 << 28 | 26 << 8),
        ("xvda16", 1 << 28 | 16),
        ("hda", 768),
        ("hdb2", 768 | 64 | 2),
        ("hdd", 22 << 8 | 64),
        ("sda", 2048),
        ("sdp3", 2048 | 15 << 4 | 3),
        ("d0", 51712),
        ("d1p2", 51730),
        ("51712", 51712),
        ("0xca00", 51712),
    ] {
        assert_eq!(Vdev::parse(name).map(|vdev| vdev.number), Some(number), "{name}");
    }
    for name in ["", "xvd", "xvd1", "xvda1x", "xvdA", "hde", "sdq", "sda16", "xvda256", "xvdzzzzz", "d", "dp1", "vda"] {
        assert_eq!(Vdev::parse(name), None, "{name}");
    }
}

const CREATE: &str = "create -q /files/debian.cfg 'disk=[\"/dev/vda,,xvda\", \"/dev/vdb,,xvdb,r\"]'";

#[test]
fn nodes_of_a_disk() {
    let mut machine = Machine::with_guest();
    // The directories of all domains stay from the first one on.
    assert_eq!(machine.run(&format!("{CREATE}; destroy debian")), 0, "{}", machine.err);
    let before = machine.holdings();
    assert_eq!(machine.run(CREATE), 0, "{}", machine.err);
    let back = "/local/domain/0/backend/vbd/2/51712";
    let front = "/local/domain/2/device/vbd/51712";
    for (key, value) in
        [("frontend", front), ("params", "/dev/vda"), ("mode", "w"), ("dev", "xvda"), ("online", "1"), ("state", "1")]
    {
        assert_eq!(machine.text(&format!("{back}/{key}")), value);
    }
    for (key, value) in [("backend", back), ("backend-id", "0"), ("virtual-device", "51712"), ("state", "1")] {
        assert_eq!(machine.text(&format!("{front}/{key}")), value);
    }
    assert_eq!(machine.text("/local/domain/0/backend/vbd/2/51728/mode"), "r");
    assert_eq!(machine.text("/libxl/2/device/vbd/51728/backend"), "/local/domain/0/backend/vbd/2/51728");
    machine.run("block-list debian");
    assert_eq!(machine.out.lines().count(), 3);
    assert_eq!(
        machine.out.lines().nth(1).unwrap().trim_end(),
        "51712 0   2      1     -1     -1       /local/domain/0/backend/vbd/2/51712"
    );
    assert_eq!(machine.run("destroy debian"), 0);
    assert!(machine.holdings() == before);
}

#[test]
fn a_refused_disk_refuses_the_domain() {
    let mut machine = Machine::with_guest();
    assert_eq!(machine.run(&format!("{CREATE}; destroy debian")), 0, "{}", machine.err);
    let before = machine.holdings();
    assert_eq!(machine.run("create -q /files/debian.cfg 'disk=[\"/dev/vda,,xvda\", \"nothing,,xvdb\"]'"), 3);
    assert_eq!(machine.err, "create: disk nothing as xvdb: the back end refuses: no such volume\n");
    assert!(machine.holdings() == before);
    assert_eq!(machine.run("create -q /files/debian.cfg 'disk=[\"/dev/vda,,xvda\", \"/dev/vdb,,xvda\"]'"), 1);
    assert!(machine.err.contains("there is a disk xvda already"), "{}", machine.err);
}

#[test]
fn attached_and_detached() {
    let mut machine = Machine::with_guest();
    assert_eq!(machine.run("create -q /files/debian.cfg"), 0);
    assert_eq!(machine.run("block-attach 1 /dev/vda,,xvda; block-detach 1 xvda"), 0, "{}", machine.err);
    let before = machine.holdings();
    assert_eq!(machine.run("block-attach debian phy:/dev/vda xvda w"), 0, "{}", machine.err);
    assert_eq!(machine.run("block-attach debian phy:/dev/vdb xvda w"), 1);
    let why = "block-attach: /dev/vdb as xvda: disk xvda: the domain has a device of this name\n";
    assert_eq!(machine.err, format!("{why}libxl_device_disk_add failed.\n"));
    assert_eq!(machine.records.get(xen_abi::ids::DomId(1)).unwrap().config.disks.len(), 1);
    assert_eq!(machine.run("block-attach debian phy:/none xvdb w"), 1);
    assert_eq!(machine.run("block-detach debian xvda"), 0, "{}", machine.err);
    assert!(machine.holdings() == before);
    assert_eq!(machine.run("block-detach debian xvda"), 1);
    assert_eq!(machine.err, "Error: Device xvda not connected.\n");
    // A guest that does not answer keeps its disk, unless it is forced.
    machine.disks_answer = false;
    assert_eq!(machine.run("block-attach debian /dev/vda,,51712"), 0, "{}", machine.err);
    assert_eq!(machine.run("block-detach debian xvda"), 1);
    assert!(machine.store.contains_key("/local/domain/0/backend/vbd/1/51712"));
    assert_eq!(machine.run("block-detach --force debian 51712"), 0, "{}", machine.err);
    assert!(machine.holdings() == before);
    assert_eq!(machine.run("block-attach nobody /dev/vda,,xvda"), 1);
    assert_eq!(machine.err, "nobody is an invalid domain identifier\n");
    assert_eq!(machine.run("block-list 99"), 1);
    assert_eq!(machine.err, "listing the disks of domain 99 failed: no such domain\n");
}
