//! The console service: keeps what guests print, and types to them.

use super::Link;
use super::log::Log;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use guest_pv::{println, time};
use ring_protocol::console::Host;
use xen_abi::errno::Errno;
use xen_abi::grant_table::GNTTAB_RESERVED_CONSOLE;
use xen_abi::ids::{DomId, Mfn, Port};

/// Keys that wait for a guest to take them.
const TYPED: usize = 4096;
/// Logs of domains that are gone: their last words.
const GONE: usize = 4;
/// A guest may print so many bytes ...
const ALLOWANCE: usize = 1 << 20;
/// ... in so many nanoseconds. Then its ring is left full for a while, and it waits.
const PERIOD: u64 = 100_000_000;

/// All guests' consoles.
#[derive(Debug, Default)]
pub struct Consoled {
    live: BTreeMap<DomId, Console>,
    /// Those who have printed too much and have to wait.
    held: BTreeSet<DomId>,
    gone: VecDeque<(DomId, Log)>,
}

#[derive(Debug)]
struct Console {
    link: Link,
    ring: Host,
    log: Log,
    typed: VecDeque<u8>,
    /// The period of the allowance began then, and so much of it is used up.
    since: u64,
    used: usize,
    /// The guest broke the protocol.
    broken: bool,
}

impl Consoled {
    /// Begins to serve a guest.
    pub fn attach(&mut self, dom: DomId, frame: Mfn, port: Port) -> Result<Port, Errno> {
        self.gone.retain(|&(gone, _)| gone != dom);
        self.live.remove(&dom);
        let link = Link::new(dom, GNTTAB_RESERVED_CONSOLE, frame, port)?;
        let ring = Host::attach(&*link.page).map_err(|_| Errno::EINVAL)?;
        let port = link.port;
        let (log, typed) = (Log::default(), VecDeque::new());
        self.live.insert(dom, Console { link, ring, log, typed, since: 0, used: 0, broken: false });
        Ok(port)
    }

    /// Stops serving a guest; gives its port. Its last words are kept for a while.
    pub fn detach(&mut self, dom: DomId) -> Option<Port> {
        let mut console = self.live.remove(&dom)?;
        self.held.remove(&dom);
        console.used = 0;
        console.exchange(dom);
        let Console { link, log, .. } = console;
        self.gone.push_back((dom, log));
        if self.gone.len() > GONE {
            self.gone.pop_front();
        }
        Some(link.port)
    }

    /// All guests that are served.
    pub fn domains(&self) -> impl Iterator<Item = DomId> {
        self.live.keys().copied()
    }

    /// Is the guest served?
    pub fn is_live(&self, dom: DomId) -> bool {
        self.live.contains_key(&dom)
    }

    /// What a guest printed, also one that is gone.
    pub fn log(&mut self, dom: DomId) -> Option<&mut Log> {
        match self.live.get_mut(&dom) {
            Some(console) => Some(&mut console.log),
            None => self.gone.iter_mut().rev().find(|(gone, _)| *gone == dom).map(|(_, log)| log),
        }
    }

    /// How many keys a guest can be given.
    pub fn room(&self, dom: DomId) -> usize {
        self.live.get(&dom).map_or(0, |console| TYPED.saturating_sub(console.typed.len()))
    }

    /// Types to a guest.
    pub fn type_in(&mut self, dom: DomId, keys: &[u8]) {
        if let Some(console) = self.live.get_mut(&dom) {
            console.typed.extend(keys);
            self.serve(dom);
        }
    }

    /// Serves a guest whose event came.
    pub fn serve(&mut self, dom: DomId) {
        let Some(console) = self.live.get_mut(&dom) else {
            return;
        };
        console.exchange(dom);
        if console.is_held() {
            self.held.insert(dom);
        } else {
            self.held.remove(&dom);
        }
    }

    /// Goes on with those who have printed too much before.
    pub fn catch_up(&mut self) {
        if self.held.is_empty() {
            return;
        }
        for dom in core::mem::take(&mut self.held) {
            self.serve(dom);
        }
    }

    /// When somebody who has to wait may go on.
    pub fn deadline(&self) -> Option<u64> {
        self.held.iter().filter_map(|dom| Some(self.live.get(dom)?.since + PERIOD)).min()
    }
}

impl Console {
    fn is_held(&self) -> bool {
        self.used >= ALLOWANCE
    }

    /// Moves bytes both ways.
    fn exchange(&mut self, dom: DomId) {
        if self.broken {
            return;
        }
        let now = time::now();
        if now.saturating_sub(self.since) >= PERIOD {
            (self.since, self.used) = (now, 0);
        }
        let page = &*self.link.page;
        let mut buffer = [0; 2048];
        let mut moved = false;
        let result = loop {
            let count = if self.used < ALLOWANCE { self.ring.read(page, &mut buffer) } else { Ok(0) };
            let sent = self.ring.write(page, self.typed.make_contiguous());
            let (count, sent) = match (count, sent) {
                (Ok(count), Ok(sent)) => (count, sent),
                (Err(fault), _) | (_, Err(fault)) => break Err(fault),
            };
            let (bytes, _) = buffer.split_at(count);
            self.log.add(bytes);
            self.used += count;
            self.typed.drain(..sent);
            if count == 0 && sent == 0 {
                break Ok(());
            }
            moved = true;
        };
        if let Err(fault) = result {
            println!("console: domain {dom}: {fault}");
            self.broken = true;
        }
        if moved {
            self.link.notify();
        }
    }
}
