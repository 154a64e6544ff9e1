//! Floor 2: the runtime for paravirtualized guests.
#![no_std]
