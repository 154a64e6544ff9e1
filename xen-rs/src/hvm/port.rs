//! I/O ports: none answers. Reads give ones, and writes go nowhere, those of `ins` and `outs` too, but `ins` is for the
//! kernel alone. The control domain reaches those that it was given, but for `ins` and `outs`.

use logic::emulate::{decode, io};
use logic::guest::Out;
use logic::hvm::string::{self, Width};
use machine::container::{Event, PortAccess, attributes};

use super::exit;
use crate::{cpu::Context, guest::Series, trap};

/// Bytes that one exit writes at most: the rest of an `ins` comes with the next one.
const ROUND: usize = 256;

/// Answers an access.
#[inline(always)]
pub fn access(cx: &mut Context<'_>, access: PortAccess) {
    if access.string | cx.domain.is_control() {
        if !rare_access(cx, access) {
            return;
        }
    } else if access.reads {
        match access.bytes {
            1 => cx.regs.rax |= 0xff,
            2 => cx.regs.rax |= 0xffff,
            _ => cx.regs.rax = 0xffff_ffff,
        }
    }
    if let Some(pvh) = cx.state.pvh.as_deref_mut() {
        exit::go_on(pvh, cx.regs, access.next);
    }
}

/// Whether the instruction is over.
#[cold]
#[inline(never)]
fn rare_access(cx: &mut Context<'_>, access: PortAccess) -> bool {
    if access.string {
        return string_access(cx, access);
    }
    let width = match access.bytes {
        1 => decode::Width::Byte,
        2 => decode::Width::Word,
        _ => decode::Width::Dword,
    };
    if access.reads {
        let value = trap::io::read(cx, access.port, width);
        io::set_accumulator(cx.regs, width, value);
    } else {
        trap::io::write(cx, access.port, width, io::accumulator(cx.regs, width));
    }
    true
}

fn string_access(cx: &mut Context<'_>, access: PortAccess) -> bool {
    let Some(pvh) = cx.state.pvh.as_deref() else { return false };
    let code = pvh.container.code_attributes();
    // A prefix that says something else is not looked for.
    let (width, base) = match code {
        _ if code & attributes::LONG != 0 => (Width::Long, 0),
        _ if code & attributes::BIG != 0 => (Width::Double, pvh.container.state().es.base),
        _ => (Width::Word, pvh.container.state().es.base),
    };
    let io = string::Access { reads: access.reads, repeated: access.repeated, bytes: access.bytes, width };
    let room = ROUND / usize::from(access.bytes).max(1);
    let step = string::step(cx.regs, io, if access.reads { room as u64 } else { u64::MAX });
    let bytes = usize::try_from(step.elements).unwrap_or(0) * usize::from(access.bytes);
    if access.reads && bytes > 0 {
        // The CPU has not looked whether the memory may be written, and what writes here does so as the guest's kernel.
        if pvh.container.cpl() != 0 {
            exit::inject(cx, Event::general_protection());
            return false;
        }
        const ONES: [u8; ROUND] = [0xff; ROUND];
        let linear = base.wrapping_add(step.first);
        let linear = if width == Width::Long { linear } else { linear & 0xffff_ffff };
        if Series::<u8, Out>::new(linear).write_from(ONES.get(..bytes).unwrap_or(&ONES)).is_err() {
            exit::inject(cx, Event::general_protection());
            return false;
        }
    }
    string::advance(cx.regs, io, &step);
    step.over
}
