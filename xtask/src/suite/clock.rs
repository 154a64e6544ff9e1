//! A guest's clocks beside the clock of the machine that the emulator runs on.
//!
//! The guest prints lines `# clock MONOTONIC REALTIME` (nanoseconds), many at once, then many again half a minute later
//! (`tests/exerciser/src/chapters/clock.rs`). A line takes its time to get here, more when the machine is busy, never less
//! than nothing: of each bunch the line that took the least counts, and that time is the same in both. So what the host's
//! clock went on between the two must be what each of the guest's did. Nothing on the guest's side has a part in the
//! comparison, neither its hypervisor nor dom0.

use std::time::{Duration, Instant};

const MARK: &str = "# clock ";
/// Lines further apart than this are of different bunches, nanoseconds.
const GAP: i64 = 5_000_000_000;

/// What was read, with the host's time of each line.
#[derive(Debug, Default)]
pub struct Stamps {
    began: Option<Instant>,
    unfinished: String,
    /// The host's clock, the guest's monotonic one and its time of day, nanoseconds.
    lines: Vec<[i64; 3]>,
}

/// How far the guest's clocks went beside the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drift {
    /// What passed between the two bunches.
    pub span: Duration,
    /// The clock that is off more, by so many nanoseconds; above zero it is fast.
    pub worst: i64,
}

impl Stamps {
    /// Takes what the machine said now.
    pub fn take(&mut self, now: Instant, text: &str) {
        let began = *self.began.get_or_insert(now);
        self.take_at(i64::try_from((now - began).as_nanos()).unwrap_or(i64::MAX), text);
    }

    fn take_at(&mut self, host: i64, text: &str) {
        self.unfinished.push_str(text);
        while let Some((line, rest)) = self.unfinished.split_once('\n') {
            if let Some([monotonic, realtime]) = read(line) {
                self.lines.push([host, monotonic, realtime]);
            }
            self.unfinished = rest.to_owned();
        }
    }

    /// The drift; `None` when there were no two bunches of lines.
    pub fn drift(&self) -> Option<Drift> {
        let split = self.lines.windows(2).position(|pair| matches!(pair, [a, b] if b[1] - a[1] > GAP))? + 1;
        let (first, second) = self.lines.split_at(split);
        // How far the host's clock was ahead of the guest's when the fastest line of the bunch came.
        let ahead = |lines: &[[i64; 3]], clock: usize| lines.iter().map(|line| line[0] - line[clock]).min();
        let off = |clock| Some(ahead(first, clock)? - ahead(second, clock)?);
        let (monotonic, realtime) = (off(1)?, off(2)?);
        let worst = if monotonic.abs() >= realtime.abs() { monotonic } else { realtime };
        let span = second.last()?[1] - first.first()?[1];
        Some(Drift { span: Duration::from_nanos(span.unsigned_abs()), worst })
    }

    /// Whether the clocks were right within so many microseconds, and how far they were off.
    pub fn judge(&self, within: u32) -> (bool, String) {
        let Some(drift) = self.drift() else {
            return (false, "the guest did not tell its time twice".into());
        };
        let micros = drift.worst as f64 / 1e3;
        let note = format!("clocks {micros:+.0} us after {:.1} s", drift.span.as_secs_f64());
        (drift.worst.unsigned_abs() <= u64::from(within) * 1000, note)
    }
}

/// The two clocks of a line.
fn read(line: &str) -> Option<[i64; 2]> {
    let (_, clocks) = line.split_once(MARK)?;
    let mut clocks = clocks.split_whitespace().map(str::parse);
    Some([clocks.next()?.ok()?, clocks.next()?.ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of a guest whose clock runs fast by so many parts of a million; each takes at least 3 ms to get here.
    fn stamps(fast: i64) -> Stamps {
        let mut stamps = Stamps::default();
        for at in (0..100).map(|n| n * 10).chain((3000..3100).map(|n| n * 10)) {
            let host = at * 1_000_000;
            let guest = host + host / 1_000_000 * fast;
            let late = 3_000_000 + (at * 7919 % 101) * 100_000;
            stamps.take_at(host + late, &format!("# clock {guest} {}\n", guest + 1_700_000_000_000_000_000));
        }
        stamps
    }

    #[test]
    fn a_clock_that_is_right_is_right() {
        let stamps = stamps(0);
        assert_eq!(stamps.lines.len(), 200);
        assert!(stamps.drift().unwrap().worst.abs() < 100_000);
        assert!(stamps.judge(1000).0);
    }

    #[test]
    fn a_clock_that_is_fast_or_slow_is_found() {
        let drift = stamps(100).drift().unwrap();
        assert!((2_900_000..3_200_000).contains(&drift.worst), "{drift:?}");
        assert!(!stamps(100).judge(1000).0 && !stamps(-100).judge(1000).0);
    }

    #[test]
    fn lines_come_in_pieces_and_among_others() {
        let mut stamps = Stamps::default();
        stamps.take_at(5, "x\n# clo");
        stamps.take_at(6, "ck 1 2\r\n# clock one 2\n(d1) # clock 3 4\n");
        assert_eq!(stamps.lines, [[6, 1, 2], [6, 3, 4]]);
        assert!(!stamps.judge(1000).0);
    }
}
