//! Floor 1: xenstore: the tree, permissions, transactions, watches, quotas, and the wire protocol of its clients.
//!
//! Behaviour and error numbers are those of the C xenstored of Xen 4.17 (Xen's docs/misc/xenstore.txt says what is
//! promised). It moves no bytes itself: whoever has the rings feeds [`Store::receive`] and empties [`Store::output`].
//!
//! The tree is persistent: nodes are shared between the store and the transactions that saw them, and copied only when
//! they change. So a transaction starts in constant time, and a commit compares nothing but the nodes it touched. Where a
//! node has many children they are shared out among maps, so that a copy of it takes a bounded number of steps, too.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod children;
mod client;
pub mod path;
pub mod permission;
mod plant;
pub mod quota;
mod store;
mod transaction;
mod tree;
mod view;
mod watch;
mod wire;

pub use client::Violation;
pub use plant::{Child, Seed};
pub use quota::Quota;
pub use store::{NO_TRANSACTION, Outcome, Part, Store};
