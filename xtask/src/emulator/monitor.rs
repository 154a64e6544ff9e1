//! QEMU's monitor: what a test does to a machine's devices while it runs, once some text has come.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

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
    socket: PathBuf,
    connection: Option<UnixStream>,
    /// What was looked at.
    from: usize,
}

impl<'a> Orders<'a> {
    /// All of them; `None` where there are none.
    pub fn new(orders: &'a [Order]) -> Option<Self> {
        if orders.is_empty() {
            return None;
        }
        // Several machines run at a time.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("xen-rs-monitor-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let socket = std::env::temp_dir().join(name);
        // One of an earlier run.
        let _ = std::fs::remove_file(&socket);
        Some(Self { left: orders.iter(), socket, connection: None, from: 0 })
    }

    /// Where the monitor is to be.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Gives those whose text has come; the text so far only grows.
    pub fn follow(&mut self, text: &str) -> Result<()> {
        while let Some(order) = self.left.as_slice().first() {
            let Some(at) = text.get(self.from..).and_then(|rest| rest.find(&order.after)) else {
                return Ok(());
            };
            self.from += at + order.after.len();
            self.left.next();
            self.say(&order.say)?;
        }
        Ok(())
    }

    fn say(&mut self, line: &str) -> Result<()> {
        if self.connection.is_none() {
            let connection = UnixStream::connect(&self.socket).context("QEMU's monitor")?;
            self.connection = Some(connection);
        }
        // It stays open: what is closed at once may not be read to its end.
        let connection = self.connection.as_mut().context("QEMU's monitor")?;
        Ok(connection.write_all(format!("{line}\n").as_bytes())?)
    }
}

impl Drop for Orders<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}
