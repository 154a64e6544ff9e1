//! What the commands ask of the program they run in, besides the hypervisor: xenstore, consoles, files, a terminal, time.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Mfn, Port};

use crate::calls::XenCalls;
use crate::domains::Domains;
use crate::images::Images;

/// What a domain may do with a xenstore node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    None,
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Both.
    Both,
}

/// One entry of a node's permissions. The first names the owner, and what all others may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    /// The domain.
    pub dom: DomId,
    /// What it may do.
    pub access: Access,
}

/// A node of a tree: its path below the tree's root (empty for the root), its value, and its permissions where they are
/// not those of the node above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed<'a> {
    /// Where.
    pub path: Cow<'a, str>,
    /// What it says.
    pub value: Cow<'a, str>,
    /// Who may touch it.
    pub permissions: Option<&'a [Permission]>,
}

/// Xenstore, with dom0's rights. Parents are made as needed and inherit permissions, as over the wire.
#[allow(clippy::missing_errors_doc, reason = "xenstore's errors are passed on as they are")]
pub trait Store {
    /// A node's value.
    fn store_read(&mut self, path: &str) -> Result<Vec<u8>, Errno>;
    /// Writes a node, making it where it does not exist.
    fn store_write(&mut self, path: &str, value: &[u8]) -> Result<(), Errno>;
    /// Makes an empty node where there is none.
    fn store_mkdir(&mut self, path: &str) -> Result<(), Errno>;
    /// Removes a node and all below it. `ENOENT` where there is none.
    fn store_rm(&mut self, path: &str) -> Result<(), Errno>;
    /// Names of the children.
    fn store_list(&mut self, path: &str) -> Result<Vec<String>, Errno>;
    /// Sets a node's permissions.
    fn store_set_permissions(&mut self, path: &str, permissions: &[Permission]) -> Result<(), Errno>;
    /// Puts a tree in the place of the node at `path` and all below it.
    fn store_plant(&mut self, path: &str, seeds: &[Seed<'_>]) -> Result<(), Errno> {
        match self.store_rm(path) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        for seed in seeds {
            let path = if seed.path.is_empty() { path.into() } else { format!("{path}/{}", seed.path) };
            self.store_write(&path, seed.value.as_bytes())?;
            if let Some(permissions) = seed.permissions {
                self.store_set_permissions(&path, permissions)?;
            }
        }
        Ok(())
    }
    /// Of each child of a node its name, and the value of the child's own child `key`; those without one are left out.
    fn store_each_child(&mut self, path: &str, key: &str) -> Result<Vec<(String, Vec<u8>)>, Errno> {
        let mut all = Vec::new();
        for child in self.store_list(path)? {
            if let Ok(value) = self.store_read(&format!("{path}/{child}/{key}")) {
                all.push((child, value));
            }
        }
        Ok(all)
    }
    /// Starts serving a domain over its ring (XS_INTRODUCE).
    fn store_introduce(&mut self, dom: DomId, frame: Mfn, port: Port) -> Result<(), Errno>;
    /// Stops serving it (XS_RELEASE). A domain that was never introduced is no error.
    fn store_release(&mut self, dom: DomId);
}

/// How a `console` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleEnd {
    /// The user left it.
    Detached,
    /// The text appeared.
    Found,
    /// Time was up.
    TimedOut,
    /// The domain is gone.
    Gone,
}

/// The console service.
#[allow(clippy::missing_errors_doc, reason = "the service's errors are passed on as they are")]
pub trait Consoles {
    /// Starts serving a domain's console ring.
    fn console_attach(&mut self, dom: DomId, frame: Mfn, port: Port) -> Result<(), Errno>;
    /// Stops serving it; what it printed may be forgotten.
    fn console_detach(&mut self, dom: DomId);
    /// Connects the terminal with a domain's console until the user presses Ctrl-].
    fn console_interact(&mut self, dom: DomId) -> Result<ConsoleEnd, Errno>;
    /// Prints a domain's console until `text` appears, or for so many nanoseconds. What was printed before counts.
    fn console_until(&mut self, dom: DomId, text: &str, timeout: Option<u64>) -> Result<ConsoleEnd, Errno>;
}

/// How the machine is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerAction {
    /// Off.
    Off,
    /// And on again.
    Reboot,
}

/// What `info` says about the system that runs the toolstack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uname {
    /// Its name.
    pub host: String,
    /// Its version.
    pub release: String,
    /// Which build of it.
    pub version: String,
    /// For which machine.
    pub machine: String,
}

/// All that the commands need.
pub trait Host: XenCalls + Store + Consoles {
    /// A file's contents.
    ///
    /// # Errors
    /// `ENOENT` and the like.
    fn file(&mut self, path: &str) -> Result<Cow<'static, [u8]>, Errno>;
    /// Makes a file a volume that a disk's back end finds by its path. Paths of other volumes are left alone.
    ///
    /// # Errors
    /// What is wrong with it.
    fn open_volume(&mut self, path: &str) -> Result<(), String> {
        let _ = path;
        Ok(())
    }
    /// Begins a file of the user's, at most one for each command.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where there is no place for files.
    fn save(&mut self, name: &str) -> Result<(), Errno> {
        let _ = name;
        Err(Errno::EOPNOTSUPP)
    }
    /// Adds to it; false when the user does not want it any more.
    fn save_bytes(&mut self, bytes: &[u8]) -> bool {
        let _ = bytes;
        false
    }
    /// How many bytes other than zeros such a file can have.
    fn room(&self) -> u64 {
        u64::MAX
    }
    /// Prints to the terminal; lines end with "\n".
    fn print(&mut self, text: &str);
    /// Prints what went wrong. Apart from the output where there are two streams.
    fn print_error(&mut self, text: &str);
    /// Random bytes.
    fn random(&mut self) -> [u8; 16];
    /// Nanoseconds since some fixed moment.
    fn now(&mut self) -> u64;
    /// Nanoseconds since 1970, by the wall clock.
    fn wall_clock(&mut self) -> u64;
    /// Lets the rest of the program run: services guests, waits for an event, but not past `deadline` (as [`Host::now`]
    /// counts). Returns false when the user asked to stop (Ctrl-C).
    fn wait(&mut self, deadline: u64) -> bool;
    /// The system that this is.
    fn uname(&mut self) -> Uname {
        Uname {
            host: String::from("dom0"),
            release: String::from(env!("CARGO_PKG_VERSION")),
            version: String::from("xen-rs dom0"),
            machine: String::from("x86_64"),
        }
    }
    /// What this program holds that a domain's life may not change: names and numbers, for `resources`.
    fn resources(&mut self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    /// Whether other programs may make domains beside this one. What this one knows of its own is enough to keep names
    /// apart when they do not, and then it takes no longer with many domains.
    fn is_alone(&self) -> bool {
        false
    }
    /// The domains this program made.
    fn domains(&mut self) -> &mut Domains;
    /// The kernels that were unpacked.
    fn images(&mut self) -> &mut Images;
    /// Ends the machine. Returns only where that failed.
    fn power(&mut self, action: PowerAction);
}
