//! Spin locks whose order is checked by the compiler.
//!
//! A lock carries its rank in its type. To take it one shows a [`Held`] token: the proof of the highest rank this CPU
//! holds already. Taking a lock borrows the token and hands out one of the lock's own rank, so the only locks that can
//! still be taken are those of a higher rank; a wrong order does not compile:
//!
//! ```compile_fail,E0080
//! use logic::lock::{Held, SpinLock};
//! let (outer, inner) = (SpinLock::<u8, 1>::new(0), SpinLock::<u8, 2>::new(0));
//! let mut none = Held::entry();
//! let (_b, mut held) = inner.lock(&mut none);
//! let (_a, _) = outer.lock(&mut held); // rank 1 under rank 2
//! ```
//!
//! nor does taking a second lock with the token that a first one has borrowed:
//!
//! ```compile_fail,E0499
//! use logic::lock::{Held, SpinLock};
//! let (a, b) = (SpinLock::<u8, 1>::new(0), SpinLock::<u8, 1>::new(0));
//! let mut none = Held::entry();
//! let (guard_a, _) = a.lock(&mut none);
//! let (guard_b, _) = b.lock(&mut none);
//! drop((guard_a, guard_b));
//! ```
//!
//! The right order does:
//!
//! ```
//! use logic::lock::{Held, SpinLock};
//! let (outer, inner) = (SpinLock::<u8, 1>::new(3), SpinLock::<u8, 2>::new(4));
//! let mut none = Held::entry();
//! let (a, mut held) = outer.lock(&mut none);
//! let (b, _) = inner.lock(&mut held);
//! assert_eq!(*a + *b, 7);
//! ```
//!
//! Two locks of one rank (the event tables of two domains) are taken by [`lock_pair`], lower key first.
//! How a CPU waits is the parameter `R`: in the hypervisor it serves the mailbox of cross-CPU requests, so that a
//! waiting CPU still answers a TLB flush.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use spin::RelaxStrategy;
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// The ranks in use, outermost first. A lock may be taken while locks of lower ranks are held, never of its own or a
/// higher one.
pub mod rank {
    /// One domctl or sysctl at a time.
    pub const CONTROL: u8 = 10;
    /// The list of domains and the table that finds one by its id.
    pub const DOMAIN_LIST: u8 = 20;
    /// One domain's life: state, limits, settings.
    pub const DOMAIN: u8 = 30;
    /// A guest's registers while no CPU runs it.
    pub const VCPU_PARKED: u8 = 40;
    /// A domain's grant table.
    pub const GRANT: u8 = 50;
    /// The grants that a domain has mapped.
    pub const MAPTRACK: u8 = 55;
    /// The physical map of a domain in a hardware container: its nested page tables.
    pub const PHYSMAP: u8 = 58;
    /// A domain's physical-to-machine map or page bookkeeping.
    pub const P2M: u8 = 60;
    /// A domain's event channels.
    pub const EVENT: u8 = 70;
    /// Which physical interrupt belongs to whom.
    pub const IRQ: u8 = 75;
    /// The run queue of one CPU.
    pub const RUN_QUEUE: u8 = 80;
    /// The timers of one CPU.
    pub const TIMER: u8 = 90;
    /// The free frames of the machine.
    pub const FRAMES: u8 = 100;
    /// The console ring and the lines that are being put together for it.
    pub const CONSOLE: u8 = 200;
    /// Locks that take no other lock while held and are taken by [`super::SpinLock::lock_leaf`] without a token.
    pub const LEAF: u8 = 255;
}

/// Proof of the highest lock rank that the running CPU holds; `Held<0>`: none.
///
/// It cannot be copied, sent to another CPU or kept longer than the lock it came from.
#[derive(Debug)]
pub struct Held<'a, const RANK: u8>(PhantomData<(&'a mut (), *mut ())>);

impl Held<'static, 0> {
    /// The token of a CPU that holds no lock.
    ///
    /// For the machine floor alone: it mints one on each entry from a guest, in the idle loop and at boot, that is,
    /// where the stack is empty and so no lock can be held. (Tests mint their own.)
    #[must_use]
    #[inline(always)]
    pub const fn entry() -> Self {
        Held(PhantomData)
    }
}

impl<'a, const RANK: u8> Held<'a, RANK> {
    /// A token of the same rank with a shorter life, for a callee that wants to own one.
    #[inline(always)]
    pub const fn again(&mut self) -> Held<'_, RANK> {
        Held(PhantomData)
    }
}

/// A spin lock of a fixed rank.
#[derive(Debug)]
pub struct SpinLock<T: ?Sized, const RANK: u8, R = spin::Spin> {
    inner: SpinMutex<T, R>,
}

/// What a held lock gives access to; dropping it releases the lock.
#[derive(Debug)]
pub struct Guard<'a, T: ?Sized, R = spin::Spin>(SpinMutexGuard<'a, T, R>);

impl<T, const RANK: u8, R> SpinLock<T, RANK, R> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        const { assert!(RANK > 0, "rank 0 means that no lock is held") };
        SpinLock { inner: SpinMutex::new(value) }
    }
}

impl<T: ?Sized, const RANK: u8, R: RelaxStrategy> SpinLock<T, RANK, R> {
    /// Takes the lock, waiting for it by `R`.
    #[inline]
    pub fn lock<'a, const H: u8>(&'a self, _held: &'a mut Held<'_, H>) -> (Guard<'a, T, R>, Held<'a, RANK>) {
        const { assert!(H < RANK, "locks are taken in the order of their ranks") };
        (Guard(self.inner.lock()), Held(PhantomData))
    }

    /// Takes the lock if it is free. Waiting for nobody, it needs no order.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T, R>> {
        self.inner.try_lock().map(Guard)
    }

    /// Runs `f` on the content of a lock that comes after all others. `f` takes no lock.
    #[inline]
    pub fn lock_leaf<V>(&self, f: impl FnOnce(&mut T) -> V) -> V {
        const { assert!(RANK == rank::LEAF, "only the last rank needs no token") };
        f(&mut self.inner.lock())
    }

    /// The content, by a borrow that proves that nobody else has it.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

impl<T: Default, const RANK: u8, R> Default for SpinLock<T, RANK, R> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized, R> Deref for Guard<'_, T, R> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized, R> DerefMut for Guard<'_, T, R> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// The contents of two locks of one rank that may be one and the same.
#[derive(Debug)]
pub enum Pair<'a, T: ?Sized, R = spin::Spin> {
    /// Both keys were equal: there is one lock and it is held once.
    Same(Guard<'a, T, R>),
    /// Two locks, in the order in which the caller named them.
    Two(Guard<'a, T, R>, Guard<'a, T, R>),
}

impl<T: ?Sized, R> Pair<'_, T, R> {
    /// What the first lock guards.
    #[inline]
    pub fn first(&mut self) -> &mut T {
        match self {
            Pair::Same(one) | Pair::Two(one, _) => one,
        }
    }

    /// What the second lock guards.
    #[inline]
    pub fn second(&mut self) -> &mut T {
        match self {
            Pair::Same(one) | Pair::Two(_, one) => one,
        }
    }
}

/// Takes two locks of one rank, the one with the lower key (the domain id) first. Equal keys mean the same lock.
#[inline]
pub fn lock_pair<'a, K: Ord, T: ?Sized, const RANK: u8, R: RelaxStrategy, const H: u8>(
    _held: &'a mut Held<'_, H>,
    first: (K, &'a SpinLock<T, RANK, R>),
    second: (K, &'a SpinLock<T, RANK, R>),
) -> (Pair<'a, T, R>, Held<'a, RANK>) {
    const { assert!(H < RANK, "locks are taken in the order of their ranks") };
    let pair = match first.0.cmp(&second.0) {
        core::cmp::Ordering::Equal => Pair::Same(Guard(first.1.inner.lock())),
        core::cmp::Ordering::Less => {
            let one = Guard(first.1.inner.lock());
            Pair::Two(one, Guard(second.1.inner.lock()))
        }
        core::cmp::Ordering::Greater => {
            let two = Guard(second.1.inner.lock());
            Pair::Two(Guard(first.1.inner.lock()), two)
        }
    };
    (pair, Held(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_in_order() {
        let (outer, inner) = (SpinLock::<u32, 1>::new(1), SpinLock::<u32, 2>::new(2));
        let mut none = Held::entry();
        {
            let (mut a, mut held) = outer.lock(&mut none);
            let (mut b, _) = inner.lock(&mut held);
            *a += 1;
            *b += 1;
            assert!(outer.try_lock().is_none());
        }
        assert_eq!(*outer.lock(&mut none).0, 2);
        assert_eq!(*inner.lock(&mut none).0, 3);
    }

    #[test]
    fn pair_keeps_the_callers_order() {
        let (a, b) = (SpinLock::<u32, 1>::new(10), SpinLock::<u32, 1>::new(20));
        let mut none = Held::entry();
        for (x, y, want) in [((1, &a), (2, &b), (10, 20)), ((2, &b), (1, &a), (20, 10)), ((1, &a), (1, &a), (10, 10))] {
            let (mut pair, _held) = lock_pair(&mut none, x, y);
            assert_eq!((*pair.first(), *pair.second()), want);
        }
    }

    #[test]
    fn leaf_needs_no_token() {
        let leaf = SpinLock::<u32, { rank::LEAF }>::new(1);
        leaf.lock_leaf(|v| *v += 1);
        assert_eq!(leaf.lock_leaf(|v| *v), 2);
    }
}
