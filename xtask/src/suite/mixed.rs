//! PV and PVH guests side by side on one host, created and destroyed at random: the script of a case that has `mixed`.

use super::case::Case;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How many, how often, and from which seed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Domains that there are at most, and at the end.
    pub guests: u64,
    /// Domains created or destroyed at random before that.
    pub steps: u64,
    /// The first random number.
    pub seed: u64,
}

/// What a guest says when it is up.
const UP: &str = "the guest reached its main function";
/// One that watches itself, and says so.
const FINE: &str = "neighbour: fine";

/// Gives a case with a plan its script.
pub fn expand(mut case: Case) -> Case {
    let Some(plan) = case.mixed.clone() else { return case };
    case.files = vec!["guest:hello".into(), "guest:neighbour".into()];
    case.around = Some("resources".into());
    case.script = Some(plan.script());
    case
}

impl Plan {
    fn script(&self) -> String {
        let mut state = self.seed | 1;
        // xorshift64*
        let mut below = |limit: u64| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit.max(1)
        };
        let mut script = String::new();
        // By number, what each says when it is up.
        let mut alive: BTreeMap<u64, &str> = BTreeMap::new();
        for step in 0..self.steps + self.guests {
            let filling = step >= self.steps;
            let creates = filling || alive.is_empty() || below(5) < 3;
            if creates && alive.len() as u64 == self.guests {
                continue;
            }
            if creates {
                let kind = if below(2) == 0 { "'type=\"pv\"'" } else { "'type=\"pvh\"' 'tsc_mode=\"native\"'" };
                let (kernel, says) = if below(6) == 0 { ("neighbour", FINE) } else { ("hello", UP) };
                let _ = writeln!(
                    script,
                    "create -q 'name=\"m{step}\"' {kind} 'kernel=\"/files/{kernel}\"' 'memory=12' 'vcpus={}' \
                     'on_poweroff=\"preserve\"'",
                    1 + below(2),
                );
                // Others go before they are up.
                if below(2) == 0 {
                    let _ = writeln!(script, "console --until \"{says}\" --timeout 60 m{step}");
                }
                alive.insert(step, says);
            } else if let Some(&gone) = alive.keys().nth(usize::try_from(below(alive.len() as u64)).unwrap_or(0)) {
                alive.remove(&gone);
                let _ = writeln!(script, "destroy m{gone}");
            }
        }
        script += "list\n";
        for (number, says) in &alive {
            let _ = writeln!(script, "console --until \"{says}\" --timeout 60 m{number}");
        }
        for number in alive.keys() {
            let _ = writeln!(script, "destroy m{number}");
        }
        script
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_created_is_destroyed() {
        let script = Plan { guests: 50, steps: 200, seed: 7 }.script();
        let lines = |word: &str| script.lines().filter(|line| line.starts_with(word)).count();
        assert_eq!(lines("create"), lines("destroy"));
        let (_, end) = script.split_once("list\n").unwrap();
        assert_eq!(end.matches("destroy").count(), 50);
        assert!(script.contains("\"pv\"") && script.contains("\"pvh\"") && script.contains("neighbour"));
    }
}
