//! The suite `hostile`: guests that mean harm, let loose by our dom0 beside a neighbour that watches itself, or booted as
//! the control domain. They may crash; nobody else may notice, and every page comes back.

use super::case::Case;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Text that ends a row at once: the hypervisor or the neighbour has noticed.
const NOTICED: [&str; 4] = ["Panic on CPU", "NOT FINE", "Assertion", "are WRONG"];
/// What a guest says as its last word.
const END: &str = "hostile: end";
/// The control domain has harmed itself only.
const CRASHED: &str = "Hardware Dom0 crashed";
/// What a domain runs in. On QEMU's CPU Xen's containers need the machine's own counter.
const PV: &str = "'type=\"pv\"'";
const PVH: &str = "'type=\"pvh\"' 'tsc_mode=\"native\"'";
/// How long a guest may take, seconds.
const PATIENCE: u32 = 30;
/// What the neighbour says all the time, and when it is asked to shut down.
const FINE: &str = "neighbour: fine";
const LAST_NEWS: &str = "neighbour: fine to the end";

/// Which guests are let loose.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The first and the last seed; each is a guest.
    pub seeds: [u64; 2],
    /// Hypercalls that a guest makes unless it crashes before.
    pub calls: u64,
    /// vCPUs of a guest.
    pub vcpus: u32,
    /// Hypercalls that all guests must have made together.
    #[serde(default)]
    pub wanted: u64,
    /// Guests that must have lived to their end.
    #[serde(default)]
    pub living: u64,
    /// Boot each as the control domain instead of creating it.
    #[serde(default)]
    pub as_dom0: bool,
    /// They run in hardware containers, beside a neighbour of each kind.
    #[serde(default)]
    pub pvh: bool,
}

/// A case as it is run: with its script, or one for each guest that is booted.
pub fn expand(mut case: Case) -> Vec<Case> {
    let Some(plan) = case.hostile.clone() else { return vec![case] };
    case.reject.get_or_insert_with(|| NOTICED.map(str::to_owned).to_vec());
    if !plan.as_dom0 {
        case.files = vec!["guest:hostile".into(), "guest:neighbour".into()];
        case.around = Some("resources".into());
        case.script = Some(plan.script());
        return vec![case];
    }
    let one = |seed| {
        let name = format!("{}, seed {seed}", case.name);
        let modules = vec![format!("guest:hostile {}", plan.command_line(seed))];
        let append = format!("{} dom0_max_vcpus={}", case.append, plan.vcpus);
        Case { name, modules, append, ..case.clone() }
    };
    (plan.seeds[0]..=plan.seeds[1]).map(one).collect()
}

/// Whether a guest that was booted has ended.
pub fn over(text: &str) -> bool {
    text.contains(END) || text.contains(CRASHED)
}

impl Plan {
    fn command_line(&self, seed: u64) -> String {
        format!("seed={seed} calls={} vcpus={}", self.calls, self.vcpus)
    }

    fn script(&self) -> String {
        let create = |name: &str, kernel: &str, kind: &str, more: &str| {
            format!(
                "create 'name=\"{name}\"' {kind} 'kernel=\"/files/{kernel}\"' 'memory=16' 'on_reboot=\"destroy\"' \
                 {more}\n"
            )
        };
        let watch = |name: &str, text| format!("console --until \"{text}\" --timeout {PATIENCE} {name}\n");
        let neighbours = self.neighbours();
        let mut script = String::new();
        for (name, kind) in neighbours {
            script += &create(name, "neighbour", kind, "");
            script += &watch(name, FINE);
        }
        for seed in self.seeds[0]..=self.seeds[1] {
            let name = format!("hostile{seed}");
            let more = format!("'vcpus={}' 'extra=\"{}\"'", self.vcpus, self.command_line(seed));
            script += &create(&name, "hostile", if self.pvh { PVH } else { PV }, &more);
            // It may be gone before it says so, or hang: either way it goes, and the next one comes.
            let _ = writeln!(script, "console --until \"{END}\" --timeout {PATIENCE} {name}\ndestroy {name}");
        }
        for (name, _) in neighbours {
            let _ = write!(script, "shutdown {name}\n{}destroy {name}\n", watch(name, LAST_NEWS));
        }
        script
    }

    /// Who is beside them.
    fn neighbours(&self) -> &'static [(&'static str, &'static str)] {
        if self.pvh { &[("neighbour", PV), ("neighbour2", PVH)] } else { &[("neighbour", PV)] }
    }

    /// Whether a guest that was booted hangs, which is its own affair: asked on the serial port when the time was over, the
    /// hypervisor shows the vCPUs of the domain.
    pub fn hangs_alone(&self, text: &str) -> bool {
        let answer = text.rsplit_once("'q' pressed").map(|(_, answer)| answer);
        self.as_dom0 && answer.is_some_and(|answer| (0..self.vcpus).all(|n| answer.contains(&format!("VCPU{n}: CPU"))))
    }

    /// Judges what was said to the end.
    pub fn judge(&self, text: &str) -> (bool, String) {
        let calls = calls(text, self.calls);
        let total: u64 = calls.values().sum();
        let begun = calls.len() as u64;
        let ended = text.lines().filter(|line| line.trim_end().ends_with(END)).count();
        let note = format!("{total} hypercalls, {ended} of {begun} guests lived to their end");
        let guests = if self.as_dom0 { 1 } else { self.seeds[1] + 1 - self.seeds[0] };
        if begun < guests {
            return (false, format!("{note}; {guests} should have begun"));
        }
        if total < self.wanted {
            return (false, format!("{note}; {} hypercalls are wanted", self.wanted));
        }
        if u64::try_from(ended).unwrap_or(0) < self.living {
            return (false, format!("{note}; {} are to live", self.living));
        }
        if !self.as_dom0 && text.matches(LAST_NEWS).count() < self.neighbours().len() {
            return (false, format!("{note}; the neighbour went silent"));
        }
        (true, note)
    }
}

/// How many hypercalls the guest of each seed says to have made. One that says more than it was to make has written over its count.
fn calls(text: &str, limit: u64) -> BTreeMap<u64, u64> {
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let Some((seed, rest)) = line.split_once("hostile: seed ").and_then(|(_, rest)| rest.split_once(' ')) else {
            continue;
        };
        let Ok(seed) = seed.parse() else { continue };
        let made = rest.strip_prefix("calls ").and_then(|made| made.trim().parse().ok());
        let made = made.filter(|made| *made <= limit).unwrap_or(0);
        let most: &mut u64 = calls.entry(seed).or_default();
        *most = made.max(*most);
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { seeds: [1, 2], calls: 100, vcpus: 2, wanted: 150, living: 1, as_dom0: false, pvh: false };

    #[test]
    fn every_guest_counts_as_far_as_it_came() {
        let text = "neighbour: fine after 3 rounds\nhostile: seed 1 begins on 2 vCPUs\nhostile: seed 1 calls 50\n\
                    hostile: seed 1 calls 100\nhostile: end\nhostile: seed 2 begins on 2 vCPUs\n\
                    hostile: seed 2 calls 60\nneighbour: fine to the end, after 9 rounds\n";
        assert_eq!(PLAN.judge(text), (true, "160 hypercalls, 1 of 2 guests lived to their end".into()));
        let written_over = text.replace("seed 1 calls 100", "seed 1 calls 18446612132315520179");
        assert_eq!(
            PLAN.judge(&written_over).1,
            "110 hypercalls, 1 of 2 guests lived to their end; 150 hypercalls are wanted"
        );
        assert!(!Plan { wanted: 161, ..PLAN }.judge(text).0);
        assert!(!Plan { living: 2, ..PLAN }.judge(text).0);
        assert!(!Plan { seeds: [1, 3], ..PLAN }.judge(text).0);
        assert!(!PLAN.judge(text.rsplit_once("neighbour").unwrap().0).0, "a neighbour that is silent");
        let asked = format!("{text}(XEN) 'q' pressed -> dump\n(XEN)     VCPU0: CPU1 [has=T]\n");
        let plan = Plan { as_dom0: true, ..PLAN };
        assert!(!plan.hangs_alone(text) && !plan.hangs_alone(&asked) && !PLAN.hangs_alone(&asked));
        assert!(plan.hangs_alone(&(asked + "(XEN)     VCPU1: CPU0 [has=F]\n")), "both vCPUs are shown");
    }

    #[test]
    fn a_case_becomes_a_script_or_rows() {
        let mut case = Case::named("a");
        case.hostile = Some(PLAN);
        let cases = expand(case.clone());
        assert_eq!(cases[0].script.as_deref().unwrap().matches("create ").count(), 3);
        case.hostile = Some(Plan { as_dom0: true, ..PLAN });
        let cases = expand(case);
        assert_eq!(cases.len(), 2);
        assert_eq!(cases[1].modules, ["guest:hostile seed=2 calls=100 vcpus=2"]);
    }
}
