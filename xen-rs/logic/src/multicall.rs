//! `multicall`: which of a list of calls are made in one round, and what becomes of each.
//!
//! The order is Xen's: the calls are made one after the other, each result is written to its entry before the next one is
//! looked at, and a call that is not finished keeps the list where it is. The floor above makes the calls ([`Calls`]).

use xen_abi::errno::Errno;
use xen_abi::hypercall::{HYPERVISOR_IRET, HYPERVISOR_MULTICALL};

use crate::hypercall::Outcome;

/// Calls between two looks at what waits for this CPU.
pub const LOOK: u32 = 8;
/// Calls of one round. No interrupt is taken meanwhile, so the looks alone would let a long batch keep the CPU.
pub const ROUND: u32 = 32;
/// How a call ended without the next one being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest has to make it again.
    Again,
    /// It is made, and the vCPU has to wait before the next one.
    Wait,
    /// None is made after it.
    Last(Outcome),
}

impl From<Errno> for End {
    fn from(errno: Errno) -> Self {
        End::Last(Outcome::Fail(errno))
    }
}

/// What makes the calls.
pub trait Calls {
    /// What the list consists of.
    type Entry;

    /// Makes the call whose entry is at an address, and writes its result there.
    fn make(&mut self, at: u64) -> Result<(), End>;

    /// Whether something waits for this CPU, or the vCPU is not to go on.
    fn is_awaited(&mut self) -> bool;
}

/// How a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// The whole call ends.
    Over(Outcome),
    /// The guest makes it again, for the entries that are left.
    Left {
        /// Where they begin.
        at: u64,
        /// How many they are.
        count: u32,
    },
}

/// Makes the first of `left` calls at `at`.
#[inline(always)]
pub fn round<C: Calls>(calls: &mut C, mut at: u64, mut left: u32) -> Rest {
    let size = const { size_of::<C::Entry>() as u64 };
    let mut end = left.saturating_sub(ROUND);
    loop {
        // Up to the next look, or the end.
        let look = left.saturating_sub(LOOK).max(end);
        while left != look {
            match calls.make(at) {
                Ok(()) => {}
                Err(End::Wait) if left == 1 => return Rest::Over(Outcome::OK),
                Err(End::Wait) => return Rest::Left { at: at.wrapping_add(size), count: left - 1 },
                Err(End::Again) => return Rest::Left { at, count: left },
                Err(End::Last(outcome)) => return Rest::Over(outcome),
            }
            at = at.wrapping_add(size);
            left -= 1;
        }
        if left == 0 {
            return Rest::Over(Outcome::OK);
        }
        if calls.is_awaited() {
            end = left;
        }
        if left == end {
            return Rest::Left { at, count: left };
        }
    }
}

/// The answer to a call that is not made at all. A call in a call would be a way to nest without end: Xen answers like this.
#[inline(always)]
#[must_use]
pub fn refused(op: u64) -> Option<Outcome> {
    (op == u64::from(HYPERVISOR_MULTICALL)).then_some(Outcome::Fail(Errno::EINVAL))
}

/// What is to be done about a call that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Its result goes to its entry, and the next one is made.
    Next(u64),
    /// Its result goes to its entry, if that can be written; none is made after it.
    Last(u64),
    /// Its result goes to its entry; the next one is made when the vCPU goes on.
    Wait(u64),
    /// Its arguments as they are now go to its entry: the rest of it is made first when the guest comes back.
    Keep,
}

/// `goes_on`: whether the vCPU may go on.
#[inline(always)]
#[must_use]
pub fn after(op: u64, outcome: Outcome, goes_on: bool) -> After {
    let result = match outcome {
        Outcome::Done(value) => value,
        Outcome::Fail(errno) => errno.as_ret(),
        Outcome::Again => return After::Keep,
    };
    if op == u64::from(HYPERVISOR_IRET) {
        // The guest goes on elsewhere, and may be in user mode, whose root is loaded then: what follows would be made without a
        // kernel's rights, and could give up the very table that the CPU uses. As in Xen the rest is not made.
        After::Last(result)
    } else if goes_on {
        After::Next(result)
    } else {
        After::Wait(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;
    use xen_abi::multicall::MulticallEntry;

    /// Calls that come to what a list says, in turn; interrupts that come at some looks.
    struct Script {
        ends: Vec<Result<(), End>>,
        made: Vec<u64>,
        awaited: bool,
    }

    const SIZE: u64 = size_of::<MulticallEntry>() as u64;

    impl Calls for Script {
        type Entry = MulticallEntry;

        fn make(&mut self, at: u64) -> Result<(), End> {
            self.made.push(at);
            self.ends.get(self.made.len() - 1).copied().unwrap_or(Ok(()))
        }
        fn is_awaited(&mut self) -> bool {
            self.awaited
        }
    }

    fn script(ends: &[Result<(), End>], awaited: bool) -> Script {
        Script { ends: ends.to_vec(), made: Vec::new(), awaited }
    }

    #[test]
    fn a_round_is_bounded_and_goes_on_where_it_was() {
        let mut calls = script(&[], false);
        assert_eq!(round(&mut calls, 0, ROUND + 5), Rest::Left { at: u64::from(ROUND) * SIZE, count: 5 });
        assert_eq!(round(&mut calls, u64::from(ROUND) * SIZE, 5), Rest::Over(Outcome::OK));
        let all = (0..u64::from(ROUND) + 5).map(|i| i * SIZE);
        assert!(calls.made.iter().copied().eq(all), "each once, in their order");
        assert_eq!(round(&mut script(&[], true), 0, 20), Rest::Left { at: 8 * SIZE, count: 12 }, "something waits");
        assert_eq!(round(&mut script(&[], true), 0, 0), Rest::Over(Outcome::OK));
        assert_eq!(round(&mut script(&[], true), 0, 8), Rest::Over(Outcome::OK), "nothing is left to wait for it");
    }

    #[test]
    fn a_call_that_is_not_finished_stays_first() {
        assert_eq!(round(&mut script(&[Ok(()), Err(End::Again)], false), 0, 3), Rest::Left { at: SIZE, count: 2 });
        assert_eq!(round(&mut script(&[Err(End::Wait)], false), 0, 2), Rest::Left { at: SIZE, count: 1 });
        assert_eq!(round(&mut script(&[Err(End::Wait)], false), 0, 1), Rest::Over(Outcome::OK), "it was the last");
        let fault = Rest::Over(Outcome::Fail(Errno::EFAULT));
        assert_eq!(round(&mut script(&[Err(End::from(Errno::EFAULT))], false), 0, 2), fault);
    }

    #[test]
    fn what_becomes_of_a_call() {
        let (iret, other) = (u64::from(HYPERVISOR_IRET), 17);
        assert_eq!(after(other, Outcome::Done(5), true), After::Next(5));
        assert_eq!(after(other, Outcome::Done(5), false), After::Wait(5));
        assert_eq!(after(other, Outcome::Fail(Errno::EPERM), true), After::Next(Errno::EPERM.as_ret()));
        assert_eq!(after(iret, Outcome::Done(5), true), After::Last(5));
        assert_eq!(after(iret, Outcome::Done(5), false), After::Last(5));
        assert_eq!(after(other, Outcome::Again, true), After::Keep);
        assert_eq!(refused(HYPERVISOR_MULTICALL.into()), Some(Outcome::Fail(Errno::EINVAL)));
        assert_eq!(refused(iret), None);
    }
}
