//! The host's end of the control protocol for a machine of ours: its second serial port is a connection to this program,
//! which asks dom0 for things over it and lets others do so.

use crate::emulator::{GONE, Finder, Input, LAST_WORDS, Machine, Payload, Running, Serial};
use anyhow::{Context, Result, anyhow, bail};
use control_protocol::message::{Notices, Stream};
use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};
use toolstack_cli::client::{Client, End, Request};
use toolstack_cli::hub::Hub;
use toolstack_cli::line::Line;
use toolstack_cli::local;

/// How long an emulator may take to connect.
const CONNECTS_WITHIN: Duration = Duration::from_secs(20);
/// How often a machine's console is looked at for its end.
const LOOK: Duration = Duration::from_millis(20);

/// Starts a machine whose second serial port has a hub.
pub fn start(machine: &Machine, payload: &Payload) -> Result<(Running, Input, Hub)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let machine = Machine { control: Some(listener.local_addr()?.port()), ..machine.clone() };
    let (running, input) = machine.start(payload)?;
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + CONNECTS_WITHIN;
    while Instant::now() < deadline {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false)?;
            return Ok((running, input, Hub::start(Line::tcp(stream)?)));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    bail!("the machine's second serial port does not connect")
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
