//! A front end of a disk that means harm: whatever a guest can write into its ring, its granted pages and its nodes in
//! xenstore, from the word `seed=` on its command line, for `seconds=` seconds. What must hold then is that it gets errors, and
//! that nobody else notices: see the rows of `toolstack` with a guest `bad_disk`.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Numbers are cut to size on purpose.

use guest_pv::alloc::format;
use guest_pv::alloc::string::String;
use guest_pv::alloc::vec::Vec;
use guest_pv::front::device::Channel;
use guest_pv::front::{Buffer, Device, Error};
use guest_pv::mem::Access;
use guest_pv::xenstore::Xenstore;
use guest_pv::{boot, events, grants, power, println, time};
use guests::hostile::values::Chance;
use ring_protocol::xenbus::State;
use xen_abi::ids::{GrantRef, Port};
use xen_abi::io::blkif::{
    BLKIF_OP_DISCARD, BLKIF_OP_INDIRECT, BlkifRequest, BlkifRequestIndirect, BlkifRequestSegment, SLOT,
};
use xen_abi::io::ring::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, SLOTS, slots};
use zerocopy::{FromZeros, IntoBytes};

guest_pv::entry!(run);

/// `xvda`.
const NUMBER: u32 = 51712;
/// Requests written at once.
const BATCHES: u64 = 12;

struct Bad {
    chance: Chance,
    device: Device,
    /// Pages that are granted, some of them for reading only.
    pages: Vec<Buffer>,
    /// What the back end was told, and answered, for the last line.
    asked: u64,
    answered: u64,
    connected: u64,
}

fn run() {
    let number = |name, usual| boot().option(name).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (seed, seconds): (u64, u64) = (number("seed", 1), number("seconds", 3));
    let Some(mut store) = Xenstore::connect() else {
        println!("bad disk: nothing to try here");
        return;
    };
    let store = &mut store;
    let device = match Device::find(store, "vbd", NUMBER) {
        Ok(device) => device,
        Err(error) => return println!("bad disk: {error}"),
    };
    let access = |index| if index % 4 == 3 { Access::ReadOnly } else { Access::ReadWrite };
    let pages = (0..8).filter_map(|index| Buffer::new(device.dom(), 2, access(index)).ok()).collect();
    let mut bad = Bad { chance: Chance::new(seed), device, pages, asked: 0, answered: 0, connected: 0 };
    let (end, mut rounds) = (time::now() + seconds * 1_000_000_000, 0);
    while time::now() < end {
        rounds += 1;
        if let Err(error) = bad.round(store) {
            println!("bad disk: round {rounds}: {error}");
        }
    }
    println!(
        "bad disk: {rounds} rounds, {} connected, {} requests, {} answers",
        bad.connected, bad.asked, bad.answered
    );
    bad.leave(store);
}

/// Sleeps so many microseconds.
fn nap(microseconds: u64) {
    time::sleep(microseconds * 1000);
}

impl Bad {
    fn round(&mut self, store: &mut Xenstore) -> Result<(), Error> {
        match self.chance.below(8) {
            0 => self.states(store),
            1 => self.nodes(store),
            _ => self.connected(store),
        }
    }

    /// Waits a little for the back end to be in a state, for a front end that does as it should.
    fn await_state(&self, store: &mut Xenstore, state: State) -> Result<bool, Error> {
        for _ in 0..100 {
            if self.device.peer(store)? == state {
                return Ok(true);
            }
            nap(1000);
        }
        Ok(false)
    }

    /// Goes back to where a device begins.
    fn begin(&self, store: &mut Xenstore) -> Result<(), Error> {
        self.device.set_state(store, State::Closed)?;
        self.device.set_state(store, State::Initialising)?;
        self.await_state(store, State::InitWait).map(drop)
    }

    /// States in any order, and what is none.
    fn states(&mut self, store: &mut Xenstore) -> Result<(), Error> {
        for _ in 0..20 {
            let value: String = match self.chance.below(12) {
                9 => String::from("4294967300"),
                10 => String::from("x"),
                11 => String::from("-1"),
                state => format!("{}", state.max(1)),
            };
            self.device.publish(store, "state", &value)?;
            if self.chance.rarely(3) {
                nap(self.chance.below(500));
            }
        }
        self.begin(store)
    }

    /// Nodes that name no ring.
    fn nodes(&mut self, store: &mut Xenstore) -> Result<(), Error> {
        for _ in 0..6 {
            self.begin(store)?;
            for name in
                ["ring-ref", "event-channel", "ring-page-order", "ring-ref0", "ring-ref1", "multi-queue-num-queues"]
            {
                let number = self.number();
                match self.chance.below(4) {
                    0 => self.device.withdraw(store, name)?,
                    1 => self.device.publish(store, name, &"")?,
                    2 => self.device.publish(store, name, &self.chance.below(6))?,
                    _ => self.device.publish(store, name, &number)?,
                }
            }
            let protocol = self.chance.one(&["x86_64-abi", "x86_32-abi", "arm-abi", ""]);
            self.device.publish(store, "protocol", &protocol)?;
            self.device.set_state(store, State::Initialised)?;
            nap(2000);
        }
        for name in ["ring-page-order", "multi-queue-num-queues", "protocol"] {
            self.device.withdraw(store, name)?;
        }
        self.begin(store)
    }

    /// A number that a node may hold: small, large, or none.
    fn number(&mut self) -> u64 {
        let any = self.chance.any();
        self.chance.one(&[0, 1, 8, 31, 32, 511, 512, 4095, 0x7fff_ffff, 0xffff_ffff, 0x1_0000_0000, any])
    }

    /// Connects as one should, then does what one should not.
    fn connected(&mut self, store: &mut Xenstore) -> Result<(), Error> {
        self.begin(store)?;
        let order = self.chance.below(3);
        let channel = Channel::new(self.device.dom(), 1 << order)?;
        for (at, value) in [(REQ_EVENT, 1), (RSP_EVENT, 1)] {
            channel.ring.store_u32(at, value);
        }
        // Two queues that are one.
        let twice = self.chance.rarely(4);
        self.device.publish(store, "ring-page-order", &order)?;
        self.device.publish(store, "feature-persistent", &self.chance.below(2))?;
        self.device.publish(store, "multi-queue-num-queues", &(1 + u8::from(twice)))?;
        for prefix in if twice { &["queue-0/", "queue-1/"][..] } else { &[""] } {
            self.device.publish(store, &format!("{prefix}event-channel"), &channel.port.0)?;
            for (page, reference) in channel.ring.references().enumerate() {
                self.device.publish(store, &format!("{prefix}ring-ref{page}"), &reference.0)?;
            }
        }
        self.device.set_state(store, State::Initialised)?;
        if self.await_state(store, State::Connected)? {
            self.connected += 1;
            self.device.set_state(store, State::Connected)?;
        }
        for _ in 0..BATCHES {
            self.batch(&channel);
        }
        self.answered += u64::from(channel.ring.load_u32(RSP_PROD).min(1 << 20));
        // Some go without a word: the ring is taken back while it is mapped, or the pages are.
        if self.chance.rarely(3) {
            let page = self.chance.below(self.pages.len() as u64) as usize;
            let dom = self.device.dom();
            self.pages[page] = Buffer::new(dom, 2, Access::ReadWrite)?;
        }
        Ok(())
    }

    /// Some requests, and what goes on beside them.
    fn batch(&mut self, channel: &Channel) {
        let Channel { ring, port } = channel;
        let size = slots(ring.len(), SLOT) as u32;
        let producer = ring.load_u32(REQ_PROD);
        let count = self.chance.below(u64::from(size)) as u32;
        for index in 0..count {
            let slot = self.request();
            let at = SLOTS + (producer.wrapping_add(index) & (size - 1)) as usize * SLOT;
            ring.write(at, &slot);
        }
        self.asked += u64::from(count);
        let jump = match self.chance.below(24) {
            0 => size + 1,
            1 => u32::MAX,
            2 => self.chance.any() as u32,
            3 => 1 << 31,
            _ => count,
        };
        ring.store_u32(REQ_PROD, producer.wrapping_add(jump));
        self.tell(*port);
        for _ in 0..self.chance.below(4) {
            self.meanwhile(ring, *port);
        }
        nap(self.chance.one(&[0, 10, 100, 1000]));
    }

    fn tell(&mut self, port: Port) {
        for _ in 0..self.chance.one(&[0, 1, 1, 1, 20]) {
            let _ = events::notify(port);
        }
    }

    /// While the back end works: its own index is written over, requests change, pages are taken back.
    fn meanwhile(&mut self, ring: &Buffer, port: Port) {
        let any = self.chance.any();
        match self.chance.below(8) {
            0 => ring.store_u32(RSP_PROD, any as u32),
            1 => ring.store_u32(REQ_EVENT, any as u32),
            2 => ring.store_u32(RSP_EVENT, any as u32),
            3 => {
                let at = SLOTS + (any as usize % (ring.len() - SLOTS - 8));
                ring.write(at, &any.to_le_bytes());
            }
            4 => self.tell(port),
            // The entry itself, whatever the hypervisor has noted in it.
            5 => {
                let reference = self.reference();
                if let Ok(table) = grants::table_frame(0)
                    && (8..512).contains(&reference)
                    && !ring.references().any(|own| own.0 == reference)
                {
                    let entry = table.u16_at(reference as usize * 8);
                    let flags = entry.swap(0, core::sync::atomic::Ordering::SeqCst);
                    nap(self.chance.below(200));
                    entry.store(flags & 7, core::sync::atomic::Ordering::SeqCst);
                }
            }
            _ => {
                let page = self.chance.below(self.pages.len() as u64) as usize;
                self.list(page);
            }
        }
    }

    /// A reference: mostly of a page of ours.
    fn reference(&mut self) -> u32 {
        let page = self.chance.below(self.pages.len() as u64) as usize;
        let index = self.chance.below(2) as usize;
        let wild = self.chance.any() as u32 | 8;
        match self.chance.below(12) {
            0 => self.chance.one(&[7, 511, 512, 4096, u32::MAX]),
            1 => wild,
            _ => self.pages[page].reference(index).0,
        }
    }

    fn segment(&mut self) -> BlkifRequestSegment {
        let sectors: &[(u8, u8)] =
            &[(0, 7), (0, 7), (0, 7), (0, 0), (7, 7), (3, 5), (5, 3), (0, 8), (8, 8), (0, 255), (255, 255)];
        let (first_sect, last_sect) = self.chance.one(sectors);
        BlkifRequestSegment { gref: GrantRef(self.reference()), first_sect, last_sect, _pad: self.chance.any() as u16 }
    }

    /// Fills a page with a list of segments.
    fn list(&mut self, page: usize) {
        for index in 0..512 {
            let segment = self.segment();
            self.pages[page].write(index * 8, segment.as_bytes());
        }
    }

    /// The bytes of a request: mostly nearly right.
    fn request(&mut self) -> [u8; SLOT] {
        let mut slot = [0; SLOT];
        let any = self.chance.any();
        // Few names, so that most are used twice.
        let id = self.chance.one(&[0, 1, 2, 3, u64::MAX, any]);
        let sector_number = self.chance.one(&[0, 0, 8, 64, 8184, 8191, 8192, u64::MAX, u64::MAX / 512, any]);
        let operation = self.chance.one(&[0, 0, 1, 1, 1, 2, 3, 4, 5, 6, 6, 6, 7, 255]);
        match operation {
            BLKIF_OP_INDIRECT => {
                let raw = BlkifRequestIndirect {
                    operation,
                    indirect_op: self.chance.one(&[0, 1, 0, 1, 2, 3, 6, 255]),
                    nr_segments: self.chance.one(&[0, 1, 12, 32, 128, 129, 512, 513, 4096, 4097, u16::MAX]),
                    id,
                    sector_number,
                    indirect_grefs: core::array::from_fn(|_| GrantRef(self.reference())),
                    ..BlkifRequestIndirect::new_zeroed()
                };
                slot[..raw.as_bytes().len()].copy_from_slice(raw.as_bytes());
            }
            _ => {
                let raw = BlkifRequest {
                    operation,
                    // Of a discard these are flags.
                    nr_segments: self.chance.one(&[0, 1, 1, 1, 2, 8, 11, 12, 255]),
                    handle: any as u16,
                    _pad: 0,
                    id,
                    sector_number,
                    seg: core::array::from_fn(|_| self.segment()),
                };
                slot.copy_from_slice(raw.as_bytes());
                if operation == BLKIF_OP_DISCARD {
                    let sectors: u64 = self.chance.one(&[0, 1, 8, 8192, u64::MAX, 1 << 55]);
                    slot[24..32].copy_from_slice(&sectors.to_le_bytes());
                }
            }
        }
        slot
    }

    /// The end: in the middle of requests, in one of the ways there are.
    fn leave(mut self, store: &mut Xenstore) {
        let _ = self.begin(store);
        let ways = ["its nodes are gone", "it crashes", "it goes off", "it stays"];
        let way = self.chance.below(ways.len() as u64) as usize;
        println!("bad disk: the end: {}", ways[way]);
        match way {
            0 => drop(self.device.withdraw(store, "state")),
            1 => power::crash(),
            2 => power::off(),
            _ => {}
        }
        if let Ok(channel) = Channel::new(self.device.dom(), 1) {
            loop {
                self.batch(&channel);
            }
        }
    }
}
