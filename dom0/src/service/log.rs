//! What a guest printed: the end of it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Bytes that are kept.
const LIMIT: usize = 256 << 10;

/// The last bytes of an endless text. Positions count from its very beginning.
#[derive(Debug, Default)]
pub struct Log {
    bytes: VecDeque<u8>,
    /// The position of the first byte that is kept.
    start: u64,
    /// Up to where the user has seen it.
    pub seen: u64,
    /// Up to where the host's users have seen it.
    pub seen_by_host: u64,
}

impl Log {
    /// Adds to the end.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(LIMIT);
        self.bytes.drain(..excess);
        self.start += excess as u64;
    }

    /// The position of the first byte that is kept.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The position after the last byte.
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The bytes from a position on, as far as they are kept.
    fn since(&self, position: u64) -> Vec<u8> {
        self.between(position, self.end())
    }

    /// The bytes from one position to another, as far as they are kept.
    pub fn between(&self, from: u64, to: u64) -> Vec<u8> {
        let index = |position: u64| usize::try_from(position.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.bytes.iter().take(index(to)).skip(index(from)).copied().collect()
    }

    /// What the user has not seen; now it has.
    pub fn unseen(&mut self) -> Vec<u8> {
        let bytes = self.since(self.seen);
        self.seen = self.end();
        bytes
    }

    /// Goes back to the start of the last line, so that whoever attaches sees the prompt there.
    pub fn step_back(&mut self) {
        self.seen = self.line_before(self.seen);
    }

    /// A position, or the start of the last line where that is before it.
    pub fn line_before(&self, position: u64) -> u64 {
        let line = self.bytes.iter().rev().take_while(|&&byte| byte != b'\n').count();
        position.min(self.end() - line as u64)
    }

    /// Where a text that begins at `position` or later ends.
    pub fn find(&self, text: &[u8], position: u64) -> Option<u64> {
        if text.is_empty() {
            return Some(position);
        }
        let from = position.max(self.start);
        let at = self.since(from).windows(text.len()).position(|window| window == text)?;
        Some(from + (at + text.len()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept() {
        let mut log = Log::default();
        log.add(b"one\ntwo");
        assert_eq!(log.unseen(), b"one\ntwo");
        assert_eq!(log.unseen(), b"");
        log.step_back();
        assert_eq!(log.unseen(), b"two");
        assert_eq!(log.find(b"ne\nt", 0), Some(5));
        assert_eq!(log.find(b"ne\nt", 2), None);
        log.add(&[b'x'; LIMIT]);
        assert_eq!((log.start(), log.end()), (7, 7 + LIMIT as u64));
        assert_eq!(log.find(b"two", 0), None);
        assert_eq!(log.since(log.end() - 2), b"xx");
        assert_eq!(log.since(0).len(), LIMIT);
        assert_eq!(log.between(0, log.start() + 3), b"xxx");
        assert_eq!(log.between(9, 8), b"");
    }
}
