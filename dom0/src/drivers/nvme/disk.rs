//! A namespace of an NVMe controller.

use super::queue::{Command, Pair};
use super::{Controller, OF_NAMESPACE};
use crate::drivers::{Action, BRIEFLY, Done, Driver, Failure, Geometry, LANES, Request, SOON, UnderWay, queues};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use dom0_hal::dma::{Area, Page, Segment};
use dom0_hal::msi::Interrupt;
use guest_pv::mem::PAGE_BYTES;
use xen_abi::ids::Port;

/// Segments of one request: each may become a command of its own.
pub const SEGMENTS: usize = 32;

/// Bytes of a command's list of pages.
const LIST: usize = SEGMENTS * 8;

/// Commands.
const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const MANAGE: u8 = 0x09;

/// Numbers requests.
type Serial = u64;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    controller: Rc<Controller>,
    namespace: u32,
    lanes: Vec<Lane>,
    /// The events of the lanes' interrupts.
    ports: Vec<Port>,
    under_way: BTreeMap<Serial, Commands>,
    next: Serial,
    geometry: Geometry,
    /// Requests that the disk's queues have nothing to do with.
    looked: Vec<Done>,
    /// The controller's resets that we know of.
    resets: u32,
    /// How often namespaces had changed when this one was looked at.
    changes: u32,
}

/// A pair of queues and what is in them.
#[derive(Debug)]
struct Lane {
    queues: Pair,
    interrupt: Rc<Interrupt>,
    /// Each command's list of pages, which lies within a page.
    lists: Area,
    /// Of which request each command is.
    slots: Vec<Option<Serial>>,
    /// The numbers of those that are none.
    free: Vec<u16>,
    queued: bool,
}

/// A request, in as many commands as its memory takes.
#[derive(Debug)]
struct Commands {
    under_way: UnderWay,
    left: usize,
    failed: bool,
}

impl Disk {
    /// Starts a namespace.
    pub(super) fn start(controller: &Rc<Controller>, namespace: u32) -> Result<Self, String> {
        let page = Page::new().ok_or("no memory")?;
        controller.ask(&page, namespace, OF_NAMESPACE, SOON)?;
        let geometry = Geometry { discard: controller.discard.get(), ..geometry(&page)? };
        let mut lanes = Vec::from([Lane::new(controller)?]);
        // Where the controller has no more, there are enough.
        lanes.extend((1..LANES).map_while(|_| Lane::new(controller).ok()));
        let ports: BTreeSet<Port> = lanes.iter().map(|lane| lane.interrupt.port()).collect();
        Ok(Self {
            controller: controller.clone(),
            namespace,
            lanes,
            ports: ports.into_iter().collect(),
            under_way: BTreeMap::new(),
            next: 0,
            geometry,
            looked: Vec::new(),
            resets: controller.resets.get(),
            changes: controller.events.changes(),
        })
    }

    /// Its number, as Linux counts.
    pub fn namespace(&self) -> u32 {
        self.namespace
    }

    /// Asks the controller again how large it is; whether it is another size than before. Its sectors do not become others: one
    /// that says they did, or that it has none, is not usable.
    fn look(&mut self) -> bool {
        let Some(page) = Page::new().filter(|_| !self.is_dead()) else {
            return false;
        };
        if let Err(why) = self.controller.ask(&page, self.namespace, OF_NAMESPACE, BRIEFLY) {
            // It may have the page still.
            self.controller.reset(&why);
            return false;
        }
        let same = geometry(&page).ok().filter(|now| now.sector_size == self.geometry.sector_size);
        let before = self.geometry.sectors;
        self.geometry.sectors = same.map_or(0, |now| now.sectors);
        self.geometry.sectors != before
    }

    /// Runs of segments that one command can name: all but the first begin with their page, all but the last end with it.
    fn runs<'a>(&self, segments: &'a [Segment]) -> Vec<&'a [Segment]> {
        let page = PAGE_BYTES as u64;
        let joins = |a: &Segment, b: &Segment| {
            (a.machine_address() + a.len() as u64).is_multiple_of(page) && b.machine_address().is_multiple_of(page)
        };
        segments.chunk_by(joins).flat_map(|run| run.chunks(self.controller.pages.get())).collect()
    }

    fn transfer(&mut self, lane: usize, code: u8, serial: Serial, sector: u64, segments: &[Segment]) {
        let grain = u64::from(self.geometry.sector_size);
        let mut at = sector * 512 / grain;
        for run in self.runs(segments) {
            let blocks = run.iter().map(|segment| segment.len() as u64).sum::<u64>() / grain;
            let half = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0);
            let words = [half(at), half(at >> 32), half(blocks.saturating_sub(1))];
            let mut command = Command { code, namespace: self.namespace, prp: [0; 2], words };
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.command(serial, &mut command, run);
            }
            at += blocks;
        }
    }

    /// Ends all that was under way when the controller was reset.
    fn follow_reset(&mut self, why: Failure, done: &mut Vec<Done>) {
        let resets = self.controller.resets.get();
        if self.resets != resets {
            self.resets = resets;
            self.lanes.iter_mut().for_each(|lane| lane.queues.reset());
            self.give_up(why, done);
        }
    }

    fn give_up(&mut self, why: Failure, done: &mut Vec<Done>) {
        self.lanes.iter_mut().for_each(Lane::free_all);
        let all = core::mem::take(&mut self.under_way);
        done.extend(all.into_values().map(|commands| commands.under_way.done(Err(why))));
    }

    /// Takes what is done; whether the answers make sense.
    fn take(&mut self, done: &mut Vec<Done>) -> bool {
        for lane in &mut self.lanes {
            let mut any = false;
            while let Some((id, status)) = lane.queues.pop() {
                any = true;
                let Some(serial) = lane.slots.get_mut(usize::from(id)).and_then(Option::take) else {
                    return false;
                };
                lane.free.push(id);
                let Some(commands) = self.under_way.get_mut(&serial) else {
                    continue;
                };
                commands.failed |= status != 0;
                commands.left = commands.left.saturating_sub(1);
                if commands.left == 0 {
                    let result = if commands.failed { Err(Failure::Device) } else { Ok(()) };
                    done.push(commands.under_way.done(result));
                    self.under_way.remove(&serial);
                }
            }
            if any {
                self.controller.ring(&lane.queues, 1, lane.queues.head);
            }
            lane.interrupt.done();
        }
        true
    }
}

impl Lane {
    fn new(controller: &Controller) -> Result<Self, String> {
        let (queues, interrupt) = controller.add_queues()?;
        let slots = queues.slots();
        let pages = (slots * LIST).div_ceil(PAGE_BYTES).next_power_of_two();
        let lists = Area::new(pages.ilog2()).ok_or("no memory")?;
        let mut this = Self { queues, interrupt, lists, slots: vec![None; slots], free: Vec::new(), queued: false };
        this.free_all();
        Ok(this)
    }

    fn free_all(&mut self) {
        self.slots.fill(None);
        self.free = (0..).take(self.slots.len()).collect();
    }

    fn command(&mut self, serial: Serial, command: &mut Command, pages: &[Segment]) {
        let Some(slot) = self.free.pop() else {
            return;
        };
        let list = usize::from(slot) * LIST;
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            *place = Some(serial);
        }
        if let [first, rest @ ..] = pages {
            command.prp[0] = first.machine_address();
            command.prp[1] = match rest {
                [] => 0,
                [second] => second.machine_address(),
                more => {
                    for (index, segment) in more.iter().enumerate() {
                        self.lists.store_u64(list + index * 8, segment.machine_address());
                    }
                    self.lists.machine_address() + list as u64
                }
            };
        }
        self.queues.push(slot, command);
        self.queued = true;
    }

    /// One range, to be deallocated, in the list that is the command's own: the next free slot's.
    fn discard(&mut self, serial: Serial, namespace: u32, (first, count): (u64, u32)) {
        let list = self.free.last().map_or(0, |slot| usize::from(*slot) * LIST);
        self.lists.store_u32(list, 0);
        self.lists.store_u32(list + 4, count);
        self.lists.store_u64(list + 8, first);
        let prp = [self.lists.machine_address() + list as u64, 0];
        self.command(serial, &mut Command { code: MANAGE, namespace, prp, words: [0, 1 << 2, 0] }, &[]);
    }
}

/// What a namespace says it is.
fn geometry(page: &Page) -> Result<Geometry, String> {
    let blocks = page.load_u64(0);
    let mut byte = [0];
    page.read(26, &mut byte);
    let format = page.load_u32(128 + usize::from(byte[0] & 0xf) * 4);
    let (metadata, exponent) = (format & 0xffff, format >> 16 & 0xff);
    if blocks == 0 || metadata != 0 || !matches!(exponent, 9 | 12) {
        return Err(format!("{blocks} blocks of 2^{exponent} bytes with {metadata} more: not supported"));
    }
    let sector_size = 1 << exponent;
    Ok(Geometry {
        sectors: blocks.saturating_mul(u64::from(sector_size) / 512),
        sector_size,
        physical_sector_size: sector_size,
        read_only: false,
        flush: true,
        discard: false,
        segments: SEGMENTS,
    })
}

impl Driver for Disk {
    fn model(&self) -> String {
        let controller = &self.controller;
        let (address, namespace) = (controller.device.address(), self.namespace);
        let (model, queues) = (controller.model.borrow(), queues(self.lanes.len()));
        format!("NVMe disk at {address} namespace {namespace}: {model}{queues}")
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn is_dead(&self) -> bool {
        self.controller.dead.get()
    }

    fn submit(&mut self, request: Request) -> Option<Request> {
        if let Action::Look = request.action {
            self.look();
            self.looked.push(Done { tag: request.tag, result: Ok(()) });
            return None;
        }
        let commands = self.runs(request.action.segments()).len().max(1);
        let at = request.lane % self.lanes.len().max(1);
        // What a reset has ended must be told first.
        let lost = self.resets != self.controller.resets.get();
        let (namespace, is_dead) = (self.namespace, self.is_dead());
        let Some(lane) = self.lanes.get_mut(at).filter(|lane| !lost && lane.free.len() >= commands) else {
            return Some(request);
        };
        let (serial, action) = (self.next, request.action.clone());
        self.next += 1;
        let under_way = UnderWay::new(request);
        self.under_way.insert(serial, Commands { under_way, left: commands, failed: false });
        if is_dead {
            return None;
        }
        match action {
            Action::Read { sector, segments } => self.transfer(at, READ, serial, sector, &segments),
            Action::Write { sector, segments } => self.transfer(at, WRITE, serial, sector, &segments),
            // That it is looked at takes no command of the lane's.
            Action::Flush | Action::Look => {
                lane.command(serial, &mut Command { code: FLUSH, namespace, ..Default::default() }, &[]);
            }
            Action::Discard { sector, count } => {
                let grain = u64::from(self.geometry.sector_size) / 512;
                let range = (sector / grain, u32::try_from(count / grain).unwrap_or(u32::MAX));
                lane.discard(serial, namespace, range);
            }
        }
        None
    }

    fn kick(&mut self) {
        let is_dead = self.is_dead();
        for lane in self.lanes.iter_mut().filter(|lane| lane.queued && !is_dead) {
            lane.queued = false;
            self.controller.ring(&lane.queues, 0, lane.queues.tail);
        }
    }

    fn collect(&mut self, done: &mut Vec<Done>) {
        done.append(&mut self.looked);
        self.follow_reset(Failure::Device, done);
        if self.is_dead() {
            self.give_up(Failure::Device, done);
            return;
        }
        if !self.take(done) {
            self.controller.reset("it names commands that are not under way");
            self.follow_reset(Failure::Device, done);
        }
    }

    fn expire(&mut self, now: u64, done: &mut Vec<Done>) {
        // An interrupt may have been lost.
        self.collect(done);
        if self.is_dead() || self.under_way.is_empty() {
            return;
        }
        if !self.controller.is_well() {
            self.controller.reset("it does not work");
            self.follow_reset(Failure::Device, done);
        } else if self.under_way.values().any(|commands| commands.under_way.is_late(now)) {
            self.controller.reset("it does not answer");
            self.follow_reset(Failure::Timeout, done);
        }
    }

    fn ports(&self) -> &[Port] {
        &self.ports
    }

    fn change_port(&self) -> Option<Port> {
        self.controller.port()
    }

    fn refresh(&mut self) -> bool {
        self.controller.take_events();
        let changes = self.controller.events.changes();
        core::mem::replace(&mut self.changes, changes) != changes && self.look()
    }
}
