//! What host and dom0 say to each other: requests, each with a number of its own, and what belongs to them.
//!
//! Each direction of a request moves at most [`CREDIT`] bytes ahead of what the other end has asked for, so a request
//! whose other end does not read stops by itself and holds up no other.

use alloc::string::String;
use alloc::vec::Vec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of all layers. Another version is refused when a link comes up.
pub const VERSION: u16 = 2;
/// Bytes that may be under way in a direction of a request before the other end asks for more.
pub const CREDIT: u32 = 16 << 10;
/// The longest piece of bytes in a message.
pub const MAX_PIECE: usize = 1000;
/// The longest name.
pub const MAX_NAME: usize = 900;

/// Which request: chosen by the host, never used twice on a link.
pub type Id = u32;

/// Where output belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// What was asked for.
    Out,
    /// What went wrong.
    Err,
    /// The file that is being saved.
    File,
}

/// What a part of a request is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// The commands.
    Script,
    /// A file of the host's, by the name that the commands know it by.
    File(String),
}

/// Whether lines that nobody asked for (a domain ended) are to be shown with a request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notices {
    /// They are for others.
    Hidden,
    /// They are.
    Shown,
}

/// What is said about a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<T> {
    /// The request.
    pub id: Id,
    /// What.
    pub body: T,
}

impl<T: Serialize> Message<T> {
    /// As a payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // It fails only where there is no room, and a vector grows.
        postcard::to_allocvec(self).unwrap_or_default()
    }
}

impl<T: DeserializeOwned> Message<T> {
    /// From a payload; `None` when it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

/// From the host to dom0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToDom0 {
    /// A request begins.
    Start(Notices),
    /// One of its parts begins. Its bytes follow.
    Part {
        /// What it is.
        part: Part,
        /// How many bytes it has.
        size: u64,
    },
    /// Bytes of the last part.
    Bytes(Vec<u8>),
    /// The request is complete: go.
    Run,
    /// Something was typed.
    Input(Vec<u8>),
    /// Nothing more will be typed.
    InputEnd,
    /// So many more bytes of output may come.
    More(u32),
    /// The user wants it to stop (Ctrl-C).
    Interrupt,
    /// Nobody is there any more who would read what it says.
    HangUp,
}

/// From dom0 to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// It says something.
    Output {
        /// To whom.
        stream: Stream,
        /// What.
        bytes: Vec<u8>,
    },
    /// It makes a file of this name: what follows on [`Stream::File`], until the request ends.
    Save(String),
    /// So many zeros on [`Stream::File`].
    Zeros(u64),
    /// So many more bytes of parts and input may come.
    More(u32),
    /// It ended with a status; 0 is well.
    Done(i32),
    /// It could not begin, or could not go on, for this reason.
    Failed(String),
}

impl ToHost {
    /// Whether the request is over with it.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Failed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::MAX_PAYLOAD;
    use alloc::vec;

    #[test]
    fn the_longest_messages_fit() {
        let id = u32::MAX;
        let longest = [
            ToDom0::Part { part: Part::File("x".repeat(MAX_NAME)), size: u64::MAX },
            ToDom0::Bytes(vec![0; MAX_PIECE]),
        ];
        for body in longest {
            let message = Message { id, body };
            let bytes = message.encode();
            assert!(bytes.len() <= MAX_PAYLOAD);
            assert_eq!(Message::decode(&bytes), Some(message));
        }
        let output = Message { id, body: ToHost::Output { stream: Stream::File, bytes: vec![1; MAX_PIECE] } };
        assert!(output.encode().len() <= MAX_PAYLOAD);
        assert_eq!(Message::decode(&output.encode()), Some(output));
        assert_eq!(Message::<ToHost>::decode(b"\xff\xff"), None);
    }
}
