//! The ramdisk of the default guest: a busybox with a shell on the Xen console.

mod disks;
mod io;

use crate::cpio::Archive;
use crate::kernel_modules::Module;
use crate::packages::Fetched;
use crate::{build, kernel_modules, stress_ng, workspace};
use anyhow::Result;
use std::path::PathBuf;

/// What user space says first; tests wait for it.
pub const FIRST_LINE: &str = "xen-rs guest: user space is up";

/// Busybox's init reads this: one script at start, one for CPUs that come later, a login shell on the console, and what a shutdown request does.
/// The session is started once and not waited for: while it waits, init is deaf to a shutdown request.
const INITTAB: &str = "\
::sysinit:/etc/start
::once:/etc/hotplug
hvc0::once:-/etc/session
::ctrlaltdel:/bin/reboot
::shutdown:/bin/umount -a -r
";

/// Lines go to the kernel log when the kernel has no console but `earlyprintk=xen`: only there can they be seen.
/// With `exercise=CHAPTER,..` the exerciser runs, where the ramdisk has it. With `report=warnings` the warnings of the kernel's log follow, for the tests that compare them; `then=poweroff` and
/// `then=reboot` say how it goes on.
const START: &str = "\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
hostname guest
out=/dev/console
grep -q earlyprintk /proc/cmdline && out=/dev/kmsg
echo 'FIRST_LINE' > $out
[ -x /etc/devices ] && /etc/devices
# Drivers of split devices, where there is one to drive.
for device in /sys/bus/xen/devices/vbd-* $(grep -o disks=hotplug /proc/cmdline); do
    [ -e $device ] || [ $device = disks=hotplug ] || continue
    cd /lib/modules/$(uname -r) && for module in $(cat order); do insmod $module; done
    cd / && break
done 2> /dev/null
test=$(grep -o 'test=[a-z-]*' /proc/cmdline)
[ -x /etc/test-${test#test=} ] && /etc/test-${test#test=} > $out 2>&1
if grep -q exercise= /proc/cmdline; then
    /bin/exerciser > $out 2>&1
    echo \"exerciser: status $?, done\" > $out
fi
if grep -q report=warnings /proc/cmdline; then
    dmesg -r | grep '^<[0-4]>' | sed 's/^/guest-warning: /' > /tmp/warnings
    while read -r line; do echo \"$line\" > $out; done < /tmp/warnings
    echo 'guest-warnings end' > $out
fi
grep -q then=poweroff /proc/cmdline && poweroff -f
grep -q then=reboot /proc/cmdline && reboot -f
# Without a Xen console there is nothing to do but to be there.
while ! : < /dev/hvc0; do sleep 1; done 2> /dev/null
exit 0
";

/// What the guest does when its kernel's command line has `test=flood`: it has much to say, for ever.
const FLOOD: &str = "\
#!/bin/sh
while :; do echo 'flood: a line of which there is no end, and nobody wants to read it'; done
";

/// With `cpus=hotplug` CPUs that appear are brought up, as udev's rules do it, and the guest tells what it has whenever
/// that changes: the memory that its kernel manages against what it began with, and its CPUs.
const HOTPLUG: &str = "\
#!/bin/sh
grep -q cpus=hotplug /proc/cmdline || exit 0
total() { sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo; }
cpus() { cat /sys/devices/system/cpu/online; }
first=$(total) less=0 online=$(cpus)
while sleep 1; do
    now=$(( (first - $(total) + 512) / 1024 ))
    [ $now = $less ] || echo \"guest: $now MiB less than at first\" > /dev/console
    less=$now now=$(cpus)
    [ $now = $online ] || echo \"guest: CPUs $online -> $now\" > /dev/console
    online=$now
    for cpu in /sys/devices/system/cpu/cpu[1-9]*; do
        [ \"$(cat $cpu/online)\" = 0 ] && echo 1 > $cpu/online && echo \"guest: ${cpu##*/} is up\" > /dev/console
    done
done 2> /dev/null
";

/// A second shell would need a second console, so leaving the shell powers the guest off.
const SESSION: &str = "\
#!/bin/sh
/bin/sh -l
/bin/poweroff
";

/// The prompt is the usual one, `~ #` at home. This busybox knows no home but by name, so the shell works it out.
const PROFILE: &str = "\
export HOME=/root PATH=/bin:/sbin TERM=${TERM:-linux}
where() { case $PWD in $HOME*) echo \"~${PWD#$HOME}\" ;; *) echo \"$PWD\" ;; esac; }
PS1='$(where) # '
cd
";

/// What the script for devices says last.
pub const DEVICES_END: &str = "devices end";

/// Loads the drivers and tries each device: what there is on the PCI buses, the sum of each disk, what is written to it and
/// read back, an answer from the network of each card, and how often each interrupt came. Runs before the warnings are
/// collected.
const DEVICES: &str = "\
#!/bin/sh
out=/dev/console
grep -q earlyprintk /proc/cmdline && out=/dev/kmsg
say() { echo \"device: $*\" > $out; }
for module in $(cat /modules/order); do insmod /modules/$module || say \"$module: not loaded\"; done
for try in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] && [ -b /dev/sda ] && break; sleep 1; done
for pci in /sys/bus/pci/devices/*; do
    driver=$(readlink $pci/driver)
    say \"pci ${pci##*/} $(cat $pci/vendor):$(cat $pci/device) class $(cat $pci/class) ${driver##*/}\"
done
for disk in vda sda; do
    [ -b /dev/$disk ] || continue
    say \"$disk sum $(sha256sum < /dev/$disk)\"
    dd if=/dev/urandom of=/tmp/block bs=4096 count=64 2> /dev/null
    dd if=/tmp/block of=/dev/$disk bs=4096 seek=100 conv=fsync 2> /dev/null
    echo 3 > /proc/sys/vm/drop_caches
    dd if=/dev/$disk bs=4096 skip=100 count=64 2> /dev/null | cmp - /tmp/block && say \"$disk what was written is read\"
done
for card in /sys/class/net/eth*; do
    [ -e $card ] || continue
    name=${card##*/}
    driver=$(readlink $card/device/driver)
    ifconfig $name 10.0.2.15 up
    for try in 1 2 3 4 5 6 7 8 9 10; do [ \"$(cat $card/carrier)\" = 1 ] && break; sleep 1; done
    ping -c 3 -w 20 10.0.2.2 > /dev/null && say \"$name of ${driver##*/}: carrier $(cat $card/carrier), an answer\"
    ifconfig $name 0.0.0.0 down
done
grep -E 'xen-pirq' /proc/interrupts > /tmp/interrupts
while read -r line; do say \"irq $line\"; done < /tmp/interrupts
say 'DEVICES_END'
";

/// The files of the ramdisk.
fn archive() -> Result<Archive> {
    archive_of(Fetched::Busybox, &[Fetched::CloudKernel, Fetched::GenericKernel])
}

/// The files of a ramdisk with that busybox, for those kernels.
fn archive_of(which: Fetched, kernels: &[Fetched]) -> Result<Archive> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        archive.directory(dir)?;
    }
    archive.device("dev/console", 5, 1)?;
    archive.link("init", "bin/busybox")?;
    archive.link("sbin", "bin")?;
    busybox(&mut archive, which)?;
    archive.file("etc/inittab", INITTAB.as_bytes())?;
    archive.program("etc/start", START.replace("FIRST_LINE", FIRST_LINE).as_bytes())?;
    archive.program("etc/hotplug", HOTPLUG.as_bytes())?;
    for (name, script) in [
        ("disks", disks::SCRIPT),
        ("faults", disks::FAULTS),
        ("io", io::SCRIPT),
        ("watch", disks::WATCH),
        ("pace", disks::PACE),
        ("log", disks::LOG),
        ("check", disks::CHECK),
        ("flood", FLOOD),
    ] {
        archive.program(&format!("etc/test-{name}"), script.as_bytes())?;
    }
    drivers(&mut archive, kernels)?;
    archive.program("etc/session", SESSION.as_bytes())?;
    archive.file("etc/profile", PROFILE.as_bytes())?;
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")?;
    Ok(archive)
}

/// Adds the drivers of split devices for those kernels.
fn drivers(archive: &mut Archive, kernels: &[Fetched]) -> Result<()> {
    archive.directory("lib")?;
    archive.directory("lib/modules")?;
    for &kernel in kernels {
        // The generic kernel is large: it is not fetched for its drivers alone.
        if kernel == Fetched::GenericKernel && !kernel.is_there() {
            continue;
        }
        let modules = kernel_modules::get(kernel, kernel_modules::guest(kernel))?;
        let release = modules.first().and_then(|module| kernel_modules::release(&module.bytes)).unwrap_or_default();
        add_modules(archive, &format!("lib/modules/{release}"), &modules)?;
    }
    Ok(())
}

/// Adds modules, and a file `order` that says in which order they are to be loaded: as they are given.
fn add_modules(archive: &mut Archive, directory: &str, modules: &[Module]) -> Result<()> {
    archive.directory(directory)?;
    let mut order = String::new();
    for module in modules {
        archive.file(&format!("{directory}/{}", module.name), &module.bytes)?;
        order.push_str(&module.name);
        order.push('\n');
    }
    archive.file(&format!("{directory}/order"), order.as_bytes())
}

/// Adds busybox under all its names.
pub fn busybox(archive: &mut Archive, which: Fetched) -> Result<()> {
    archive.program("bin/busybox", &std::fs::read(which.get()?)?)?;
    for applet in APPLETS.split_whitespace() {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    Ok(())
}

fn keep(archive: Archive, name: &str) -> Result<PathBuf> {
    let path = workspace::path("target/guest");
    std::fs::create_dir_all(&path)?;
    let path = path.join(name);
    std::fs::write(&path, archive.finish()?)?;
    Ok(path)
}

/// Builds the ramdisk and says where it lies.
pub fn ramdisk() -> Result<PathBuf> {
    keep(archive()?, "initrd")
}

/// Builds the same for a 32-bit kernel.
pub fn of_32_bit() -> Result<PathBuf> {
    keep(archive_of(Fetched::Busybox686, &[Fetched::Kernel686])?, "initrd-686")
}

/// Builds the ramdisk of a kernel that drives devices: with their modules, and a script that tries them.
pub fn with_devices() -> Result<PathBuf> {
    let mut archive = archive()?;
    let modules = kernel_modules::get(Fetched::GenericKernel, &kernel_modules::DEVICES)?;
    add_modules(&mut archive, "modules", &modules)?;
    archive.program("etc/devices", DEVICES.replace("DEVICES_END", DEVICES_END).as_bytes())?;
    keep(archive, "initrd-devices")
}

/// The archive with the exerciser, which runs when the kernel's command line has `exercise=CHAPTER,..`.
fn exerciser() -> Result<Archive> {
    let mut archive = archive()?;
    archive.program("bin/exerciser", &std::fs::read(build::exerciser()?)?)?;
    Ok(archive)
}

/// Builds the ramdisk of a guest that exercises its kernel.
pub fn with_exerciser() -> Result<PathBuf> {
    keep(exerciser()?, "initrd-exerciser")
}

/// Builds the same with Debian's stress-ng and its libraries.
pub fn with_stress() -> Result<PathBuf> {
    let mut archive = exerciser()?;
    for dir in ["lib", "lib/x86_64-linux-gnu", "lib64"] {
        archive.directory(dir)?;
    }
    for (place, path) in stress_ng::files()? {
        archive.program(&place, &std::fs::read(path)?)?;
    }
    keep(archive, "initrd-stress")
}

/// The names under which busybox is found in the guest.
const APPLETS: &str = "\
[ ar arp arping ash awk base64 basename brctl bunzip2 bzcat cat chmod chown chroot clear cmp cp cpio crc32 cut date dc
dd df diff dirname dmesg du echo egrep env expr false fdisk fgrep find free fsfreeze ftpget grep gunzip gzip halt head
hexdump hostid hostname hwclock id ifconfig init insmod ionice ip kill killall less link ln ls lsmod lzcat md5sum mkdir
mke2fs mkfifo mknod mktemp modinfo modprobe more mount mv nc netstat nice nproc nslookup od pidof ping poweroff printf
ps pwd readlink realpath reboot renice reset rm rmdir rmmod route sed seq setsid sh sha1sum sha256sum sleep sort stat
stty sync sysctl tac tail tar taskset tee test time timeout top touch tr traceroute true truncate tty udhcpc umount
uname uniq unlzma unxz unzip uptime usleep vi watch wc wget which whoami xargs xxd xz xzcat yes zcat";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_in_the_script_there() {
        assert_eq!(START.matches("FIRST_LINE").count(), 1);
        assert!(!FIRST_LINE.contains('\''));
    }
}
