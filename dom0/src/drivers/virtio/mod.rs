//! Virtio devices on PCI (OASIS virtio 1.2): the way to the device ([`transport`]), its queues ([`queue`]), and disks.

pub mod blk;
mod queue;
mod transport;
