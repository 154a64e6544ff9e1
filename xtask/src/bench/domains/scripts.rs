//! What our dom0 does to be measured, a machine for each script: what is cached by one is cold in the next.

use super::super::CPU;
use super::Stage;
use super::report::{COUNT, MEMORY, TIME};
use crate::{dom0, ramdisk};
use anyhow::Result;
use std::fmt::Write as _;

/// In this emulator hardware containers do not run on Xen with SMEP.
const CPU_WITHOUT_SMEP: &str = "max,-smap,-smep,-x2apic";
/// MiB for dom0, the hypervisor and one domain of 192.
const BASE_MEMORY: u32 = 1024;
/// MiB for each of many domains: 8 of its own, and what is kept about it.
const EACH: u32 = 9;
/// Tiny domains of the large machine: some, those by which memory is measured, and more than it holds.
const FIRST: u32 = 100;
const MORE: u32 = 300;
const TOO_MANY: u32 = 600;
/// MiB of the large machine, and of its dom0.
const LARGE: (u32, u32) = (4096, 160);

/// The row that Xen has no figure for: it does not tell what is still to be scrubbed.
pub const CLEAN: &str = "until 3.7 GiB of free memory are clean again";

/// The machines.
pub fn stages(many: u32) -> Result<Vec<Stage>> {
    Ok(vec![
        stage("many domains", (BASE_MEMORY + EACH * many, 256), CPU, &lives(many))?,
        // It ends with a failure, which is what it is about. The answer to a debug key is a warning.
        Stage {
            append: format!("dom0_mem={}M loglvl=warning", LARGE.1),
            ended: |text| dom0::status_in(text).map(|status| status != 0),
            ..stage("as many domains as there is room for", LARGE, CPU, &fullness())?
        },
        stage("Debian's kernels", (1536, 512), CPU, &kernels())?,
        stage("PVH domains", (1024, 256), CPU_WITHOUT_SMEP, &containers())?,
    ])
}

fn stage(name: &'static str, (mem, dom0): (u32, u32), cpu: &'static str, script: &str) -> Result<Stage> {
    let files = ["guest:hello".to_owned()];
    let modules = dom0::modules(&dom0::Files::Default { more: &files }, Some(script))?;
    let ended = |text: &str| dom0::status_in(text).map(|status| status == 0);
    Ok(Stage { name, mem, cpu, append: format!("dom0_mem={dom0}M"), modules, ended })
}

/// A script in which each command of a row stands behind its name.
#[derive(Default)]
struct Script(String);

impl Script {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn row(&mut self, name: &str, commands: &[&str]) {
        let _ = writeln!(self.0, "echo \"{TIME}{name}\"");
        for command in commands {
            let _ = writeln!(self.0, "time {command}");
        }
    }

    /// Says what is free, and what of its own the hypervisor uses: it takes that in large pieces.
    fn memory(&mut self) {
        self.line("dmesg --clear\ndebug-keys H\ndmesg\nresources");
    }

    /// Free memory is scrubbed by idle CPUs, which get the time to.
    fn rest(&mut self) {
        self.line("sleep 2");
    }
}

fn tiny(kind: &str, name: &str) -> String {
    format!("create -p 'name=\"{name}\"' 'type=\"{kind}\"' 'kernel=\"/files/hello\"' 'memory=8'")
}

/// Waits for the first line that a guest's user space prints.
fn first_line(of: &str) -> String {
    format!("console --until \"{}\" --timeout 120 {of}", ramdisk::FIRST_LINE)
}

fn lives(many: u32) -> String {
    let mut script = Script::default();
    script.rest();
    // The first domain pays for what is made once.
    script.row("create, the first domain of all", &[&tiny("pv", "first")]);
    script.row("destroy, the first domain of all", &["destroy first"]);
    script.rest();
    script.row("create, tiny PV guest of 8 MiB, paused", &[&tiny("pv", "tiny")]);
    script.row("destroy of the same", &["destroy tiny"]);
    script.rest();
    script.row("create, Debian cloud kernel, 192 MiB, cold", &["create -p /files/debian.cfg"]);
    script.row("destroy of the same, 192 MiB", &["destroy debian"]);
    script.rest();
    script.row("create, Debian cloud kernel, 192 MiB, warm", &["create -p /files/debian.cfg"]);
    script.row("destroy once more, 192 MiB", &["destroy debian"]);
    let most = many - 1;
    script.line(&format!("repeat {most} {}", tiny("pv", "d%n")));
    script.rest();
    let last = format!("d{many}");
    script.row(&format!("create, the {many}th tiny guest"), &[&tiny("pv", &last)]);
    script.row(&format!("list with {many} domains"), &["list"]);
    script.row(&format!("destroy, one of {many}"), &[&format!("destroy {last}")]);
    script.0
}

fn fullness() -> String {
    let mut script = Script::default();
    script.rest();
    script.line(&format!("repeat {FIRST} {}", tiny("pv", "a%n")));
    script.line(&format!("echo \"{MEMORY}{MORE}: hypervisor's memory for a domain of 8 MiB\""));
    script.memory();
    script.line(&format!("repeat {MORE} {}", tiny("pv", "b%n")));
    script.memory();
    script.line(&format!("repeat {TOO_MANY} {}", tiny("pv", "c%n")));
    script.line(&format!("echo \"{COUNT}domains of 8 MiB on a machine of 4 GiB\""));
    script.line("resources");
    for (count, name) in [(FIRST, "a"), (MORE, "b"), (TOO_MANY, "c")] {
        script.line(&format!("repeat {count} destroy {name}%n"));
    }
    script.row("create, tiny PV guest, from memory that is not clean", &[&tiny("pv", "dirty")]);
    script.row(CLEAN, &["scrubbed"]);
    script.0
}

fn kernels() -> String {
    let mut script = Script::default();
    script.rest();
    script.row("create, Debian generic kernel, 192 MiB, cold", &["create -p /files/debian-generic.cfg"]);
    script.line("destroy debian-generic");
    script.rest();
    script.row("create, Debian generic kernel, 192 MiB, warm", &["create -p /files/debian-generic.cfg"]);
    script.line("destroy debian-generic");
    script.rest();
    script.row(
        "create to the first user line, cloud kernel, PV, cold",
        &["create /files/debian.cfg", &first_line("debian")],
    );
    script.0
}

fn containers() -> String {
    let mut script = Script::default();
    script.rest();
    script.row("create, tiny PVH guest of 8 MiB, paused", &[&tiny("pvh", "tiny")]);
    script.row("destroy of the tiny PVH guest", &["destroy tiny"]);
    script.rest();
    script.row(
        "create to the first user line, cloud kernel, PVH, cold",
        &["create /files/debian.cfg 'type=\"pvh\"' 'tsc_mode=\"native\"'", &first_line("debian")],
    );
    script.0
}

/// All that is done.
#[cfg(test)]
pub fn all(many: u32) -> String {
    [lives(many), fullness(), kernels(), containers()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_before_their_commands() {
        let mut script = Script::default();
        script.row("a", &["list", "info"]);
        assert_eq!(script.0, "echo \"row: a\"\ntime list\ntime info\n");
        assert!(lives(3).contains("repeat 2 create") && lives(3).contains("the 3th tiny guest"));
    }
}
