//! `xrs` itself over each kind of line: a serial device (a pseudo terminal), TCP, a socket, a hub that several share; and at
//! a terminal. A thread speaks for dom0.

use control_protocol::link::{Event, Link};
use control_protocol::message::{Message, Part, Stream, ToDom0, ToHost};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes as they come, from a thread that reads for good.
fn bytes_of(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) if sender.send(buffer[..count].to_vec()).is_err() => return,
                Ok(_) => {}
                // A pseudo terminal that nobody has opened yet.
                Err(_) => sleep(SOON),
            }
        }
    });
    receiver
}

/// Speaks for dom0: says what it was asked; `fail` ends with 3, `console` says every key and ends with them or with `q`.
fn dom0(from: impl Read + Send + 'static, mut to: impl Write + Send + 'static) {
    let line = bytes_of(from);
    spawn(move || {
        let (mut link, began, mut scripts) = (Link::dom0(), Instant::now(), BTreeMap::new());
        loop {
            let now = u64::try_from(began.elapsed().as_nanos()).unwrap();
            let mut events = Vec::new();
            match line.recv_timeout(SOON) {
                Ok(bytes) => link.receive(now, &bytes, &mut events),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            link.tick(now, &mut events);
            for event in events {
                if let Event::Payload(payload) = event {
                    let Message { id, body } = Message::decode(&payload).expect("a message");
                    for body in answer(scripts.entry(id).or_default(), body) {
                        link.send(Message { id, body }.encode());
                    }
                }
            }
            let mut buffer = [0; 4096];
            while let count @ 1.. = link.output(now, &mut buffer) {
                if to.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
        }
    });
}

fn answer(script: &mut String, said: ToDom0) -> Vec<ToHost> {
    let say = |stream, text: String| ToHost::Output { stream, bytes: text.into_bytes() };
    match said {
        ToDom0::Start(_) | ToDom0::More(_) | ToDom0::Part { part: Part::File(_), .. } => Vec::new(),
        ToDom0::Part { part: Part::Script, .. } => {
            script.clear();
            Vec::new()
        }
        ToDom0::Bytes(bytes) => {
            script.push_str(&String::from_utf8(bytes).unwrap());
            Vec::new()
        }
        ToDom0::Run if script.starts_with("console") => vec![say(Stream::Out, "~ # \n".into())],
        ToDom0::Run if script.starts_with("fail") => vec![say(Stream::Err, "it cannot\n".into()), ToHost::Done(3)],
        ToDom0::Run => vec![say(Stream::Out, format!("asked: {script}\n")), ToHost::Done(0)],
        ToDom0::Input(keys) if keys.contains(&b'q') => vec![ToHost::Done(0)],
        ToDom0::Input(keys) => vec![say(Stream::Out, format!("keys {keys:?}\n"))],
        ToDom0::InputEnd | ToDom0::Interrupt | ToDom0::HangUp => vec![ToHost::Done(0)],
    }
}

/// Both ends of a pseudo terminal: ours, and the path of the other.
fn terminal() -> (File, String) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let path = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    (File::from(ours), path)
}

fn xrs(connect: &str, command: &[&str]) -> Command {
    let mut xrs = Command::new(env!("CARGO_BIN_EXE_xrs"));
    xrs.args(["--wait", "20", "--timeout", "20", "--connect", connect]).args(command).stdin(Stdio::null());
    xrs
}

fn run(connect: &str, command: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = xrs(connect, command).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

fn commands_work(connect: &str) {
    assert_eq!(run(connect, &["list", "-l", "a b"]), (0, "asked: list -l \"a b\"\n".into(), String::new()));
    assert_eq!(run(connect, &["fail"]), (3, String::new(), "it cannot\n".into()));
}

/// A path that nobody else uses, and that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("xrs-{name}-{}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What was never made need not go.
        let _ = std::fs::remove_file(&self.0);
        let _ = std::fs::remove_file(format!("{}.lock", self.0.display()));
    }
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_serial_line_and_a_hub_on_it() {
    let (ours, path) = terminal();
    // So that the line does not hang up between two programs.
    let _held = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    dom0(ours.try_clone().unwrap(), ours);
    commands_work(&path);
    let socket = Scratch::new("hub");
    let _hub = Ends(xrs(&path, &["hub", socket.path()]).stderr(Stdio::null()).spawn().unwrap());
    let began = Instant::now();
    while !socket.0.exists() && began.elapsed() < PATIENCE {
        sleep(SOON);
    }
    commands_work(socket.path());
    let (status, _, error) = run(&path, &["list"]);
    assert_eq!(status, 1);
    assert!(error.contains("another program has the line") && error.contains("hub SOCKET"), "{error}");
    let all: Vec<_> = (0..4)
        .map(|_| {
            spawn({
                let socket = socket.path().to_owned();
                move || commands_work(&socket)
            })
        })
        .collect();
    for one in all {
        one.join().unwrap();
    }
    // One that stays in the middle of a command holds up nobody.
    let _stays =
        Ends(xrs(socket.path(), &["console", "a"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    commands_work(socket.path());
}

#[test]
fn a_line_by_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    spawn(move || {
        for line in listener.incoming().flatten() {
            dom0(line.try_clone().unwrap(), line);
        }
    });
    commands_work(&address);
}

#[test]
fn a_line_by_a_socket() {
    let socket = Scratch::new("line");
    let listener = UnixListener::bind(&socket.0).unwrap();
    spawn(move || {
        for line in listener.incoming().flatten() {
            dom0(line.try_clone().unwrap(), line);
        }
    });
    commands_work(&format!("line:{}", socket.path()));
}

#[test]
fn nobody_there() {
    let (status, _, error) = run("/nowhere/xrs.sock", &["list"]);
    assert_eq!(status, 1);
    assert!(error.starts_with("xrs: "), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    let mut silent = Command::new(env!("CARGO_BIN_EXE_xrs"));
    let silent = silent.args(["--wait", "1", "--connect", &address, "list"]).output().unwrap();
    let error = String::from_utf8_lossy(&silent.stderr);
    assert!(silent.status.code() == Some(1) && error.contains("dom0 does not answer"), "{error}");
    drop(listener);
}

#[test]
fn a_guests_console_at_a_terminal() {
    let (line, path) = terminal();
    let _held = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    dom0(line.try_clone().unwrap(), line);
    let (mut user, screen) = terminal();
    let tty = OpenOptions::new().read(true).write(true).open(&screen).unwrap();
    let settings = || {
        let stty = Command::new("stty").arg("-g").stdin(tty.try_clone().unwrap()).output().unwrap();
        String::from_utf8(stty.stdout).unwrap()
    };
    let before = settings();
    let shown = bytes_of(user.try_clone().unwrap());
    let mut seen = String::new();
    let mut see = |text: &str| {
        let began = Instant::now();
        while !seen.contains(text) {
            assert!(began.elapsed() < PATIENCE, "{text:?} does not appear in {seen:?}");
            if let Ok(bytes) = shown.recv_timeout(SOON) {
                seen.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
    };
    let mut console = Ends(
        xrs(&path, &["console", "a"])
            .stdin(tty.try_clone().unwrap())
            .stdout(tty.try_clone().unwrap())
            .stderr(tty.try_clone().unwrap())
            .spawn()
            .unwrap(),
    );
    see("~ # \r\n");
    // Ctrl-C and return are keys like others now, and nothing but dom0 says them back.
    user.write_all(b"\x03").unwrap();
    see("keys [3]\r\n");
    user.write_all(b"\r").unwrap();
    see("keys [13]\r\n");
    user.write_all(b"q").unwrap();
    assert_eq!(console.0.wait().unwrap().code(), Some(0));
    assert_eq!(settings(), before, "the terminal is as it was");
}
