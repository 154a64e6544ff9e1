//! For tests of the 2-level layout: a domain that never has the other one.

use xen_abi::ids::{Port, VcpuId};

use super::fifo::{ControlBlock, EventWord, FifoMemory, Priority, Queues};

#[derive(Clone, Copy)]
pub(super) enum NoFifo {}

impl EventWord for NoFifo {
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

impl ControlBlock for NoFifo {
    fn set_head(self, _: Priority, _: Port) {
        match self {}
    }
    fn test_and_set_ready(self, _: Priority) -> bool {
        match self {}
    }
}

impl FifoMemory for NoFifo {
    type Word<'a> = NoFifo;
    type Control<'a> = NoFifo;
    fn word(&self, _: Port) -> Option<NoFifo> {
        match *self {}
    }
    fn control(&self, _: VcpuId) -> Option<NoFifo> {
        match *self {}
    }
    fn with_queues<V>(&self, _: VcpuId, _: impl FnOnce(&mut Queues) -> V) -> Option<V> {
        match *self {}
    }
}
