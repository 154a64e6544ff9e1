//! A pair of NVMe queues: commands go, answers come (NVM Express 1.4, 4.1).

use dom0_hal::dma::Area;
use guest_pv::mem::PAGE_BYTES;

/// Entries of a controller's own queues, and of those of its disks at most: a page of commands, and four in one piece.
pub const ADMIN: u16 = 64;
pub const MOST: u16 = 256;
/// Bytes of an entry.
const COMMAND: usize = 64;
const ANSWER: usize = 16;

/// A pair of queues.
#[derive(Debug)]
pub struct Pair {
    pub number: u16,
    pub commands: Area,
    pub answers: Area,
    entries: u16,
    pub tail: u16,
    pub head: u16,
    phase: bool,
}

/// A command.
#[derive(Clone, Copy, Debug, Default)]
pub struct Command {
    pub code: u8,
    pub namespace: u32,
    pub prp: [u64; 2],
    pub words: [u32; 3],
}

impl Pair {
    /// Empty queues of so many entries.
    pub fn new(number: u16, entries: u16) -> Option<Self> {
        let area =
            |size: usize| Area::new((usize::from(entries) * size).div_ceil(PAGE_BYTES).next_power_of_two().ilog2());
        let (commands, answers) = (area(COMMAND)?, area(ANSWER)?);
        Some(Self { number, commands, answers, entries, tail: 0, head: 0, phase: true })
    }

    /// Commands under way at most, so that a queue is never full.
    pub fn slots(&self) -> usize {
        usize::from(self.entries - 1)
    }

    /// Empties them, as a controller that was reset has them.
    pub fn reset(&mut self) {
        self.answers.zero(0, self.answers.len());
        (self.tail, self.head, self.phase) = (0, 0, true);
    }

    /// Puts a command at the end.
    pub fn push(&mut self, id: u16, command: &Command) {
        let at = usize::from(self.tail) * COMMAND;
        self.commands.zero(at, COMMAND);
        self.commands.store_u32(at, u32::from(command.code) | u32::from(id) << 16);
        self.commands.store_u32(at + 4, command.namespace);
        self.commands.store_u64(at + 24, command.prp[0]);
        self.commands.store_u64(at + 32, command.prp[1]);
        for (index, word) in command.words.iter().enumerate() {
            self.commands.store_u32(at + 40 + index * 4, *word);
        }
        self.tail = (self.tail + 1) % self.entries;
    }

    /// What the answer that was taken last says beside its status.
    pub fn said(&self) -> u32 {
        let last = (self.head + self.entries - 1) % self.entries;
        self.answers.load_u32(usize::from(last) * ANSWER)
    }

    /// The next answer: which command, and its status.
    pub fn pop(&mut self) -> Option<(u16, u16)> {
        let at = usize::from(self.head) * ANSWER + 12;
        let word = self.answers.load_u32(at);
        if (word & 1 << 16 != 0) != self.phase {
            return None;
        }
        self.head = (self.head + 1) % self.entries;
        if self.head == 0 {
            self.phase = !self.phase;
        }
        let [low, high] = [word & 0xffff, word >> 17].map(|half| u16::try_from(half).unwrap_or(u16::MAX));
        Some((low, high))
    }
}
