//! The clocks over half a minute. What the guest says is stamped by whoever reads its console: the fastest of many lines
//! at the beginning and the fastest at the end went the same way in the same time, so what lies between them has passed
//! here and there, and is compared there (`xtask/src/suite/clock.rs`).

use super::sys;
use super::tap::Tap;
use std::process::Command;

/// How long.
const SPAN: i128 = 30_000_000_000;
/// Lines at either end, and how far apart they are.
const LINES: usize = 150;
const APART: i128 = 20_000_000;
/// Readings of both clocks at either end.
const PAIRS: usize = 100;

pub fn run(tap: &mut Tap) {
    let begin = sys::monotonic();
    let before = offset();
    lines(tap, begin);
    sys::sleep_until(begin + SPAN);
    lines(tap, begin + SPAN);
    let moved = offset() - before;
    tap.claim(moved.abs() < 1_000_000, &format!("the time of day goes as the monotonic clock does: {moved} ns apart"));
    let date = Command::new("/bin/date").arg("+%s").output().ok();
    let date = date.and_then(|out| String::from_utf8(out.stdout).ok()?.trim().parse::<i128>().ok());
    let now = sys::realtime() / 1_000_000_000;
    tap.claim(date.is_some_and(|date| (now - date).abs() <= 2), "date says the same");
}

/// The time of day less the monotonic clock, by the closest of many readings: another CPU's turn may come between two.
fn offset() -> i128 {
    let readings = (0..PAIRS).map(|_| {
        let (before, day, after) = (sys::monotonic(), sys::realtime(), sys::monotonic());
        (after - before, day - before)
    });
    readings.min().map_or(0, |(_, offset)| offset)
}

fn lines(tap: &Tap, from: i128) {
    for at in (0..).take(LINES) {
        sys::sleep_until(from + at * APART);
        tap.note(&format!("clock {} {}", sys::monotonic(), sys::realtime()));
    }
}
