//! The kernel's log: none of the lines by which Linux says that something is wrong with it or under it.

use super::tap::Tap;
use std::process::Command;

/// The faults that the chapter of signals makes on purpose.
const WANTED: &str = "traps: exerciser[";

const WRONG: [&str; 16] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "Call Trace",
    "soft lockup",
    "hard LOCKUP",
    "self-detected stall",
    "detected stalls",
    "blocked for more than",
    "segfault",
    "general protection",
    "trap invalid opcode",
    "Bad page",
    "Bad pagetable",
    "clocksource: timekeeping watchdog",
    "Out of memory",
];

pub fn run(tap: &mut Tap) {
    let log = Command::new("/bin/dmesg").output().map(|output| output.stdout).unwrap_or_default();
    let log = String::from_utf8_lossy(&log).into_owned();
    tap.claim(log.contains("Linux version"), "the kernel's log is there from its first line on");
    let wrong = log.lines().filter(|line| WRONG.iter().any(|word| line.contains(word)));
    let wrong: Vec<&str> = wrong.filter(|line| !line.contains(WANTED)).collect();
    for line in &wrong {
        tap.note(line);
    }
    tap.same(&wrong.len(), &0, "no line of it says that something is wrong");
}
