//! What a hypercall comes to, and how much work it may do before it has to come back.
//!
//! A loop whose length a guest chooses spends a [`Budget`], and its caller has to deal with the third end there is:
//!
//! ```
//! use logic::hypercall::{Budget, Outcome};
//! fn close(ports: &mut u64, budget: &mut Budget) -> Outcome {
//!     while *ports != 0 {
//!         *ports -= 1;
//!         if !budget.spend(1) {
//!             return Outcome::Again;
//!         }
//!     }
//!     Outcome::OK
//! }
//! let (mut ports, mut rounds) = (100, 1);
//! while close(&mut ports, &mut Budget::units(30)) == Outcome::Again {
//!     rounds += 1;
//! }
//! assert_eq!(rounds, 4);
//! ```
//!
//! ```compile_fail,E0004
//! # use logic::hypercall::Outcome;
//! fn result(outcome: Outcome) -> u64 {
//!     match outcome {
//!         Outcome::Done(value) => value,
//!         Outcome::Fail(errno) => errno.as_ret(),
//!     }
//! }
//! ```
//!
//! A budget is not copied to be spent twice:
//!
//! ```compile_fail,E0382
//! # use logic::hypercall::Budget;
//! fn spend(budget: Budget) {}
//! let budget = Budget::units(30);
//! spend(budget);
//! spend(budget);
//! ```

use xen_abi::errno::Errno;

/// The end of one round of a hypercall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Finished with this value in rax.
    Done(u64),
    /// Refused: the negative of this in rax.
    Fail(Errno),
    /// Not finished: the handler has put what is left into the arguments, and the guest will make the call again
    /// (Xen's continuation). Whatever waits for this CPU comes first.
    Again,
}

impl Outcome {
    /// Finished with nothing to say.
    pub const OK: Outcome = Outcome::Done(0);
}

impl From<Errno> for Outcome {
    fn from(errno: Errno) -> Self {
        Outcome::Fail(errno)
    }
}

impl From<Result<u64, Errno>> for Outcome {
    fn from(result: Result<u64, Errno>) -> Self {
        match result {
            Ok(value) => Outcome::Done(value),
            Err(errno) => Outcome::Fail(errno),
        }
    }
}

impl From<Result<u32, Errno>> for Outcome {
    fn from(result: Result<u32, Errno>) -> Self {
        Outcome::from(result.map(u64::from))
    }
}

impl From<Result<(), Errno>> for Outcome {
    fn from(result: Result<(), Errno>) -> Self {
        Outcome::from(result.map(|()| 0_u64))
    }
}

/// The bound on one round of guest-driven work: units of about 100 instructions, and a deadline on the clock.
///
/// Any loop whose length a guest chooses spends from it and returns [`Outcome::Again`] when it is used up.
#[derive(Debug, Clone)]
pub struct Budget {
    left: u32,
    until_look: u32,
    deadline: u64,
    clock: fn() -> u64,
}

impl Budget {
    /// Units in one ordinary round.
    pub const ROUND: u32 = 500;
    /// Units between two looks at the clock.
    const LOOK: u32 = 64;

    /// `units` of work, and no longer than until `clock` reads `deadline` (a TSC value; the clock may also answer
    /// `u64::MAX` to say that something urgent waits for this CPU).
    #[must_use]
    pub const fn new(units: u32, clock: fn() -> u64, deadline: u64) -> Self {
        Budget { left: units, until_look: Self::LOOK, deadline, clock }
    }

    /// `units` of work, however long they take.
    #[must_use]
    pub const fn units(units: u32) -> Self {
        Budget { left: units, until_look: Self::LOOK, deadline: u64::MAX, clock: || 0 }
    }

    /// Takes `units` off. False: the budget is used up, save the state and return [`Outcome::Again`].
    ///
    /// What was asked for may still be done, so that every round makes progress.
    #[must_use]
    #[inline]
    pub fn spend(&mut self, units: u32) -> bool {
        if self.left <= units {
            self.left = 0;
            return false;
        }
        self.left -= units;
        if self.until_look > units {
            self.until_look -= units;
            return true;
        }
        self.until_look = Self::LOOK;
        if (self.clock)() >= self.deadline {
            self.left = 0;
        }
        self.left != 0
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_spent(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_run_out() {
        let mut budget = Budget::units(3);
        assert!(budget.spend(1) && budget.spend(1));
        assert!(!budget.spend(1));
        assert!(budget.is_spent() && !budget.spend(1));
    }

    #[test]
    fn the_clock_ends_it() {
        let mut budget = Budget::new(u32::MAX, || 11, 10);
        let rounds = (0..1000).take_while(|_| budget.spend(1)).count();
        assert_eq!(rounds, 63);
        let mut never = Budget::new(1000, || 9, 10);
        assert_eq!((0..5000).take_while(|_| never.spend(1)).count(), 999);
    }
}
