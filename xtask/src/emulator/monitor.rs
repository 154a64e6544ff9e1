//! QEMU's monitor: what a test does to a machine's devices while it runs, once some text has come.

use crate::workspace;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the monitor may take for an answer to a question, and to a command, without which a row makes no sense.
const PATIENCE: Duration = Duration::from_secs(3);
const ORDERED: Duration = Duration::from_secs(60);
const PROMPT: &[u8] = b"(qemu) ";

/// A place for a machine's monitor, gone with this.
pub struct Socket(PathBuf);

impl Socket {
    /// One that no other machine has: several run at a time.
    pub fn new() -> Self {
        let socket = std::env::temp_dir().join(format!("xen-rs-monitor-{}", workspace::unique()));
        // One of an earlier run.
        let _ = std::fs::remove_file(&socket);
        Self(socket)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Somebody who asks.
pub struct Questions(UnixStream);

impl Questions {
    /// Of a machine that runs. Only one at a time is heard.
    pub fn begin(socket: &Path) -> Result<Self> {
        Self::patiently(socket, PATIENCE)
    }

    fn patiently(socket: &Path, patience: Duration) -> Result<Self> {
        let mut new = Self(UnixStream::connect(socket).context("QEMU's monitor")?);
        new.0.set_read_timeout(Some(patience))?;
        new.answer()?;
        Ok(new)
    }

    /// What it says to a command.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.0.write_all(format!("{line}\n").as_bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String> {
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        while !bytes.ends_with(PROMPT) {
            let count = self.0.read(&mut piece).context("QEMU's monitor does not answer")?;
            anyhow::ensure!(count > 0, "QEMU's monitor is gone");
            bytes.extend_from_slice(piece.get(..count).unwrap_or_default());
        }
        Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
    }
}

/// One command for the monitor.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The text after which it is given. Texts come in the order of the commands.
    pub after: String,
    /// The command.
    pub say: String,
}

/// The commands of a run that are still to be given.
pub struct Orders<'a> {
    left: std::slice::Iter<'a, Order>,
    socket: &'a Path,
    /// What was looked at.
    from: usize,
}

impl<'a> Orders<'a> {
    /// All of them; `None` where there are none.
    pub fn new(orders: &'a [Order], socket: &'a Path) -> Option<Self> {
        let left = orders.iter();
        (!orders.is_empty()).then_some(Self { left, socket, from: 0 })
    }

    /// Gives those whose text has come; the text so far only grows.
    pub fn follow(&mut self, text: &str) -> Result<()> {
        while let Some(order) = self.left.as_slice().first() {
            let Some(at) = text.get(self.from..).and_then(|rest| rest.find(&order.after)) else {
                return Ok(());
            };
            self.from += at + order.after.len();
            self.left.next();
            // The connection goes when the command is done: whoever asks later is not heard before.
            Questions::patiently(self.socket, ORDERED)?.ask(&order.say)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// As QEMU's: one at a time, and nobody else before that one is gone.
    fn monitor(listener: &UnixListener, commands: usize) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..commands {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"QEMU monitor\r\n(qemu) ").unwrap();
            let mut text = [0; 100];
            let count = stream.read(&mut text).unwrap();
            all.push(String::from_utf8_lossy(&text[..count]).trim().to_owned());
            stream.write_all(b"done\r\n(qemu) ").unwrap();
            assert_eq!(stream.read(&mut text).unwrap(), 0, "it is closed");
        }
        all
    }

    #[test]
    fn the_monitor_is_free_after_each_command() {
        let socket = Socket::new();
        let listener = UnixListener::bind(socket.path()).unwrap();
        let server = std::thread::spawn(move || monitor(&listener, 3));
        let order = |after: &str, say: &str| Order { after: after.into(), say: say.into() };
        let all = [order("one", "first"), order("\n", "second")];
        let mut orders = Orders::new(&all, socket.path()).unwrap();
        orders.follow("zero").unwrap();
        orders.follow("zero one\n").unwrap();
        assert_eq!(Questions::begin(socket.path()).unwrap().ask("third").unwrap(), "done\n(qemu) ");
        assert_eq!(server.join().unwrap(), ["first", "second", "third"]);
    }
}
