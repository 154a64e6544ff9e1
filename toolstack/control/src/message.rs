//! What host and dom0 say to each other: requests, each with a number of its own, and what belongs to them.
//!
//! Each direction of a request moves at most [`CREDIT`] bytes ahead of what the other end has asked for, so a request
//! whose other end does not read stops by itself and holds up no other.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The version of all layers. Another version is refused when a link comes up.
pub const VERSION: u16 = 1;
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

/// From the host to dom0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToDom0 {
    /// A request begins.
    Start {
        /// Its number.
        id: Id,
        /// Whether notices are to be shown.
        notices: Notices,
    },
    /// One of its parts begins. Its bytes follow.
    Part {
        /// The request.
        id: Id,
        /// What it is.
        part: Part,
        /// How many bytes it has.
        size: u64,
    },
    /// Bytes of the last part.
    Bytes {
        /// The request.
        id: Id,
        /// Some of them.
        bytes: Vec<u8>,
    },
    /// The request is complete: go.
    Run {
        /// The request.
        id: Id,
    },
    /// Something was typed.
    Input {
        /// The request.
        id: Id,
        /// The keys.
        bytes: Vec<u8>,
    },
    /// Nothing more will be typed.
    InputEnd {
        /// The request.
        id: Id,
    },
    /// So many more bytes of output may come.
    More {
        /// The request.
        id: Id,
        /// The number.
        count: u32,
    },
    /// The user wants it to stop (Ctrl-C).
    Interrupt {
        /// The request.
        id: Id,
    },
    /// Nobody is there any more who would read what it says.
    HangUp {
        /// The request.
        id: Id,
    },
}

/// From dom0 to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// It says something.
    Output {
        /// The request.
        id: Id,
        /// To whom.
        stream: Stream,
        /// What.
        bytes: Vec<u8>,
    },
    /// It makes a file: what follows on [`Stream::File`], until the request ends.
    Save {
        /// The request.
        id: Id,
        /// The file's name.
        name: String,
    },
    /// So many zeros on [`Stream::File`].
    Zeros {
        /// The request.
        id: Id,
        /// The number.
        count: u64,
    },
    /// So many more bytes of parts and input may come.
    More {
        /// The request.
        id: Id,
        /// The number.
        count: u32,
    },
    /// It ended with a status.
    Done {
        /// The request.
        id: Id,
        /// 0 is well.
        status: i32,
    },
    /// It could not begin, or could not go on.
    Failed {
        /// The request.
        id: Id,
        /// Why.
        why: String,
    },
}

impl ToDom0 {
    /// The request it belongs to.
    #[must_use]
    pub const fn id(&self) -> Id {
        match self {
            Self::Start { id, .. }
            | Self::Part { id, .. }
            | Self::Bytes { id, .. }
            | Self::Run { id }
            | Self::Input { id, .. }
            | Self::InputEnd { id }
            | Self::More { id, .. }
            | Self::Interrupt { id }
            | Self::HangUp { id } => *id,
        }
    }

    /// The same of another request.
    #[must_use]
    pub fn with_id(mut self, new: Id) -> Self {
        match &mut self {
            Self::Start { id, .. }
            | Self::Part { id, .. }
            | Self::Bytes { id, .. }
            | Self::Run { id }
            | Self::Input { id, .. }
            | Self::InputEnd { id }
            | Self::More { id, .. }
            | Self::Interrupt { id }
            | Self::HangUp { id } => *id = new,
        }
        self
    }

    /// As a payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// From a payload; `None` when it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

impl ToHost {
    /// The request it belongs to.
    #[must_use]
    pub const fn id(&self) -> Id {
        match self {
            Self::Output { id, .. }
            | Self::Save { id, .. }
            | Self::Zeros { id, .. }
            | Self::More { id, .. }
            | Self::Done { id, .. }
            | Self::Failed { id, .. } => *id,
        }
    }

    /// The same of another request.
    #[must_use]
    pub fn with_id(mut self, new: Id) -> Self {
        match &mut self {
            Self::Output { id, .. }
            | Self::Save { id, .. }
            | Self::Zeros { id, .. }
            | Self::More { id, .. }
            | Self::Done { id, .. }
            | Self::Failed { id, .. } => *id = new,
        }
        self
    }

    /// Whether the request is over with it.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. })
    }

    /// As a payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// From a payload; `None` when it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    // It fails only where there is no room, and a vector grows.
    postcard::to_allocvec(message).unwrap_or_default()
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
            ToDom0::Part { id, part: Part::File("x".repeat(MAX_NAME)), size: u64::MAX },
            ToDom0::Bytes { id, bytes: vec![0; MAX_PIECE] },
        ];
        for message in longest {
            let bytes = message.encode();
            assert!(bytes.len() <= MAX_PAYLOAD);
            assert_eq!(ToDom0::decode(&bytes), Some(message));
        }
        let output = ToHost::Output { id, stream: Stream::File, bytes: vec![1; MAX_PIECE] };
        assert!(output.encode().len() <= MAX_PAYLOAD);
        assert_eq!(output.clone().with_id(3).id(), 3);
        assert_eq!(ToHost::decode(&output.encode()), Some(output));
        assert_eq!(ToHost::decode(b"\xff\xff"), None);
    }
}
