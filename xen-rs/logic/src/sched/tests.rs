//! Readiness under races of a model, queues against sorting, credit in the long run.

use super::*;
use crate::time::Nanos;
use proptest::prelude::*;
use std::vec::Vec;

#[test]
fn a_life() {
    let v = Readiness::new();
    assert!(!v.is_up() && !v.is_runnable());
    assert_eq!(v.pause(), PauseState::Stopped);
    assert_eq!(v.bring_up(), (true, Wake::Nothing), "it is still paused");
    assert_eq!(v.unpause(), Wake::Enqueue);
    assert_eq!(v.unblock(), Wake::Nothing);
    assert!(v.switch_in() && v.is_running());
    assert_eq!(v.pause(), PauseState::Running);
    assert_eq!(v.paused(), PauseState::Running);
    assert!(!v.switch_out(), "paused: not back on a queue");
    assert_eq!(v.paused(), PauseState::Stopped);
    assert_eq!(v.unpause(), Wake::Enqueue);
    // Paused while on the queue: the CPU that takes it off does not run it, the unpause queues it again.
    assert_eq!(v.pause(), PauseState::Stopped);
    assert!(!v.switch_in());
    assert_eq!(v.unpause(), Wake::Enqueue);
    assert!(v.switch_in());
    v.block();
    assert_eq!(v.unblock(), Wake::Nothing, "still on the CPU, which looks again");
    assert!(v.switch_out());
    assert!(v.switch_in());
    v.block();
    assert!(!v.switch_out());
    assert_eq!(v.unblock(), Wake::Enqueue);
    assert_eq!(v.take_down(), (true, PauseState::Stopped));
    assert!(!v.take_down().0);
    assert_eq!(v.bring_up(), (true, Wake::Nothing), "still queued");
}

#[derive(Debug, Clone)]
enum Step {
    Block,
    Unblock,
    Pause,
    Unpause,
    Take,
    PutBack,
}

proptest! {
    /// Whatever happens in whatever order: a runnable vCPU is on a CPU or on exactly one queue.
    #[test]
    fn never_lost_never_twice(steps in prop::collection::vec(prop_oneof![
        Just(Step::Block), Just(Step::Unblock), Just(Step::Pause),
        Just(Step::Unpause), Just(Step::Take), Just(Step::PutBack)], 1..200))
    {
        let v = Readiness::new();
        let mut queued = u32::from(v.bring_up().1 == Wake::Enqueue);
        let (mut running, mut blocked, mut pauses) = (false, false, 0);
        for step in steps {
            match step {
                Step::Block if running => { v.block(); blocked = true; }
                Step::Unblock => { queued += u32::from(v.unblock() == Wake::Enqueue); blocked = false; }
                Step::Pause => {
                    prop_assert_eq!(v.pause(), if running { PauseState::Running } else { PauseState::Stopped });
                    pauses += 1;
                }
                Step::Unpause if pauses > 0 => { queued += u32::from(v.unpause() == Wake::Enqueue); pauses -= 1; }
                Step::Take if queued > 0 && !running => {
                    queued -= 1;
                    running = v.switch_in();
                    prop_assert_eq!(running, !blocked && pauses == 0);
                }
                Step::PutBack if running => { queued += u32::from(v.switch_out()); running = false; }
                _ => {}
            }
            prop_assert!(queued <= 1 && !(running && queued == 1));
            prop_assert_eq!(v.is_runnable(), !blocked && pauses == 0);
            if v.is_runnable() {
                prop_assert!(running || queued == 1);
            }
        }
    }

    #[test]
    fn the_queue_is_sorted(credits in prop::collection::vec(-CREDIT_INIT..CREDIT_INIT, 1..40)) {
        let mut queue = RunQueue::new();
        for (n, credit) in credits.iter().enumerate() {
            let _ = queue.insert(Account { credit: *credit, round: 0, weight: WEIGHT_DEFAULT }, n);
        }
        let order: Vec<usize> = core::iter::from_fn(|| queue.steal(|_| true)).map(|(_, n)| n).collect();
        let mut want: Vec<usize> = (0..credits.len()).collect();
        want.sort_by_key(|n| (-credits[*n], *n));
        prop_assert_eq!(order, want);
    }
}

/// Runs vCPUs that never block on one CPU for ten seconds and gives each one's time.
fn compete(weights: &[u16]) -> Vec<u64> {
    let mut queue = RunQueue::new();
    for (n, weight) in weights.iter().enumerate() {
        let _ = queue.insert(Account::new(*weight), n);
    }
    let mut ran = std::vec![0; weights.len()];
    let mut now = 0;
    while now < 10_000_000_000 {
        let (mut account, n) = queue.pop().unwrap();
        let slice = queue.begin(&mut account).unwrap_or(SLICE_MAX);
        assert!(slice >= SLICE_MIN && slice <= SLICE_MAX);
        account.burn(slice);
        ran[n] += slice.0;
        now += slice.0;
        let _ = queue.insert(account, n);
    }
    ran
}

#[test]
fn shares_follow_weights() {
    for weights in [&[256, 256, 256][..], &[512, 256], &[64, 256, 1024], &[1, 65535]] {
        let ran = compete(weights);
        let total: u64 = ran.iter().sum();
        let sum: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        for (time, weight) in ran.iter().zip(weights) {
            let share = total * u64::from(*weight) / sum;
            assert!(time.abs_diff(share) < total / 50 + 2 * SLICE_MAX.0, "{weights:?} {ran:?}");
        }
    }
}

#[test]
fn a_sleeper_comes_first() {
    let mut queue = RunQueue::new();
    let mut hog = Account::new(256);
    assert_eq!(queue.begin(&mut hog), None, "alone");
    hog.burn(Nanos(3_000_000));
    assert_eq!(queue.insert(Account::new(256), "sleeper"), Tickle::Yes);
    assert!(queue.should_switch(&hog));
    let (mut sleeper, name) = queue.pop().unwrap();
    assert_eq!(name, "sleeper");
    let _ = queue.insert(hog, "hog");
    assert_eq!(queue.begin(&mut sleeper), Some(Nanos(3_000_000)));
    assert_eq!(queue.insert(Account { credit: 1, round: 0, weight: 256 }, "late"), Tickle::No);
    queue.idle();
    assert_eq!(queue.insert(hog, "other"), Tickle::Yes);
    assert_eq!(queue.remove(|n| *n == "hog"), 1);
    assert_eq!(queue.len(), 2);
}

#[test]
fn giving_way() {
    let mut queue = RunQueue::new();
    let mut me = Account::new(256);
    assert!(!queue.give_way(&mut me), "to nobody");
    let _ = queue.insert(Account { credit: 5, round: 0, weight: 256 }, "other");
    assert!(queue.give_way(&mut me));
    let _ = queue.insert(me, "me");
    assert_eq!(queue.pop().map(|(_, name)| name), Some("other"));
}

#[test]
fn rounds() {
    let mut account = Account { credit: -5, round: 3, weight: 256 };
    account.refresh(3);
    assert_eq!(account.credit, -5);
    account.refresh(4);
    assert_eq!(account.credit, CREDIT_INIT - 5);
    account.refresh(9);
    assert_eq!(account.credit, CREDIT_INIT, "nobody saves up more than one allowance");
    account.refresh(2);
    assert_eq!((account.credit, account.round), (CREDIT_INIT, 2), "another queue's younger round gives nothing");
}

#[test]
fn placing() {
    let all = CpuMask(0b1111);
    let load = |cpu: u32| [3, 1, 1, 2][cpu as usize];
    assert_eq!(place(2, CpuMask::ALL, all, CpuMask(0b0110), load), 2);
    assert_eq!(place(0, CpuMask::ALL, all, CpuMask(0b0110), load), 1);
    assert_eq!(place(2, CpuMask::ALL, all, CpuMask(0), load), 2, "the last among equals");
    assert_eq!(place(0, CpuMask(0b1000), all, CpuMask(0b0110), load), 3);
    assert_eq!(place(0, CpuMask(0xf0), all, CpuMask(0), load), 1, "nothing online in the affinity");
}

#[test]
fn run_clock() {
    let clock = RunClock::new(Nanos(100));
    clock.change(Runstate::Runnable, Nanos(150));
    clock.change(Runstate::Running, Nanos(160));
    clock.change(Runstate::Blocked, Nanos(155));
    let snapshot = clock.at(Nanos(200));
    assert_eq!((snapshot.state, snapshot.since), (2, Nanos(160)));
    assert_eq!(snapshot.time, [0, 10, 40, 50]);
    assert_eq!(clock.stored().time, [0, 10, 0, 50]);
}
