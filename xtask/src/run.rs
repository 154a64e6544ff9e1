//! `cargo xtask run`: boots a hypervisor with our dom0 and hands the terminal over, or runs a script in dom0's shell.

use crate::boot::{Hypervisor, MachineOptions};
use crate::control::{self, Ended};
use crate::doctor::{self, Need};
use crate::dom0::{self, Files};
use crate::emulator::{self, Finder, GONE, Input, LAST_WORDS, Machine, Payload, Running, Serial};
use crate::say::Step;
use crate::{symbols, workspace};
use anyhow::{Context, Result, bail};
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use toolstack_cli::client::End;
use toolstack_cli::hub::{self, Hub};
use toolstack_cli::terminal::Raw;

/// Boot xen-rs and dom0 in the emulator; without options also create the default guest and attach to its console.
///
/// Ctrl-] returns from a guest's console to dom0's shell (`help` lists its commands, `poweroff` ends the machine).
/// Ctrl-a x ends the machine at once.
#[derive(clap::Args)]
pub struct Run {
    /// Directory that dom0 sees as /files [default: debian.cfg with its kernel and ramdisk]
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// Commands for dom0's shell: print their output, power off, exit with the status of the first that failed
    #[arg(long, value_name = "SCRIPT")]
    exec: Option<String>,
    /// Socket at which `xrs` finds this machine's dom0 [default: $XDG_RUNTIME_DIR/xrs.sock or $HOME/.xrs.sock; none with
    /// --exec]
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// Deadline in seconds [default: 300 with --exec, else none]
    #[arg(long, value_name = "S")]
    timeout: Option<u64>,
    /// Which hypervisor
    #[arg(long, value_enum, value_name = "HYPERVISOR", default_value_t = Hypervisor::XenRs)]
    hypervisor: Hypervisor,
    /// More options for the hypervisor
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    append: String,
    #[command(flatten)]
    machine: MachineOptions,
}

/// The deadline of a script when none is given.
const SCRIPT_SECONDS: u64 = 300;
/// How long dom0 may take to its prompt.
const BOOT_SECONDS: u64 = 120;
/// What is typed for a newcomer.
const FIRST_COMMAND: &str = "create -c /files/debian.cfg\r";
/// The status when the deadline passed, as timeout(1) has it.
const DEADLINE_STATUS: u8 = 124;

impl Run {
    pub fn run(self) -> Result<ExitCode> {
        doctor::ensure(&[self.machine.emulator.need(), Need::Compiler])?;
        let kernel = self.hypervisor.kernel()?;
        let files = match &self.files {
            Some(dir) if dir.is_dir() => Files::Directory(dir),
            Some(dir) => bail!("{} is no directory", dir.display()),
            None => Files::Default { more: &[] },
        };
        let modules = dom0::modules_to_be_asked(&files, self.exec.as_deref())?;
        let machine = self.machine.machine(self.hypervisor);
        let append = format!("{} {}", self.hypervisor.base_options(&machine), self.append).trim().to_owned();
        let payload = Payload { kernel, append, modules };
        if self.machine.verbose {
            eprintln!("    {}", emulator::shell_line(&machine.command_line(&payload)));
        }
        match &self.exec {
            Some(script) => self.script(&machine, &payload, script),
            None => self.interactive(&machine, &payload),
        }
    }

    /// Has dom0 run the script. What the console says is shown when it is asked for or something went wrong.
    fn script(&self, machine: &Machine, payload: &Payload, script: &str) -> Result<ExitCode> {
        let seconds = self.timeout.unwrap_or(SCRIPT_SECONDS);
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let (mut running, _input, mut hub) = control::start(machine, payload)?;
        if let Some(socket) = &self.control {
            hub.listen(socket)?;
        }
        let mut log = Vec::new();
        let end = control::run_script(&hub, &mut running, script, deadline, |bytes| {
            log.extend_from_slice(bytes);
            if self.machine.verbose {
                std::io::stderr().write_all(bytes)?;
            }
            Ok(())
        });
        keep_log(&log)?;
        if let Ok(Ended::Script(End::Status(status))) = end {
            // What does not fit into an exit status still must not read as success.
            return Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)));
        }
        if !self.machine.verbose {
            explain(&String::from_utf8_lossy(&log), payload);
        }
        match end? {
            Ended::Script(_) => {
                eprintln!("error: deadline of {seconds} s passed");
                Ok(ExitCode::from(DEADLINE_STATUS))
            }
            Ended::Machine => bail!("the machine stopped before the script ended"),
        }
    }

    /// Lets other programs control the machine; that they cannot is no reason not to run it.
    fn share(&self, hub: &mut Hub) -> Result<()> {
        let Some(socket) = self.control.clone().or_else(|| hub::default_socket().map(PathBuf::from)) else {
            return Ok(());
        };
        match hub.listen(&socket) {
            Ok(()) if self.control.is_some() => {
                eprintln!("    `cargo run -q -p toolstack-cli -- --connect {} list` controls it", socket.display());
            }
            Ok(()) => eprintln!("    `cargo run -q -p toolstack-cli -- list` in another terminal controls it"),
            Err(error) if self.control.is_some() => return Err(error),
            Err(error) => eprintln!("    not to be controlled by xrs: {error:#}; --control names another socket"),
        }
        Ok(())
    }

    /// Boots to dom0's prompt, types the first command of a newcomer, then hands over the terminal.
    fn interactive(&self, machine: &Machine, payload: &Payload) -> Result<ExitCode> {
        let (mut running, mut input, mut hub) = control::start(machine, payload)?;
        let mut log = Vec::new();
        let step = Step::begin(&format!("boot {} with dom0", self.hypervisor.name()));
        if !self.prompt(&mut running, &mut log)? {
            keep_log(&log)?;
            if !self.machine.verbose {
                explain(&String::from_utf8_lossy(&log), payload);
            }
            bail!("dom0 did not come to its prompt");
        }
        step.done();
        self.share(&mut hub)?;
        eprintln!("    Ctrl-] goes from a guest to dom0's shell; `poweroff` there, or Ctrl-a x, ends the machine\n");
        print!("{}", dom0::PROMPT);
        std::io::stdout().flush()?;
        if self.files.is_none() {
            input.write(FIRST_COMMAND.as_bytes())?;
        }
        let raw = if std::io::stdin().is_terminal() { Some(Raw::begin()?) } else { None };
        let quit = Arc::new(AtomicBool::new(false));
        let hear = Arc::clone(&quit);
        // Not joined: it waits for a key that may never come, and ends with the program.
        std::thread::spawn(move || type_in(input, &hear));
        let end = self.show(&mut running, &mut log, &quit);
        drop(raw);
        println!();
        keep_log(&log)?;
        end
    }

    /// Waits for dom0's prompt, keeping what comes before it.
    fn prompt(&self, running: &mut Running, log: &mut Vec<u8>) -> Result<bool> {
        let deadline = Instant::now() + Duration::from_secs(self.timeout.unwrap_or(BOOT_SECONDS).min(BOOT_SECONDS));
        let mut prompt = Finder::new(dom0::PROMPT);
        let mut gone = GONE.map(Finder::new);
        loop {
            let Serial::Bytes(bytes) = running.read(deadline) else { return Ok(false) };
            log.extend_from_slice(&bytes);
            if self.machine.verbose {
                std::io::stderr().write_all(&bytes)?;
            }
            if prompt.found(&bytes) {
                return Ok(true);
            }
            if gone.iter_mut().any(|gone| gone.found(&bytes)) {
                return Ok(false);
            }
        }
    }

    /// Shows the serial port until the machine is gone, the user quits, or the deadline passes.
    fn show(&self, running: &mut Running, log: &mut Vec<u8>, quit: &AtomicBool) -> Result<ExitCode> {
        let deadline = self.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut gone = GONE.map(Finder::new);
        let mut last = None;
        let mut stdout = std::io::stdout();
        loop {
            let now = Instant::now();
            if quit.load(Ordering::Relaxed) || last.is_some_and(|last| now >= last) {
                return Ok(ExitCode::SUCCESS);
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(ExitCode::from(DEADLINE_STATUS));
            }
            match running.read(now + Duration::from_millis(100)) {
                Serial::Bytes(bytes) => {
                    stdout.write_all(&bytes)?;
                    stdout.flush()?;
                    log.extend_from_slice(&bytes);
                    if last.is_none() && gone.iter_mut().any(|gone| gone.found(&bytes)) {
                        last = Some(now + LAST_WORDS);
                    }
                }
                Serial::Quiet => {}
                Serial::Closed => return Ok(ExitCode::SUCCESS),
            }
        }
    }
}

/// Passes keys on. Ctrl-a is the way to speak to this program instead: `x` quits, anything else is passed on (a second
/// Ctrl-a as one).
fn type_in(mut input: Input, quit: &AtomicBool) {
    const CTRL_A: u8 = 1;
    let mut escaped = false;
    let mut buffer = [0; 256];
    while let Ok(count) = std::io::stdin().read(&mut buffer) {
        let Some(keys) = buffer.get(..count).filter(|keys| !keys.is_empty()) else { break };
        let mut typed = Vec::with_capacity(keys.len());
        for &key in keys {
            match (escaped, key) {
                (true, b'x' | b'X') => return quit.store(true, Ordering::Relaxed),
                (false, CTRL_A) => escaped = true,
                (_, key) => {
                    escaped = false;
                    typed.push(key);
                }
            }
        }
        // The machine has ended; the other thread sees that too.
        if input.write(&typed).is_err() {
            break;
        }
    }
}

/// Keeps what the serial port said in the last run.
fn keep_log(bytes: &[u8]) -> Result<()> {
    let path = workspace::path("target/run.log");
    std::fs::write(&path, bytes).with_context(|| path.display().to_string())
}

/// The end of what was said, for a run that went wrong.
fn explain(text: &str, payload: &Payload) {
    let lines: Vec<&str> = text.lines().collect();
    for line in lines.get(lines.len().saturating_sub(40)..).unwrap_or_default() {
        eprintln!("    | {}", line.trim_end());
    }
    for name in symbols::names(text, payload) {
        eprintln!("    {name}");
    }
    eprintln!("    all of it: target/run.log");
}
