//! NVMe disks (NVM Express 1.4): the first namespace of a controller, by one pair of queues.

use crate::drivers::{Action, Done, Driver, Failure, Geometry, PATIENCE, Request, Tag};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use dom0_hal::dma::{Page, Segment};
use dom0_hal::msi::Interrupt;
use dom0_hal::pci::Device;
use dom0_hal::registers::Registers;
use guest_pv::mem::PAGE_BYTES;
use guest_pv::{println, time};
use xen_abi::ids::Port;

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

/// Controller configuration: pages of 4 KiB, entries of 64 and 16 bytes, on.
const CC_ENABLE: u32 = 6 << 16 | 4 << 20 | 1;

/// Entries of each queue: a page of commands.
const ENTRIES: u16 = 64;
/// Commands under way at most, so that a queue is never full.
const SLOTS: usize = 63;
/// Segments of one request: each may become a command of its own.
const SEGMENTS: usize = 32;

/// Admin commands.
const CREATE_SQ: u8 = 0x01;
const CREATE_CQ: u8 = 0x05;
const IDENTIFY: u8 = 0x06;
/// Commands.
const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const MANAGE: u8 = 0x09;

/// The only namespace used.
const NAMESPACE: u32 = 1;
/// The message of both queues.
const VECTOR: u16 = 0;
/// How long an admin command may take.
const SOON: u64 = 5_000_000_000;

/// Is it an NVMe controller?
pub fn is_one(device: &Device) -> bool {
    device.class == CLASS
}

/// A pair of queues.
#[derive(Debug)]
struct Pair {
    number: u16,
    commands: Page,
    answers: Page,
    tail: u16,
    head: u16,
    phase: bool,
}

/// A command.
#[derive(Clone, Copy, Debug, Default)]
struct Command {
    code: u8,
    namespace: u32,
    prp: [u64; 2],
    words: [u32; 3],
}

impl Pair {
    fn new(number: u16) -> Option<Self> {
        Some(Self { number, commands: Page::new()?, answers: Page::new()?, tail: 0, head: 0, phase: true })
    }

    fn reset(&mut self) {
        self.answers.zero(0, PAGE_BYTES);
        (self.tail, self.head, self.phase) = (0, 0, true);
    }

    fn push(&mut self, id: u16, command: &Command) {
        let at = usize::from(self.tail) * 64;
        self.commands.zero(at, 64);
        self.commands.store_u32(at, u32::from(command.code) | u32::from(id) << 16);
        self.commands.store_u32(at + 4, command.namespace);
        self.commands.store_u64(at + 24, command.prp[0]);
        self.commands.store_u64(at + 32, command.prp[1]);
        for (index, word) in command.words.iter().enumerate() {
            self.commands.store_u32(at + 40 + index * 4, *word);
        }
        self.tail = (self.tail + 1) % ENTRIES;
    }

    /// The next answer: which command, and its status.
    fn pop(&mut self) -> Option<(u16, u16)> {
        let at = usize::from(self.head) * 16 + 12;
        let word = self.answers.load_u32(at);
        if (word & 1 << 16 != 0) != self.phase {
            return None;
        }
        self.head = (self.head + 1) % ENTRIES;
        if self.head == 0 {
            self.phase = !self.phase;
        }
        let [low, high] = [word & 0xffff, word >> 17].map(|half| u16::try_from(half).unwrap_or(u16::MAX));
        Some((low, high))
    }
}

/// A request, in as many commands as its memory takes.
#[derive(Debug)]
struct UnderWay {
    /// It holds the memory.
    _request: Request,
    commands: usize,
    failed: bool,
    since: u64,
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    device: Device,
    registers: Registers,
    stride: usize,
    patience: u64,
    interrupt: Interrupt,
    admin: Pair,
    io: Pair,
    /// A page for each command's list of pages.
    lists: Vec<Page>,
    slots: [Option<Tag>; SLOTS],
    under_way: BTreeMap<Tag, UnderWay>,
    geometry: Geometry,
    /// Pages that a command may move.
    pages: usize,
    model: String,
    queued: bool,
    dead: bool,
}

impl Disk {
    /// Starts a controller.
    pub fn start(device: &Device) -> Result<Self, String> {
        let memory = || String::from("no memory");
        device.enable();
        let registers = device.map(0, 0, 0x2000).map_err(|errno| format!("no registers: {errno}"))?;
        let cap = registers.read64(CAP);
        if cap >> 48 & 0xf != 0 || cap & 0xffff < u64::from(ENTRIES - 1) {
            return Err(String::from("its pages are too large or its queues too short"));
        }
        let stride = 4usize << (cap >> 32 & 0xf);
        if DOORBELLS + stride * 4 > registers.len() {
            return Err(String::from("its doorbells are too far apart"));
        }
        let patience = (cap >> 24 & 0xff) * 500_000_000;
        let interrupt = Interrupt::message(device, VECTOR).map_err(|errno| format!("no interrupt: {errno}"))?;
        let mut this = Self {
            device: device.clone(),
            registers,
            stride,
            patience,
            interrupt,
            admin: Pair::new(0).ok_or_else(memory)?,
            io: Pair::new(1).ok_or_else(memory)?,
            lists: (0..SLOTS).map(|_| Page::new()).collect::<Option<_>>().ok_or_else(memory)?,
            slots: [None; SLOTS],
            under_way: BTreeMap::new(),
            geometry: Geometry {
                sectors: 0,
                sector_size: 512,
                physical_sector_size: 512,
                read_only: false,
                flush: true,
                discard: false,
                segments: SEGMENTS,
            },
            pages: SEGMENTS,
            model: String::new(),
            queued: false,
            dead: false,
        };
        this.bring_up()?;
        this.identify()?;
        Ok(this)
    }

    fn wait_ready(&self, ready: u32) -> Result<(), String> {
        let end = time::now() + self.patience.max(SOON);
        while self.registers.read32(CSTS) & 1 != ready {
            if time::now() > end {
                return Err(String::from("the controller does not get ready"));
            }
        }
        Ok(())
    }

    /// Resets the controller, which forgets all memory it was told of, and gives it its queues.
    fn bring_up(&mut self) -> Result<(), String> {
        self.registers.write32(CC, 0);
        self.wait_ready(0)?;
        self.admin.reset();
        self.io.reset();
        let last = u32::from(ENTRIES - 1);
        self.registers.write32(AQA, last << 16 | last);
        self.registers.write64(ASQ, self.admin.commands.machine_address());
        self.registers.write64(ACQ, self.admin.answers.machine_address());
        self.registers.write32(CC, CC_ENABLE);
        self.wait_ready(1)?;
        let size = last << 16 | u32::from(self.io.number);
        let queue = |code, page: &Page, flags| Command {
            code,
            prp: [page.machine_address(), 0],
            words: [size, flags, 0],
            ..Default::default()
        };
        // In one piece, with interrupts; then the queue of commands, whose answers go there.
        let answers = queue(CREATE_CQ, &self.io.answers, u32::from(VECTOR) << 16 | 3);
        let commands = queue(CREATE_SQ, &self.io.commands, u32::from(self.io.number) << 16 | 1);
        self.run(&answers)?;
        self.run(&commands)
    }

    fn ring(&self, pair: &Pair, index: usize, value: u16) {
        let at = DOORBELLS + (usize::from(pair.number) * 2 + index) * self.stride;
        self.registers.write32(at, value.into());
    }

    /// Runs an admin command.
    fn run(&mut self, command: &Command) -> Result<(), String> {
        self.admin.push(0, command);
        self.ring(&self.admin, 0, self.admin.tail);
        let end = time::now() + SOON;
        loop {
            if let Some((_, status)) = self.admin.pop() {
                self.ring(&self.admin, 1, self.admin.head);
                return if status == 0 {
                    Ok(())
                } else {
                    Err(format!("admin command {:#x} failed: {status:#x}", command.code))
                };
            }
            if time::now() > end {
                return Err(format!("admin command {:#x} takes too long", command.code));
            }
        }
    }

    fn identify(&mut self) -> Result<(), String> {
        let page = Page::new().ok_or("no memory")?;
        let ask = |namespace, what| Command {
            code: IDENTIFY,
            namespace,
            prp: [page.machine_address(), 0],
            words: [what, 0, 0],
        };
        self.run(&ask(0, 1))?;
        let mut name = [0; 40];
        page.read(24, &mut name);
        self.model = String::from_utf8_lossy(&name).trim().into();
        // The most data of a command as a power of two of pages; what is more than our lists hold does not matter.
        let mut byte = [0];
        page.read(77, &mut byte);
        if (1..5).contains(&byte[0]) {
            self.pages = 1 << byte[0];
        }
        let discard = page.load_u32(520) & 1 << 2 != 0;
        self.run(&ask(NAMESPACE, 0))?;
        let blocks = page.load_u64(0);
        page.read(26, &mut byte);
        let format = page.load_u32(128 + usize::from(byte[0] & 0xf) * 4);
        let (metadata, exponent) = (format & 0xffff, format >> 16 & 0xff);
        if blocks == 0 || metadata != 0 || !matches!(exponent, 9 | 12) {
            return Err(format!(
                "namespace 1: {blocks} blocks of 2^{exponent} bytes with {metadata} more: not supported"
            ));
        }
        self.geometry.sector_size = 1 << exponent;
        self.geometry.physical_sector_size = 1 << exponent;
        self.geometry.sectors = blocks.saturating_mul(u64::from(self.geometry.sector_size) / 512);
        self.geometry.discard = discard;
        Ok(())
    }

    /// Runs of segments that one command can name: all but the first begin with their page, all but the last end with it.
    fn runs<'a>(&self, segments: &'a [Segment]) -> Vec<&'a [Segment]> {
        let page = PAGE_BYTES as u64;
        let joins = |a: &Segment, b: &Segment| {
            (a.machine_address() + a.len() as u64).is_multiple_of(page) && b.machine_address().is_multiple_of(page)
        };
        segments.chunk_by(joins).flat_map(|run| run.chunks(self.pages)).collect()
    }

    fn command(&mut self, tag: Tag, command: &mut Command, pages: &[Segment]) {
        let Some(slot) = self.slots.iter().position(Option::is_none) else {
            return;
        };
        let (Some(place), Some(list)) = (self.slots.get_mut(slot), self.lists.get(slot)) else {
            return;
        };
        *place = Some(tag);
        if let [first, rest @ ..] = pages {
            command.prp[0] = first.machine_address();
            command.prp[1] = match rest {
                [] => 0,
                [second] => second.machine_address(),
                more => {
                    for (index, segment) in more.iter().enumerate() {
                        list.store_u64(index * 8, segment.machine_address());
                    }
                    list.machine_address()
                }
            };
        }
        self.io.push(u16::try_from(slot).unwrap_or(0), command);
        self.queued = true;
    }

    fn transfer(&mut self, code: u8, tag: Tag, sector: u64, segments: &[Segment]) {
        let grain = u64::from(self.geometry.sector_size);
        let mut at = sector * 512 / grain;
        for run in self.runs(segments) {
            let blocks = run.iter().map(|segment| segment.len() as u64).sum::<u64>() / grain;
            let half = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0);
            let words = [half(at), half(at >> 32), half(blocks.saturating_sub(1))];
            self.command(tag, &mut Command { code, namespace: NAMESPACE, prp: [0; 2], words }, run);
            at += blocks;
        }
    }

    fn give_up(&mut self, why: Failure, done: &mut Vec<Done>) {
        self.slots = [None; SLOTS];
        let all = core::mem::take(&mut self.under_way);
        done.extend(all.into_keys().map(|tag| Done { tag, result: Err(why) }));
    }

    fn restart(&mut self, why: Failure, done: &mut Vec<Done>) {
        println!("pci {}: NVMe disk: reset ({why:?})", self.device.address());
        let up = if self.device.is_there() { self.bring_up() } else { Err(String::from("the device is gone")) };
        if let Err(error) = up {
            println!("pci {}: NVMe disk: {error}", self.device.address());
            self.device.disable();
            self.dead = true;
        }
        self.give_up(why, done);
    }
}

impl Driver for Disk {
    fn model(&self) -> String {
        format!("NVMe disk at {}: {}", self.device.address(), self.model)
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, request: Request) -> Option<Request> {
        let commands = self.runs(request.action.segments()).len().max(1);
        if self.slots.iter().filter(|slot| slot.is_none()).count() < commands {
            return Some(request);
        }
        let (tag, action) = (request.tag, request.action.clone());
        self.under_way.insert(tag, UnderWay { _request: request, commands, failed: false, since: time::now() });
        if self.dead {
            return None;
        }
        match action {
            Action::Read { sector, segments } => self.transfer(READ, tag, sector, &segments),
            Action::Write { sector, segments } => self.transfer(WRITE, tag, sector, &segments),
            Action::Flush => {
                self.command(tag, &mut Command { code: FLUSH, namespace: NAMESPACE, ..Default::default() }, &[]);
            }
            Action::Discard { sector, count } => {
                // One range, in the page that is the command's own: it is the next free slot's.
                let grain = u64::from(self.geometry.sector_size) / 512;
                let slot = self.slots.iter().position(Option::is_none);
                let list = slot.and_then(|slot| self.lists.get(slot))?;
                list.store_u32(0, 0);
                list.store_u32(4, u32::try_from(count / grain).unwrap_or(u32::MAX));
                list.store_u64(8, sector / grain);
                let prp = [list.machine_address(), 0];
                // One range, to be deallocated.
                let words = [0, 1 << 2, 0];
                self.command(tag, &mut Command { code: MANAGE, namespace: NAMESPACE, prp, words }, &[]);
            }
        }
        None
    }

    fn kick(&mut self) {
        if self.queued && !self.dead {
            self.queued = false;
            self.ring(&self.io, 0, self.io.tail);
        }
    }

    fn collect(&mut self, done: &mut Vec<Done>) {
        if self.dead {
            self.give_up(Failure::Device, done);
            return;
        }
        let mut any = false;
        while let Some((id, status)) = self.io.pop() {
            any = true;
            let Some(tag) = self.slots.get_mut(usize::from(id)).and_then(Option::take) else {
                // It names what is not under way.
                self.restart(Failure::Device, done);
                return;
            };
            let Some(under_way) = self.under_way.get_mut(&tag) else {
                continue;
            };
            under_way.failed |= status != 0;
            under_way.commands = under_way.commands.saturating_sub(1);
            if under_way.commands == 0 {
                let result = if under_way.failed { Err(Failure::Device) } else { Ok(()) };
                self.under_way.remove(&tag);
                done.push(Done { tag, result });
            }
        }
        if any {
            self.ring(&self.io, 1, self.io.head);
        }
        self.interrupt.done();
    }

    fn expire(&mut self, now: u64, done: &mut Vec<Done>) {
        let late = |under_way: &UnderWay| now.saturating_sub(under_way.since) > PATIENCE;
        if self.under_way.values().any(late) {
            // The interrupt may have been lost.
            self.collect(done);
            if self.under_way.values().any(late) {
                self.restart(Failure::Timeout, done);
            }
        }
    }

    fn port(&self) -> Option<Port> {
        Some(self.interrupt.port())
    }
}
