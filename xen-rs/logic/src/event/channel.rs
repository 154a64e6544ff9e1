//! What each port of a domain is bound to: one word per port, read without a lock.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32 as Plain32, AtomicU64, Ordering};

use crate::num::{Bounded, index_below};
use spin::Once;
use xen_abi::errno::Errno;
use xen_abi::event_channel::{EVTCHN_2L_NR_CHANNELS, EVTCHN_FIFO_NR_CHANNELS};
use xen_abi::ids::{DomId, Port, VcpuId};

use super::fifo::Queueing;
use crate::atomic::AtomicU32;

/// Ports of the 2-level scheme.
pub const PORTS_2L: u32 = EVTCHN_2L_NR_CHANNELS;
/// Ports of the FIFO scheme: all there can be.
pub const PORTS_FIFO: u32 = EVTCHN_FIFO_NR_CHANNELS;

/// Ports in one chunk of words. Xen's `port_is_valid` grows in the same steps, so `status` of a port that was never
/// used gives the same answer as there.
pub(super) const CHUNK: u32 = 64;
/// Chunks of the 2-level scheme, found at once.
const NEAR: usize = (PORTS_2L / CHUNK) as usize;
/// Chunks of the ports beyond.
const FAR: usize = (PORTS_FIFO / CHUNK) as usize - NEAR;

/// What a port is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Nothing.
    Free,
    /// Port 0: never used, so that 0 can mean "no port".
    Reserved,
    /// Waits for this domain to bind to it.
    Unbound {
        /// Who may.
        remote: DomId,
    },
    /// Connected.
    Interdomain {
        /// The other end's domain.
        remote: DomId,
        /// The other end's port.
        port: Port,
    },
    /// A physical interrupt, by the domain's number for it.
    Pirq(u32),
    /// A virtual interrupt.
    Virq(u32),
    /// A port by which the domain's vCPUs interrupt each other.
    Ipi,
}

/// A port: its binding and the vCPU that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// What it is bound to.
    pub binding: Binding,
    /// Who is told.
    pub vcpu: VcpuId,
}

impl Channel {
    /// A free port.
    pub const FREE: Channel = Channel { binding: Binding::Free, vcpu: VcpuId(0) };

    // state: bits 0..4, vCPU: 4..17, domain: 17..32, port or interrupt: 32..64.
    const VCPU_SHIFT: u32 = 4;
    const VCPU_MASK: u64 = 0x1fff;
    const DOMAIN_SHIFT: u32 = 17;
    const DOMAIN_MASK: u64 = 0x7fff;
    const NUMBER_SHIFT: u32 = 32;

    /// As a word. A free port is 0.
    fn encode(self) -> u64 {
        let (state, domain, number) = match self.binding {
            Binding::Free => (0, 0, 0),
            Binding::Reserved => (1, 0, 0),
            Binding::Unbound { remote } => (2, remote.0, 0),
            Binding::Interdomain { remote, port } => (3, remote.0, port.0),
            Binding::Pirq(pirq) => (4, 0, pirq),
            Binding::Virq(virq) => (5, 0, virq),
            Binding::Ipi => (6, 0, 0),
        };
        state
            | (u64::from(self.vcpu.0) & Self::VCPU_MASK) << Self::VCPU_SHIFT
            | (u64::from(domain) & Self::DOMAIN_MASK) << Self::DOMAIN_SHIFT
            | u64::from(number) << Self::NUMBER_SHIFT
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "each value is masked to its field")]
    fn decode(word: u64) -> Channel {
        let remote = DomId((word >> Self::DOMAIN_SHIFT & Self::DOMAIN_MASK) as u16);
        let number = (word >> Self::NUMBER_SHIFT) as u32;
        let binding = match word & 0xf {
            1 => Binding::Reserved,
            2 => Binding::Unbound { remote },
            3 => Binding::Interdomain { remote, port: Port(number) },
            4 => Binding::Pirq(number),
            5 => Binding::Virq(number),
            6 => Binding::Ipi,
            _ => Binding::Free,
        };
        Channel { binding, vcpu: VcpuId((word >> Self::VCPU_SHIFT & Self::VCPU_MASK) as u32) }
    }
}

/// A chunk of ports.
#[derive(Debug)]
struct Chunk {
    words: Box<[AtomicU64; CHUNK as usize]>,
    queueing: Box<[Queueing; CHUNK as usize]>,
}

impl Chunk {
    /// Free ports. ENOMEM.
    fn new() -> Result<Self, Errno> {
        let words = filled(|| AtomicU64::new(Channel::FREE.encode()))?;
        Ok(Chunk { words, queueing: filled(Queueing::new)? })
    }
}

/// A boxed array, made without a panic when memory is short.
fn filled<T>(value: impl FnMut() -> T) -> Result<Box<[T; CHUNK as usize]>, Errno> {
    let mut all = Vec::new();
    all.try_reserve_exact(CHUNK as usize).map_err(|_| Errno::ENOMEM)?;
    all.resize_with(CHUNK as usize, value);
    all.into_boxed_slice().try_into().map_err(|_| Errno::ENOMEM)
}

/// The ports of a domain. Anyone may read them; only the holder of the domain's [`super::Table`] changes them.
#[derive(Debug)]
pub struct Channels {
    /// The words of the first chunk, which are all that most domains need, without a way there.
    first: [AtomicU64; CHUNK as usize],
    near: [Once<Chunk>; NEAR],
    far: Once<Box<[Once<Chunk>]>>,
    /// Ports below this have a word.
    valid: Plain32,
    /// vCPUs of the domain that poll.
    pub(super) pollers: AtomicU32,
}

impl Channels {
    /// The ports of a new domain: all free but port 0. ENOMEM.
    pub fn new() -> Result<Self, Errno> {
        let channels = Channels {
            first: [const { AtomicU64::new(0) }; CHUNK as usize],
            near: [const { Once::new() }; NEAR],
            far: Once::new(),
            valid: Plain32::new(0),
            pollers: AtomicU32::new(0),
        };
        channels.grow()?;
        channels.set(Port(0), Channel { binding: Binding::Reserved, vcpu: VcpuId(0) });
        Ok(channels)
    }

    /// One more than the highest port that was ever within reach.
    #[must_use]
    #[inline]
    pub fn valid(&self) -> u32 {
        self.valid.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn chunk(&self, port: Port) -> Option<&Chunk> {
        match Bounded::new((port.0 / CHUNK).into()) {
            Some(index) => index.of(&self.near).get(),
            None => self.far_slot((port.0 / CHUNK) as usize)?.get(),
        }
    }

    #[cold]
    fn far_slot(&self, index: usize) -> Option<&Once<Chunk>> {
        let far = self.far.get()?;
        far.get(index_below(index.checked_sub(NEAR)? as u64, far.len())?)
    }

    #[inline(always)]
    fn word(&self, port: Port) -> Option<&AtomicU64> {
        match self.first.get(port.0 as usize) {
            Some(word) => Some(word),
            None => self.chunk(port)?.words.get((port.0 % CHUNK) as usize),
        }
    }

    /// What the FIFO layout remembers of a port.
    pub(super) fn queueing(&self, port: Port) -> Option<&Queueing> {
        self.chunk(port)?.queueing.get((port.0 % CHUNK) as usize)
    }

    /// What a port is, or nothing if the number is beyond those in use (EINVAL everywhere).
    #[must_use]
    #[inline(always)]
    pub fn get(&self, port: Port) -> Option<Channel> {
        self.word(port).map(|word| Channel::decode(word.load(Ordering::Acquire)))
    }

    /// What a port of the first ones is, which are all that most domains need.
    #[must_use]
    #[inline(always)]
    pub fn near(&self, port: Port) -> Option<Channel> {
        self.first.get(port.0 as usize).map(|word| Channel::decode(word.load(Ordering::Acquire)))
    }

    /// Stores what a port is, under the lock of the domain's table.
    pub(super) fn set(&self, port: Port, channel: Channel) {
        if let Some(word) = self.word(port) {
            word.store(channel.encode(), Ordering::Release);
        }
    }

    /// Makes one more chunk of ports valid, under the lock of the domain's table. ENOSPC when there are no more, ENOMEM.
    pub(super) fn grow(&self) -> Result<(), Errno> {
        let valid = self.valid();
        let index = (valid / CHUNK) as usize;
        let slot = match self.near.get(index) {
            Some(slot) => slot,
            None => {
                if self.far.get().is_none() {
                    let mut slots = Vec::new();
                    slots.try_reserve_exact(FAR).map_err(|_| Errno::ENOMEM)?;
                    slots.resize_with(FAR, Once::new);
                    self.far.call_once(|| slots.into_boxed_slice());
                }
                self.far_slot(index).ok_or(Errno::ENOSPC)?
            }
        };
        let chunk = Chunk::new()?;
        slot.call_once(|| chunk);
        self.valid.store(valid + CHUNK, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_channel_survives_its_word(state in 0..7, vcpu in 0u32..8192, dom in 0u16..0x7ff0, number: u32) {
            let remote = DomId(dom);
            let binding = match state {
                0 => Binding::Free,
                1 => Binding::Reserved,
                2 => Binding::Unbound { remote },
                3 => Binding::Interdomain { remote, port: Port(number) },
                4 => Binding::Pirq(number),
                5 => Binding::Virq(number),
                _ => Binding::Ipi,
            };
            let channel = Channel { binding, vcpu: VcpuId(vcpu) };
            prop_assert_eq!(Channel::decode(channel.encode()), channel);
        }
    }
}
