//! The rules of interrupts, without any.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use proptest::prelude::*;
use xen_abi::{
    errno::Errno,
    ids::{DomId, Port},
};

use super::*;
use crate::time::Nanos;

const A: DomId = DomId(1);
const B: DomId = DomId(2);
const NOW: Nanos = Nanos(10_000_000);
const LATER: Nanos = NOW.after(PATIENCE);

fn irqs() -> Irqs {
    let mut irqs = Irqs::new(Vectors::new(0x31..=0xef));
    irqs.grow(24, 160);
    irqs
}

#[test]
fn a_level_waits_for_all_who_share_it() {
    let mut desc = Desc::new(Mode::Level);
    assert_eq!(desc.bind(A, Pirq(5), Port(1), true), Ok(true));
    assert_eq!(desc.bind(B, Pirq(7), Port(2), true), Ok(false));
    desc.arrived(NOW);
    assert!(!desc.end(A, Pirq(5)));
    assert!(!desc.end(A, Pirq(5)), "twice");
    assert!(desc.end(B, Pirq(7)));
    assert!(!desc.end(B, Pirq(7)), "nothing to end");
    desc.arrived(NOW);
    assert!(!desc.end(A, Pirq(5)));
    assert!(desc.time_is_up(LATER));
    assert!(!desc.time_is_up(LATER));
    desc.arrived(NOW);
    assert!(!desc.end(A, Pirq(5)));
    assert_eq!(desc.unbind(B, Pirq(7), None), Some(Unbound::Unmask), "the one that was waited for is gone");
    assert_eq!(desc.unbind(A, Pirq(5), None), Some(Unbound::Last));
    assert_eq!(desc.unbind(A, Pirq(5), None), None);
}

#[test]
fn a_line_learns_how_to_signal_once() {
    let mut desc = Desc::new(Mode::Level);
    assert_eq!(desc.set_up(), Ok(true));
    assert_eq!(desc.set_up(), Err(Errno::EEXIST));
    desc.bind(A, Pirq(5), Port(1), true).unwrap();
    assert_eq!(desc.set_up(), Err(Errno::EEXIST));
    desc.unbind(A, Pirq(5), None);
    assert_eq!(desc.set_up(), Ok(false), "what it learned stays");
    let mut desc = Desc::new(Mode::Level);
    desc.bind(A, Pirq(5), Port(1), true).unwrap();
    assert_eq!(desc.set_up(), Err(Errno::EEXIST));
}

#[test]
fn who_does_not_share_has_it_alone() {
    let mut desc = Desc::new(Mode::Level);
    assert_eq!(desc.bind(A, Pirq(5), Port(1), false), Ok(true));
    assert_eq!(desc.bind(B, Pirq(5), Port(1), true), Err(Errno::EBUSY));
    desc.unbind(A, Pirq(5), None);
    assert_eq!(desc.bind(B, Pirq(5), Port(1), true), Ok(true));
    assert_eq!(desc.bind(A, Pirq(5), Port(1), false), Err(Errno::EBUSY));
    desc.own = true;
    desc.unbind(B, Pirq(5), None);
    assert_eq!(desc.bind(A, Pirq(5), Port(1), false), Err(Errno::EBUSY));
}

#[test]
fn an_edge_waits_for_nobody() {
    let mut irqs = irqs();
    let (irq, vector) = irqs.new_message().unwrap();
    assert_eq!(irq, Irq(24));
    irqs.get_mut(irq).unwrap().bind(A, Pirq(200), Port(9), false).unwrap();
    let arrival = irqs.arrived(vector, NOW).unwrap();
    assert!(!arrival.waits && arrival.guests.len() == 1);
    assert!(!irqs.get_mut(irq).unwrap().end(A, Pirq(200)));
    irqs.end_message(irq);
    assert!(irqs.arrived(vector, NOW).is_none());
    assert_eq!(irqs.new_message().unwrap(), (irq, vector), "both are free again");
}

#[test]
fn a_flood_is_held_back_for_a_while() {
    let mut desc = Desc::new(Mode::Edge);
    desc.bind(A, Pirq(200), Port(9), false).unwrap();
    assert!((0..255).all(|_| !desc.arrived(NOW)));
    assert!(desc.arrived(NOW));
    assert!(!desc.time_is_up(NOW), "not yet");
    assert!(desc.time_is_up(LATER));
    assert!(!desc.time_is_up(LATER), "once");
    assert!((0..200).all(|i| !desc.arrived(LATER.after(Nanos::from_millis(i * 2)))));
}

#[test]
fn a_timer_from_before_does_not_end_what_came_later() {
    let mut desc = Desc::new(Mode::Level);
    desc.bind(A, Pirq(5), Port(1), true).unwrap();
    desc.arrived(NOW);
    assert!(desc.end(A, Pirq(5)));
    desc.arrived(NOW.after(Nanos(1)));
    assert!(!desc.time_is_up(LATER));
    assert!(desc.time_is_up(LATER.after(Nanos(1))));
}

#[test]
fn vectors_run_out_and_lines_keep_theirs() {
    let mut irqs = irqs();
    irqs.reserve_vector(0x31);
    assert_eq!(irqs.vector(Irq(4)), Ok(0x32));
    assert_eq!(irqs.vector(Irq(4)), Ok(0x32));
    irqs.end_message(Irq(4));
    assert_eq!(irqs.vector(Irq(4)), Ok(0x32));
    let mut given = Vec::new();
    while let Ok((_, vector)) = irqs.new_message() {
        given.push(vector);
    }
    assert_eq!(given.len(), 160, "the numbers run out first");
    assert!(!given.contains(&0x80) && !given.contains(&0x82));
    assert_eq!(irqs.vector(Irq(999)), Err(Errno::EINVAL));
}

#[test]
fn numbers_of_a_domain() {
    let mut pirqs = Pirqs::new(24, 8).unwrap();
    assert_eq!(pirqs.map(Pirq(9), Irq(9)), Ok(true));
    assert_eq!(pirqs.map(Pirq(9), Irq(10)), Ok(false));
    assert_eq!(pirqs.irq(Pirq(9)), Some(Irq(9)));
    assert_eq!(pirqs.map(Pirq(32), Irq(10)), Err(Errno::EINVAL));
    assert_eq!(pirqs.find_free(Kind::Line), Ok(Pirq(16)));
    assert_eq!(pirqs.take(Kind::Message), Ok(Pirq(31)));
    assert_eq!(pirqs.take(Kind::Message), Ok(Pirq(30)));
    assert_eq!(pirqs.map(Pirq(31), Irq(24)), Ok(true));
    assert_eq!(pirqs.pirq(Irq(24)), Some(Pirq(31)));
    assert_eq!(pirqs.unmap(Pirq(31)), Some(Irq(24)));
    assert_eq!(pirqs.unmap(Pirq(31)), None);
    assert_eq!(pirqs.mapped().collect::<Vec<_>>(), [(Pirq(9), Irq(9))]);
    while pirqs.take(Kind::Message).is_ok() {}
    assert_eq!(pirqs.find_free(Kind::Message), Err(Errno::ENOSPC));
}

proptest! {
    #[test]
    fn a_range_set_is_a_set(steps in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 1..40)) {
        let mut set = RangeSet::new();
        let mut model = BTreeSet::new();
        for (add, start, length) in steps {
            let range = start..start + length;
            if add { set.add(range.clone()).unwrap() } else { set.remove(&range).unwrap() }
            for at in range.clone() {
                let _ = if add { model.insert(at) } else { model.remove(&at) };
            }
            for at in 0..80 {
                prop_assert_eq!(set.contains(&(at..at + 1)), model.contains(&at));
            }
            prop_assert_eq!(set.contains(&range), range.clone().all(|at| model.contains(&at)));
            prop_assert!(set.ranges().windows(2).all(|pair| pair[0].end < pair[1].start));
            let missing: Vec<u64> = set.missing(3..70).flatten().collect();
            prop_assert!(missing.iter().copied().eq((3..70).filter(|at| !model.contains(at))));
        }
    }
}
