//! The line to dom0's serial port: a device, or the socket of an emulator.

use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// Both directions of a line.
pub struct Line {
    /// What dom0 says.
    pub from: Box<dyn Read + Send>,
    /// What is said to it.
    pub to: Box<dyn Write + Send>,
    /// What keeps other programs off.
    pub lock: Option<File>,
}

impl Line {
    /// A TCP connection.
    ///
    /// # Errors
    /// Those of the system.
    pub fn tcp(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { from: Box::new(stream.try_clone()?), to: Box::new(stream), lock: None })
    }

    /// A connection over a unix socket.
    ///
    /// # Errors
    /// Those of the system.
    pub fn unix(stream: UnixStream) -> Result<Self> {
        Ok(Self { from: Box::new(stream.try_clone()?), to: Box::new(stream), lock: None })
    }

    /// Opens `tcp:HOST:PORT`, `line:PATH` (a unix socket), or a serial device.
    ///
    /// # Errors
    /// It cannot be opened, or another program has it.
    pub fn open(address: &str) -> Result<Self> {
        if let Some(address) = address.strip_prefix("tcp:") {
            return Self::tcp(TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?);
        }
        if let Some(path) = address.strip_prefix("line:") {
            let lock = OpenOptions::new().create(true).append(true).open(format!("{path}.lock"))?;
            let lock = own(lock, path)?;
            let stream = UnixStream::connect(path).with_context(|| format!("cannot connect to {path}"))?;
            return Ok(Self { lock: Some(lock), ..Self::unix(stream)? });
        }
        let device = OpenOptions::new().read(true).write(true).open(address).with_context(|| address.to_owned())?;
        let device = own(device, address)?;
        let settings = ["raw", "-echo", "115200", "cs8", "-cstopb", "-parenb", "clocal", "-crtscts"];
        let stty = Command::new("stty").args(settings).stdin(Stdio::from(device.try_clone()?)).status();
        if !stty.context("cannot start stty")?.success() {
            bail!("{address} is no serial line");
        }
        Ok(Self { from: Box::new(device.try_clone()?), to: Box::new(device.try_clone()?), lock: Some(device) })
    }

    /// Whether an address means a line, and not the socket of a hub.
    #[must_use]
    pub fn is_line(address: &str) -> bool {
        let device = || std::fs::metadata(Path::new(address)).is_ok_and(|data| data.file_type().is_char_device());
        address.starts_with("tcp:") || address.starts_with("line:") || device()
    }
}

fn own(file: File, name: &str) -> Result<File> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another program has the line {name}; let it share: `xrs --connect {name} hub SOCKET`, then `xrs --connect SOCKET ..`"
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| name.to_owned()),
    }
}
