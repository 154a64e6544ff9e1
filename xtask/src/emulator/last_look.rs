//! What a machine was doing when its time was over: where its CPUs stood, which interrupts waited for them, and what the
//! hypervisor says of itself when it is asked on the serial port. An emulator that has lost an interrupt goes on then.

use super::monitor::Questions;
use super::{Emulator, Input, Machine, Running, Serial};
use anyhow::Result;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Input goes to the hypervisor, which shows its CPUs' registers and its domains, and back to dom0.
const KEYS: &[u8] = b"\x01\x01\x01dq\x01\x01\x01";
/// How long it may take for that.
const ANSWER: Duration = Duration::from_secs(3);

/// Looks at it, has the hypervisor say what it knows, and looks again.
pub fn look(machine: &Machine, running: &mut Running, input: &mut Input) -> String {
    let mut text = String::from("\n# the time is over; what the hypervisor says:\n");
    let mut looks = String::new();
    let mut monitor = machine.monitor.as_deref().filter(|_| machine.emulator == Emulator::Qemu);
    let mut look = |when: &str| {
        let _ = match monitor.map(|socket| cpus(socket, machine.smp)) {
            Some(Ok(seen)) => write!(looks, "# {when}:\n{seen}"),
            Some(Err(error)) => {
                // Whoever knocks again at a door that stays shut stands there for good.
                monitor = None;
                writeln!(looks, "# {when}: {error:#}")
            }
            None => Ok(()),
        };
    };
    look("when the time was over");
    std::thread::sleep(ANSWER / 6);
    look("half a second later");
    if let Err(error) = input.write(KEYS) {
        let _ = writeln!(text, "{error:#}");
    }
    let end = Instant::now() + ANSWER;
    while Instant::now() < end
        && let Serial::Bytes(bytes) = running.read(end)
    {
        text += &String::from_utf8_lossy(&bytes).replace('\r', "");
    }
    look("after the keys");
    text + "\n" + &looks
}

/// A line for each CPU.
fn cpus(socket: &Path, count: u32) -> Result<String> {
    let mut questions = Questions::begin(socket)?;
    let mut lines = String::new();
    for cpu in 0..count {
        questions.ask(&format!("cpu {cpu}"))?;
        let registers = questions.ask("info registers")?;
        let apic = questions.ask("info lapic")?;
        let _ = writeln!(lines, "#   CPU {cpu}: {}", line(&registers, &apic));
    }
    Ok(lines)
}

/// What matters of QEMU's answers.
fn line(registers: &str, apic: &str) -> String {
    let words = registers.split_whitespace();
    let wanted = ["RIP=", "RFL=", "HLT=", "CR3="];
    let words = words.filter(|word| wanted.iter().any(|wanted| word.starts_with(wanted)));
    let waiting = apic.lines().filter_map(|line| line.split_once('\t')).filter_map(|(name, value)| match name {
        "ISR" | "IRR" => Some(format!("{name} {}", value.trim())),
        "Timer" => value.split_once("initial_count").map(|(_, counts)| format!("timer{counts}")),
        _ => None,
    });
    words.map(ToOwned::to_owned).chain(waiting).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_matters() {
        let registers =
            "info registers\n\nCPU#0\nRAX=01 RBX=02\nRIP=10 RFL=00000246 [---Z-P-] CPL=0 HLT=1\nCR0=1 CR2=2 CR3=5\n";
        let apic = "LVTT\t 0xfa\nTimer\t DCR=0xb initial_count = 7 current_count = 3\nISR\t (none)\nIRR\t 250 \n";
        assert_eq!(
            line(registers, apic),
            "RIP=10 RFL=00000246 HLT=1 CR3=5 timer = 7 current_count = 3 ISR (none) IRR 250"
        );
    }
}
