//! For tests of one layout: a domain that never has the other one.

use xen_abi::ids::{Port, VcpuId};

use super::PortBits;
use super::fifo::{ControlBlock, EventWord, FifoMemory, Priority, Queues};

/// What it never has.
#[derive(Clone, Copy, Debug)]
pub enum Never {}

impl EventWord for Never {
    fn load(self) -> u32 {
        match self {}
    }
    fn set(self, _: u32) -> u32 {
        match self {}
    }
    fn clear(self, _: u32) -> u32 {
        match self {}
    }
    fn replace(self, _: u32, _: u32) -> Result<(), u32> {
        match self {}
    }
}

impl ControlBlock for Never {
    fn set_head(self, _: Priority, _: Port) {
        match self {}
    }
    fn test_and_set_ready(self, _: Priority) -> bool {
        match self {}
    }
}

impl FifoMemory for Never {
    type Word<'a> = Never;
    type Control<'a> = Never;
    fn word(&self, _: Port) -> Option<Never> {
        match *self {}
    }
    fn control(&self, _: VcpuId) -> Option<Never> {
        match *self {}
    }
    fn with_queues<V>(&self, _: VcpuId, _: impl FnOnce(&mut Queues) -> V) -> Option<V> {
        match *self {}
    }
}

impl PortBits for Never {
    fn test_and_set_pending(self, _: Port) -> bool {
        match self {}
    }
    fn clear_pending(self, _: Port) {
        match self {}
    }
    fn is_pending(self, _: Port) -> bool {
        match self {}
    }
    fn is_masked(self, _: Port) -> bool {
        match self {}
    }
    fn test_and_clear_mask(self, _: Port) -> bool {
        match self {}
    }
}
