//! The hypervisor's lock: `logic`'s ranked spin lock, polling this CPU's mailbox while it waits.

/// A lock of rank `RANK` (see `logic::lock::rank`).
pub type Lock<T, const RANK: u8> = logic::lock::SpinLock<T, RANK, machine::mailbox::Poll>;

/// A value written once, at start or when a domain is built.
pub type Once<T> = spin::once::Once<T, machine::mailbox::Poll>;
