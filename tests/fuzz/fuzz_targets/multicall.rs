//! `multicall` beside the obvious: whatever its calls come to and whenever something waits, each is made to its end once and
//! in its order, rounds are bounded, and the results are those that the calls had.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::hypercall::Outcome;
use logic::multicall::{After, Calls, End, ROUND, Rest, after, refused, round};
use xen_abi::errno::Errno;
use xen_abi::hypercall::{HYPERVISOR_IRET, HYPERVISOR_MULTICALL};
use xen_abi::multicall::MulticallEntry;

const SIZE: u64 = size_of::<MulticallEntry>() as u64;
const BASE: u64 = 0x7000;
/// What an entry holds before its call is made.
const NOTHING: u64 = 0xdead;

/// A call of the list, and how it will come to its end.
#[derive(Clone, Debug)]
struct Call {
    op: u64,
    /// How often it has to be made before it is finished.
    rounds: u8,
    value: u64,
    fails: bool,
    /// It makes its vCPU wait.
    waits: bool,
    /// Its entry cannot be read, or not be written.
    unreadable: bool,
    unwritable: bool,
}

struct Guest<'a> {
    calls: Vec<Call>,
    results: Vec<u64>,
    /// The calls that were made to their end.
    finished: Vec<usize>,
    made_now: u32,
    bytes: Bytes<'a>,
}

impl Calls for Guest<'_> {
    type Entry = MulticallEntry;

    fn make(&mut self, at: u64) -> Result<(), End> {
        self.made_now += 1;
        let offset = at.checked_sub(BASE).expect("before the list");
        assert_eq!(offset % SIZE, 0);
        let index = usize::try_from(offset / SIZE).unwrap();
        let call = self.calls.get_mut(index).expect("behind the list");
        if call.unreadable {
            return Err(Errno::EFAULT.into());
        }
        let outcome = match refused(call.op) {
            Some(outcome) => {
                assert_eq!(call.op, u64::from(HYPERVISOR_MULTICALL));
                outcome
            }
            None if call.rounds > 0 => {
                call.rounds -= 1;
                Outcome::Again
            }
            None if call.fails => Outcome::Fail(Errno::EPERM),
            None => Outcome::Done(call.value),
        };
        let told = if call.unwritable { Err(Errno::EFAULT) } else { Ok(()) };
        match after(call.op, outcome, !call.waits) {
            After::Keep => {
                told?;
                Err(End::Again)
            }
            After::Next(result) => {
                self.finished.push(index);
                told?;
                self.results[index] = result;
                Ok(())
            }
            After::Wait(result) => {
                self.finished.push(index);
                told?;
                self.results[index] = result;
                Err(End::Wait)
            }
            After::Last(result) => {
                self.finished.push(index);
                if told.is_ok() {
                    self.results[index] = result;
                }
                Err(End::Last(Outcome::Done(result)))
            }
        }
    }

    fn is_awaited(&mut self) -> bool {
        self.bytes.u8() & 3 == 1
    }
}

/// What the whole list comes to: which calls are finished, all results, and the answer.
fn obvious(calls: &[Call]) -> (Vec<usize>, Vec<u64>, Outcome) {
    let (mut finished, mut results) = (Vec::new(), vec![NOTHING; calls.len()]);
    for (index, call) in calls.iter().enumerate() {
        let nested = call.op == u64::from(HYPERVISOR_MULTICALL);
        if call.unreadable || (call.unwritable && call.rounds > 0 && !nested) {
            return (finished, results, Outcome::Fail(Errno::EFAULT));
        }
        let result = match (nested, call.fails) {
            (true, _) => Errno::EINVAL.as_ret(),
            (false, true) => Errno::EPERM.as_ret(),
            (false, false) => call.value,
        };
        finished.push(index);
        if !call.unwritable {
            results[index] = result;
        }
        if call.op == u64::from(HYPERVISOR_IRET) {
            return (finished, results, Outcome::Done(result));
        }
        if call.unwritable {
            return (finished, results, Outcome::Fail(Errno::EFAULT));
        }
    }
    (finished, results, Outcome::OK)
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::new(data);
    let count = usize::from(bytes.u8());
    let calls: Vec<_> = (0..count)
        .map(|index| {
            let what = bytes.u8();
            let op = match what & 0x1f {
                1 => HYPERVISOR_IRET,
                2 => HYPERVISOR_MULTICALL,
                other => 64 + u32::from(other),
            };
            let rare = bytes.u8();
            Call {
                op: op.into(),
                rounds: if what & 0x20 != 0 { rare & 7 } else { 0 },
                value: index as u64,
                fails: what & 0x40 != 0,
                waits: what & 0x80 != 0,
                unreadable: rare & 0xf8 == 0x08,
                unwritable: rare & 0xf8 == 0x10,
            }
        })
        .collect();
    let expected = obvious(&calls);
    let results = vec![NOTHING; count];
    let mut guest = Guest { calls, results, finished: Vec::new(), made_now: 0, bytes };
    let (mut at, mut left) = (BASE, u32::try_from(count).unwrap());
    let answer = loop {
        guest.made_now = 0;
        let rest = round(&mut guest, at, left);
        assert!(guest.made_now <= ROUND, "a round is bounded");
        match rest {
            Rest::Over(outcome) => break outcome,
            Rest::Left { at: next, count } => {
                assert!(guest.made_now > 0 && count > 0 && count <= left, "it gets on");
                assert_eq!((next - at) / SIZE, u64::from(left - count), "the place and the number go together");
                (at, left) = (next, count);
            }
        }
    };
    assert_eq!((guest.finished, guest.results, answer), expected);
});
