//! A program's connection to a hub, and a request over it.

use crate::hub::{self, FromHub};
use crate::local::Sent;
use anyhow::{Context, Result, bail};
use control_protocol::message::{CREDIT, MAX_NAME, MAX_PIECE, Message, Notices, Part, Stream, ToDom0, ToHost, VERSION};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// The only request of a connection.
const ID: u32 = 0;

enum News {
    Hub(FromHub),
    HubGone,
    Keys(Vec<u8>),
    KeysEnd,
}

/// A connection to a hub.
pub struct Client {
    stream: UnixStream,
    news: Receiver<News>,
    sender: Sender<News>,
}

/// What is asked of dom0.
pub struct Request<'a> {
    /// Commands for its shell.
    pub script: &'a str,
    /// Files that they need.
    pub files: Vec<Sent>,
    /// Whether lines that the commands did not cause are wanted.
    pub notices: Notices,
    /// Whether standard input goes to it.
    pub input: bool,
    /// Files that it may write here.
    pub may_save: &'a [String],
    /// How long it may take.
    pub deadline: Option<Instant>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a status.
    Status(i32),
    /// The deadline passed.
    Deadline,
}

impl Client {
    /// Connects to a hub's socket.
    ///
    /// # Errors
    /// Nobody answers there.
    pub fn open(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).with_context(|| {
            format!("no host at {} (`cargo xtask run` starts one; `--connect` names another)", path.display())
        })?;
        Self::new(stream)
    }

    /// Takes a connection.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let (sender, news) = channel();
        let mut from = stream.try_clone()?;
        let to = sender.clone();
        std::thread::spawn(move || {
            hub::read(&mut from, |message| to.send(News::Hub(message)).is_ok());
            // The client may have ended before the hub did.
            let _ = to.send(News::HubGone);
        });
        Ok(Self { stream, news, sender })
    }

    fn next(&self, deadline: Option<Instant>) -> Result<Option<News>> {
        let news = match deadline {
            None => self.news.recv().ok(),
            Some(deadline) => match self.news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(news) => Some(news),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => None,
            },
        };
        match news {
            None | Some(News::HubGone) => bail!("the hub has ended"),
            Some(News::Hub(FromHub::Lost(why))) => bail!("{why}"),
            Some(News::Hub(FromHub::Greeting { version })) if version != VERSION => {
                bail!("the hub speaks version {version} of the control protocol, this program version {VERSION}")
            }
            Some(news) => Ok(Some(news)),
        }
    }

    /// Waits until dom0 answers; false when it does not in time.
    ///
    /// # Errors
    /// It cannot be talked to.
    pub fn wait(&self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            match self.next(Some(deadline))? {
                None => return Ok(false),
                Some(News::Hub(FromHub::Up)) => return Ok(true),
                Some(_) => {}
            }
        }
    }

    fn tell(&mut self, body: ToDom0) -> Result<()> {
        hub::write(&mut self.stream, &Message { id: ID, body }).context("the hub does not listen")
    }

    /// Asks for something, and does with the answer what `out` says.
    ///
    /// # Errors
    /// The connection broke, or dom0 could not begin.
    pub fn run(&mut self, request: Request<'_>, out: &mut dyn FnMut(Stream, &[u8]) -> Result<()>) -> Result<End> {
        let mut running = Running { client: self, credit: CREDIT, unread: 0, saving: None, end: None };
        running.client.tell(ToDom0::Start(request.notices))?;
        let script = (Part::Script, request.script.as_bytes());
        let files = request.files.iter().map(|(name, content)| (Part::File(name.clone()), content.as_slice()));
        for (part, content) in std::iter::once(script).chain(files) {
            if let Part::File(name) = &part
                && name.len() > MAX_NAME
            {
                bail!("the name {name} is too long");
            }
            running.client.tell(ToDom0::Part { part, size: content.len() as u64 })?;
            for bytes in content.chunks(MAX_PIECE) {
                while running.credit < CREDIT / 4 && running.end.is_none() {
                    running.step(&request, out)?;
                }
                running.credit -= u32::try_from(bytes.len())?;
                running.client.tell(ToDom0::Bytes(bytes.to_vec()))?;
            }
        }
        running.client.tell(ToDom0::Run)?;
        if request.input {
            type_in(running.client.sender.clone());
        }
        loop {
            if let Some(end) = running.end {
                running.close(end == End::Status(0))?;
                return Ok(end);
            }
            running.step(&request, out)?;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The thread that reads has the connection, too. It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

struct Running<'a> {
    client: &'a mut Client,
    /// Bytes that may be sent.
    credit: u32,
    /// Bytes that came and that dom0 was not told to have been read.
    unread: u32,
    saving: Option<(PathBuf, File)>,
    end: Option<End>,
}

impl Running<'_> {
    /// Deals with the next thing that happens.
    fn step(&mut self, request: &Request<'_>, out: &mut dyn FnMut(Stream, &[u8]) -> Result<()>) -> Result<()> {
        match self.client.next(request.deadline)? {
            None => self.end = Some(End::Deadline),
            // Keys are few: what is typed faster than dom0 takes it waits here in the hub, within its patience.
            Some(News::Keys(bytes)) => {
                for bytes in bytes.chunks(MAX_PIECE) {
                    self.client.tell(ToDom0::Input(bytes.to_vec()))?;
                }
            }
            Some(News::KeysEnd) => self.client.tell(ToDom0::InputEnd)?,
            Some(News::Hub(FromHub::Dom0(message))) => self.take(message.body, request, out)?,
            Some(News::Hub(_) | News::HubGone) => {}
        }
        Ok(())
    }

    fn take(
        &mut self,
        message: ToHost,
        request: &Request<'_>,
        out: &mut dyn FnMut(Stream, &[u8]) -> Result<()>,
    ) -> Result<()> {
        match message {
            ToHost::Output { stream, bytes } => {
                match (stream, &mut self.saving) {
                    (Stream::File, Some((path, file))) => {
                        file.write_all(&bytes).with_context(|| path.display().to_string())?;
                    }
                    (Stream::File, None) => bail!("dom0 sends a file without a name"),
                    (stream, _) => out(stream, &bytes)?,
                }
                self.unread += u32::try_from(bytes.len())?;
                if self.unread >= CREDIT / 4 {
                    let count = std::mem::take(&mut self.unread);
                    self.client.tell(ToDom0::More(count))?;
                }
            }
            ToHost::Zeros(count) => match &mut self.saving {
                // A hole, where the file system knows such.
                Some((path, file)) => {
                    let end = file.stream_position()?.saturating_add(count);
                    file.set_len(end).with_context(|| path.display().to_string())?;
                    file.seek(SeekFrom::Start(end))?;
                }
                None => bail!("dom0 sends a file without a name"),
            },
            ToHost::Save(name) => {
                if !request.may_save.contains(&name) {
                    bail!("dom0 wants to write a file that it was not asked to: {name}");
                }
                self.close(true)?;
                let file = File::create(&name).with_context(|| name.clone())?;
                self.saving = Some((name.into(), file));
            }
            ToHost::More(count) => self.credit = self.credit.saturating_add(count),
            ToHost::Done(status) => self.end = Some(End::Status(status)),
            ToHost::Failed(why) => bail!("dom0: {why}"),
        }
        Ok(())
    }

    /// Ends the file that is being saved; half a one is of no use.
    fn close(&mut self, whole: bool) -> Result<()> {
        if let Some((path, file)) = self.saving.take() {
            file.sync_all().or_else(|error| if whole { Err(error) } else { Ok(()) })?;
            if !whole {
                std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }
}

fn type_in(to: Sender<News>) {
    // Not joined: it waits for a key that may never come, and ends with the program.
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
            let keys = buffer.get(..count).unwrap_or_default().to_vec();
            if to.send(News::Keys(keys)).is_err() {
                return;
            }
        }
        // As above.
        let _ = to.send(News::KeysEnd);
    });
}
