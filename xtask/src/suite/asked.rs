//! A row in which programs on the host drive dom0 over a line that spoils a byte now and then: commands and consoles side by
//! side, a host's own files, programs that go away in the middle, a core dump.

use super::cores::Core;
use super::emulated::Row;
use crate::control::{self, Drain};
use crate::emulator::{Machine, Payload};
use crate::workspace;
use anyhow::{Context, Result, bail, ensure};
use control_protocol::message::{Notices, Stream};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use toolstack_cli::client::{Client, End, Request};
use toolstack_cli::hub::Hub;
use toolstack_cli::line::Line;
use toolstack_cli::local;

/// One byte of so many is spoiled, in each direction.
const SPOILED: usize = 4001;
/// More requests than dom0 takes at a time.
const TOO_MANY: usize = 70;
/// What the guest has in its memory.
const PATTERN: &[u8] = b"the guest reached its main function";

/// Runs it; why it failed is the error.
pub fn run(row: &Row, machine: &Machine, payload: &Payload, log: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(row.case.timeout);
    let spoil = |line: Line| Line {
        from: Box::new(Spoiled { inner: line.from, count: 0 }),
        to: Box::new(Spoiled { inner: line.to, count: 0 }),
        ..line
    };
    let (running, _input, hub) = control::start_with(machine, payload, spoil)?;
    let _console = Drain::begin(running, std::fs::File::options().append(true).create(true).open(log)?);
    let dir = Directory::new()?;
    let host = Host { hub: &hub, deadline };

    ensure!(host.well("list")?.contains("Domain-0"), "no list of domains");
    let (status, said) = host.ask("no-such-command")?;
    ensure!(status == 1 && said.contains("no such command"), "a command that is none: {status}, {said}");

    let config = dir.file("host.cfg");
    let text = "type = 'pv'\nname = 'h'\nkernel = '/files/hello'\nmemory = 8\non_poweroff = 'preserve'\n";
    std::fs::write(&config, text)?;
    host.well(&format!("create {config}; console --until 'main function' --timeout 30 h"))?;

    side_by_side(&host)?;
    for _ in 0..TOO_MANY {
        // Dropped in the middle of its command.
        let mut client = host.client()?;
        let request = Request { deadline: Some(Instant::now()), ..request("sleep 1000", &[]) };
        ensure!(client.run(request, &mut |_, _| Ok(()))? == End::Deadline, "a long sleep was short");
    }
    ensure!(host.well("list h")?.contains("  8 "), "the guest is not there any more");

    cores(&host, &dir)?;
    host.well("destroy h")?;
    attached(&host, &dir)
}

/// `create -c` shows a domain's console from its first word to its end.
fn attached(host: &Host<'_>, dir: &Directory) -> Result<()> {
    let config = dir.file("attached.cfg");
    std::fs::write(&config, "name = 'c'\nkernel = '/files/hello'\nmemory = 8\n")?;
    let said = host.well(&format!("create -c {config}"))?;
    ensure!(said.contains("main function") && said.contains("ok 1 "), "create -c showed {said:?}");
    ensure!(host.ask("domid c")?.0 == 1, "the domain outlived its own end");
    Ok(())
}

/// The shortest ends first, whatever was begun before it.
fn side_by_side(host: &Host<'_>) -> Result<()> {
    let scripts = ["console --until 'never said' --timeout 3 h", "sleep 1", "echo short"];
    let (sender, ended) = channel();
    std::thread::scope(|scope| {
        for script in scripts {
            let sender = sender.clone();
            scope.spawn(move || {
                // The receiver waits for all of them.
                let _ = sender.send((script, host.ask(script).map(|(status, _)| status)));
            });
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    drop(sender);
    let mut order = Vec::new();
    for (script, status) in ended {
        order.push((script, status?));
    }
    let [console, sleep, echo] = scripts;
    ensure!(order == [(echo, 0), (sleep, 0), (console, 1)], "side by side they ended as {order:?}");
    Ok(())
}

/// Cores of a PV guest and a PVH guest hold what the guest has in memory, each page at its place.
fn cores(host: &Host<'_>, dir: &Directory) -> Result<()> {
    let core = dir.file("core");
    host.well(&format!("dump-core h {core}"))?;
    let file = std::fs::read(&core)?;
    let pv = Core::read(&file)?;
    pv.is_pv()?;
    pv.has(PATTERN)?;
    // 8 MiB, but for what the hypervisor has of it.
    ensure!((2000..=2100).contains(&pv.pages()), "{} pages", pv.pages());

    let config = dir.file("contained.cfg");
    let text = "type = 'pvh'\nname = 'p'\nkernel = '/files/hello'\nmemory = 8\non_poweroff = 'preserve'\n";
    std::fs::write(&config, text)?;
    host.well(&format!(
        "create {config}; console --until 'main function' --timeout 30 p; dump-core p {core}; destroy p"
    ))?;
    let file = std::fs::read(&core)?;
    let pvh = Core::read(&file)?;
    pvh.is_pvh(1)?;
    pvh.has(PATTERN)?;
    ensure!((2050..=2100).contains(&pvh.pages()), "{} pages", pvh.pages());
    Ok(())
}

fn request<'a>(script: &'a str, may_save: &'a [String]) -> Request<'a> {
    Request { script, files: Vec::new(), notices: Notices::Hidden, input: false, may_save, deadline: None }
}

/// Asks dom0 as `xrs` does.
pub struct Host<'a> {
    /// The hub of dom0's line.
    pub hub: &'a Hub,
    /// When all of it must have ended.
    pub deadline: Instant,
}

impl Host<'_> {
    fn client(&self) -> Result<Client> {
        let client = Client::new(self.hub.connect()?)?;
        if !client.wait(self.deadline.saturating_duration_since(Instant::now()))? {
            bail!("dom0 does not answer");
        }
        Ok(client)
    }

    /// The status, and all that was said.
    fn ask(&self, script: &str) -> Result<(i32, String)> {
        let mut said = Vec::new();
        let status = self.each(script, &mut |_, bytes| said.extend_from_slice(bytes))?;
        Ok((status, String::from_utf8_lossy(&said).into_owned()))
    }

    /// The status, and what came on standard output and on standard error.
    pub fn apart(&self, script: &str) -> Result<(i32, String, String)> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = self.each(script, &mut |stream, bytes| match stream {
            Stream::Err => err.extend_from_slice(bytes),
            _ => out.extend_from_slice(bytes),
        })?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((status, text(out), text(err)))
    }

    fn each(&self, script: &str, take: &mut dyn FnMut(Stream, &[u8])) -> Result<i32> {
        let words = local::words(script);
        let request =
            Request { files: local::files(script)?, deadline: Some(self.deadline), ..request(script, &words) };
        let end = self.client()?.run(request, &mut |stream, bytes| {
            take(stream, bytes);
            Ok(())
        });
        match end.with_context(|| script.to_owned())? {
            End::Status(status) => Ok(status),
            End::Deadline => bail!("{script:?} did not end in time"),
        }
    }

    /// What a script says that must end well.
    pub fn well(&self, script: &str) -> Result<String> {
        match self.ask(script)? {
            (0, said) => Ok(said),
            (status, said) => bail!("{script:?} ended with status {status}: {said}"),
        }
    }
}

/// A direction of a line that is not perfect.
struct Spoiled<T> {
    inner: T,
    count: usize,
}

impl<T> Spoiled<T> {
    fn spoil(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.count += 1;
            if self.count.is_multiple_of(SPOILED) {
                *byte ^= 0x41;
            }
        }
    }
}

impl<T: Read> Read for Spoiled<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.spoil(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

impl<T: Write> Write for Spoiled<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut bytes = bytes.to_vec();
        self.spoil(&mut bytes);
        self.inner.write_all(&bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// A directory for the row's own files.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("xen-rs-asked-{}", workspace::unique()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Left behind, it would only take up room.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
