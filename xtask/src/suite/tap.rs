//! Reads the Test Anything Protocol from a serial port: `ok N - claim`, `not ok N - claim`, the plan `1..N` last.

/// What a guest claims so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tap {
    /// Claims that hold.
    pub ok: usize,
    /// Claims that do not, each with its text.
    pub not_ok: Vec<String>,
    /// Claims that were skipped, with reason; they count among `ok` too.
    pub skipped: usize,
    /// The plan, once seen.
    pub plan: Option<usize>,
}

impl Tap {
    /// Reads all whole lines; the last one may still be on its way.
    pub fn read(text: &str) -> Self {
        let mut tap = Self::default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text.get(..whole).unwrap_or_default().lines() {
            let line = strip_prefix_of_xen(line.trim());
            if let Some(claim) = line.strip_prefix("not ok ") {
                tap.not_ok.push(claim.to_owned());
            } else if let Some(claim) = line.strip_prefix("ok ") {
                tap.ok += 1;
                tap.skipped += usize::from(claim.contains("# SKIP"));
            } else if let Some(plan) = line.strip_prefix("1..").and_then(|plan| plan.parse().ok()) {
                tap.plan = Some(plan);
            }
        }
        tap
    }

    /// Whether all was said.
    pub fn complete(&self) -> bool {
        self.plan.is_some_and(|plan| self.seen() >= plan)
    }

    /// How many claims were made.
    pub fn seen(&self) -> usize {
        self.ok + self.not_ok.len()
    }

    /// Why it is no success, if so.
    pub fn fault(&self) -> Option<String> {
        match self.plan {
            None => Some(format!("no plan after {} claims", self.seen())),
            Some(0) => Some("no claims".into()),
            Some(plan) if plan != self.seen() => Some(format!("{} claims of {plan}", self.seen())),
            Some(plan) => {
                let first = self.not_ok.first()?;
                Some(format!("{} of {plan} fail; first: {first}", self.not_ok.len()))
            }
        }
    }
}

/// Xen marks what an unprivileged domain prints with `(d1) `.
pub fn strip_prefix_of_xen(line: &str) -> &str {
    match line.split_once(") ") {
        Some((mark, rest)) if mark.starts_with("(d") => rest,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_report() {
        let tap = Tap::read("TAP version 13\r\nok 1 - a\n# note\n(d3) ok 2 - b # SKIP no CPU\nnot ok 3 - c\n1..3\n");
        assert_eq!((tap.ok, tap.skipped, tap.plan), (2, 1, Some(3)));
        assert!(tap.complete());
        assert_eq!(tap.fault().unwrap(), "1 of 3 fail; first: 3 - c");
    }

    #[test]
    fn silence_is_a_fault() {
        assert!(Tap::read("").fault().is_some());
        assert!(Tap::read("ok 1 - a\n").fault().is_some());
        assert!(Tap::read("1..0\n").fault().is_some());
        assert_eq!(Tap::read("ok 1 - a\n1..1\n").fault(), None);
        assert!(!Tap::read("ok 1 - a\n1..1").complete());
    }
}
