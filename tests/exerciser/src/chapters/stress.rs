//! Debian's stress-ng for a minute: its stressors of CPU, memory, forks, switches and timers, which verify what they do.

use super::sys;
use super::tap::Tap;
use std::process::{Command, Stdio};

const SECONDS: u64 = 60;
const STRESSORS: [&str; 5] = ["cpu", "vm", "fork", "switch", "timer"];

pub fn run(tap: &mut Tap) {
    let each = sys::cpus().len().min(2).to_string();
    let mut command = Command::new("/bin/stress-ng");
    for stressor in STRESSORS {
        command.args([&format!("--{stressor}"), &each]);
    }
    command.args(["--vm-bytes", "32m", "--timer-freq", "1000", "--verify", "--metrics-brief", "--oomable"]);
    command.args(["--temp-path", "/tmp", "--timeout", &format!("{SECONDS}s")]);
    let begin = sys::monotonic();
    let output = command.stdin(Stdio::null()).output();
    let seconds = (sys::monotonic() - begin) / 1_000_000_000;
    let Ok(output) = output else {
        tap.claim(false, "stress-ng runs");
        return;
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    for line in text.lines() {
        tap.note(line);
    }
    tap.same(&output.status.code(), &Some(0), "stress-ng ends well");
    tap.claim(seconds >= i128::from(SECONDS) - 1, &format!("after its minute: {seconds} s"));
    let wrong = text.lines().find(|line| line.contains("fail:") || line.contains("error:"));
    tap.same(&wrong, &None, "and finds nothing wrong");
    for stressor in STRESSORS {
        // The table of metrics: `stress-ng: metrc: [42] cpu   5000 60.00 ...`, the count of operations first.
        let row = text.lines().filter(|line| line.contains("metrc:")).find_map(|line| {
            let mut words = line.split_whitespace().skip_while(|word| *word != stressor).skip(1);
            words.next()?.parse::<u64>().ok()
        });
        tap.claim(row.is_some_and(|count| count > 0), &format!("its stressor {stressor} did something: {row:?}"));
    }
}
