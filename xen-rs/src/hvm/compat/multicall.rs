//! `multicall` of 32-bit code: entries of 32 bytes, and calls that are 32-bit code's themselves. Which are made, and what
//! becomes of each, is `logic::multicall`'s.

use logic::{
    field,
    guest::{InOut, Out},
    hvm::compat::{Wide, low},
    hypercall::Outcome,
    multicall::{self as rules, After, Calls, End},
};
use machine::arch::x86_64::interrupts;
use xen_abi::compat::MulticallEntry;

use crate::{cpu::Context, guest::Handle, hypercall as calls};

/// The calls of a list.
struct Made<'a, 'b> {
    cx: &'a mut Context<'b>,
}

/// The first argument points to an array of calls, the second is how many.
pub fn multicall(cx: &mut Context<'_>) -> Outcome {
    let caller = cx.args();
    let [va, count, ..] = caller;
    let rest = rules::round(&mut Made { cx: &mut *cx }, va, low(count));
    cx.set_args(caller);
    calls::multicall::conclude(cx, rest)
}

impl Calls for Made<'_, '_> {
    type Entry = MulticallEntry;

    fn make(&mut self, at: u64) -> Result<(), End> {
        let (entry, answer) = Handle::<MulticallEntry, InOut>::new(at).read()?;
        let wide = entry.widen();
        let [first, second, third, fourth, fifth, _] = wide.args;
        self.cx.set_args([first, second, third, fourth, fifth, 0]);
        let outcome = match rules::refused(wide.op) {
            Some(refusal) => refusal,
            None => super::route(self.cx, entry.op),
        };
        let tell = |answer: Handle<MulticallEntry, Out>, result: u64| {
            answer.part(field!(MulticallEntry, result)).write(&low(result))
        };
        match rules::after(wide.op, outcome, self.cx.vcpu.seat.ready.is_runnable()) {
            After::Next(result) => Ok(tell(answer, result)?),
            After::Last(result) => {
                let _ = tell(answer, result);
                Err(End::Last(Outcome::Done(result)))
            }
            After::Wait(result) => {
                tell(answer, result)?;
                Err(End::Wait)
            }
            After::Keep => {
                let [first, second, third, fourth, fifth, _] = self.cx.args();
                let args = [first, second, third, fourth, fifth, wide.args[5]];
                answer.part(field!(MulticallEntry, args)).write(&args.map(low))?;
                Err(End::Again)
            }
        }
    }

    fn is_awaited(&mut self) -> bool {
        interrupts::any() || !self.cx.vcpu.seat.ready.is_runnable()
    }
}
