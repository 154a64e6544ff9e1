//! What the default guest measures of its first disk when its kernel's command line has `test=io`; the ramdisk is one with
//! the exerciser. `bench io` reads what it says.

/// Each measurement stands between `begin` and `end`, with rests at both ends: whoever looks at the clock then may be late.
/// The last one tells what the rests themselves cost.
pub const SCRIPT: &str = r#"#!/bin/sh
for try in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/xvda ] && break; sleep 1; done
phase() {
    name=$1
    shift
    echo "io: begin $name"
    sleep 3
    [ $# = 0 ] || "$@" 2>&1
    sleep 3
    echo "io: end $name"
}
disk=/dev/xvda
# The hypervisor cleans free memory meanwhile.
sleep 3
exerciser io dd-read $disk 1048576 1 > /dev/null
phase "dd read, 1 MiB direct" exerciser io dd-read $disk 1048576 2
phase "dd write, 1 MiB direct" exerciser io dd-write $disk 1048576 2
phase "dd write, 1 MiB direct, without clearing memory" exerciser io write-again $disk 1048576 2
phase "dd read, 4 KiB direct" exerciser io dd-read $disk 4096 1
phase "read 4 KiB, 1 at once" exerciser io read $disk 1 250
phase "read 4 KiB, 32 at once" exerciser io read $disk 32 250
phase "write 4 KiB, 1 at once" exerciser io write $disk 1 250
phase "write 4 KiB, 32 at once" exerciser io write $disk 32 250
phase "rest"
echo "io: the end"
"#;
