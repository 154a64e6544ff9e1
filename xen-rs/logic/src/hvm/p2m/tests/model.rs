//! Random sequences of operations against the list.

#[cfg(test)]
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
pub enum Step {
    Enter { place: usize, offset: u64, frame: u64, large: bool, access: u8, usage: u8 },
    Leave { place: usize, offset: u64, most: u8 },
    Code { place: usize, offset: u64 },
    Feed,
}

/// Where pages are put: near each other, and at borders of tables.
const PLACES: [u64; 6] = [0, 512, 1024, (1 << 18) - 512, 1 << 27, END.0 - 512];

const FORMATS: [Format; 3] = [Format::Ept, Format::EptSmallCode, Format::Npt];

fn access(number: u8) -> Access {
    Access { write: number & 1 != 0, execute: number & 2 != 0 }
}

fn usage(number: u8) -> Use {
    [Use::Ram, Use::Shared, Use::Grant, Use::Foreign][usize::from(number & 3)]
}

fn run(format: Format, steps: &[Step], budget: u64) {
    let machine = machine();
    let mut world = World::new(&machine, format);
    for step in steps {
        match *step {
            Step::Enter { place, offset, frame, large, access: a, usage: u } => {
                let (mfn, order) = if large {
                    (LARGE.start + frame % 2 * 512, Order::Large)
                } else {
                    let single: Vec<u64> = SMALL.chain(OTHERS).chain(LARGE.step_by(100)).collect();
                    (single[frame as usize % single.len()], Order::Page)
                };
                let gfn = PLACES[place % PLACES.len()] + if large { 0 } else { offset % 512 };
                let taken = (0..order.frames()).any(|i| world.want.contains_key(&(gfn + i)));
                match world.enter(gfn, (mfn, order), access(a), usage(u)) {
                    Ok(()) => assert!(!taken, "{gfn:x} was taken"),
                    // Empty tables may be in the way of a large page.
                    Err(Refused::Occupied) => assert!(taken || large),
                    Err(Refused::NeedsTables) => assert!(world.map.wants() > 0),
                    Err(Refused::Misplaced) => panic!("refused"),
                }
            }
            Step::Leave { place, offset, most } => {
                let most = [Order::Page, Order::Large, Order::Huge][usize::from(most % 3)];
                let gfn = PLACES[place % PLACES.len()] + offset % 512;
                let there = world.want.contains_key(&gfn);
                match world.leave(gfn, most) {
                    Ok(Some(_)) => assert!(there),
                    // In the middle of something larger that is not to be split.
                    Ok(None) => assert!(!there || most != Order::Page),
                    Err(refused) => assert_eq!(refused, Refused::NeedsTables),
                }
            }
            Step::Code { place, offset } => {
                let gfn = PLACES[place % PLACES.len()] + offset % 512;
                match world.map.split_down(Gfn(gfn)) {
                    Ok(()) => assert!(world.map.find(Gfn(gfn)).is_none_or(|found| found.order == Order::Page)),
                    Err(refused) => assert_eq!(refused, Refused::NeedsTables),
                }
            }
            Step::Feed => world.feed(),
        }
    }
    world.check();
    world.end(budget);
}

/// A sequence out of bytes, for the fuzzer.
pub fn run_bytes(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let format = FORMATS[usize::from(first % 3)];
    let steps: Vec<Step> = rest
        .chunks_exact(6)
        .map(|b| match b[0] % 9 {
            0..4 => Step::Enter {
                place: b[1].into(),
                offset: u64::from(b[2]) * 2,
                frame: b[3].into(),
                large: b[4] & 1 != 0,
                access: b[5],
                usage: b[5] >> 2,
            },
            4..7 => Step::Leave { place: b[1].into(), offset: u64::from(b[2]) * 2, most: b[3] },
            7 => Step::Code { place: b[1].into(), offset: u64::from(b[2]) * 2 },
            _ => Step::Feed,
        })
        .collect();
    run(format, &steps, u64::from(first / 3) + 1);
}

#[cfg(test)]
fn step() -> impl Strategy<Value = Step> {
    let offset = || prop_oneof![Just(0u64), Just(511), 0..512u64];
    prop_oneof![
        4 => (0..6usize, offset(), 0..64u64, any::<bool>(), any::<u8>(), any::<u8>()).prop_map(
            |(place, offset, frame, large, access, usage)| Step::Enter { place, offset, frame, large, access, usage }
        ),
        3 => (0..6usize, offset(), any::<u8>()).prop_map(|(place, offset, most)| Step::Leave { place, offset, most }),
        1 => (0..6usize, offset()).prop_map(|(place, offset)| Step::Code { place, offset }),
        3 => Just(Step::Feed),
    ]
}

#[cfg(test)]
proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn says_what_the_list_says(format in 0..3usize, steps in prop::collection::vec(step(), 1..60), budget in 1..2000u64) {
        run(FORMATS[format], &steps, budget);
    }
}
