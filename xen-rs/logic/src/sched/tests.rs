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
    // Its domain's time is up while it waits: nobody runs it until there is more.
    v.cap();
    assert!(v.is_held_by_cap() && !v.is_runnable());
    assert!(!v.switch_in());
    assert_eq!(v.unblock(), Wake::Nothing);
    assert_eq!(v.uncap(), Wake::Enqueue);
    assert_eq!(v.uncap(), Wake::Nothing);
    assert!(v.switch_in());
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
    fn the_queue_is_sorted(credits in prop::collection::vec(1..CREDIT_INIT, 1..40)) {
        let mut queue = RunQueue::new();
        for (n, credit) in credits.iter().enumerate() {
            let _ = queue.insert(Account { credit: *credit, round: 0, weight: WEIGHT_DEFAULT }, n, Nanos(0), ANYWHERE);
        }
        let order: Vec<usize> = core::iter::from_fn(|| queue.pop(0, |_| true)).map(|(_, n)| n).collect();
        let mut want: Vec<usize> = (0..credits.len()).collect();
        want.sort_by_key(|n| (-credits[*n], *n));
        prop_assert_eq!(order, want);
    }
}

const ANYWHERE: Wish = Wish { allowed: CpuMask::ALL, preferred: CpuMask::ALL, last: 0, key: 0 };

/// What a vCPU of [`compete`] is like.
#[derive(Clone, Copy)]
struct Runner {
    weight: u16,
    /// Percent; 0: none.
    cap: u16,
    /// It may run there.
    cpus: CpuMask,
    /// It runs so long and sleeps so long, in microseconds; without a sleep it runs all the time.
    rhythm: (u64, u64),
}

const HOG: Runner = Runner { weight: WEIGHT_DEFAULT, cap: 0, cpus: CpuMask::ALL, rhythm: (0, 0) };

fn hog(weight: u16) -> Runner {
    Runner { weight, ..HOG }
}

/// What came of one of them.
#[derive(Clone, Copy, Debug, Default)]
struct Ran {
    /// Nanoseconds on a CPU.
    time: u64,
    /// The longest that it waited for a CPU.
    wait: u64,
}

/// [`compete_under`] the usual scheduler.
fn compete(cpus: u32, runners: &[Runner]) -> Vec<Ran> {
    compete_under(Scheduler::Credit2, cpus, runners)
}

/// Runs vCPUs on some CPUs for ten seconds, in steps of 10 us, the way the hypervisor drives a queue.
fn compete_under(scheduler: Scheduler, cpus: u32, runners: &[Runner]) -> Vec<Ran> {
    const STEP: u64 = 10_000;
    struct Cpu {
        running: Option<(Account, usize, u64)>,
        end: Option<Nanos>,
        look: bool,
    }
    let rules = Rules::new(scheduler);
    let mut queue = RunQueue::new();
    queue.set_rules(rules);
    let mut accounts: Vec<Account> = runners.iter().map(|runner| Account::new(runner.weight)).collect();
    let mut budgets: Vec<Budget> = runners.iter().map(|_| Budget::UNLIMITED).collect();
    let mut ran = std::vec![Ran::default(); runners.len()];
    // Since when it waits, what is left of its run, until when it sleeps or is held.
    let mut waits = std::vec![0u64; runners.len()];
    let mut burst: Vec<u64> = runners.iter().map(|runner| runner.rhythm.0 * 1000).collect();
    let mut away: Vec<Option<u64>> = std::vec![Some(0); runners.len()];
    let mut all: Vec<Cpu> = (0..cpus).map(|_| Cpu { running: None, end: None, look: true }).collect();
    (0..cpus).for_each(|cpu| queue.idle(cpu));
    for (budget, runner) in budgets.iter_mut().zip(runners) {
        budget.set_cap(runner.cap, Nanos(0));
    }
    let online = CpuMask((1 << cpus) - 1);
    let wish = |n: usize| Wish { allowed: runners[n].cpus.and(online), preferred: online, last: 0, key: n as u64 };
    let mut now = 0;
    while now < 10_000_000_000 {
        for n in 0..runners.len() {
            if away[n].is_some_and(|until| until <= now) {
                away[n] = None;
                waits[n] = now;
                if let Some(cpu) = queue.insert(accounts[n], n, Nanos(now), wish(n)) {
                    all[cpu as usize].look = true;
                }
            }
        }
        for (id, cpu) in (0..).zip(&mut all) {
            let fits = |n: &usize| runners[*n].cpus.has(id);
            let at = Nanos(now);
            if let Some((_, n, since)) = &cpu.running {
                let sleeps = runners[*n].rhythm.1 != 0 && burst[*n] <= now - since;
                if sleeps || cpu.end.is_some_and(|end| end <= at) {
                    cpu.look = true;
                }
            }
            if !cpu.look {
                continue;
            }
            cpu.look = false;
            if let Some((mut account, n, since)) = cpu.running.take() {
                account.burn(Nanos(now - since));
                budgets[n].burn(Nanos(now - since), at);
                ran[n].time += now - since;
                burst[n] = burst[n].saturating_sub(now - since);
                accounts[n] = account;
                if runners[n].rhythm.1 != 0 && burst[n] == 0 {
                    burst[n] = runners[n].rhythm.0 * 1000;
                    away[n] = Some(now + runners[n].rhythm.1 * 1000);
                } else {
                    waits[n] = now;
                    let _ = queue.insert(account, n, at, Wish { allowed: CpuMask(0), ..wish(n) });
                }
            }
            loop {
                let Some((mut account, n)) = queue.pop(id, fits) else {
                    queue.idle(id);
                    break;
                };
                let left = match budgets[n].allowance(at) {
                    Allowance::Unlimited => None,
                    Allowance::For(left) => Some(left),
                    Allowance::NotBefore(until) => {
                        accounts[n] = account;
                        away[n] = Some(until.0);
                        continue;
                    }
                };
                let slice = queue.begin(id, &mut account, at, fits);
                assert!(slice.is_none_or(|slice| match scheduler {
                    Scheduler::Credit => slice == rules.time_slice,
                    Scheduler::Credit2 => (SLICE_MIN..=SLICE_MAX).contains(&slice),
                    Scheduler::Null => false,
                }));
                cpu.end = [slice, left].into_iter().flatten().min().map(|slice| at.after(slice));
                ran[n].wait = ran[n].wait.max(now - waits[n]);
                cpu.running = Some((account, n, now));
                break;
            }
        }
        now += STEP;
    }
    for (_, n, since) in all.iter().filter_map(|cpu| cpu.running) {
        ran[n].time += now - since;
    }
    ran
}

fn within(got: u64, want: u64, what: &str) {
    assert!(got.abs_diff(want) * 100 <= want * 2, "{what}: {got} is not {want} within 2 %");
}

#[test]
fn shares_follow_weights_under_both_credits() {
    shares_follow_weights(Scheduler::Credit2, 2);
    // Slices of 30 ms: one more or less in ten seconds of a small share is more.
    shares_follow_weights(Scheduler::Credit, 5);
}

fn shares_follow_weights(scheduler: Scheduler, percent: u64) {
    for (cpus, weights) in [
        (1, &[256, 256, 256][..]),
        (1, &[512, 256]),
        (1, &[64, 256, 1024]),
        (2, &[256, 256, 256]),
        (2, &[512, 256, 256, 128, 128, 256, 256, 256]),
        (2, &[256, 128, 64, 512, 512, 256, 128, 64]),
        (4, &[100, 200, 300, 400, 500, 600, 700]),
    ] {
        let runners: Vec<Runner> = weights.iter().map(|weight| hog(*weight)).collect();
        let ran = compete_under(scheduler, cpus, &runners);
        let sum: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        for (ran, weight) in ran.iter().zip(weights) {
            let want = 10_000_000_000 * u64::from(cpus) * u64::from(*weight) / sum;
            assert!(
                ran.time.abs_diff(want) * 100 <= want * percent,
                "{scheduler:?}, {cpus} CPUs, {weights:?}: {ran:?}, {want}"
            );
        }
    }
}

#[test]
fn caps_are_kept() {
    for cpus in [1, 2] {
        let runners = [25, 50, 10, 40].map(|cap| Runner { cap, ..HOG });
        let runners: Vec<Runner> = runners[..if cpus == 1 { 3 } else { 4 }].to_vec();
        for (ran, runner) in compete(cpus, &runners).iter().zip(&runners) {
            within(ran.time, 100_000_000 * u64::from(runner.cap), &std::format!("cap {}", runner.cap));
        }
    }
    // What a capped one leaves over is for the others, by weight.
    let ran = compete(1, &[Runner { cap: 20, ..HOG }, hog(512), hog(256)]);
    within(ran[0].time, 2_000_000_000, "capped");
    within(ran[1].time, 5_333_333_333, "the heavier");
    within(ran[2].time, 2_666_666_666, "the lighter");
}

#[test]
fn who_sleeps_much_does_not_wait() {
    // 0.2 ms of work every 5 ms, beside seven that always want to run.
    let sleeper = Runner { rhythm: (200, 4800), ..HOG };
    let mut runners = std::vec![HOG; 7];
    runners.push(sleeper);
    let ran = compete(2, &runners);
    assert!(ran[7].wait <= 2_500_000, "{:?}", ran[7]);
    assert!(ran[7].time > 360_000_000, "{:?}", ran[7]);
}

#[test]
fn affinity_is_kept() {
    let pinned = Runner { cpus: CpuMask(0b01), ..HOG };
    let ran = compete(2, &[pinned, pinned, HOG]);
    within(ran[2].time, 10_000_000_000, "one has the other CPU for itself");
    within(ran[0].time, 5_000_000_000, "two share the first");
}

#[test]
fn a_sleeper_comes_first() {
    let any = |_: &&str| true;
    let mut queue = RunQueue::new();
    let mut hog = Account::new(256);
    assert_eq!(queue.begin(0, &mut hog, Nanos(0), any), None, "alone");
    hog.burn(Nanos(3_000_000));
    assert_eq!(queue.insert(Account::new(256), "sleeper", Nanos(3_000_000), ANYWHERE), Some(0));
    assert_eq!(queue.insert(Account::new(256), "twin", Nanos(3_000_000), ANYWHERE), None, "it is on its way");
    assert_eq!(queue.remove(|n| *n == "twin"), 1);
    assert!(queue.should_switch(&hog, any));
    assert!(!queue.should_switch(&hog, |name| *name != "sleeper"), "it does not fit");
    let (mut sleeper, name) = queue.pop(0, any).unwrap();
    assert_eq!(name, "sleeper");
    let _ = queue.insert(hog, "hog", Nanos(3_000_000), ANYWHERE);
    assert_eq!(queue.begin(0, &mut sleeper, Nanos(3_000_000), any), Some(Nanos(3_000_000)));
    let late = Account { credit: 1, round: 0, weight: 256 };
    assert_eq!(queue.insert(late, "late", Nanos(3_000_000), ANYWHERE), None);
    queue.idle(0);
    assert_eq!(queue.insert(hog, "other", Nanos(3_000_000), ANYWHERE), Some(0));
    assert_eq!(queue.remove(|n| *n == "hog"), 1);
    assert_eq!(queue.len(), 2);
}

#[test]
fn who_is_told() {
    let start = |running: &[i64]| {
        let mut queue = RunQueue::<u32>::new();
        let _ = queue.insert(Account { credit: 1, round: 0, weight: 256 }, 9, Nanos(0), ANYWHERE);
        for (cpu, credit) in (0..).zip(running) {
            match credit {
                0 => queue.idle(cpu),
                credit => {
                    let mut account = Account { credit: *credit, round: 0, weight: 256 };
                    let _ = queue.begin(cpu, &mut account, Nanos(0), |_| true);
                }
            }
        }
        queue
    };
    let new = Account { credit: 5000, round: 0, weight: 256 };
    let on = |allowed, preferred, last| Wish { allowed: CpuMask(allowed), preferred: CpuMask(preferred), last, key: 0 };
    assert_eq!(start(&[9000, 0, 0]).insert(new, 1, Nanos(0), on(7, 7, 2)), Some(2), "where it was");
    assert_eq!(start(&[9000, 0, 0]).insert(new, 1, Nanos(0), on(7, 7, 0)), Some(1), "an idle one");
    assert_eq!(start(&[9000, 0, 0]).insert(new, 1, Nanos(0), on(7, 4, 0)), Some(2), "one that it likes");
    assert_eq!(start(&[9000, 0, 0]).insert(new, 1, Nanos(0), on(1, 7, 1)), None, "only where it may");
    assert_eq!(start(&[9000, 4000, 3000]).insert(new, 1, Nanos(0), on(7, 7, 0)), Some(2), "the weakest");
    assert_eq!(start(&[9000, 6000, 7000]).insert(new, 1, Nanos(0), on(7, 7, 0)), None, "all are stronger");
    assert_eq!(start(&[9000, 6000, 7000]).insert(new, 1, Nanos(2000), on(7, 7, 0)), Some(1), "not for ever");
}

#[test]
fn giving_way() {
    let any = |_: &&str| true;
    let mut queue = RunQueue::new();
    let mut me = Account::new(256);
    assert!(!queue.give_way(&mut me, any), "to nobody");
    let _ = queue.insert(Account { credit: 5, round: 0, weight: 256 }, "other", Nanos(0), ANYWHERE);
    assert!(queue.give_way(&mut me, any));
    let _ = queue.insert(me, "me", Nanos(0), ANYWHERE);
    assert_eq!(queue.pop(0, any).map(|(_, name)| name), Some("other"));
}

#[test]
fn budgets() {
    let mut budget = Budget::UNLIMITED;
    assert_eq!(budget.allowance(Nanos(5)), Allowance::Unlimited);
    budget.set_cap(25, Nanos(0));
    assert_eq!(budget.allowance(Nanos(0)), Allowance::For(Nanos(2_500_000)));
    budget.burn(Nanos(3_000_000), Nanos(3_000_000));
    assert_eq!(budget.allowance(Nanos(4_000_000)), Allowance::NotBefore(PERIOD));
    assert_eq!(budget.allowance(PERIOD), Allowance::For(Nanos(2_000_000)), "less what was overdrawn");
    assert_eq!(budget.allowance(Nanos(25_000_000)), Allowance::For(Nanos(4_500_000)), "what was not used");
    assert_eq!(budget.allowance(Nanos(950_000_000)), Allowance::For(Nanos(12_500_000)), "not for ever");
    budget.set_cap(0, Nanos(950_000_000));
    assert_eq!(budget.allowance(Nanos(950_000_000)), Allowance::Unlimited);
}

#[test]
fn rounds() {
    let mut account = Account { credit: -5, round: 3, weight: 256 };
    account.refresh(3, CREDIT_INIT);
    assert_eq!(account.credit, -5);
    account.refresh(4, CREDIT_INIT);
    assert_eq!(account.credit, CREDIT_INIT - 5);
    account.refresh(9, CREDIT_INIT);
    assert_eq!(account.credit, CREDIT_INIT, "nobody saves up more than one allowance");
    account.refresh(2, CREDIT_INIT);
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

#[test]
fn under_null_each_has_a_cpu_for_itself() {
    // Four for two CPUs: two of them run all the time, the others wait. Which two: those that came first.
    let ran = compete_under(Scheduler::Null, 2, &[HOG, HOG, HOG, HOG]);
    let times: Vec<u64> = ran.iter().map(|ran| ran.time).collect();
    assert_eq!(times, [10_000_000_000, 10_000_000_000, 0, 0]);
    // Who sleeps keeps its CPU; weights mean nothing.
    let sleeper = Runner { rhythm: (200, 4800), ..HOG };
    let ran = compete_under(Scheduler::Null, 2, &[sleeper, hog(1), hog(1024)]);
    assert_eq!(ran[1].time, 10_000_000_000);
    assert_eq!(ran[2].time, 0);
    assert_eq!(ran[0].wait, 0);
}

#[test]
fn under_null_a_cpu_is_given_on() {
    let any = |_: &&str| true;
    let mut queue = RunQueue::new();
    queue.set_rules(Rules::new(Scheduler::Null));
    let wish = |key| Wish { allowed: CpuMask(0b11), preferred: CpuMask(0b10), last: 0, key };
    let account = Account::new(256);
    queue.idle(0);
    queue.idle(1);
    assert_eq!(queue.insert(account, "one", Nanos(0), wish(1)), Some(1), "the better one");
    assert_eq!(queue.pop(1, any).unwrap().1, "one");
    assert_eq!(queue.insert(account, "two", Nanos(0), wish(2)), Some(0));
    assert!(!queue.has(1, any), "that one is taken");
    assert_eq!(queue.pop(0, any).unwrap().1, "two");
    assert_eq!(queue.insert(account, "three", Nanos(0), wish(3)), None);
    // One sleeps: its CPU waits for it.
    queue.idle(1);
    assert!(queue.pop(1, any).is_none());
    assert_eq!(queue.insert(account, "one", Nanos(0), wish(1)), Some(1));
    assert_eq!(queue.pop(1, any).unwrap().1, "one");
    // One is taken down: its CPU is free for who waits.
    assert_eq!(queue.release(1, CpuMask(0b10)), None, "it may stay");
    assert_eq!(queue.release(1, CpuMask(0)), Some(1));
    assert_eq!(queue.release(1, CpuMask(0)), None);
    assert_eq!(queue.pop(1, any).unwrap().1, "three");
    assert!(queue.steal(any).is_none());
    assert_eq!(queue.insert(account, "four", Nanos(0), wish(4)), None);
    assert_eq!(queue.steal(any).unwrap().1, "four", "for a CPU of another queue");
    assert_eq!(queue.insert(account, "two", Nanos(0), wish(2)), None);
    assert!(queue.steal(any).is_none(), "it has its own here");
    // Its CPU goes: it is for any other one.
    assert_eq!(queue.take_lost(any), Some("two"));
    assert_eq!(queue.release(2, CpuMask(0)), None);
}
