//! States of a device's two ends, as they stand in its `state` nodes (`io/xenbus.h`).

/// `enum xenbus_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// No state is known.
    Unknown = 0,
    /// The device is being set up.
    Initialising = 1,
    /// This end is set up as far as it can be without the other.
    InitWait = 2,
    /// This end has published what the other needs.
    Initialised = 3,
    /// In use.
    Connected = 4,
    /// About to close.
    Closing = 5,
    /// Closed.
    Closed = 6,
    /// Being set up anew.
    Reconfiguring = 7,
    /// Set up anew.
    Reconfigured = 8,
}

impl State {
    /// All states.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];

    /// The value of the node.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "0",
            Self::Initialising => "1",
            Self::InitWait => "2",
            Self::Initialised => "3",
            Self::Connected => "4",
            Self::Closing => "5",
            Self::Closed => "6",
            Self::Reconfiguring => "7",
            Self::Reconfigured => "8",
        }
    }

    /// Reads a node's value; whatever else stands there is [`State::Unknown`], as guests take it too.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        Self::ALL.into_iter().find(|state| state.as_str().as_bytes() == value).unwrap_or(Self::Unknown)
    }
}
