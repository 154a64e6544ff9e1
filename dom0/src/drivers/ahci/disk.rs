//! A SATA disk. Reads and writes are native queued commands where disk and controller take them; a flush cannot be
//! queued, and goes alone. So does the question what the disk is, which is asked again when somebody wants to know: no event
//! tells of another size.
//!
//! After an error it is not known whose it was. All that was issued is repeated, one after the other, and what fails
//! alone has failed.

use super::Host;
use super::identity::{self, Identity};
use super::port::{Command, Port, SLOTS};
use crate::drivers::{Action, BRIEFLY, Done, Driver, Failure, Geometry, Request, SOON, UnderWay, wait};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use dom0_hal::dma::Page;
use guest_pv::println;
use xen_abi::ids;

/// ATA commands (ACS-3): READ DMA EXT and the like, their queued forms, FLUSH CACHE EXT, IDENTIFY DEVICE.
const READ: [u8; 2] = [0x25, 0x60];
const WRITE: [u8; 2] = [0x35, 0x61];
const FLUSH: u8 = 0xea;
const WHO: Command = Command { code: 0xec, sector: 0, count: 0, queued: false, writes: false };

/// A disk.
#[derive(Debug)]
pub struct Disk {
    port: Port,
    under_way: [Option<Slot>; SLOTS],
    issued: u32,
    /// What the disk says of itself.
    answer: Page,
    /// Commands are queued by the disk itself, so many at most.
    depth: Option<usize>,
    geometry: Geometry,
    model: String,
    dead: bool,
}

#[derive(Debug)]
struct Slot {
    under_way: UnderWay,
    /// It runs while nothing else does: it cannot be queued, or is repeated.
    alone: bool,
}

impl Disk {
    /// The disk at a port, if there is one.
    pub(super) fn start(host: &Rc<Host>, number: usize) -> Result<Option<Self>, String> {
        let port = Port::new(host, number, host.slots()).ok_or("no memory")?;
        if !port.is_connected() {
            return Ok(None);
        }
        port.restart(SOON)?;
        if !port.has_disk() {
            return Ok(None);
        }
        let answer = Page::new().ok_or("no memory")?;
        let Identity { geometry, depth, model } = ask(&port, &answer)?;
        let depth = depth.filter(|_| host.queues());
        let under_way = [const { None }; SLOTS];
        Ok(Some(Self { port, under_way, issued: 0, answer, depth, geometry, model, dead: false }))
    }

    /// The disk has said again what it is. Its sectors do not become others; one that says they did is not usable.
    fn look(&mut self) {
        let now = Identity::read(&self.answer).map(|identity| identity.geometry);
        let same = now.ok().filter(|now| now.sector_size == self.geometry.sector_size);
        self.geometry.sectors = same.map_or(0, |now| now.sectors);
    }

    /// Slots in use.
    fn slots(&self) -> usize {
        self.port.host.slots().min(self.depth.unwrap_or(SLOTS))
    }

    /// Fills a slot.
    fn prepare(&self, slot: usize, action: &Action, alone: bool) {
        let grain = u64::from(self.geometry.sector_size);
        let segments = action.segments();
        let queued = !alone && self.depth.is_some();
        let (codes, sector, writes) = match action {
            Action::Read { sector, .. } => (READ, *sector, false),
            Action::Write { sector, .. } => (WRITE, *sector, true),
            // Discarding is not offered.
            Action::Flush | Action::Discard { .. } => ([FLUSH; 2], 0, false),
            Action::Look => {
                return self.port.prepare(slot, WHO, [(self.answer.machine_address(), identity::LEN)].into_iter());
            }
        };
        let count = segments.iter().map(|segment| segment.len() as u64).sum::<u64>() / grain;
        let code = if queued { codes[1] } else { codes[0] };
        let command = Command { code, sector: sector * 512 / grain, count, queued, writes };
        self.port.prepare(slot, command, segments.iter().map(|segment| (segment.machine_address(), segment.len())));
    }

    /// Slots that are not issued, by age.
    fn waiting(&self) -> Vec<(u32, bool)> {
        let waits = |slot: u32| self.issued & 1 << slot == 0;
        let all = (0..).zip(&self.under_way).filter_map(|(index, slot)| Some((index, slot.as_ref()?)));
        let mut waiting: Vec<_> = all.filter(|(index, _)| waits(*index)).collect();
        waiting.sort_by_key(|(_, slot)| slot.under_way.since);
        waiting.into_iter().map(|(index, slot)| (index, slot.alone)).collect()
    }

    fn give_up(&mut self, why: Failure, done: &mut Vec<Done>) {
        self.issued = 0;
        let all = self.under_way.iter_mut().filter_map(Option::take);
        done.extend(all.map(|slot| slot.under_way.done(Err(why))));
    }

    fn take(&mut self, slot: usize, result: Result<(), Failure>, done: &mut Vec<Done>) {
        let Some(taken) = self.under_way.get_mut(slot).and_then(Option::take) else {
            return;
        };
        if matches!(taken.under_way.request.action, Action::Look) && result.is_ok() {
            self.look();
        }
        done.push(taken.under_way.done(result));
    }

    /// The disk reported an error: nothing that was issued goes on.
    fn recover(&mut self, done: &mut Vec<Done>) {
        let issued = core::mem::take(&mut self.issued);
        if let Err(why) = self.port.restart(BRIEFLY) {
            self.lose(&why, done);
            return;
        }
        if issued.is_power_of_two() {
            let slot = usize::try_from(issued.trailing_zeros()).unwrap_or(SLOTS);
            self.take(slot, Err(Failure::Device), done);
            return;
        }
        for slot in (0..SLOTS).filter(|slot| issued & 1 << slot != 0) {
            if let Some(place) = self.under_way.get_mut(slot).and_then(Option::as_mut) {
                place.alone = true;
            }
            if let Some(place) = self.under_way.get(slot).and_then(Option::as_ref) {
                self.prepare(slot, &place.under_way.request.action, true);
            }
        }
    }

    /// The disk does not answer: what it has is given up.
    fn reset(&mut self, done: &mut Vec<Done>) {
        println!("pci {}: port {}: reset, the disk does not answer", self.port.host.device.address(), self.port.number);
        match self.port.restart(BRIEFLY) {
            Ok(()) => self.give_up(Failure::Timeout, done),
            Err(why) => self.lose(&why, done),
        }
    }

    /// The disk is gone for good.
    fn lose(&mut self, why: &str, done: &mut Vec<Done>) {
        println!("pci {}: port {}: the disk is lost: {why}", self.port.host.device.address(), self.port.number);
        self.dead = true;
        if self.port.stop(BRIEFLY).is_err() {
            self.port.host.device.disable();
        }
        self.give_up(Failure::Device, done);
    }
}

/// Asks a disk what it is and waits for it, before anything else is under way.
fn ask(port: &Port, answer: &Page) -> Result<Identity, String> {
    port.prepare(0, WHO, [(answer.machine_address(), identity::LEN)].into_iter());
    port.issue(1, false);
    let mut said = port.look();
    let done = wait("the disk", SOON, || {
        said = port.look();
        said.busy & 1 == 0 || said.failed
    });
    if done.is_err() || said.failed {
        port.stop(SOON)?;
        return Err(String::from("the disk does not say what it is"));
    }
    Identity::read(answer)
}

impl Driver for Disk {
    fn model(&self) -> String {
        let (address, port) = (self.port.host.device.address(), self.port.number);
        let queue = self.depth.map(|depth| format!(", NCQ {depth}")).unwrap_or_default();
        format!("SATA disk at {address} port {port}: {}{queue}", self.model)
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn is_dead(&self) -> bool {
        self.dead
    }

    fn submit(&mut self, request: Request) -> Option<Request> {
        let Some(slot) = self.under_way.iter().take(self.slots()).position(Option::is_none) else {
            return Some(request);
        };
        let alone = request.action.segments().is_empty();
        if !self.dead {
            self.prepare(slot, &request.action, alone);
        }
        if let Some(place) = self.under_way.get_mut(slot) {
            *place = Some(Slot { under_way: UnderWay::new(request), alone });
        }
        None
    }

    fn kick(&mut self) {
        if self.dead {
            return;
        }
        let waiting = self.waiting();
        // What is to go alone has its turn when all older ones are done.
        let first_alone = waiting.iter().position(|(_, alone)| *alone);
        if let (Some(0), Some(&(slot, _))) = (first_alone, waiting.first()) {
            if self.issued == 0 {
                self.issued = 1 << slot;
                self.port.issue(self.issued, false);
            }
            return;
        }
        let running_alone = (0..).zip(&self.under_way).any(|(index, slot): (u32, _)| {
            self.issued & 1 << index != 0 && slot.as_ref().is_some_and(|slot| slot.alone)
        });
        let fresh = waiting.iter().take(first_alone.unwrap_or(SLOTS)).fold(0, |mask, (slot, _)| mask | 1 << slot);
        if fresh != 0 && !running_alone {
            self.issued |= fresh;
            self.port.issue(fresh, self.depth.is_some());
        }
    }

    fn collect(&mut self, done: &mut Vec<Done>) {
        if self.dead {
            self.give_up(Failure::Device, done);
            return;
        }
        let said = self.port.look();
        if !said.connected {
            self.lose("nothing is connected", done);
        } else if said.failed {
            self.recover(done);
        } else {
            let ended = self.issued & !said.busy;
            self.issued &= said.busy;
            for slot in (0..SLOTS).filter(|slot| ended & 1 << slot != 0) {
                self.take(slot, Ok(()), done);
            }
        }
        self.kick();
        self.port.host.interrupt.done();
    }

    fn expire(&mut self, now: u64, done: &mut Vec<Done>) {
        // An interrupt may have been lost.
        self.collect(done);
        let late = |slot: &Slot| slot.under_way.is_late(now);
        if !self.dead && self.under_way.iter().flatten().any(late) {
            self.reset(done);
        }
    }

    fn ports(&self) -> &[ids::Port] {
        self.port.host.interrupt.ports()
    }
}
