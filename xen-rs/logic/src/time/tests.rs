//! Scaling against exact arithmetic, the version protocol, timers against a sorted list.

use super::*;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::vec::Vec;

#[test]
fn known_scales() {
    // 2 GHz: two ticks per nanosecond.
    assert_eq!(Scale::from_hertz(2_000_000_000), Some(Scale { mul: 1 << 31, shift: 0 }));
    // 1 GHz: one tick per nanosecond, kept below 2^32 by a shift.
    assert_eq!(Scale::from_hertz(1_000_000_000), Some(Scale { mul: 1 << 31, shift: 1 }));
    assert_eq!(Scale::from_hertz(4_000_000_000), Some(Scale { mul: 1 << 31, shift: -1 }));
    assert_eq!(Scale::from_hertz(0), None);
    assert_eq!(Scale::from_hertz(u64::MAX), None);
}

proptest! {
    #[test]
    fn scaling_is_close(hertz in 1_000_000u64..20_000_000_000, ticks in 0u64..1 << 50) {
        let scale = Scale::from_hertz(hertz).unwrap();
        let exact = u128::from(ticks) * 1_000_000_000 / u128::from(hertz);
        let got = u128::from(scale.nanos(ticks).0);
        // One part in 2^30 for each of the two roundings of the scale, and the ticks lost by a right shift.
        let error = exact / (1 << 29) + 16;
        prop_assert!(got.abs_diff(exact) <= error, "{} {}", got, exact);
    }

    #[test]
    fn a_deadline_is_never_early(hertz in 1_000_000u64..20_000_000_000, span in 0u64..1 << 45, base: u32) {
        let scale = Scale::from_hertz(hertz).unwrap();
        let clock = SystemClock { ticks: base.into(), time: Nanos(base.into()), scale };
        let deadline = clock.time.after(Nanos(span));
        let ticks = clock.ticks_at(deadline);
        prop_assert!(clock.at(ticks) >= deadline);
        prop_assert!(ticks == clock.ticks || clock.at(ticks - 1).0 <= deadline.0 + 1);
    }

    #[test]
    fn time_never_runs_backwards(hertz in 1_000_000u64..20_000_000_000, a in 0u64..1 << 50, b in 0u64..1 << 50) {
        let clock = SystemClock { ticks: 1000, time: Nanos(5), scale: Scale::from_hertz(hertz).unwrap() };
        let (a, b) = (a.min(b), a.max(b));
        prop_assert!(clock.at(a) <= clock.at(b));
        // A guest that was given a later reference reads what it did to within two nanoseconds, no better: vCPUs that
        // are compared with each other must share one reference.
        prop_assert!(clock.rebased(a.max(1000)).at(b).0.abs_diff(clock.at(b).0) <= 2);
    }
}

#[test]
fn readers_never_see_half_a_record() {
    struct Page {
        version: Cell<u32>,
        body: Cell<u64>,
        log: RefCell<Vec<(u32, u64)>>,
    }
    impl TimePage<u64> for Page {
        fn version(&self) -> u32 {
            self.version.get()
        }
        fn set_version(&self, version: u32) {
            self.version.set(version);
            self.log.borrow_mut().push((version, self.body.get()));
        }
        fn set_body(&self, body: &u64) {
            assert_eq!(self.version.get() % 2, 1);
            self.body.set(*body);
        }
    }
    let page = Page { version: Cell::new(6), body: Cell::new(1), log: RefCell::default() };
    publish(&page, &2);
    page.version.set(9); // scribbled by the guest
    publish(&page, &3);
    page.version.set(u32::MAX);
    publish(&page, &4);
    assert_eq!(*page.log.borrow(), [(7, 1), (8, 2), (9, 2), (10, 3), (u32::MAX, 3), (0, 4)]);
}

#[test]
fn wall_clock() {
    let clock = WallClock::new(1_700_000_000, 5, Nanos(10), 0);
    assert_eq!(clock, WallClock { seconds: 1_699_999_999, nanos: 999_999_995 });
    assert_eq!(WallClock::new(5 << 32, 0, Nanos(0), -1).sec_hi(), 4);
    assert_eq!(WallClock::new(3, 0, Nanos::from_secs(9), 0), WallClock::default());
}

#[test]
fn vcpu_timers() {
    let mut t = VcpuTimers { singleshot: Some(Nanos(5)), poll: Some(Nanos(9)), ..Default::default() };
    assert_eq!(t.next(), Some(Nanos(5)));
    assert_eq!(t.expire(Nanos(4)), Fired { virq: false, poll: false, apic: false });
    assert_eq!(t.expire(Nanos(5)), Fired { virq: true, poll: false, apic: false });
    assert_eq!(t.expire(Nanos(20)), Fired { virq: false, poll: true, apic: false });
    assert_eq!(t.next(), None);
    t.periodic = Some(Periodic { period: Nanos(10), next: Nanos(30) });
    assert_eq!(t.expire(Nanos(55)), Fired { virq: true, poll: false, apic: false });
    assert_eq!(t.next(), Some(Nanos(60)));
    t.periodic = Some(Periodic { period: Nanos(0), next: Nanos(0) });
    assert!(t.expire(Nanos(55)).virq);
    assert_eq!(t.next(), Some(Nanos(56)));
}

#[test]
fn one_that_stands_on_the_queue_is_not_put_there_again() {
    let mut t = VcpuTimers { singleshot: Some(Nanos(50)), ..VcpuTimers::default() };
    assert_eq!(t.to_queue(1, Nanos(10)), Some(Nanos(50)));
    t.queued = Some((1, Nanos(50)));
    assert_eq!(t.to_queue(1, Nanos(10)), None);
    assert_eq!(t.to_queue(2, Nanos(10)), Some(Nanos(50)), "it stands on another one");
    assert_eq!(t.to_queue(1, Nanos(50)), Some(Nanos(50)), "it may have been taken off");
    t.singleshot = Some(Nanos(40));
    assert_eq!(t.to_queue(1, Nanos(10)), Some(Nanos(40)));
    t.singleshot = None;
    assert_eq!(t.to_queue(1, Nanos(10)), None);
}

#[test]
fn a_key_that_comes_again_moves() {
    let mut queue = TimerQueue::new();
    for (key, at) in [(1u8, 30), (2, 10), (1, 20), (3, 40), (1, 50), (2, 60)] {
        assert!(queue.set(key, Nanos(at)));
    }
    assert_eq!((queue.len(), queue.next()), (3, Some(Nanos(40))));
    assert_eq!((queue.pop_due(Nanos(39)), queue.pop_due(Nanos(55))), (None, Some(3)));
    assert_eq!((queue.pop_due(Nanos(55)), queue.pop_due(Nanos(55))), (Some(1), None));
    assert!(queue.cancel(2) && !queue.cancel(2) && queue.is_empty());
    assert_eq!((queue.next(), queue.pop_due(Nanos::NEVER)), (None, None));
}

/// A key that tells how often it was compared or hashed.
#[derive(Clone, Copy, Debug, Eq)]
struct Counted<'a>(u32, &'a Cell<u32>);

impl PartialEq for Counted<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.1.set(self.1.get() + 1);
        self.0 == other.0
    }
}

impl core::hash::Hash for Counted<'_> {
    fn hash<H: core::hash::Hasher>(&self, to: &mut H) {
        self.1.set(self.1.get() + 1);
        to.write_u32(self.0);
    }
}

#[test]
fn among_many_a_deadline_costs_what_it_costs_among_few() {
    let (count, mut queue) = (Cell::new(0), TimerQueue::new());
    for key in 0..4000 {
        assert!(queue.set(Counted(key, &count), Nanos(u64::from(key) * 100)));
    }
    count.set(0);
    for key in 0..1000 {
        let key = Counted(key * 4, &count);
        assert!(queue.set(key, Nanos(u64::from(3999 - key.0) * 100 + 50)));
        assert!(queue.cancel(key) && queue.set(key, Nanos(u64::from(key.0))));
    }
    // Four thousand look-ups: two each and a few that meet by chance. One by one it were two million and more.
    assert!(count.get() < 20_000, "{} comparisons", count.get());
    assert_eq!(queue.len(), 4000);
}

proptest! {
    #[test]
    fn timers_fire_in_order(steps in prop::collection::vec((0u8..40, 0u64..100, prop::bool::weighted(0.7)), 1..300)) {
        let mut queue = TimerQueue::new();
        let mut model: Vec<(u8, u64)> = Vec::new();
        for (key, at, set) in steps {
            let had = model.iter().any(|(k, _)| *k == key);
            model.retain(|(k, _)| *k != key);
            if set {
                prop_assert!(queue.set(key, Nanos(at)));
                model.push((key, at));
            } else {
                prop_assert_eq!(queue.cancel(key), had);
            }
            prop_assert_eq!(queue.next().map(|n| n.0), model.iter().map(|m| m.1).min());
            prop_assert_eq!(queue.len(), model.len());
            if at % 8 == 0 && let Some(key) = queue.pop_due(Nanos(at)) {
                let index = model.iter().position(|(k, _)| *k == key).unwrap();
                let (_, due) = model.swap_remove(index);
                prop_assert!(due <= at && model.iter().all(|(_, other)| *other >= due));
            }
        }
        for now in 0..100 {
            while let Some(key) = queue.pop_due(Nanos(now)) {
                let index = model.iter().position(|(k, _)| *k == key).unwrap();
                prop_assert_eq!(model.remove(index).1, now);
            }
        }
        prop_assert!(model.is_empty());
    }
}
