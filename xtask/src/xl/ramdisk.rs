//! The ramdisk of a stock Linux dom0: busybox, the kernel's modules for a toolstack, and Debian's xl with all it needs.

use super::{CALL, END, STEP};
use crate::cpio::Archive;
use crate::packages::{self, Architecture, Fetched};
use crate::suite::as_xl;
use crate::{kernel_modules, ramdisk, workspace};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Packages that hold it.
const PACKAGES: [&str; 21] = [
    "xen-utils-4.17",
    "xenstore-utils",
    "libxenmisc4.17",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    "libxenstore4",
    "libxentoolcore1",
    "libxentoollog1",
    "libyajl2",
    "libc6",
    "liblzma5",
    "libuuid1",
    "zlib1g",
    "libzstd1",
    "libgcc-s1",
    "libncurses6",
    "libtinfo6",
];

/// The programs.
const PROGRAMS: [&str; 7] = ["xl", "xentop", "xenstored", "xenconsoled", "xen-init-dom0", CONSOLE, STORE];
/// The client of xenstore, which is no part of xen-utils.
const STORE: &str = "xenstore";
/// What `xl console` becomes, and where it looks for it.
const CONSOLE: &str = "xenconsole";
const CONSOLE_DIRECTORY: &str = "usr/lib/xen-4.17/bin";

/// Starts the toolstack.
const START: &str = "\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tracefs tracefs /sys/kernel/tracing
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
for module in $(cat /modules/order); do insmod /modules/$module; done
mount -t xenfs xenfs /proc/xen
xenstored --pid-file /run/xen/xenstored.pid
xen-init-dom0
xenconsoled --pid-file=/run/xen/xenconsoled.pid
";

/// Runs each command under a probe of what xl asks of the privcmd device.
const TRACE: &str = "\
cd /sys/kernel/tracing
echo 'p:hc xen_privcmd:privcmd_ioctl ioctl=%si:x32 call=+u0(%dx):u64 a0=+u8(%dx):x64 sub=+u0(+u8(%dx)):u32 first=+u16(+u8(%dx)):x64' > kprobe_events
step() {
    echo > trace
    echo 1 > events/kprobes/hc/enable
    \"$@\" > /tmp/out 2>&1 < /dev/null
    status=$?
    [ $1 = xl ] && [ $2 = create ] && sleep 3
    echo 0 > events/kprobes/hc/enable
    echo \"STEP$*, status $status\"
    [ $status = 0 ] || cat /tmp/out
    sed -n 's/^ *xl-[0-9]* .*(privcmd_ioctl[^)]*) /CALL/p' trace
}
step xl info
step xl list
step xl create /guest/pv.cfg
step xl list
step xl list -l
step xl vcpu-list
step xl domid debian
step xl uptime
step xl dmesg
step xl debug-keys h
step xl pause debian
step xl unpause debian
step xl destroy debian
echo 'END'
exec sh
";

/// Runs commands and shows what they say.
const SAY: &str = "\
run() {
    echo \"xl-run: $*\"
    \"$@\" < /dev/null
    echo \"xl-status: $?\"
}
wait_for() {
    for i in $(seq 120); do
        grep -q \"$1\" /tmp/console && return
        sleep 1
    done
    echo \"xl-missing: $1\"
}
before=$(xl info free_memory)
";

/// Talks to the guest's shell through `xl console`.
const TALK: &str = "\
# xl console takes keys from a terminal only: busybox's telnetd has one.
ifconfig lo up
telnetd -p 23 -l /guest/console
mkfifo /tmp/keys
nc 127.0.0.1 23 < /tmp/keys > /tmp/console 2>&1 &
exec 3> /tmp/keys
wait_for '~ #'
echo 'echo in-$((40 + 2))-guest' >&3
wait_for in-42-guest
cat /tmp/console
exec 3>&-
kill $!
";

/// What it is to have cost no memory.
const CLEAN: &str = "\
sleep 1
[ $before = $(xl info free_memory) ] && echo 'xl-memory: as before'
echo 'END'
poweroff -f
";

/// A guest, and much of what xl can do with it.
const USE: [&str; 5] = [
    SAY,
    "\
run xl info
run xl list
run xl create -p /guest/pv.cfg
run xl list
run xl unpause debian
",
    TALK,
    "\
run xl vcpu-list
run xl sched-credit2
run xl cpupool-list
run xl cpupool-list -c
run xl cpupool-cpu-remove Pool-0 1
run xl cpupool-create 'name=\"second\"' 'sched=\"credit\"' 'cpus=[\"1\"]'
run xl cpupool-list
run xl cpupool-migrate debian second
run xl vcpu-list
run xl sched-credit
run xl cpupool-destroy second
run xl cpupool-migrate debian Pool-0
run xl cpupool-destroy second
run xl cpupool-cpu-add Pool-0 1
run xl cpupool-list -c
run xl shutdown -w debian
run xl list
run xl create /guest/pv.cfg
run xl destroy debian
",
    CLEAN,
];

/// A guest in a hardware container.
const USE_PVH: [&str; 5] = [
    SAY,
    "\
run xl create /guest/pv.cfg 'type=\"pvh\"' vcpus=2
run xl list
",
    TALK,
    "\
run xl vcpu-list
run xl mem-set debian 112
run xl list -l debian
run xl shutdown -w debian
run xl list
run xl create /guest/pv.cfg 'type=\"pvh\"' vcpus=2
run xl destroy debian
run xl list
",
    CLEAN,
];

const CONFIG: &str = "\
type = \"pv\"
name = \"debian\"
kernel = \"/guest/vmlinuz\"
ramdisk = \"/guest/initrd\"
extra = \"console=hvc0\"
memory = 128
vcpus = 1
";

/// Gives a guest a disk in memory and shows what it says; what the guest does is `test=io` in its ramdisk. The disk has
/// contents first: what was never written is read faster.
const MEASURE: &str = "\
insmod /modules-more/brd.ko rd_nr=1 rd_size=$((DISK_MIB * 1024))
dd if=/dev/urandom of=/dev/ram0 bs=1M count=DISK_MIB
dd if=/dev/ram0 of=/dev/null bs=1M
dd if=/dev/ram0 of=/dev/null bs=4096 count=1000 iflag=direct
sleep 1
echo 'io: dom0 is ready'
xl create /guest/io.cfg
touch /tmp/guest-debian.log
tail -n +1 -f /tmp/guest-debian.log
";

/// What makes a device usable: its back end waits for the number of the first disk in memory.
const BLOCK: &str = "\
#!/bin/sh
[ \"$1\" = add ] && xenstore write $XENBUS_PATH/physical-device 1:0 $XENBUS_PATH/hotplug-status connected
exit 0
";

/// The ramdisk that measures a guest's disk of so many MiB, with that guest's own ramdisk and command line.
pub fn measuring(disk: usize, guest: &Path, extra: &str) -> Result<PathBuf> {
    let script = format!("{}{}", start_keeping_consoles(), MEASURE.replace("DISK_MIB", &disk.to_string()));
    let mut archive = archive(&script)?;
    disk_in_memory(&mut archive)?;
    let config = CONFIG.replace("/guest/initrd", "/guest/initrd-io").replace("console=hvc0", extra);
    let disk = "disk = [\"format=raw,vdev=xvda,access=rw,backendtype=phy,target=/dev/ram0\"]\n";
    archive.file("guest/io.cfg", (config + disk).as_bytes())?;
    archive.file("guest/initrd-io", &std::fs::read(guest)?)?;
    keep(archive, "target/guest/initrd-xl-io")
}

/// The ramdisk that runs a script after the toolstack's start; guests' consoles are kept in `/tmp/guest-NAME.log`. With more
/// files for guests, by name.
pub fn timing(script: &str, files: &[(&str, PathBuf)]) -> Result<PathBuf> {
    let mut archive = archive(&format!("{}{script}", start_keeping_consoles()))?;
    for (name, path) in files {
        archive.file(&format!("guest/{name}"), &std::fs::read(path)?)?;
    }
    keep(archive, "target/guest/initrd-xl-timing")
}

/// The toolstack's start, with guests' consoles kept in `/tmp/guest-NAME.log`.
fn start_keeping_consoles() -> String {
    START.replace("xenconsoled ", "xenconsoled --log=guest --log-dir=/tmp ")
}

/// The ramdisk that records what xl asks for; says where it lies.
pub fn tracing() -> Result<PathBuf> {
    let script = format!("{START}{TRACE}").replace("STEP", STEP).replace("CALL", CALL);
    ramdisk("target/guest/initrd-xl", &script)
}

/// The ramdisk that uses xl as one does.
pub fn using() -> Result<PathBuf> {
    ramdisk("target/guest/initrd-xl-use", &format!("{START}{}", USE.concat()))
}

/// The same with a guest in a hardware container.
pub fn using_containers() -> Result<PathBuf> {
    ramdisk("target/guest/initrd-xl-pvh", &format!("{START}{}", USE_PVH.concat()))
}

/// The ramdisk that runs the commands of a list which are compared with our dom0's. It has a disk where our dom0 has its own.
pub fn commanding(list: &str) -> Result<PathBuf> {
    const DISK: &str = "insmod /modules-more/brd.ko rd_nr=1 rd_size=4096\nln -s ram0 /dev/vda\n";
    let script = format!("{}{DISK}{}echo 'END'\npoweroff -f\n", start_keeping_consoles(), as_xl::script(list)?);
    let mut archive = archive(&script)?;
    disk_in_memory(&mut archive)?;
    keep(archive, &format!("target/guest/initrd-{list}"))
}

/// Adds the driver of a disk in memory, and what makes a guest's disk of it.
fn disk_in_memory(archive: &mut Archive) -> Result<()> {
    archive.directory("modules-more")?;
    for module in kernel_modules::get(Fetched::GenericKernel, &["brd"])? {
        archive.file(&format!("modules-more/{}", module.name), &module.bytes)?;
    }
    archive.directory("etc/xen/scripts")?;
    archive.program("etc/xen/scripts/block", BLOCK.as_bytes())
}

fn ramdisk(name: &str, script: &str) -> Result<PathBuf> {
    keep(archive(script)?, name)
}

fn keep(archive: Archive, name: &str) -> Result<PathBuf> {
    let path = workspace::path(name);
    std::fs::write(&path, archive.finish()?)?;
    Ok(path)
}

fn archive(script: &str) -> Result<Archive> {
    let whole = |store: &Path| PROGRAMS.iter().all(|name| store.join(name).is_file());
    let store = workspace::cached("xl-4.17", whole, fill)?;
    let mut archive = Archive::default();
    for dir in [
        "bin",
        "dev",
        "etc",
        "guest",
        "lib",
        "lib64",
        "modules",
        "proc",
        "root",
        "run",
        "run/xen",
        "run/lock",
        "sys",
        "tmp",
        "usr",
        "usr/bin",
        "var",
        "var/lib",
        "var/lib/xen",
        "var/lib/xenstored",
        "var/log",
        "var/log/xen",
        "usr/sbin",
        "usr/lib",
        "usr/lib/xen-4.17",
        CONSOLE_DIRECTORY,
    ] {
        archive.directory(dir)?;
    }
    archive.link("var/run", "/run")?;
    archive.link("var/lock", "/run/lock")?;
    archive.link("sbin", "bin")?;
    archive.device("dev/console", 5, 1)?;
    ramdisk::busybox(&mut archive, Fetched::Busybox)?;
    archive.directory("lib/x86_64-linux-gnu")?;
    for entry in std::fs::read_dir(&store)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let place = match name.as_str() {
            "ld-linux-x86-64.so.2" => format!("lib64/{name}"),
            CONSOLE => format!("{CONSOLE_DIRECTORY}/{name}"),
            name if PROGRAMS.contains(&name) => format!("bin/{name}"),
            name => format!("lib/x86_64-linux-gnu/{name}"),
        };
        archive.program(&place, &std::fs::read(entry.path())?)?;
    }
    let mut order = String::new();
    for module in kernel_modules::get(Fetched::GenericKernel, &kernel_modules::TOOLSTACK)? {
        archive.file(&format!("modules/{}", module.name), &module.bytes)?;
        order.push_str(&module.name);
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes())?;
    archive.directory("etc/xen")?;
    archive.file("etc/xen/xl.conf", b"autoballoon=\"off\"\n")?;
    archive.file("guest/pv.cfg", CONFIG.as_bytes())?;
    // What our dom0 has under the same names.
    archive.link("files", "/guest")?;
    archive.link("guest/vmlinuz-cloud", "vmlinuz")?;
    archive.file("guest/debian.cfg", as_xl::config().as_bytes())?;
    archive.program("guest/console", b"#!/bin/sh\nexec xl console debian\n")?;
    archive.file("guest/vmlinuz", &std::fs::read(Fetched::CloudKernel.get()?)?)?;
    archive.file("guest/initrd", &std::fs::read(ramdisk::ramdisk()?)?)?;
    archive.program("init", script.replace("'END'", &format!("'{END}'")).as_bytes())?;
    Ok(archive)
}

fn fill(to: &Path) -> Result<()> {
    for package in PACKAGES {
        packages::with_unpacked(Architecture::Amd64, package, ".", |tree| take(tree, to))?;
    }
    let missing: BTreeSet<&str> = PROGRAMS.into_iter().filter(|name| !to.join(name).is_file()).collect();
    anyhow::ensure!(missing.is_empty(), "Debian's packages have no {missing:?}");
    Ok(())
}

/// Copies the programs and the libraries of a package, links followed: a library is found by each of its names.
fn take(tree: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(tree).with_context(|| tree.display().to_string())?.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() {
            take(&path, to)?;
            continue;
        }
        let in_directory = |part: &str| path.components().any(|component| component.as_os_str() == part);
        let place = if name == STORE { "bin" } else { "xen-4.17" };
        let program = PROGRAMS.contains(&name.as_str()) && in_directory(place);
        let library = name.contains(".so.") && in_directory("x86_64-linux-gnu");
        // Only what has a file behind it: some links lead to another package's.
        if (program || library || name == "ld-linux-x86-64.so.2") && path.is_file() {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
