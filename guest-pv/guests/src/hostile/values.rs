//! Chance, and the numbers that it deals: those that mean something to a hypervisor, and their neighbours.
#![allow(clippy::cast_possible_truncation)] // Numbers are cut to size on purpose.

use super::Hostile;
use guest_pv::mem::{Frame, nr_frames, p2m, table};
use xen_abi::ids::Pfn;

/// Numbers that look random and are the same for the same seed: xorshift64*.
pub struct Chance(u64);

impl Chance {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        let mut chance = Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // Neighbouring seeds are strangers after a few numbers.
        for _ in 0..8 {
            chance.any();
        }
        chance
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is small.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.any() >> 33) % limit
    }

    /// One of them.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// True once in so many times.
    pub fn rarely(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Domains: ourselves, the control domain, neighbours, those that are none.
const DOMAINS: [u64; 16] =
    [0x7ff0, 0x7ff0, 0x7ff0, 0x7ff0, 0, 0, 1, 2, 3, 0x7ff1, 0x7ff2, 0x7ff3, 0x7ff4, 0x7fff, 77, 0xffff];

impl Hostile {
    fn frame(&mut self) -> &Frame {
        let at = self.chance.below(self.pool.len() as u64) as usize;
        &self.pool[at]
    }

    /// A machine frame: mostly of the pool, sometimes one that we live in, sometimes another's.
    pub fn mfn(&mut self) -> u64 {
        match self.chance.below(4000) {
            // A page that the hypervisor took back has none.
            0..3700 => {
                let pfn = self.frame().pfn();
                p2m(pfn).map_or(0, |mfn| mfn.0)
            }
            3700..3740 => self.chance.below(1 << 18),
            3740..3860 => self.chance.any() >> 24,
            3860..3960 => self.chance.one(&[0, 1, 0xb8, 0xfee00, u64::MAX, 1 << 40]),
            3960..3999 => self.buffers[0].mfn().0,
            _ => {
                let any = Pfn(self.chance.below(nr_frames().max(1)));
                p2m(any).map_or(0, |mfn| mfn.0)
            }
        }
    }

    /// An address that can be read or written: mostly of the pool.
    pub fn address(&mut self) -> u64 {
        let offset = match self.chance.below(8) {
            0 => 4095,
            1 => 4092,
            2 => 4088,
            3 => self.chance.below(4096),
            _ => self.chance.below(512) * 8,
        };
        match self.chance.below(100) {
            0..70 => self.frame().address() + offset,
            70..85 => self.buffers[1].address() + offset,
            85..88 => 0xffff_8000_0000_0000 + self.mfn() * 8,
            88..90 => 0xffff_82d0_4000_0000 + self.chance.below(1 << 22),
            90..92 => 0xffff_8300_0000_0000 + self.chance.below(1 << 30),
            92..94 => (1 << 47) - self.chance.below(2) * 8,
            94..96 => self.chance.below(1 << 16),
            96..98 => u64::MAX - self.chance.below(4096),
            _ => self.chance.any(),
        }
    }

    /// A page-table entry.
    pub fn entry(&mut self) -> u64 {
        let flags = match self.chance.below(10) {
            0..3 => table::READ_ONLY,
            3..5 => table::READ_WRITE,
            5..8 => table::TABLE,
            8 => 0,
            _ => self.chance.any() & 0xfff,
        };
        let high = if self.chance.rarely(16) { self.chance.any() & 0xfff0_0000_0000_0000 } else { 0 };
        let odd = if self.chance.rarely(16) { 1 << self.chance.below(12) } else { 0 };
        ((self.mfn() << 12) | flags | high) ^ odd
    }

    /// Machine address of an entry of a page table, or nearly.
    pub fn slot(&mut self) -> u64 {
        let kind = if self.chance.rarely(4) { self.chance.below(8) } else { 0 };
        // Our own live tables: seldom, or we do not get far.
        let frame = if self.chance.rarely(5000) { table::root().0 } else { self.mfn() };
        (frame << 12) | (self.chance.below(512) * 8) | kind
    }

    /// A 32-bit number.
    pub fn half(&mut self) -> u64 {
        match self.chance.below(12) {
            0..3 => self.chance.below(4),
            3..5 => self.chance.below(64),
            5 => self.chance.one(&DOMAINS),
            6 => 3 + self.chance.below(30),
            7 => 1 << self.chance.below(32),
            8 => (1 << self.chance.below(32)) - 1,
            9 => 0xffff_ffff,
            10 => self.mfn() & 0xffff_ffff,
            _ => self.chance.any() >> 32,
        }
    }

    /// A domain.
    pub fn domain(&mut self) -> u64 {
        self.chance.one(&DOMAINS)
    }

    /// Any word that could be an argument.
    pub fn word(&mut self) -> u64 {
        match self.chance.below(16) {
            0 | 1 => 0,
            2 => self.chance.below(64),
            3 | 4 => self.mfn(),
            5 => self.frame().pfn().0,
            6 | 7 => self.address(),
            8 => self.slot(),
            9 => self.entry(),
            10 => self.domain(),
            11 | 12 => self.half() | (self.half() << 32),
            13 => 1 << self.chance.below(64),
            14 => self.pointer(),
            _ => self.chance.any(),
        }
    }

    /// A pointer for an argument: mostly to a filled buffer, sometimes near the end of a page, sometimes bad.
    pub fn pointer(&mut self) -> u64 {
        match self.chance.below(20) {
            0 => self.address(),
            1 => 0,
            2 => self.buffers[2].address() + 4096 - 8 * self.chance.below(4),
            3 => self.buffers[2].address() + self.chance.below(64),
            4..7 => self.buffers[1].address(),
            _ => self.buffers[2].address(),
        }
    }

    /// Writes words into an argument buffer and returns its address.
    pub fn fill(&mut self, buffer: usize, words: &[u64]) -> u64 {
        for (chunk, word) in self.buffers[buffer].bytes_mut().chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        self.buffers[buffer].address()
    }
}
