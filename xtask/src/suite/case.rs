//! How a case is written down in `tests/harness/*.toml`, and the rows it stands for. tests/README.md explains the
//! format to those who write cases.

use super::as_xl::{self, Toolstack};
use super::hostile::Plan;
use crate::boot::Hypervisor;
use crate::emulator::monitor::Order;
use crate::emulator::{Emulator, Loader};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::Path;

/// Stands before and after the output of the command around a script.
const AROUND: &str = "----around----";

/// One file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SuiteFile {
    /// Text that fails every case of the file, unless the case has a `reject` of its own.
    #[serde(default)]
    pub reject: Vec<String>,
    /// Guests whose subject a hardware container has too: those of `--mode pvh`.
    #[serde(default)]
    pub pvh: Vec<String>,
    /// Those of them that are run in one every time, by the hardware of both vendors.
    #[serde(default)]
    pub pvh_always: Vec<String>,
    /// Those of them that do not pass on Xen in Bochs.
    #[serde(default)]
    pub pvh_not_on_xen_in_bochs: Vec<String>,
    /// And on Xen nowhere.
    #[serde(default)]
    pub pvh_not_on_xen: Vec<String>,
    /// Bochs's CPU models with which `--mode pvh --full` runs them.
    #[serde(default)]
    pub pvh_models: Vec<String>,
    /// The cases.
    #[serde(default)]
    pub case: Vec<Case>,
}

impl SuiteFile {
    /// A guest of this file in a hardware container, with as many vCPUs as in its own case, on models of CPUs in Bochs.
    pub fn in_container(&self, guest: &str, hypervisor: Hypervisor, models: &[String]) -> Case {
        let own = self.case.iter().find(|case| case.name == guest);
        let mut case = Case::in_container(guest, own.map_or(1, Case::control_vcpus));
        case.bochs_cpu = models.to_vec();
        if let Some(own) = own {
            case.on.clone_from(&own.on);
        }
        let listed = |list: &[String]| list.iter().any(|name| name == guest);
        if listed(&self.pvh_not_on_xen) {
            case.on = vec![Hypervisor::XenRs.name().into()];
        }
        if hypervisor == Hypervisor::Xen && listed(&self.pvh_not_on_xen_in_bochs) {
            // None at all, not the usual ones.
            case.bochs = Some(Vec::new());
        }
        case
    }
}

/// One case: what is booted on which machines, and what must be seen.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    /// What the case shows, in a few words.
    pub name: String,
    /// Only with `--full`.
    #[serde(default)]
    pub full: bool,
    /// Not with `--quick`.
    #[serde(default)]
    pub slow: bool,
    /// Modules, by the names of `xtask/src/parts.rs`, each with its command line.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Instead of modules: commands for dom0's shell.
    pub script: Option<String>,
    /// With `script`: how often it is run in the same dom0.
    #[serde(default = "once")]
    pub rounds: usize,
    /// With `script`: a command before the first round and after the last, whose output must be the same.
    pub around: Option<String>,
    /// With `script`: the status it must end with.
    #[serde(default)]
    pub status: i32,
    /// Instead of a script: programs on the host drive dom0 (`xtask/src/suite/asked.rs`).
    #[serde(default)]
    pub asked_by_host: bool,
    /// Instead of a script: the commands that are compared with xl's, run by which toolstack.
    pub commands: Option<Toolstack>,
    /// With `commands`: the list of them, a file of `tests/harness`.
    #[serde(default = "usual_list")]
    pub list: String,
    /// With `script`: the power fails in the middle of it.
    pub cut: Option<Cut>,
    /// The machine is to end, so that no script's end is seen.
    pub ends_machine: Option<Ends>,
    /// With `script`: more files for dom0, by part names; the default guest is always there.
    #[serde(default)]
    pub files: Vec<String>,
    /// Suite `hostile`: which guests are let loose.
    pub hostile: Option<Plan>,
    /// Guests of both kinds at random, instead of a script of one's own.
    pub mixed: Option<super::mixed::Plan>,
    /// More options for the hypervisor.
    #[serde(default)]
    pub append: String,
    /// Numbers of CPUs.
    #[serde(default)]
    pub smp: Axis<u32>,
    /// Sizes of memory in MiB.
    #[serde(default)]
    pub mem: Axis<u32>,
    /// CPU models.
    #[serde(default)]
    pub cpu: Axis<String>,
    /// Chipsets.
    #[serde(default)]
    pub machine: Axis<String>,
    /// Numbers of CPUs with which it is run in Bochs as well.
    #[serde(default)]
    pub bochs: Option<Vec<u32>>,
    /// Its CPU models there [default: a server processor of 2017].
    #[serde(default)]
    pub bochs_cpu: Vec<String>,
    /// Only there: its clock is that of its own instructions, whatever else the machine does.
    #[serde(default)]
    pub only_bochs: bool,
    /// What loads the hypervisor.
    #[serde(default)]
    pub loader: Loader,
    /// More arguments for QEMU.
    #[serde(default)]
    pub emulator_args: Vec<String>,
    /// Let the TSC count instructions.
    #[serde(default)]
    pub icount: bool,
    /// Devices of the machine, by the names of `xtask/src/devices.rs`.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Commands for QEMU's monitor, each once a text has come.
    #[serde(default)]
    pub monitor: Vec<Order>,
    /// Text that must appear, in this order.
    #[serde(default)]
    pub expect: Vec<String>,
    /// Text that must not appear.
    pub reject: Option<Vec<String>>,
    /// Record of the warnings that the guest's kernel may show, as a file of `tests/harness/`.
    pub warnings_as_in: Option<String>,
    /// The guest tells its time twice: how far its clocks may be off then, in microseconds.
    pub clocks_within: Option<u32>,
    /// Deadline in seconds.
    #[serde(default = "default_timeout")]
    pub timeout: u64,
    /// The hypervisors it holds for [default: both].
    #[serde(default = "both")]
    pub on: Vec<String>,
}

fn default_timeout() -> u64 {
    180
}

fn usual_list() -> String {
    as_xl::USUAL.to_owned()
}

fn once() -> usize {
    1
}

fn both() -> Vec<String> {
    vec!["xen-rs".into(), "xen".into()]
}

/// The power fails: the emulator is killed when a text has come, and another machine with the same disks is started.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// The text.
    pub at: String,
    /// What the second machine's dom0 runs; `{so-far}` stands for `DISK:NUMBER,..`, as the first one's guest told.
    pub then: String,
}

/// How a machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ends {
    /// It stands still.
    Stops,
    /// It switches itself off or resets, either of which ends the emulator.
    GoesOff,
}

/// One value, or several to go through.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Axis<T> {
    /// One value.
    One(T),
    /// Several; the first is the usual one.
    Many(Vec<T>),
}

impl<T> Default for Axis<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T: Clone> Axis<T> {
    fn values(&self, usual: T) -> Vec<T> {
        match self {
            Self::One(value) => vec![value.clone()],
            Self::Many(values) if values.is_empty() => vec![usual],
            Self::Many(values) => values.clone(),
        }
    }
}

/// A machine of a row. A CPU of `None` is the hypervisor's usual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub emulator: Emulator,
    pub smp: u32,
    pub mem: u32,
    pub cpu: Option<String>,
    pub machine: String,
}

impl Shape {
    /// A machine in Bochs.
    fn in_bochs(smp: u32, mem: u32, cpu: Option<String>) -> Self {
        Self { emulator: Emulator::Bochs, smp, mem, cpu, machine: "pc".into() }
    }

    /// Short text for a row's title.
    pub fn title(&self) -> String {
        if self.emulator == Emulator::Bochs {
            let model = self.cpu.as_ref().map_or(String::new(), |cpu| format!(", {cpu}"));
            return format!("Bochs, {} CPU, {} MiB{model}", self.smp, self.mem);
        }
        let cpu = self.cpu.as_deref().unwrap_or("max");
        format!("{} CPU, {} MiB, {cpu}, {}", self.smp, self.mem, self.machine)
    }
}

impl Case {
    /// A case with nothing but a name.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            full: false,
            slow: false,
            modules: Vec::new(),
            script: None,
            hostile: None,
            mixed: None,
            rounds: once(),
            around: None,
            status: 0,
            asked_by_host: false,
            commands: None,
            list: usual_list(),
            cut: None,
            ends_machine: None,
            files: Vec::new(),
            append: String::new(),
            smp: Axis::default(),
            mem: Axis::default(),
            cpu: Axis::default(),
            machine: Axis::default(),
            bochs: None,
            bochs_cpu: Vec::new(),
            only_bochs: false,
            loader: Loader::Multiboot1,
            emulator_args: Vec::new(),
            icount: false,
            devices: Vec::new(),
            monitor: Vec::new(),
            expect: Vec::new(),
            reject: None,
            warnings_as_in: None,
            clocks_within: None,
            timeout: default_timeout(),
            on: both(),
        }
    }

    /// A conformance guest in a hardware container: our dom0 creates it and shows its console until it is gone. AMD's
    /// containers are QEMU's, Intel's are Bochs's. QEMU's CPU is one on which Xen's guests run; its SVM trips over SMEP and
    /// SMAP.
    pub fn in_container(guest: &str, vcpus: u32) -> Self {
        let script = format!(
            "create -q name=\"{guest}\" kernel=\"/files/{guest}\" type=\"pvh\" tsc_mode=\"native\" memory=64 vcpus={vcpus} \
             event_channels=100000\n\
             console --until \"(the end)\" --timeout 60 {guest}"
        );
        Self {
            script: Some(script),
            files: vec![format!("guest:{guest}")],
            cpu: Axis::One("max,-smap,-smep".into()),
            bochs: Some(vec![1]),
            timeout: 120,
            ..Self::named(&format!("{guest} as PVH"))
        }
    }

    /// The whole script: all rounds and what is around them. Xen keeps a page from the first domain it has ever had, so
    /// there the comparison begins after a round of its own.
    pub fn whole_script(&self, hypervisor: Hypervisor) -> Option<String> {
        let script = self.script.as_deref()?.trim();
        let around = self.around.as_ref().map(|command| format!("echo {AROUND}; {command}; echo {AROUND}"));
        let rounds = std::iter::repeat_n(script, self.rounds).map(str::to_owned);
        let first = (hypervisor == Hypervisor::Xen && around.is_some()).then(|| script.to_owned());
        let all: Vec<String> = first.into_iter().chain(around.clone()).chain(rounds).chain(around).collect();
        Some(all.join("\n") + "\n")
    }

    /// The conformance guests that it names.
    pub fn guests(&self) -> impl Iterator<Item = String> + '_ {
        let parts = self.modules.iter().chain(&self.files).filter_map(|text| text.strip_prefix("guest:"));
        parts.map(|text| text.split(' ').next().unwrap_or_default().to_owned())
    }

    /// Whether its modules or its script name a part, by some of its name.
    pub fn uses(&self, part: &str) -> bool {
        self.modules.iter().chain(&self.script).any(|text| text.contains(part))
    }

    /// Whether what was printed around the rounds is the same before and after. `None` without the two. On Xen the free
    /// pages need not be the same to the page.
    pub fn around_is_same(text: &str, hypervisor: Hypervisor) -> Option<bool> {
        let mut parts = text.split(AROUND);
        let (before, after) = (parts.nth(1)?.trim(), parts.nth(1)?.trim());
        let nearly = |before: u64, after: u64| hypervisor == Hypervisor::Xen && after + KEPT_BY_XEN >= before;
        let same = |(before, after): (&str, &str)| {
            before == after || free_pages(before).zip(free_pages(after)).is_some_and(|(a, b)| nearly(a, b))
        };
        let lines = before.lines().count() == after.lines().count();
        Some(!before.is_empty() && lines && before.lines().zip(after.lines()).all(same))
    }

    /// Whether it holds for that hypervisor.
    pub fn holds_on(&self, hypervisor: Hypervisor) -> bool {
        self.on.iter().any(|name| name == hypervisor.name())
    }

    /// The vCPUs that the control domain has.
    pub fn control_vcpus(&self) -> u32 {
        self.append.split(' ').find_map(|option| option.strip_prefix("dom0_max_vcpus=")?.parse().ok()).unwrap_or(1)
    }

    /// The machines of the case. `full` goes through every combination; otherwise the usual machine, and then each
    /// other value alone.
    pub fn shapes(&self, full: bool) -> Vec<Shape> {
        let cpus: Axis<Option<String>> = match &self.cpu {
            Axis::One(cpu) => Axis::One(Some(cpu.clone())),
            Axis::Many(cpus) => Axis::Many(cpus.iter().cloned().map(Some).collect()),
        };
        let (smps, mems) = (self.smp.values(1), self.mem.values(1024));
        let (cpus, machines) = (cpus.values(None), self.machine.values("pc".into()));
        let mut shapes = Vec::new();
        let smps = if self.only_bochs { Vec::new() } else { smps };
        for (a, smp) in smps.iter().enumerate() {
            for (b, mem) in mems.iter().enumerate() {
                for (c, cpu) in cpus.iter().enumerate() {
                    for (d, machine) in machines.iter().enumerate() {
                        let unusual = [a, b, c, d].iter().filter(|&&index| index > 0).count();
                        if full || unusual <= 1 {
                            let (cpu, machine) = (cpu.clone(), machine.clone());
                            shapes.push(Shape { emulator: Emulator::Qemu, smp: *smp, mem: *mem, cpu, machine });
                        }
                    }
                }
            }
        }
        let mem = mems.first().copied().unwrap_or(1024);
        for smp in self.bochs.iter().flatten() {
            shapes.extend(self.models_in_bochs().map(|cpu| Shape::in_bochs(*smp, mem, cpu)));
        }
        shapes
    }

    fn models_in_bochs(&self) -> impl Iterator<Item = Option<String>> {
        let usual = self.bochs_cpu.is_empty().then_some(None);
        self.bochs_cpu.iter().cloned().map(Some).chain(usual)
    }

    /// The machines of the case when all of it is to run in Bochs, which knows fewer of them.
    pub fn shapes_in_bochs(&self, full: bool) -> Vec<Shape> {
        let mut shapes: Vec<Shape> = Vec::new();
        for shape in self.shapes(full) {
            for cpu in self.models_in_bochs() {
                let shape = Shape::in_bochs(shape.smp, shape.mem, cpu);
                if !shapes.contains(&shape) {
                    shapes.push(shape);
                }
            }
        }
        shapes
    }
}

/// So many pages fewer may be free on Xen after what leaves nothing behind. Xen takes small pieces of memory from pools (its
/// xmalloc's TLSF pool, the nodes of its radix trees), which grow by pages and give one back only when nothing lies in it
/// any more: which page a piece comes from depends on what else was taken meanwhile (seen: 2 to 8 pages, after ten rounds
/// as after one). And what it keeps about a domain, some 22 pages, and for a PVH domain 256 more from which its page tables
/// are made, comes back when a grace period of its RCU is over, which takes seconds where a CPU is idle or the host is busy:
/// that of the last domain may be missing (seen: 20, 23, 288), or may have been missing before (seen: 42). A domain's own
/// memory, 2048 pages and more, may not. xen-rs must have every page back, no more and no fewer.
const KEPT_BY_XEN: u64 = 320;

/// The count of free pages in a line of the command `resources`.
fn free_pages(line: &str) -> Option<u64> {
    line.strip_prefix("free_pages")?.trim_start().strip_prefix(':')?.trim().parse().ok()
}

/// Reads a file of cases.
pub fn read(path: &Path) -> Result<SuiteFile> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        reject = ["crashed"]
        [[case]]
        name = "a"
        modules = ["guest:hello"]
        smp = [1, 2, 4]
        cpu = ["max", "qemu64"]
        expect = ["ok"]
        on = ["xen-rs"]
    "#;

    #[test]
    fn one_row_per_axis_or_all() {
        let file: SuiteFile = toml::from_str(FILE).unwrap();
        let case = &file.case[0];
        let rows = case.shapes(false);
        assert_eq!(rows.len(), 4);
        assert!(rows.iter().filter(|row| row.smp > 1).all(|row| row.cpu.as_deref() == Some("max")));
        assert_eq!(case.shapes(true).len(), 6);
        assert_eq!(case.shapes_in_bochs(true).len(), 3);
        let with_bochs = Case { bochs: Some(vec![2]), ..case.clone() };
        assert_eq!(with_bochs.shapes(false).last().unwrap().title(), "Bochs, 2 CPU, 1024 MiB");
        let models = vec!["a".to_owned(), "b".to_owned()];
        let on_models = Case { bochs: Some(vec![1, 2]), bochs_cpu: models, only_bochs: true, ..with_bochs.clone() };
        assert_eq!(on_models.shapes(false).len(), 4);
        assert_eq!(on_models.shapes(false)[1].title(), "Bochs, 1 CPU, 1024 MiB, b");
        assert_eq!(Case { only_bochs: true, ..with_bochs }.shapes(false).len(), 1);
        assert!(case.holds_on(Hypervisor::XenRs) && !case.holds_on(Hypervisor::Xen));
    }

    #[test]
    fn a_script_has_rounds_and_what_is_around_them() {
        let mut case = Case::named("a");
        case.script = Some("create x\n".into());
        assert_eq!(case.whole_script(Hypervisor::Xen).unwrap(), "create x\n");
        case.rounds = 2;
        case.around = Some("free".into());
        assert_eq!(case.whole_script(Hypervisor::Xen).unwrap().matches("create x\n").count(), 3);
        let script = case.whole_script(Hypervisor::XenRs).unwrap();
        assert_eq!(script.matches("create x\n").count(), 2);
        assert_eq!(script.matches("free").count(), 2);
        let text = |a: &str, b: &str| format!("{AROUND}\n{a}\n{AROUND}\nx\n{AROUND}\n{b}\n{AROUND}\n");
        let same = |a: &str, b: &str| {
            [Hypervisor::XenRs, Hypervisor::Xen].map(|on| Case::around_is_same(&text(a, b), on).unwrap())
        };
        assert_eq!(same("1", "1"), [true, true]);
        assert_eq!(same("1", "2"), [false, false]);
        assert_eq!(same("1", "1\n1"), [false, false]);
        assert_eq!(same("free_pages : 900\nnodes: 1", "free_pages : 892\nnodes: 1"), [false, true]);
        assert_eq!(same("free_pages : 900", "free_pages : 579"), [false, false]);
        assert_eq!(same("free_pages : 100", "free_pages : 142"), [false, true]);
        assert_eq!(same("free_pages : 100\nnodes: 1", "free_pages : 92\nnodes: 2"), [false, false]);
        assert_eq!(Case::around_is_same(AROUND, Hypervisor::XenRs), None);
    }

    #[test]
    fn the_files_of_the_tree_can_be_read() {
        for suite in super::super::EMULATED {
            read(&super::super::file_of(suite)).unwrap();
        }
    }
}
