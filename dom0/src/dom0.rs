//! The whole of dom0 as one value, and the loop that keeps it going.

use crate::archive::Archive;
use crate::backend::blk::Blk;
use crate::client;
use crate::disk::Disks;
use crate::saved::Saved;
use crate::service::consoled::Consoled;
use crate::service::control::Controld;
use crate::service::xenstored::Xenstored;
use crate::terminal::Terminal;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;
use guest_pv::mem::{Access, Frame};
use guest_pv::{events, grants};
use toolstack::calls::DomainInfo;
use toolstack::domains::Domains;
use toolstack::images::Images;
use toolstack::lifecycle;
use xen_abi::errno::Errno;
use xen_abi::hypercall::VIRQ_DOM_EXC;
use xen_abi::ids::{DomId, GrantRef, Port};
use xenstore::NO_TRANSACTION;

/// Ports that are served before everything else has its turn.
const BATCH: usize = 64;

/// Unpacked kernels may take this part of the memory: of 256 MiB what Debian's largest kernel needs, once.
const IMAGES_SHARE: usize = 3;

/// So may files that are made here.
const SAVED_SHARE: usize = 4;

/// What stands behind an event channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Something was typed.
    Terminal,
    /// The host says something.
    Control,
    /// Some domain ended.
    DomainEnded,
    /// A guest's xenstore ring.
    Store(DomId),
    /// A guest's console ring.
    Console(DomId),
}

/// dom0.
#[derive(Debug)]
pub struct Dom0 {
    pub files: Archive,
    pub terminal: Terminal,
    pub xenstored: Xenstored,
    pub consoled: Consoled,
    pub blk: Blk,
    pub control: Controld,
    pub domains: Domains,
    pub images: Images,
    /// What was saved here.
    pub saved: Saved,
    sources: BTreeMap<Port, Source>,
    /// Some domain ended, and that was not looked at yet.
    ended: bool,
    /// It is being looked at: what that does may wait in turn.
    reacting: bool,
    /// Lines for the user, while a line is being edited.
    notices: Option<Vec<String>>,
}

impl Dom0 {
    /// Starts the services.
    pub fn new(files: Archive) -> Result<Self, Errno> {
        // First of all: while it waits for the disks nobody else's events are looked at.
        let disks = Disks::probe();
        let terminal = Terminal::open()?;
        let domain_ended = events::bind_virq(VIRQ_DOM_EXC)?;
        let control = Controld::open();
        let mut sources = BTreeMap::from([(terminal.port(), Source::Terminal), (domain_ended, Source::DomainEnded)]);
        sources.extend(control.port().map(|port| (port, Source::Control)));
        let memory = usize::try_from(guest_pv::mem::nr_frames() * guest_pv::mem::PAGE_SIZE).unwrap_or(0);
        let mut dom0 = Self {
            files,
            terminal,
            xenstored: Xenstored::default(),
            consoled: Consoled::default(),
            blk: Blk::default(),
            control,
            domains: Domains::default(),
            images: Images::new(memory / IMAGES_SHARE),
            saved: Saved::new(memory / SAVED_SHARE),
            sources,
            ended: false,
            reacting: false,
            notices: None,
        };
        // What xen-init-dom0 writes.
        let entries = [
            ("/local/domain/0/domid", "0"),
            ("/local/domain/0/name", "Domain-0"),
            // Here they are from the start, so that a domain that came and went leaves nothing behind.
            ("/local/domain/0/backend/console", ""),
            ("/local/domain/0/backend/vbd", ""),
            ("/local/domain/0/error/backend/vbd", ""),
            ("/vm", ""),
            ("/libxl", ""),
        ];
        for (path, value) in entries {
            dom0.xenstored.store.write(DomId(0), NO_TRANSACTION, path.as_bytes(), value.as_bytes())?;
        }
        warm_up(&disks);
        dom0.blk = Blk::start(disks, &mut dom0.xenstored.store)?;
        Ok(dom0)
    }

    /// Remembers what a port stands for.
    pub fn route_store(&mut self, port: Port, dom: DomId) {
        self.sources.insert(port, Source::Store(dom));
    }

    /// Remembers what a port stands for.
    pub fn route_console(&mut self, port: Port, dom: DomId) {
        self.sources.insert(port, Source::Console(dom));
    }

    /// The port is closed.
    pub fn unroute(&mut self, port: Option<Port>) {
        if let Some(port) = port {
            self.sources.remove(&port);
        }
    }

    /// How many event channels are in use.
    pub fn ports(&self) -> usize {
        self.sources.len() + self.blk.ports()
    }

    /// Serves whoever wants something; when nobody does, sleeps until somebody does, or until `deadline`. Returns after
    /// the first round of either, so that the caller can look for what it waits for.
    pub fn pump(&mut self, deadline: Option<u64>) {
        if self.has_news() && self.serve() {
            return;
        }
        let clocks = [deadline, self.consoled.deadline(), self.control.deadline(), self.blk.deadline()];
        let deadline = clocks.into_iter().flatten().min();
        events::wait_on(deadline);
        self.serve();
    }

    /// Whether there may be something to do that neither an event nor a clock tells of.
    fn has_news(&self) -> bool {
        self.xenstored.has_news() || self.blk.has_news() || self.control.is_open() || self.ended && !self.reacting
    }

    /// One round; whether there was anything to do.
    fn serve(&mut self) -> bool {
        let mut any = false;
        for _ in 0..BATCH {
            let Some(port) = events::poll() else {
                break;
            };
            any = true;
            match self.sources.get(&port) {
                Some(Source::Terminal) => self.terminal.fetch(),
                Some(Source::Control) => {
                    for key in self.control.serve() {
                        self.control.begin(key, client::fiber(key));
                    }
                }
                Some(Source::DomainEnded) => self.ended = true,
                Some(&Source::Store(dom)) => self.xenstored.serve(dom),
                Some(&Source::Console(dom)) => self.consoled.serve(dom),
                None => {
                    self.blk.event(port);
                }
            }
        }
        self.consoled.catch_up();
        any |= self.xenstored.catch_up();
        any |= self.serve_devices();
        if self.ended && !self.reacting {
            self.ended = false;
            self.reacting = true;
            self.look_after_domains();
            self.reacting = false;
            any = true;
        }
        self.go_on_with_requests();
        any
    }

    /// Resumes what the host asked for, and sends what came of it.
    fn go_on_with_requests(&mut self) {
        for key in self.control.working() {
            // None: it is the one that runs.
            if let Some(mut fiber) = self.control.take_fiber(key) {
                let state = fiber.resume(self);
                self.control.put_fiber(key, fiber, state);
            }
        }
        let domains = &self.domains;
        self.control.catch_up(|file| domains.uses(file));
    }

    /// Lets the back ends see what has changed in xenstore, and go on; whether there is more to do at once.
    pub fn serve_devices(&mut self) -> bool {
        for (path, token) in self.xenstored.store.take_events(DomId(0)) {
            self.blk.changed(&path, &token);
        }
        let any = self.blk.serve(&mut self.xenstored.store);
        // What the back ends wrote is news for the guests.
        any | self.xenstored.catch_up()
    }

    /// Some domain shut down or is gone.
    fn look_after_domains(&mut self) {
        self.xenstored.store.domain_ended();
        let Ok(now) = toolstack::cmd::all_domains(self) else {
            return;
        };
        // As long as anything of a domain is mapped here, the hypervisor cannot let go of it.
        let served: Vec<DomId> = {
            let services = self.xenstored.domains().chain(self.consoled.domains());
            services.chain(self.blk.domains()).collect()
        };
        for dom in served {
            let lives = now.iter().any(|info| info.id == dom && !info.is(DomainInfo::DYING));
            if !lives {
                self.stop_serving(dom);
            }
        }
        for line in lifecycle::react(self) {
            self.notice(line);
        }
    }

    fn stop_serving(&mut self, dom: DomId) {
        self.blk.domain_gone(dom);
        let port = self.consoled.detach(dom);
        self.unroute(port);
        let port = self.xenstored.release(dom);
        self.unroute(port);
    }

    /// Tells the user something that it did not ask for.
    fn notice(&mut self, line: String) {
        self.control.notice(&line);
        match &mut self.notices {
            Some(notices) => notices.push(line),
            None => self.print_line(&line),
        }
    }

    fn print_line(&mut self, line: &str) {
        self.terminal.end_line();
        self.terminal.write(line.as_bytes());
        self.terminal.write(b"\n");
    }

    /// From now on, keeps notices until they are asked for.
    pub fn hold_notices(&mut self) {
        self.notices = Some(Vec::new());
    }

    /// Are there any?
    pub fn has_notices(&self) -> bool {
        self.notices.as_ref().is_some_and(|notices| !notices.is_empty())
    }

    /// Prints the notices so far, and goes on keeping them.
    pub fn show_notices(&mut self) {
        for line in self.notices.as_mut().map(mem::take).unwrap_or_default() {
            self.print_line(&line);
        }
    }

    /// Prints notices at once again.
    pub fn release_notices(&mut self) {
        for line in self.notices.take().unwrap_or_default() {
            self.notice(line);
        }
    }
}

/// Maps pages of our own for a moment, as many times as a guest's disk may have pages mapped at once. The hypervisor
/// allocates pages for the list of dom0's mappings as it grows; those belong to dom0's start and not to the first guest,
/// whose end does not give them back.
fn warm_up(disks: &Disks) {
    /// One grant can be mapped 255 times.
    const TIMES: usize = 128;
    let pages = if disks.list().is_empty() { 1 } else { crate::backend::MAPPED.div_ceil(TIMES) };
    let times = if disks.list().is_empty() { 1 } else { TIMES };
    let granted: Vec<(Frame, GrantRef)> = (0..pages)
        .filter_map(|_| {
            let page = Frame::zeroed()?;
            let reference = grants::grant(DomId(0), page.mfn(), Access::ReadWrite).ok()?;
            Some((page, reference))
        })
        .collect();
    let all: Vec<GrantRef> =
        granted.iter().flat_map(|(_, reference)| core::iter::repeat_n(*reference, times)).collect();
    drop(grants::map(DomId(0), &all, Access::ReadWrite));
    for (page, reference) in granted {
        if grants::revoke(reference).is_err() {
            // It is still mapped, for whatever reason: then nobody else may get the page.
            mem::forget(page);
        }
    }
}
