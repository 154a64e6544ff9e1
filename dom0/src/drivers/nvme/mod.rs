//! NVMe disks (NVM Express 1.4): the controller. Each of its namespaces is a disk ([`disk`]) with queues and, where there
//! are enough, an interrupt of its own.
//!
//! The controller tells of changes by the end of a command that asks for that ([`events`]).

mod disk;
mod events;
mod queue;

use super::{BRIEFLY, LANES, SOON, wait};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use dom0_hal::dma::Page;
use dom0_hal::msi::Interrupt;
use dom0_hal::pci::Device;
use dom0_hal::registers::Registers;
use events::Events;
use guest_pv::println;
use queue::{ADMIN, Command, MOST, Pair};

pub use disk::Disk;

/// Class 1 (storage), subclass 8 (non-volatile memory), interface 2 (NVM Express).
const CLASS: u32 = 0x01_08_02;

/// Registers.
const CAP: usize = 0x00;
const CC: usize = 0x14;
const CSTS: usize = 0x1c;
const AQA: usize = 0x24;
const ASQ: usize = 0x28;
const ACQ: usize = 0x30;
const DOORBELLS: usize = 0x1000;
/// The region of the registers: doorbells of 255 pairs of queues at most.
const REGISTERS: [usize; 2] = [0x2000, 0x1080];

/// Controller configuration: pages of 4 KiB, entries of 64 and 16 bytes, on.
const CC_ENABLE: u32 = 6 << 16 | 4 << 20 | 1;
/// Controller status: it is ready; it has failed for good until it is reset.
const CSTS_READY: u32 = 1 << 0;
const CSTS_FATAL: u32 = 1 << 1;

/// Admin commands.
const CREATE_SQ: u8 = 0x01;
const CREATE_CQ: u8 = 0x05;
const IDENTIFY: u8 = 0x06;
const SET_FEATURES: u8 = 0x09;
/// A feature: how many queues there may be.
const NUMBER_OF_QUEUES: u32 = 0x07;
/// What is to be identified: a namespace, the controller, which namespaces there are.
const OF_NAMESPACE: u32 = 0;
const OF_CONTROLLER: u32 = 1;
const OF_LIST: u32 = 2;

/// Namespaces of a controller, at most.
const NAMESPACES: usize = 16;

/// Is it an NVMe controller?
pub fn is_one(device: &Device) -> bool {
    device.class == CLASS
}

/// Where a disk's queues are.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: u16,
    commands: u64,
    answers: u64,
    vector: u16,
}

/// The controller.
#[derive(Debug)]
struct Controller {
    device: Device,
    registers: Registers,
    stride: usize,
    /// Entries of a disk's queues.
    entries: u16,
    /// How long it may take to get ready: it says so itself.
    patience: u64,
    admin: RefCell<Pair>,
    places: RefCell<Vec<Place>>,
    interrupts: RefCell<Vec<Rc<Interrupt>>>,
    /// How often it was reset: whoever knows an older number has lost what it had under way.
    resets: Cell<u32>,
    dead: Cell<bool>,
    events: Events,
    /// Pages that a command may move, and whether sectors can be discarded.
    pages: Cell<usize>,
    discard: Cell<bool>,
    model: RefCell<String>,
}

/// Starts a controller and its namespaces.
pub fn start(device: &Device) -> Result<Vec<Disk>, String> {
    device.enable();
    let registers = REGISTERS.iter().find_map(|len| device.map(0, 0, *len).ok()).ok_or("no registers")?;
    let cap = registers.read64(CAP);
    let entries = u16::try_from((cap & 0xffff) + 1).unwrap_or(u16::MAX).min(MOST);
    if cap >> 48 & 0xf != 0 || entries < 2 {
        return Err(String::from("its pages are too large or its queues too short"));
    }
    let controller = Rc::new(Controller {
        device: device.clone(),
        registers,
        stride: 4usize << (cap >> 32 & 0xf),
        entries,
        patience: (cap >> 24 & 0xff) * 500_000_000,
        admin: RefCell::new(Pair::new(0, ADMIN).ok_or("no memory")?),
        places: RefCell::default(),
        interrupts: RefCell::default(),
        resets: Cell::new(0),
        dead: Cell::new(false),
        events: Events::default(),
        pages: Cell::new(disk::SEGMENTS),
        discard: Cell::new(false),
        model: RefCell::default(),
    });
    controller.bring_up(controller.patience.max(SOON))?;
    let mut disks = Vec::new();
    let namespaces = controller.identify()?;
    controller.listen();
    for namespace in namespaces {
        match Disk::start(&controller, namespace) {
            Ok(disk) => disks.push(disk),
            Err(why) => println!("pci {}: namespace {namespace}: {why}", device.address()),
        }
    }
    Ok(disks)
}

impl Controller {
    /// Resets the controller, which forgets all memory it was told of, and gives it its queues.
    fn bring_up(&self, limit: u64) -> Result<(), String> {
        self.registers.write32(CC, 0);
        let ready = |wanted: u32| wait("the controller", limit, || self.registers.read32(CSTS) & CSTS_READY == wanted);
        ready(0)?;
        let last = u32::from(ADMIN - 1);
        {
            let mut admin = self.admin.borrow_mut();
            admin.reset();
            self.registers.write32(AQA, last << 16 | last);
            self.registers.write64(ASQ, admin.commands.machine_address());
            self.registers.write64(ACQ, admin.answers.machine_address());
        }
        self.registers.write32(CC, CC_ENABLE);
        ready(CSTS_READY)?;
        // Queues of each kind, less one. One that grants fewer refuses to make those beyond.
        let queues = u32::from(LANES) * u32::try_from(NAMESPACES).unwrap_or(1) - 1;
        let words = [NUMBER_OF_QUEUES, queues << 16 | queues, 0];
        self.run(&Command { code: SET_FEATURES, words, ..Command::default() }, limit)?;
        for place in self.places.borrow().iter() {
            self.create_queues(place, limit)?;
        }
        Ok(())
    }

    /// Makes a pair of queues of the controller's. They are empty.
    fn create_queues(&self, place: &Place, limit: u64) -> Result<(), String> {
        let size = u32::from(self.entries - 1) << 16 | u32::from(place.number);
        let queue =
            |code, address, flags| Command { code, prp: [address, 0], words: [size, flags, 0], ..Command::default() };
        // In one piece, with interrupts; then the queue of commands, whose answers go there.
        self.run(&queue(CREATE_CQ, place.answers, u32::from(place.vector) << 16 | 3), limit)?;
        self.run(&queue(CREATE_SQ, place.commands, u32::from(place.number) << 16 | 1), limit)
    }

    /// Makes another pair of queues, and its interrupt.
    fn add_queues(&self) -> Result<(Pair, Rc<Interrupt>), String> {
        let number = u16::try_from(self.places.borrow().len() + 1).unwrap_or(u16::MAX);
        if DOORBELLS + (usize::from(number) * 2 + 2) * self.stride > self.registers.len() {
            return Err(String::from("its doorbells are too far apart"));
        }
        let mut interrupts = self.interrupts.borrow_mut();
        let vector = u16::try_from(interrupts.len()).unwrap_or(0);
        let (vector, interrupt) = match Interrupt::message(&self.device, vector) {
            Ok(interrupt) => {
                interrupts.push(Rc::new(interrupt));
                (vector, interrupts.last().cloned())
            }
            // There are no more: the first is shared.
            Err(_) if !interrupts.is_empty() => (0, interrupts.first().cloned()),
            Err(errno) => return Err(format!("no interrupt: {errno}")),
        };
        let pair = Pair::new(number, self.entries).ok_or("no memory")?;
        let (commands, answers) = (pair.commands.machine_address(), pair.answers.machine_address());
        let place = Place { number, commands, answers, vector };
        self.create_queues(&place, SOON)?;
        self.places.borrow_mut().push(place);
        Ok((pair, interrupt.ok_or("no interrupt")?))
    }

    fn ring(&self, pair: &Pair, index: usize, value: u16) {
        let at = DOORBELLS + (usize::from(pair.number) * 2 + index) * self.stride;
        self.registers.write32(at, value.into());
    }

    /// Runs an admin command. Where it takes too long, the controller is to be reset before the command's memory goes.
    fn run(&self, command: &Command, limit: u64) -> Result<(), String> {
        let mut admin = self.admin.borrow_mut();
        admin.push(0, command);
        self.ring(&admin, 0, admin.tail);
        let mut answer = None;
        wait("an admin command", limit, || {
            answer = admin.pop();
            if let Some((events::NUMBER, status)) = answer {
                self.events.came(status, admin.said());
                answer = None;
            }
            answer.is_some()
        })?;
        self.ring(&admin, 1, admin.head);
        match answer {
            Some((_, 0)) => Ok(()),
            status => Err(format!("admin command {:#x} failed: {status:x?}", command.code)),
        }
    }

    fn ask(&self, page: &Page, namespace: u32, what: u32, limit: u64) -> Result<(), String> {
        let prp = [page.machine_address(), 0];
        self.run(&Command { code: IDENTIFY, namespace, prp, words: [what, 0, 0] }, limit)
    }

    /// Learns what the controller is; its namespaces.
    fn identify(&self) -> Result<Vec<u32>, String> {
        let page = Page::new().ok_or("no memory")?;
        self.ask(&page, 0, OF_CONTROLLER, SOON)?;
        let mut name = [0; 40];
        page.read(24, &mut name);
        *self.model.borrow_mut() = String::from_utf8_lossy(&name).trim().into();
        // The most data of a command as a power of two of pages; what is more than our lists hold does not matter.
        let mut byte = [0];
        page.read(77, &mut byte);
        if (1..5).contains(&byte[0]) {
            self.pages.set(1 << byte[0]);
        }
        self.discard.set(page.load_u32(520) & 1 << 2 != 0);
        self.ask(&page, 0, OF_LIST, SOON)?;
        Ok((0..NAMESPACES).map(|index| page.load_u32(index * 4)).take_while(|namespace| *namespace != 0).collect())
    }

    /// Whether it works, as far as it says.
    fn is_well(&self) -> bool {
        self.device.is_there() && self.registers.read32(CSTS) & (CSTS_READY | CSTS_FATAL) == CSTS_READY
    }

    /// Resets it, for all its disks; they find out by the number of resets.
    fn reset(&self, why: &str) {
        println!("pci {}: NVMe controller: reset, {why}", self.device.address());
        self.resets.set(self.resets.get() + 1);
        let up = if self.device.is_there() { self.bring_up(BRIEFLY) } else { Err(String::from("it is gone")) };
        if let Err(error) = up {
            println!("pci {}: NVMe controller: {error}", self.device.address());
            self.device.disable();
            self.dead.set(true);
        } else {
            self.listen();
        }
    }
}
