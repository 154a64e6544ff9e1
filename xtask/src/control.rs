//! The host's end of the control protocol for a machine of ours: its second serial port is a connection to this program,
//! which asks dom0 for things over it and lets others do so.

use crate::emulator::{Emulator, Finder, GONE, Input, LAST_WORDS, Machine, Payload, Running, Serial};
use crate::workspace;
use anyhow::{Context, Result, anyhow, bail};
use control_protocol::message::{Notices, Stream};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use toolstack_cli::client::{Client, End, Request};
use toolstack_cli::hub::Hub;
use toolstack_cli::line::Line;
use toolstack_cli::local;

/// How long an emulator may take to connect.
const CONNECTS_WITHIN: Duration = Duration::from_secs(20);
/// How often a machine's console is looked at for its end.
const LOOK: Duration = Duration::from_millis(20);

/// Waits for the emulator to connect.
enum Listener {
    /// What QEMU can: of all sockets the cheapest for single bytes.
    Unix(UnixListener, PathBuf),
    /// What Bochs can.
    Tcp(TcpListener),
}

impl Listener {
    fn new(emulator: Emulator) -> Result<(Self, String)> {
        if emulator == Emulator::Bochs {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?.to_string();
            return Ok((Self::Tcp(listener), address));
        }
        // The system's limit for such a path is short, and the workspace's may be long.
        let path = std::env::temp_dir().join(format!("xen-rs-{}", workspace::unique()));
        // Left behind by a process of the same number that was killed.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
        listener.set_nonblocking(true)?;
        let address = path.display().to_string();
        Ok((Self::Unix(listener, path), address))
    }

    fn accept(&self) -> Result<Option<Line>> {
        Ok(match self {
            Self::Unix(listener, _) => match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    Some(Line::unix(stream)?)
                }
                Err(_) => None,
            },
            Self::Tcp(listener) => match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    Some(Line::tcp(stream)?)
                }
                Err(_) => None,
            },
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Nothing else would be done about it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Starts a machine whose second serial port has a hub.
pub fn start(machine: &Machine, payload: &Payload) -> Result<(Running, Input, Hub)> {
    start_with(machine, payload, |line| line)
}

/// The same, with something done to the line.
pub fn start_with(
    machine: &Machine,
    payload: &Payload,
    with: impl FnOnce(Line) -> Line,
) -> Result<(Running, Input, Hub)> {
    let (listener, address) = Listener::new(machine.emulator)?;
    let machine = Machine { control: Some(address), ..machine.clone() };
    let (running, input) = machine.start(payload)?;
    let deadline = Instant::now() + CONNECTS_WITHIN;
    while Instant::now() < deadline {
        if let Some(line) = listener.accept()? {
            return Ok((running, input, Hub::start(with(line))));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    bail!("the machine's second serial port does not connect")
}

/// Takes a machine's console into a file, until it is dropped, and the machine with it.
pub struct Drain {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drain {
    /// Begins to.
    pub fn begin(mut running: Running, mut file: std::fs::File) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let hear = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !hear.load(Ordering::Relaxed) {
                match running.read(Instant::now() + LOOK) {
                    // A log that cannot be written is no reason to fail.
                    Serial::Bytes(bytes) => drop(file.write_all(&bytes)),
                    Serial::Quiet => {}
                    Serial::Closed => return,
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

/// How a script ended.
pub enum Ended {
    /// dom0 ran it.
    Script(End),
    /// The machine stopped before.
    Machine,
}

/// Has dom0 run a script, and prints what it says. `log` gets what the console says meanwhile.
pub fn run_script(
    hub: &Hub,
    running: &mut Running,
    script: &str,
    deadline: Instant,
    mut log: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Ended> {
    let answer = ask(hub, script.to_owned(), deadline)?;
    let mut gone = GONE.map(Finder::new);
    let mut last = None;
    loop {
        let now = Instant::now();
        match running.read(now + LOOK) {
            Serial::Bytes(bytes) => {
                log(&bytes)?;
                if last.is_none() && gone.iter_mut().any(|gone| gone.found(&bytes)) {
                    last = Some(now + LAST_WORDS);
                }
            }
            Serial::Quiet => {}
            Serial::Closed => return Ok(Ended::Machine),
        }
        match answer.try_recv() {
            Ok(end) => return end.map(Ended::Script),
            Err(TryRecvError::Disconnected) => bail!("the program that waits for dom0 is gone"),
            Err(TryRecvError::Empty) if last.is_some_and(|last| now >= last) => return Ok(Ended::Machine),
            Err(TryRecvError::Empty) => {}
        }
    }
}

/// Asks in a thread of its own: the answer, once there is one.
fn ask(hub: &Hub, script: String, deadline: Instant) -> Result<Receiver<Result<End>>> {
    let mut client = Client::new(hub.connect()?)?;
    let files = local::files(&script)?;
    let (sender, answer) = channel();
    std::thread::spawn(move || {
        let ask = || -> Result<End> {
            if !client.wait(deadline.saturating_duration_since(Instant::now()))? {
                return Ok(End::Deadline);
            }
            let words = local::words(&script);
            let request = Request {
                script: &script,
                files,
                notices: Notices::Shown,
                input: false,
                may_save: &words,
                deadline: Some(deadline),
            };
            client.run(request, &mut |stream, bytes| {
                match stream {
                    Stream::Err => std::io::stderr().write_all(bytes)?,
                    Stream::Out | Stream::File => std::io::stdout().write_all(bytes)?,
                }
                std::io::stdout().flush().context("standard output")
            })
        };
        // Nobody may be waiting any more.
        let _ = sender.send(ask().map_err(|error| anyhow!("{error:#}")));
    });
    Ok(answer)
}
