//! `HYPERVISOR_multicall`: several calls in one. Which are made, and what becomes of each, is `logic::multicall`'s.

use core::mem::offset_of;

use logic::{
    field,
    guest::{InOut, Out},
    hypercall::Outcome,
    multicall::{self as rules, After, Calls, End, Rest},
};
use machine::{arch::x86_64::interrupts, mem::guest_words::Piece};
use xen_abi::{errno::Errno, hypercall::HYPERVISOR_XEN_VERSION, multicall::MulticallEntry};

use super::xen_version;
use crate::{
    cpu::Context,
    guest::{Handle, is_guest_range},
};

/// Bytes of one.
const SIZE: u64 = size_of::<MulticallEntry>() as u64;
const OP: u64 = offset_of!(MulticallEntry, op) as u64;
const RESULT: u64 = offset_of!(MulticallEntry, result) as u64;
const ARGS: u64 = offset_of!(MulticallEntry, args) as u64;

/// The calls of a list.
struct Made<'a, 'b> {
    cx: &'a mut Context<'b>,
    /// The arguments of the list, once those of a call take their place.
    caller: Option<[u64; 6]>,
}

/// The hypercall: rdi points to an array of calls, rsi is how many.
#[allow(clippy::cast_possible_truncation, reason = "the count is an unsigned int of the ABI")]
pub fn multicall(cx: &mut Context<'_>) -> Outcome {
    let [va, count, ..] = cx.args();
    // Where there is a call its own address is looked at.
    if count as u32 == 0 && !is_guest_range(va, 1) {
        return Errno::EFAULT.into();
    }
    let mut calls = Made { cx, caller: None };
    let rest = rules::round(&mut calls, va, count as u32);
    let Made { cx, caller } = calls;
    if let Some(caller) = caller {
        cx.set_args(caller);
    }
    conclude(cx, rest)
}

/// What the list comes to, with the list's own arguments in place.
#[inline(always)]
pub fn conclude(cx: &mut Context<'_>, rest: Rest) -> Outcome {
    match rest {
        Rest::Over(outcome) => outcome,
        Rest::Left { at, count } => {
            cx.set_args([at, count.into()]);
            Outcome::Again
        }
    }
}

impl Calls for Made<'_, '_> {
    type Entry = MulticallEntry;

    /// What cannot be read may become readable by the call before it.
    ///
    /// No [`Handle`] for the call that is most frequent: two words of it say all. Of any other nothing that was read here is used.
    #[inline(always)]
    fn make(&mut self, at: u64) -> Result<(), End> {
        const XEN_VERSION: u64 = HYPERVISOR_XEN_VERSION as u64;
        let entry = Piece::<SIZE>::new(at).ok_or(Errno::EFAULT)?;
        let result = match entry.words_at_once::<OP, ARGS>() {
            Some((XEN_VERSION, command)) if let Some(version) = xen_version::at_once(command) => version,
            _ => general(self.cx, &mut self.caller, Handle::new(at))?,
        };
        Ok(entry.write_word::<RESULT>(result)?)
    }

    #[inline(always)]
    fn is_awaited(&mut self) -> bool {
        interrupts::any() || !self.cx.vcpu.seat.ready.is_runnable()
    }
}

/// Makes a call with its arguments where its handler looks for them: the result that is to be written.
#[inline(never)]
fn general(
    cx: &mut Context<'_>,
    caller: &mut Option<[u64; 6]>,
    entry: Handle<MulticallEntry, InOut>,
) -> Result<u64, End> {
    let (entry, answer) = entry.read()?;
    caller.get_or_insert(cx.args());
    cx.set_args(entry.args);
    let outcome = match rules::refused(entry.op) {
        Some(refusal) => refusal,
        None => super::dispatch(cx, entry.op),
    };
    let tell =
        |answer: Handle<MulticallEntry, Out>, result: u64| answer.part(field!(MulticallEntry, result)).write(&result);
    match rules::after(entry.op, outcome, cx.vcpu.seat.ready.is_runnable()) {
        After::Next(result) => Ok(result),
        After::Last(result) => {
            let _ = tell(answer, result);
            Err(End::Last(Outcome::Done(result)))
        }
        After::Wait(result) => {
            tell(answer, result)?;
            Err(End::Wait)
        }
        After::Keep => {
            answer.part(field!(MulticallEntry, args)).write(&cx.args())?;
            Err(End::Again)
        }
    }
}
