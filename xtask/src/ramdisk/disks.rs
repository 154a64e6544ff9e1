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
    mke2fs /dev/$disk > /dev/null 2>&1 || say "$disk no file system"
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
