//! What Debian's `xl` does to be measured, in a Linux dom0: at its best, without a process that waits for each domain's end
//! (`-e`), all of which would wake up whenever a domain comes or goes.

use super::report::{FREE, MEMORY, TIME};
use super::{Result, Stage};
use crate::emulator::Module;
use crate::packages::Fetched;
use crate::{parts, ramdisk, xl};

/// In this emulator hardware containers do not run on Xen with SMEP.
const CPU: &str = "max,-smap,-smep,-x2apic";
/// MiB of dom0, which unpacks its ramdisk; and for the hypervisor and one domain of 192 besides.
const DOM0: u32 = 800;
const BASE_MEMORY: u32 = DOM0 + 512;
/// MiB for each of many domains.
const EACH: u32 = 9;
/// The script's last line.
const END: &str = "xl-measure: the end";

/// Clock, rows, and free memory, without starting a program that would count. `now` reads the clock of the kernel's timers.
const TOOLS: &str = "\
now() { { read -r x; read -r x; read -r x x now x; } < /proc/timer_list; }
say() { us=$(( (now - begin) / 1000 )); echo \"TIME$1\"; printf '%d.%03d ms\\n' $((us / 1000)) $((us % 1000)); }
row() {
    name=$1
    shift
    now
    begin=$now
    \"$@\" > /tmp/out 2>&1 < /dev/null || { echo \"xl-failed: $*\"; cat /tmp/out; }
    now
    say \"$name\"
}
free() { echo \"FREE : $(($(xl info free_memory) * 256))\"; }
first_line() {
    rm -f /tmp/guest-debian.log
    mkfifo /tmp/guest-debian.log
    awk '/LINE/ { print; fflush() }' < /tmp/guest-debian.log | { read -r x; now; echo $now > /tmp/then; cat > /dev/null; } &
    name=$1
    shift
    rm -f /tmp/then
    now
    begin=$now
    xl create -e \"$@\" > /tmp/out 2>&1 < /dev/null || { echo \"xl-failed: $*\"; cat /tmp/out; }
    until [ -s /tmp/then ]; do sleep 1; done
    read -r now < /tmp/then
    say \"$name\"
    xl destroy debian
    sleep 2
}
";

/// The machine.
pub fn stages(many: u32) -> Result<Vec<Stage>> {
    let files = [("hello", parts::resolve("guest:hello")?), ("vmlinuz-generic", parts::resolve("kernel:generic")?)];
    let ramdisk = xl::ramdisk::timing(&script(many), &files)?;
    let line = "console=hvc0 loglevel=4 panic=1";
    Ok(vec![Stage {
        name: "xl",
        mem: BASE_MEMORY + EACH * many,
        cpu: CPU,
        append: format!("dom0_mem={DOM0}M,max:{DOM0}M dom0_max_vcpus=1"),
        modules: vec![Module::new(Fetched::GenericKernel.get()?, line), Module::new(ramdisk, "")],
        ended: |text| text.contains(END).then(|| !text.contains("xl-failed")),
    }])
}

fn script(many: u32) -> String {
    let tools = TOOLS.replace("TIME", TIME).replace("FREE", FREE).replace("LINE", ramdisk::FIRST_LINE);
    let tiny = |kind: &str, name: &str| {
        format!("xl create -e -p /dev/null 'name=\"{name}\"' 'type=\"{kind}\"' 'kernel=\"/guest/hello\"' 'memory=8'")
    };
    let most = many - 1;
    format!(
        "{tools}
sleep 2
row 'create, the first domain of all' {first}
row 'destroy, the first domain of all' xl destroy first
sleep 2
row 'create, tiny PV guest of 8 MiB, paused' {tiny}
row 'destroy of the same' xl destroy tiny
sleep 2
row 'create, Debian cloud kernel, 192 MiB, cold' xl create -e -p /guest/pv.cfg memory=192
row 'destroy of the same, 192 MiB' xl destroy debian
sleep 2
row 'create, Debian cloud kernel, 192 MiB, warm' xl create -e -p /guest/pv.cfg memory=192
row 'destroy once more, 192 MiB' xl destroy debian
sleep 2
row 'create, Debian generic kernel, 192 MiB, cold' xl create -e -p /guest/pv.cfg memory=192 'kernel=\"/guest/vmlinuz-generic\"'
xl destroy debian
sleep 2
row 'create, Debian generic kernel, 192 MiB, warm' xl create -e -p /guest/pv.cfg memory=192 'kernel=\"/guest/vmlinuz-generic\"'
xl destroy debian
sleep 2
first_line 'create to the first user line, cloud kernel, PV, cold' /guest/pv.cfg memory=192
first_line 'create to the first user line, cloud kernel, PVH, cold' /guest/pv.cfg memory=192 'type=\"pvh\"' 'tsc_mode=\"native\"'
row 'create, tiny PVH guest of 8 MiB, paused' {pvh}
row 'destroy of the tiny PVH guest' xl destroy tiny
sleep 2
echo \"{MEMORY}{most}: hypervisor's memory for a domain of 8 MiB\"
free
for i in $(seq {most}); do {each} > /tmp/out 2>&1 || {{ echo \"xl-failed: $i\"; cat /tmp/out; }}; done
free
sleep 2
row 'create, the {many}th tiny guest' {last}
row 'list with {many} domains' xl list
row 'destroy, one of {many}' xl destroy d{many}
echo '{END}'
poweroff -f
",
        first = tiny("pv", "first"),
        tiny = tiny("pv", "tiny"),
        // What xl reckons for nested page tables is less than Xen takes.
        pvh = tiny("pvh", "tiny") + " shadow_memory=4",
        each = tiny("pv", "d'$i'"),
        last = tiny("pv", &format!("d{many}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_our_dom0() {
        let (ours, theirs) = (super::super::scripts::all(120), script(120));
        let rows: Vec<&str> =
            ours.lines().filter_map(|line| line.strip_prefix("echo \"")?.strip_prefix(TIME)).collect();
        let missing: Vec<_> = rows.iter().filter(|row| !theirs.contains(row.trim_end_matches('"'))).collect();
        assert_eq!(missing.len(), 2, "{missing:?}");
    }
}
