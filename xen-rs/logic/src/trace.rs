//! The trace buffer of one CPU: records go in at one end, a monitor in the control domain takes them out at the other
//! (public header `trace.h`).
//!
//! The buffer is shared with the monitor, which may write anything there: what the ring knows of its own it keeps to itself,
//! and a position that the monitor could not have reached only costs records.

use xen_abi::trace::{TRC_CLS_SHIFT, TRC_LOST_RECORDS, TRC_SUBCLS_SHIFT, TRC_TRACE_WRAP_BUFFER};

/// The most data words of a record.
pub const MOST_DATA: usize = 7;

/// The memory of a buffer.
pub trait Buffer {
    /// Bytes for records; a multiple of 4.
    fn bytes(&self) -> u32;
    /// What the monitor says it has read (`cons`).
    fn consumed(&self) -> u32;
    /// Tells the monitor what is there (`prod`), after all that was stored.
    fn publish(&self, produced: u32);
    /// Writes a word of a record at an offset that is a multiple of 4 and below `bytes`.
    fn store(&self, offset: u32, word: u32);
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is there.
    Yes,
    /// It is there, and with it the buffer is half full: time to tell the monitor.
    HalfFull,
    /// There was no room.
    Lost,
}

/// Where a CPU writes in its buffer.
#[derive(Debug, Default)]
pub struct Ring {
    /// Modulo twice the buffer's bytes.
    produced: u32,
    lost: u32,
    first_lost: u64,
}

/// Whether an event is one of those that a mask asks for: its class, and its subclass within that.
#[must_use]
pub const fn is_wanted(mask: u32, event: u32) -> bool {
    mask & event != 0
        && (mask >> TRC_CLS_SHIFT) & (event >> TRC_CLS_SHIFT) != 0
        && (mask >> TRC_SUBCLS_SHIFT) & (event >> TRC_SUBCLS_SHIFT) & 0xf != 0
}

const fn record_bytes(has_time: bool, data: usize) -> u32 {
    // At most 10 words.
    #[allow(clippy::cast_possible_truncation, reason = "data is at most MOST_DATA")]
    let words = 1 + if has_time { 2 } else { 0 } + data as u32;
    words * 4
}

/// `TRC_LOST_RECORDS`: a time stamp and four words.
const LOST_BYTES: u32 = record_bytes(true, 4);

impl Ring {
    /// At the beginning of an empty buffer.
    #[must_use]
    pub const fn new() -> Self {
        Ring { produced: 0, lost: 0, first_lost: 0 }
    }

    /// Writes a record, at `now` ticks of the time stamp counter. What does not fit is counted, and the next record that
    /// fits is preceded by one that says how many there were.
    pub fn write(&mut self, buffer: &impl Buffer, event: u32, now: u64, data: &[u32]) -> Written {
        let data = data.get(..MOST_DATA.min(data.len())).unwrap_or(data);
        let (size, bytes) = (record_bytes(true, data.len()), buffer.bytes());
        let used = self.used(buffer.consumed(), bytes);
        if used.is_none_or(|used| used + self.needed(bytes, size) > bytes) {
            if self.lost == 0 {
                self.first_lost = now;
            }
            self.lost = self.lost.saturating_add(1);
            return Written::Lost;
        }
        if self.lost != 0 {
            self.wrap_before(buffer, bytes, LOST_BYTES);
            // No vCPU is to blame: the idle domain's.
            let [low, high] = halves(self.first_lost);
            let lost = [core::mem::take(&mut self.lost), xen_abi::ids::DomId::IDLE.0.into(), low, high];
            self.record(buffer, bytes, TRC_LOST_RECORDS, Some(now), &lost);
        }
        self.wrap_before(buffer, bytes, size);
        self.record(buffer, bytes, event, Some(now), data);
        buffer.publish(self.produced);
        let before = used.unwrap_or(0);
        let after = self.used(buffer.consumed(), bytes).unwrap_or(bytes);
        if before < bytes / 2 && after >= bytes / 2 { Written::HalfFull } else { Written::Yes }
    }

    /// Bytes that the monitor has not read, unless what it says cannot be.
    const fn used(&self, consumed: u32, bytes: u32) -> Option<u32> {
        if consumed >= 2 * bytes {
            return None;
        }
        let used = (self.produced + 2 * bytes - consumed) % (2 * bytes);
        if used <= bytes { Some(used) } else { None }
    }

    /// Bytes up to the end of the buffer.
    const fn to_end(&self, bytes: u32) -> u32 {
        bytes - self.produced % bytes
    }

    /// Bytes that a record of `size` takes, with all that has to come before it.
    const fn needed(&self, bytes: u32, size: u32) -> u32 {
        let mut needed = 0;
        let mut to_end = self.to_end(bytes);
        if self.lost != 0 {
            if LOST_BYTES > to_end {
                needed += to_end;
                to_end = bytes;
            }
            needed += LOST_BYTES;
            to_end -= LOST_BYTES;
            if to_end == 0 {
                to_end = bytes;
            }
        }
        if size > to_end {
            needed += to_end;
        }
        needed + size
    }

    /// Fills the rest of the buffer when a record of `size` bytes does not fit in it: none is cut in two.
    fn wrap_before(&mut self, buffer: &impl Buffer, bytes: u32, size: u32) {
        let to_end = self.to_end(bytes);
        if size > to_end {
            // A header, and the rest as data, with a time stamp where that is more than a record can have.
            let words = (to_end / 4).saturating_sub(1) as usize;
            let zeroes = [0; MOST_DATA];
            let (time, data) = if words > MOST_DATA { (Some(0), words - 2) } else { (None, words) };
            self.record(buffer, bytes, TRC_TRACE_WRAP_BUFFER, time, zeroes.get(..data).unwrap_or(&zeroes));
        }
    }

    fn record(&mut self, buffer: &impl Buffer, bytes: u32, event: u32, time: Option<u64>, data: &[u32]) {
        #[allow(clippy::cast_possible_truncation, reason = "at most MOST_DATA words")]
        let header = event & 0x0fff_ffff | (data.len() as u32) << 28 | u32::from(time.is_some()) << 31;
        let time = time.map(halves);
        let words = core::iter::once(header).chain(time.into_iter().flatten()).chain(data.iter().copied());
        for word in words {
            buffer.store(self.produced % bytes, word);
            self.produced = (self.produced + 4) % (2 * bytes);
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the two halves of a number")]
const fn halves(number: u64) -> [u32; 2] {
    [number as u32, (number >> 32) as u32]
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::{Cell, RefCell};
    use std::vec::Vec;
    use xen_abi::trace::{TRC_ALL, TRC_SCHED_SWITCH, TRC_SCHED_WAKE};

    struct Memory {
        words: RefCell<Vec<u32>>,
        consumed: Cell<u32>,
        produced: Cell<u32>,
    }

    impl Memory {
        fn new(words: usize) -> Self {
            Memory { words: RefCell::new(std::vec![0; words]), consumed: Cell::new(0), produced: Cell::new(0) }
        }

        /// What a monitor does: takes records as long as there are some.
        fn read(&self, mut most: usize) -> Vec<(u32, Vec<u32>)> {
            let (bytes, words) = (self.bytes(), self.words.borrow());
            let mut records = Vec::new();
            while self.consumed.get() != self.produced.get() && most > 0 {
                let at = |word: u32| words[((self.consumed.get() + 4 * word) % bytes / 4) as usize];
                let header = at(0);
                let time = header >> 31 & 1;
                let data = header >> 28 & 7;
                let size = 4 * (1 + 2 * time + data);
                assert!(self.consumed.get() % bytes + size <= bytes, "a record is cut in two");
                let event = header & 0x0fff_ffff;
                if event != TRC_TRACE_WRAP_BUFFER {
                    records.push((event, (0..data).map(|word| at(1 + 2 * time + word)).collect()));
                    most -= 1;
                }
                self.consumed.set((self.consumed.get() + size) % (2 * bytes));
            }
            records
        }
    }

    impl Buffer for Memory {
        fn bytes(&self) -> u32 {
            u32::try_from(self.words.borrow().len()).unwrap() * 4
        }
        fn consumed(&self) -> u32 {
            self.consumed.get()
        }
        fn publish(&self, produced: u32) {
            self.produced.set(produced);
        }
        fn store(&self, offset: u32, word: u32) {
            self.words.borrow_mut()[offset as usize / 4] = word;
        }
    }

    #[test]
    fn classes_and_subclasses() {
        assert!(is_wanted(TRC_ALL, TRC_SCHED_SWITCH) && is_wanted(0x0002_f000, TRC_SCHED_SWITCH));
        assert!(is_wanted(0x0002_8000, TRC_SCHED_SWITCH) && !is_wanted(0x0002_1000, TRC_SCHED_SWITCH));
        assert!(!is_wanted(0x0020_f000, TRC_SCHED_SWITCH) && !is_wanted(0, TRC_SCHED_SWITCH));
    }

    #[test]
    fn a_full_buffer_counts_what_it_loses() {
        let (memory, mut ring) = (Memory::new(20), Ring::new());
        assert_eq!(ring.write(&memory, TRC_SCHED_WAKE, 1, &[1, 2]), Written::Yes);
        assert_eq!(ring.write(&memory, TRC_SCHED_WAKE, 2, &[3, 4]), Written::HalfFull);
        assert_eq!(ring.write(&memory, TRC_SCHED_WAKE, 3, &[5, 6]), Written::Yes);
        assert_eq!(ring.write(&memory, TRC_SCHED_WAKE, 4, &[7, 8]), Written::Yes);
        assert_eq!(ring.write(&memory, TRC_SCHED_WAKE, 5 << 32, &[9, 10]), Written::Lost);
        assert_eq!(ring.write(&memory, TRC_SCHED_WAKE, 6, &[9, 10]), Written::Lost);
        assert_eq!(memory.read(9).len(), 4);
        assert_eq!(ring.write(&memory, TRC_SCHED_WAKE, 7, &[11, 12]), Written::HalfFull);
        let idle = u32::from(xen_abi::ids::DomId::IDLE.0);
        let expected = [(TRC_LOST_RECORDS, std::vec![2, idle, 0, 5]), (TRC_SCHED_WAKE, std::vec![11, 12])];
        assert_eq!(memory.read(9), expected);
    }

    #[test]
    fn a_monitor_that_lies_gets_nothing() {
        let (memory, mut ring) = (Memory::new(64), Ring::new());
        for wrong in [1 << 20, u32::MAX, 2 * 256, 200] {
            memory.consumed.set(wrong);
            assert_eq!(ring.write(&memory, TRC_SCHED_WAKE, 1, &[1]), Written::Lost, "{wrong}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn what_was_written_is_read(
            words in 16..80_usize,
            steps in prop::collection::vec((any::<bool>(), 0..=MOST_DATA), 1..300)
        ) {
            let (memory, mut ring) = (Memory::new(words), Ring::new());
            let mut expected = std::collections::VecDeque::new();
            let mut lost = 0_u32;
            let mut number = 0;
            for (write, count) in steps {
                if write {
                    let data: Vec<u32> = (0..count).map(|_| { number += 1; number }).collect();
                    if ring.write(&memory, TRC_SCHED_WAKE, 1, &data) == Written::Lost {
                        lost += 1;
                    } else {
                        if lost != 0 {
                            expected.push_back((TRC_LOST_RECORDS, core::mem::take(&mut lost)));
                        }
                        expected.push_back((TRC_SCHED_WAKE, data.first().copied().unwrap_or(0)));
                    }
                } else {
                    for (event, data) in memory.read(count) {
                        let (wanted, first) = expected.pop_front().unwrap();
                        prop_assert_eq!((event, data.first().copied().unwrap_or(0)), (wanted, first));
                    }
                }
            }
        }
    }
}
