//! The emulated machine: its command line, its serial port, and its end. A machine never outlives its deadline nor
//! the program that started it.

pub mod bochs;
mod disk;
mod last_look;
mod loader;
pub mod monitor;

pub use loader::Loader;

use crate::doctor::Need;
use crate::toolchain::on_path;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";

/// Which program emulates the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Emulator {
    /// QEMU, which most tests use.
    #[default]
    Qemu,
    /// Bochs, which emulates Intel's processors in more detail.
    Bochs,
}

impl Emulator {
    /// What must be installed for it.
    pub fn need(self) -> Need {
        match self {
            Self::Qemu => Need::Emulator,
            Self::Bochs => Need::Bochs,
        }
    }
}

/// The hardware and firmware side of a run.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What it runs in.
    pub emulator: Emulator,
    /// What loads the hypervisor; the payload is one that [`Loader::prepare`] has made.
    pub loader: Loader,
    /// Number of physical CPUs.
    pub smp: u32,
    /// Memory in MiB.
    pub mem: u32,
    /// The emulator's CPU model.
    pub cpu: String,
    /// Chipset: `pc` or `q35`.
    pub chipset: String,
    /// Let the TSC count instructions.
    pub icount: bool,
    /// The second serial port is a connection to this socket of ours: for QEMU a path, for Bochs `HOST:PORT`.
    pub control: Option<String>,
    /// Bochs: registers (MSRs) that it lacks read as 0 and take every value, instead of #GP. Xen 4.17 looks at IA32_MISC_ENABLE
    /// without asking whether it is there.
    pub ignore_bad_msrs: bool,
    /// Bochs: what is executed behind each mark of a guest's (`guest_pv::mark`), so many instructions, goes to this file.
    pub trace: Option<(PathBuf, u32)>,
    /// QEMU's monitor listens at this socket of its own.
    pub monitor: Option<PathBuf>,
    /// More arguments for the emulator, as they are.
    pub extra: Vec<String>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            emulator: Emulator::Qemu,
            loader: Loader::Multiboot1,
            smp: 1,
            mem: 1024,
            cpu: "max".into(),
            chipset: "pc".into(),
            icount: false,
            control: None,
            ignore_bad_msrs: false,
            trace: None,
            monitor: None,
            extra: Vec::new(),
        }
    }
}

/// A boot module: a file and its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The file.
    pub path: PathBuf,
    /// Its command line, maybe empty.
    pub args: String,
}

impl Module {
    /// A module with a command line.
    pub fn new(path: impl Into<PathBuf>, args: impl Into<String>) -> Self {
        Self { path: path.into(), args: args.into() }
    }

    /// Reads `PATH args`.
    pub fn parse(text: &str) -> Self {
        let (path, args) = text.split_once(' ').unwrap_or((text, ""));
        Self::new(path, args)
    }

    /// The emulator separates modules by commas, so a comma inside one is doubled.
    fn quoted(&self) -> String {
        let text = self.path.to_string_lossy();
        let text = if self.args.is_empty() { text.into_owned() } else { format!("{text} {}", self.args) };
        text.replace(',', ",,")
    }
}

/// What is booted on the machine.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The multiboot kernel.
    pub kernel: PathBuf,
    /// The kernel's command line.
    pub append: String,
    /// Its modules, in order.
    pub modules: Vec<Module>,
}

impl Machine {
    /// The emulator's whole command line.
    pub fn command_line(&self, payload: &Payload) -> Vec<OsString> {
        if self.emulator == Emulator::Bochs {
            return bochs::command_line(&bochs::directory());
        }
        let mut line: Vec<OsString> = vec![QEMU.into()];
        let mut add = |text: &str| line.push(text.into());
        for text in ["-display", "none", "-serial", "stdio", "-no-reboot", "-nodefaults"] {
            add(text);
        }
        for (option, value) in [
            ("-machine", self.chipset.clone()),
            ("-cpu", self.cpu.clone()),
            ("-smp", self.smp.to_string()),
            ("-m", self.mem.to_string()),
        ] {
            add(option);
            add(&value);
        }
        add("-monitor");
        match &self.monitor {
            Some(path) => add(&format!("unix:{},server=on,wait=off", path.display().to_string().replace(',', ",,"))),
            None => add("none"),
        }
        if self.icount {
            add("-icount");
            add("shift=0,align=off,sleep=off");
        }
        if let Some(path) = &self.control {
            add("-serial");
            add(&format!("unix:{}", path.replace(',', ",,")));
        }
        for text in &self.extra {
            add(text);
        }
        if self.loader.is_cd() {
            add("-cdrom");
            line.push(payload.kernel.clone().into());
            return line;
        }
        add("-kernel");
        line.push(payload.kernel.clone().into());
        line.push("-append".into());
        line.push(payload.append.clone().into());
        if !payload.modules.is_empty() {
            let modules: Vec<String> = payload.modules.iter().map(Module::quoted).collect();
            line.push("-initrd".into());
            line.push(modules.join(",").into());
        }
        line
    }

    /// Starts the machine.
    pub fn start(&self, payload: &Payload) -> Result<(Running, Input)> {
        if self.emulator == Emulator::Bochs {
            return bochs::start(self, payload);
        }
        let mut command = die_with_us(&self.command_line(payload));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().with_context(|| format!("cannot start {QEMU}"))?;
        let input = Input(Box::new(child.stdin.take().context("the emulator has no stdin")?));
        let output = child.stdout.take().context("the emulator has no stdout")?;
        Ok((Running { child, serial: pass_on(output), files: None }, input))
    }
}

/// A command that the kernel ends when this program dies, whatever the way; setpriv sees to that.
fn die_with_us(line: &[OsString]) -> Command {
    if on_path("setpriv") {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(line);
        return command;
    }
    let mut words = line.iter();
    let mut command = Command::new(words.next().cloned().unwrap_or_default());
    command.args(words);
    command
}

/// Passes on what a serial port says, until its other end closes.
fn pass_on(mut output: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, serial) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count) = output.read(&mut buffer) {
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            if sender.send(bytes.to_vec()).is_err() {
                break;
            }
        }
    });
    serial
}

/// Prints a command line so that a shell would take it back.
pub fn shell_line(line: &[OsString]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    let quote = |word: &OsString| {
        let word = word.to_string_lossy();
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    line.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// A machine that runs. It is ended when this is dropped.
pub struct Running {
    child: Child,
    serial: Receiver<Vec<u8>>,
    /// What must be kept as long as it runs.
    #[allow(dead_code, reason = "it is there to be dropped")]
    files: Option<bochs::Files>,
}

/// What the serial port had to say within a time.
pub enum Serial {
    /// Some bytes.
    Bytes(Vec<u8>),
    /// The time is over.
    Quiet,
    /// The emulator ended.
    Closed,
}

impl Running {
    /// Waits for bytes until `deadline`.
    pub fn read(&mut self, deadline: Instant) -> Serial {
        match self.serial.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => Serial::Bytes(bytes),
            Err(RecvTimeoutError::Timeout) => Serial::Quiet,
            Err(RecvTimeoutError::Disconnected) => Serial::Closed,
        }
    }
}

/// The keyboard of a machine's serial port.
pub struct Input(Box<dyn Write + Send>);

impl Input {
    /// Types.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes)?;
        Ok(self.0.flush()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The machine is stateless: nothing is lost by ending it at once. An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why a watched run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The text it was watched for appeared.
    Found,
    /// The machine switched itself off.
    Off,
    /// The machine stands still: dom0 or the hypervisor is gone.
    Gone,
    /// The deadline passed.
    Deadline,
}

/// What to do after a piece of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Watch,
    /// Enough was seen but for what belongs to it: the rest of a line, a report.
    Finish,
    /// Enough was seen.
    Stop,
}

/// A hypervisor says one of these when nothing more will happen.
pub const GONE: [&str; 6] = [
    "Hardware Dom0 halted",
    "Hardware Dom0 crashed",
    "Hardware Dom0 shutdown",
    "Panic on CPU",
    "machine stopped ('noreboot' is set)",
    "Manual reset required ('noreboot' specified)",
];

/// How long the last words may take once the machine is known to stop, or enough was seen but for them.
pub const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs a machine until `see` has seen enough of its output, it is gone, or `limit` passes.
pub fn watch(machine: &Machine, payload: &Payload, limit: Duration, see: impl FnMut(&[u8]) -> Next) -> Result<End> {
    Ok(watch_closely(machine, payload, limit, see)?.0)
}

/// [`watch`], and what the machine was doing when `limit` had passed, if it has a monitor; nothing otherwise.
pub fn watch_closely(
    machine: &Machine,
    payload: &Payload,
    limit: Duration,
    mut see: impl FnMut(&[u8]) -> Next,
) -> Result<(End, String)> {
    let mut deadline = Instant::now() + limit;
    let mut end = End::Deadline;
    let mut gone = GONE.map(Finder::new);
    // Nothing is typed meanwhile, but the port must not see its other end close.
    let (mut running, mut input) = machine.start(payload)?;
    loop {
        match running.read(deadline) {
            Serial::Bytes(bytes) => {
                match see(&bytes) {
                    Next::Stop => return Ok((End::Found, String::new())),
                    Next::Finish if end == End::Deadline => {
                        deadline = deadline.min(Instant::now() + LAST_WORDS);
                        end = End::Found;
                    }
                    Next::Finish | Next::Watch => {}
                }
                if end != End::Gone && gone.iter_mut().any(|gone| gone.found(&bytes)) {
                    deadline = deadline.min(Instant::now() + LAST_WORDS);
                    end = End::Gone;
                }
                // One that never stops to talk is never quiet.
                if Instant::now() >= deadline {
                    break;
                }
            }
            Serial::Quiet => break,
            Serial::Closed => return Ok((End::Off, String::new())),
        }
    }
    let asks = end == End::Deadline && machine.monitor.is_some();
    let look = if asks { last_look::look(machine, &mut running, &mut input) } else { String::new() };
    Ok((end, look))
}

/// Finds a text in a stream that comes in pieces.
pub struct Finder<'a> {
    needle: &'a [u8],
    /// The end of what came, as long as the needle less one byte.
    kept: Vec<u8>,
}

impl<'a> Finder<'a> {
    /// Looks for `needle`.
    pub fn new(needle: &'a str) -> Self {
        Self { needle: needle.as_bytes(), kept: Vec::new() }
    }

    /// Takes the next piece; whether the text has now come.
    pub fn found(&mut self, bytes: &[u8]) -> bool {
        if self.needle.is_empty() {
            return false;
        }
        self.kept.extend_from_slice(bytes);
        if self.kept.windows(self.needle.len()).any(|window| window == self.needle) {
            return true;
        }
        let surplus = (self.kept.len() + 1).saturating_sub(self.needle.len());
        self.kept.drain(..surplus.min(self.kept.len()));
        false
    }
}

/// Whether a file is there, with an error that names it.
pub fn must_exist(path: &Path) -> Result<()> {
    std::fs::metadata(path).map(drop).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_module_is_doubled() {
        let module = Module::parse("/tmp/a console=hvc0,x");
        assert_eq!(module, Module::new("/tmp/a", "console=hvc0,x"));
        assert_eq!(module.quoted(), "/tmp/a console=hvc0,,x");
    }

    #[test]
    fn text_across_pieces_is_found() {
        let mut finder = Finder::new("lo wo");
        assert!(!finder.found(b"hello"));
        assert!(!finder.found(b" "));
        assert!(finder.found(b"world"));
        assert!(!Finder::new("").found(b"x"));
        assert!(Finder::new("x").found(b"x"));
    }

    #[test]
    fn a_shell_could_read_the_line_back() {
        let line = ["a".into(), "b c".into(), "it's".into(), "".into()];
        assert_eq!(shell_line(&line), r"a 'b c' 'it'\''s' ''");
    }
}
