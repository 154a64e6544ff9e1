//! `xrs`: dom0's commands, from the host that its machine's second serial port is connected to.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use clap::Parser;
use control_protocol::message::{Notices, Stream};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use toolstack_cli::client::{Client, End, Request};
use toolstack_cli::hub::{self, Hub};
use toolstack_cli::line::Line;
use toolstack_cli::local;
use toolstack_cli::terminal::Raw;

/// Run dom0's commands from the host: `xrs list`, `xrs create a.cfg`, `xrs console a`.
///
/// A configuration file is this machine's; `local:PATH` in it names a kernel or ramdisk of this machine's, any other path
/// one of dom0's. The exit status is the command's. `xrs help` lists the commands; `xrs hub SOCKET` shares the line that
/// `--connect` names among several xrs.
#[derive(Parser)]
#[command(name = "xrs", disable_help_subcommand = true)]
struct Xrs {
    /// A hub's socket, or the line itself: a serial device, tcp:HOST:PORT, line:SOCKET [default: $XRS_CONNECT,
    /// $XDG_RUNTIME_DIR/xrs.sock, $HOME/.xrs.sock]
    #[arg(long, value_name = "WHERE")]
    connect: Option<String>,
    /// How many seconds dom0 may take to answer
    #[arg(long, value_name = "S", default_value_t = 10)]
    wait: u64,
    /// How many seconds the command may take
    #[arg(long, value_name = "S")]
    timeout: Option<u64>,
    /// Commands as in dom0's shell instead of one as arguments
    #[arg(long, value_name = "SCRIPT", conflicts_with = "command")]
    exec: Option<String>,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The status when the deadline passed, as timeout(1) has it.
const DEADLINE_STATUS: u8 = 124;

fn main() -> ExitCode {
    run(Xrs::parse()).unwrap_or_else(|error| {
        eprintln!("xrs: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(xrs: Xrs) -> Result<ExitCode> {
    let address = match xrs.connect {
        Some(address) => address,
        None => {
            std::env::var("XRS_CONNECT").ok().or_else(hub::default_socket).context("where is the host? (--connect)")?
        }
    };
    if let [command, socket] = xrs.command.as_slice()
        && command == "hub"
    {
        return share(&address, Path::new(socket));
    }
    if xrs.command.is_empty() && xrs.exec.is_none() {
        bail!("which command? (`xrs help` lists them)");
    }
    // Kept until the end: it speaks for the client.
    let hub = if Line::is_line(&address) { Some(Hub::start(Line::open(&address)?)) } else { None };
    let mut client = match &hub {
        Some(hub) => Client::new(hub.connect()?)?,
        None => Client::open(Path::new(&address))?,
    };
    if !client.wait(Duration::from_secs(xrs.wait))? {
        bail!(
            "dom0 does not answer at {address} (is the line another program's? is dom0 busy? `--wait` takes seconds)"
        );
    }
    let script = xrs.exec.unwrap_or_else(|| local::quote(&xrs.command));
    let interactive = needs_keys(&xrs.command);
    let request = Request {
        script: &script,
        files: local::files(&script)?,
        notices: if interactive { Notices::Shown } else { Notices::Hidden },
        input: interactive,
        may_save: &xrs.command,
        deadline: xrs.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
    };
    let raw = if interactive && std::io::stdin().is_terminal() { Some(Raw::begin()?) } else { None };
    let lines_end_raw = raw.is_some();
    let end = client.run(request, &mut |stream, bytes| print(stream, bytes, lines_end_raw));
    drop(raw);
    match end? {
        // What does not fit into an exit status still must not read as success.
        End::Status(status) => Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))),
        End::Deadline => {
            eprintln!("xrs: it did not end within {} s", xrs.timeout.unwrap_or_default());
            Ok(ExitCode::from(DEADLINE_STATUS))
        }
    }
}

/// Whether a command is one that the user types to.
fn needs_keys(words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).skip_while(|word| *word == "xl").collect();
    match words.split_first() {
        Some((&"console", arguments)) => !arguments.iter().any(|word| word.starts_with("--until")),
        Some((&"create", arguments)) => arguments.iter().any(|word| matches!(*word, "-c" | "--console")),
        _ => false,
    }
}

fn print(stream: Stream, bytes: &[u8], raw: bool) -> Result<()> {
    // A terminal in raw mode does not return to the line's start by itself; guests do that, dom0's own lines do not.
    let text = if raw { with_returns(bytes) } else { bytes.to_vec() };
    match stream {
        Stream::Err => std::io::stderr().write_all(&text)?,
        Stream::Out | Stream::File => {
            std::io::stdout().write_all(&text)?;
            std::io::stdout().flush()?;
        }
    }
    Ok(())
}

fn with_returns(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|&byte| (byte == b'\n').then_some(b'\r').into_iter().chain([byte])).collect()
}

/// Keeps a line, and lets others use it, until it is closed.
fn share(address: &str, socket: &Path) -> Result<ExitCode> {
    if !Line::is_line(address) {
        bail!("--connect names no line: a serial device, tcp:HOST:PORT, or line:SOCKET");
    }
    let mut hub = Hub::start(Line::open(address)?);
    hub.listen(socket)?;
    eprintln!("xrs: {address} is shared at {}", socket.display());
    hub.wait();
    bail!("the line {address} was closed")
}
