//! What the default guest does with its disks when its kernel's command line has `test=disks`.

/// Each writable disk is written with random data at several places and sizes, read back, and given a file system that is
/// filled, unmounted and mounted again; of each read-only one the sum is told, and that it takes no write.
pub const SCRIPT: &str = r#"#!/bin/sh
say() { echo "disks: $*"; }
for try in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/xvda ] && break; sleep 1; done
for path in /sys/block/xvd*; do
    [ -e $path ] || { say "none"; continue; }
    disk=${path##*/}
    say "$disk $(cat $path/size) sectors of $(cat $path/queue/hw_sector_size), ro $(cat $path/ro)"
    if [ "$(cat $path/ro)" = 1 ]; then
        say "$disk sum $(sha256sum < /dev/$disk | cut -d ' ' -f 1)"
        dd if=/dev/zero of=/dev/$disk bs=4096 count=1 conv=fsync 2> /dev/null || say "$disk takes no write"
        continue
    fi
    good=0
    for part in 512:0:1 512:7:9 4096:1:1 4096:3:11 65536:2:3 1048576:1:2; do
        size=${part%%:*} rest=${part#*:}
        seek=${rest%:*} count=${rest#*:}
        dd if=/dev/urandom of=/tmp/data bs=$size count=$count 2> /dev/null
        dd if=/tmp/data of=/dev/$disk bs=$size seek=$seek conv=fsync 2> /dev/null || say "$disk write $part failed"
        echo 3 > /proc/sys/vm/drop_caches
        dd if=/dev/$disk bs=$size skip=$seek count=$count 2> /dev/null | cmp - /tmp/data && good=$((good + 1))
    done
    say "$disk $good of 6 written and read"
    # No smaller blocks than any disk has sectors.
    mke2fs -b 4096 /dev/$disk > /dev/null 2>&1 || say "$disk no file system"
    mkdir -p /mnt
    mount -t ext4 /dev/$disk /mnt || mount -t ext2 /dev/$disk /mnt || say "$disk not mounted"
    dd if=/dev/urandom of=/mnt/a bs=65536 count=16 2> /dev/null
    cp /mnt/a /mnt/b
    sum=$(sha256sum < /mnt/a)
    umount /mnt
    echo 3 > /proc/sys/vm/drop_caches
    mount -t ext4 /dev/$disk /mnt || mount -t ext2 /dev/$disk /mnt
    [ "$(sha256sum < /mnt/a)" = "$sum" ] && [ "$(sha256sum < /mnt/b)" = "$sum" ] && say "$disk files are whole"
    umount /mnt
done
say "features $(dmesg | grep -o 'blkfront: .*' | tr '\n' ';')"
say "end"
"#;

/// What it does with disks that fail, when its kernel's command line has `test=faults`: blocks of 4096 bytes are read and
/// written next to those that fail (`xtask/src/devices.rs`) and in them, while others are read all the time, none of which may fail.
pub const FAULTS: &str = r#"#!/bin/sh
# The kernel says nothing of dropped caches from now on.
echo 4 > /proc/sys/vm/drop_caches
say() { echo "faults: $*"; }
put() { dd if=/tmp/data of=/dev/$disk bs=4096 seek=$1 count=1 conv=fsync 2> /dev/null && echo -n " ok" || echo -n " failed"; }
get() { echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/$disk of=/tmp/got bs=4096 skip=$1 count=1 2> /dev/null && echo -n " ok" || echo -n " failed"; }
dd if=/dev/urandom of=/tmp/data bs=4096 count=1 2> /dev/null
for path in /sys/block/xvd*; do
    disk=${path##*/}
    dd if=/dev/$disk of=/tmp/good bs=4096 skip=900 count=100 2> /dev/null
    for reader in 1 2 3; do
        ( while [ ! -e /tmp/enough ]; do
            dd if=/dev/$disk bs=4096 skip=900 count=100 2> /dev/null | cmp - /tmp/good || echo "faults: $disk another one was hurt"
            sleep 0.1
        done ) &
    done
    say "$disk written:$(for block in 511 511 512 513 768 768 512 767; do put $block; done)"
    say "$disk read:$(for block in 255 256 257 256 511 512 768; do get $block; done)"
    touch /tmp/enough
    wait
    rm /tmp/enough
done
say "end"
"#;

/// What it does when its kernel's command line has `test=watch`: reads its disks all the time and tells when that works and when it
/// fails, and every now and then that it goes on.
pub const WATCH: &str = r#"#!/bin/sh
echo 4 > /proc/sys/vm/drop_caches
watch() {
    last= count=0 size=$(cat /sys/block/$1/size)
    while true; do
        now=$(cat /sys/block/$1/size)
        [ $now = $size ] || echo "watch: $1 has $now sectors, not $size"
        size=$now
        echo 3 > /proc/sys/vm/drop_caches
        if dd if=/dev/$1 of=/dev/null bs=65536 count=8 2> /dev/null; then now=works; else now=fails; fi
        [ "$now" = "$last" ] || echo "watch: $1 $now"
        last=$now count=$((count + 1))
        [ $((count % 10)) = 0 ] && echo "watch: $1 $now, $count"
        sleep 0.1
    done
}
for path in /sys/block/xvd*; do
    watch ${path##*/} &
done
wait
"#;

/// What it does when its kernel's command line has `test=pace`: tells whether two MiB of its disk take less than three seconds.
pub const PACE: &str = r#"#!/bin/sh
begun=$(cut -d . -f 1 /proc/uptime)
dd if=/dev/xvda of=/dev/null bs=65536 count=32 2> /dev/null
taken=$(( $(cut -d . -f 1 /proc/uptime) - begun ))
[ $taken -lt 3 ] && echo "pace: xvda fast" || echo "pace: xvda slow"
echo "pace: end"
"#;

/// What it does when its kernel's command line has `test=log`, with the exerciser in its ramdisk: writes logs on all its disks and
/// tells which records were flushed, until the power fails.
pub const LOG: &str = r#"#!/bin/sh
for path in /sys/block/xvd*; do
    exerciser io log /dev/${path##*/} flush &
done
wait
"#;

/// And with `test=check check=DISK:NUMBER,..`: looks whether all records before those are there.
pub const CHECK: &str = r#"#!/bin/sh
for pair in $(grep -o 'check=/[^ ]*' /proc/cmdline | cut -d = -f 2 | tr , ' '); do
    exerciser io check ${pair%:*} ${pair#*:}
done
echo "log: end"
"#;
