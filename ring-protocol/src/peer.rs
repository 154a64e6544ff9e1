//! What a peer can do wrong.

use core::fmt;

/// The peer broke the protocol. Whoever sees this stops talking to it; nothing was read or written on its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its index and ours are further apart than the ring is long.
    Indices {
        /// Where the reader is.
        consumer: u32,
        /// Where the writer is.
        producer: u32,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Indices { consumer, producer } => {
                write!(f, "impossible ring indices: consumer {consumer:#x}, producer {producer:#x}")
            }
        }
    }
}

impl core::error::Error for Fault {}
