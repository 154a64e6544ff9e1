//! How the two ends come together: the nodes that each writes into xenstore, and what the back end does when the front
//! end's state changes. Node names are those of `io/blkif.h` and of Linux's xen-blkback.

use super::back::Disk;
use super::wire::Layout;
use crate::xenbus::State;
use arrayvec::ArrayVec;
use core::fmt;
use xen_abi::ids::{GrantRef, Port};

/// The largest ring, as an order of pages (`max-ring-page-order`).
pub const MAX_ORDER: u32 = 4;
/// The most queues of one device (`multi-queue-max-queues`).
pub const MAX_QUEUES: usize = 4;

/// Either end keeps grants.
pub const PERSISTENT: &str = "feature-persistent";

/// What the back end can do, written before the front end looks: names and values.
pub fn features(disk: &Disk, queues: u32) -> impl Iterator<Item = (&'static str, u64)> {
    let flag = u64::from;
    [
        ("feature-flush-cache", flag(disk.flush)),
        ("feature-barrier", flag(disk.flush)),
        (PERSISTENT, 1),
        ("feature-discard", flag(disk.discard)),
        ("discard-granularity", u64::from(disk.sector_size)),
        ("discard-alignment", 0),
        ("feature-max-indirect-segments", u64::from(disk.indirect)),
        ("max-ring-page-order", u64::from(MAX_ORDER)),
        ("multi-queue-max-queues", u64::from(queues)),
    ]
    .into_iter()
    .filter(|(name, _)| disk.discard || !name.starts_with("discard-"))
}

/// What the disk is, written when both ends are connected.
pub fn geometry(disk: &Disk, physical_sector_size: u32, info: u32) -> [(&'static str, u64); 4] {
    [
        ("sectors", disk.sectors),
        ("info", u64::from(info)),
        ("sector-size", u64::from(disk.sector_size)),
        ("physical-sector-size", u64::from(physical_sector_size)),
    ]
}

/// One queue, as the front end made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueNodes {
    /// Its event channel.
    pub port: Port,
    /// Pages of its ring, in order.
    pub ring: ArrayVec<GrantRef, { 1 << MAX_ORDER }>,
}

/// A device, as the front end made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// How its requests are laid out.
    pub layout: Layout,
    /// It keeps its grants.
    pub persistent: bool,
    /// Its queues.
    pub queues: ArrayVec<QueueNodes, MAX_QUEUES>,
}

/// What is wrong with a front end's nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The layout of its requests is none that we know.
    Protocol,
    /// It has more queues than offered, or none.
    Queues,
    /// Its rings are larger than offered.
    Order,
    /// A queue lacks its ring or its event channel, or they are no numbers.
    Queue(usize),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol => f.write_str("unknown fe protocol"),
            Self::Queues => f.write_str("guest requested an impossible number of queues"),
            Self::Order => f.write_str("guest requested a ring that is too large"),
            Self::Queue(index) => write!(f, "queue {index}: no ring-ref or event-channel"),
        }
    }
}

fn number(value: &[u8]) -> Option<u32> {
    core::str::from_utf8(value).ok()?.parse().ok()
}

/// A short text: names of nodes are made in it.
struct Name(ArrayVec<u8, 40>);

impl fmt::Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.try_extend_from_slice(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// Reads a front end's nodes. `read` gives the value of a node below the front end's directory.
///
/// # Errors
/// What is wrong with them.
pub fn frontend<V: AsRef<[u8]>>(mut read: impl FnMut(&str) -> Option<V>, queues: usize) -> Result<Frontend, Unfit> {
    let layout = match read("protocol") {
        None => Layout::default(),
        Some(protocol) => Layout::named(protocol.as_ref()).ok_or(Unfit::Protocol)?,
    };
    let mut get = |path: fmt::Arguments<'_>| -> Option<u32> {
        let mut name = Name(ArrayVec::new());
        fmt::Write::write_fmt(&mut name, path).ok()?;
        number(read(core::str::from_utf8(&name.0).ok()?)?.as_ref())
    };
    let persistent = get(format_args!("{PERSISTENT}")) == Some(1);
    let wanted = get(format_args!("multi-queue-num-queues")).map_or(Ok(1), usize::try_from).unwrap_or(0);
    if wanted == 0 || wanted > queues.min(MAX_QUEUES) {
        return Err(Unfit::Queues);
    }
    let order = get(format_args!("ring-page-order"));
    if order.is_some_and(|order| order > MAX_ORDER) {
        return Err(Unfit::Order);
    }
    let mut all = ArrayVec::new();
    for queue in 0..wanted {
        let prefix = if wanted == 1 { format_args!("") } else { format_args!("queue-{queue}/") };
        let missing = Unfit::Queue(queue);
        let port = Port(get(format_args!("{prefix}event-channel")).ok_or(missing)?);
        let mut ring = ArrayVec::new();
        match order {
            None => ring.push(GrantRef(get(format_args!("{prefix}ring-ref")).ok_or(missing)?)),
            Some(order) => {
                for page in 0..1u32 << order {
                    // A front end with one page may name it in either way.
                    let numbered = get(format_args!("{prefix}ring-ref{page}"));
                    let reference = match numbered {
                        None if order == 0 => get(format_args!("{prefix}ring-ref")),
                        some => some,
                    };
                    ring.push(GrantRef(reference.ok_or(missing)?));
                }
            }
        }
        all.push(QueueNodes { port, ring });
    }
    Ok(Frontend { layout, persistent, queues: all })
}

/// What the back end has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Write the features and go to [`State::InitWait`].
    Offer,
    /// Read the front end's nodes, map its rings, and go to [`State::Connected`].
    Connect,
    /// Go to [`State::Closing`].
    Close,
    /// Let go of the rings and go to [`State::Closed`].
    Disconnect,
    /// The same, and the device is not to come back.
    Remove,
}

/// What to do about a front end's state, given our own, and whether the device is to stay (`online`).
#[must_use]
pub const fn step(own: State, front: State, online: bool) -> Step {
    match front {
        State::Initialising => match own {
            State::Closed | State::Unknown | State::Initialising if online => Step::Offer,
            // It starts over without having said goodbye, or never came.
            State::Connected | State::Closing => Step::Disconnect,
            _ => Step::Stay,
        },
        State::Initialised | State::Connected => match own {
            State::InitWait | State::Initialised => Step::Connect,
            _ => Step::Stay,
        },
        State::Closing => match own {
            State::Closing | State::Closed => Step::Stay,
            _ => Step::Close,
        },
        State::Closed if !online => Step::Remove,
        State::Closed => match own {
            State::Closed => Step::Stay,
            _ => Step::Disconnect,
        },
        State::Unknown => Step::Remove,
        State::InitWait | State::Reconfiguring | State::Reconfigured => Step::Stay,
    }
}
