//! A disk with a root file system of Debian 12, made of Debian's packages by debootstrap, with the kernel and the initramfs
//! that its own tools make. It is made once and kept in `.cache/`; root's rights are needed for that.
//!
//! `/boot/vmlinuz` and `/boot/initrd` are what a guest starts with. `/sbin/test-fsck` and `/sbin/test-fio` may be started instead
//! of init: the first one checks the file system it runs from, the other one verifies what fio writes to all other disks.

use crate::doctor::{self, Need};
use crate::packages::output;
use crate::workspace;
use anyhow::{Context, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name in the cache; another content gets another name.
const NAME: &str = "debian-12-root-2";
/// Size of the disk in MiB.
const SIZE: u32 = 900;
/// What is in it beside Debian's smallest system.
const PACKAGES: &str = "systemd-sysv,udev,kmod,linux-image-cloud-amd64,initramfs-tools,zstd,e2fsprogs,fio";

/// Makes a system of the packages, in namespaces of its own, so that no mount stays.
const MAKE: &str = r#"
set -e
# It tells of its failures on its standard output.
debootstrap --variant=minbase --include="$2" bookworm "$1" > "$1.log" || { tail -n 3 "$1.log" >&2; exit 1; }
rm "$1.log"
cd "$1"
echo debian > etc/hostname
echo '/dev/xvda / ext4 errors=remount-ro 0 1' > etc/fstab
echo 'FSTYPE=ext4' > etc/initramfs-tools/conf.d/root
mount -t proc proc proc
chroot . passwd -d root
chroot . update-initramfs -u
umount proc
rm -f var/cache/apt/archives/*.deb
cp boot/vmlinuz-* boot/vmlinuz
cp boot/initrd.img-* boot/initrd
"#;

const FSCK: &str = r#"#!/bin/sh
mount -t proc proc /proc
e2fsck -f -n /dev/xvda
echo "fsck: status $?"
echo o > /proc/sysrq-trigger
while sleep 1; do :; done
"#;

/// Blocks of mixed sizes, at random places and one after the other, by four jobs on a part of the disk each, past the page cache;
/// all of it is read back and compared.
const FIO: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
cd /tmp
for path in /sys/block/xvd*; do
    disk=${path##*/}
    [ $disk = xvda ] && continue
    part=$(( $(cat $path/size) / 8 * 512 ))
    for way in randwrite write randrw; do
        fio --name=$way --rw=$way --filename=/dev/$disk --size=$part --offset_increment=$part --numjobs=4 --direct=1 \
            --ioengine=libaio --iodepth=8 --bsrange=4k-128k --verify=crc32c --verify_fatal=1 --do_verify=1 \
            --group_reporting > result 2>&1
        status=$?
        [ $status = 0 ] && grep -q 'jobs=4): err= 0' result && echo "fio: $disk $way verified" && continue
        echo "fio: $disk $way FAILED with status $status"
        cat result
    done
done
echo "fio: end"
echo o > /proc/sysrq-trigger
while sleep 1; do :; done
"#;

/// The disk; made first when it is missing.
pub fn disk() -> Result<PathBuf> {
    Ok(workspace::cached(NAME, |path| path.join("disk").is_file(), fill)?.join("disk"))
}

fn fill(to: &Path) -> Result<()> {
    doctor::ensure(&[Need::FileSystems, Need::Debian])?;
    let tree = to.join("tree");
    let made = make(&tree, &to.join("disk"));
    // As many files as a system has, and none of them needed any more.
    std::fs::remove_dir_all(&tree)?;
    made
}

fn make(tree: &Path, disk: &Path) -> Result<()> {
    std::fs::create_dir_all(tree)?;
    output(with_path("unshare").args(["--mount", "--", "sh", "-c", MAKE, "sh"]).arg(tree).arg(PACKAGES))
        .context("a root file system of Debian 12; it takes root's rights")?;
    for (name, script) in [("sbin/test-fsck", FSCK), ("sbin/test-fio", FIO)] {
        let path = tree.join(name);
        std::fs::write(&path, script)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    output(with_path("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(tree).arg(disk).arg(format!("{SIZE}m"))).map(drop)
}

/// A program of the system's.
fn with_path(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").env("LC_ALL", "C");
    command
}
