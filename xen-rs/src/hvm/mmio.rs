//! A guest's accesses to addresses where it has no memory: the page of its local APIC, and everything else, which nobody
//! answers for: reads give ones, and writes go nowhere.
//!
//! Each exit carries out one instruction, or one element of a string; with `rep` the guest comes back for the next one.

use logic::{
    emulate::{
        encoding::{AddressSize, Segment as Name, Undecoded, mask},
        memory::{Elements, Instruction, Op, decode},
    },
    guest::{In, Out},
    hvm::{length::MAX_LENGTH, mmio},
};
use machine::container::{Access, Event, attributes, memory};

use super::{apic, exit};
use crate::{cpu::Context, guest::Series};

/// Carries out the instruction that made the access. False: it is none that can be carried out.
///
/// Where the CPU does not say what it has fetched, what is decoded is what the code says by now; if the guest has changed it, it
/// gets what that says, done at its own address.
pub fn access(cx: &mut Context<'_>, address: u64, access: Access) -> bool {
    if access == Access::Execute {
        return false;
    }
    let Some(pvh) = cx.state.pvh.as_deref() else { return false };
    let segment = pvh.container.code();
    let size = match segment.attributes {
        long if long & attributes::LONG != 0 => AddressSize::Long,
        big if big & attributes::BIG != 0 => AddressSize::Double,
        _ => AddressSize::Word,
    };
    let long_mode = size == AddressSize::Long;
    let linear = if long_mode { cx.regs.rip } else { segment.base.wrapping_add(cx.regs.rip) & 0xffff_ffff };
    // Where the CPU does not say what it has fetched, or not all of it, the code is read.
    let decoded = decode(pvh.container.instruction(), size, cx.regs).or_else(|undecoded| {
        if undecoded != Undecoded::Truncated {
            return Err(undecoded);
        }
        let mut code = [0; MAX_LENGTH];
        let there = memory::fetch(linear, &mut code);
        decode(code.get(..there).unwrap_or_default(), size, cx.regs)
    });
    let instruction = match decoded {
        Ok(instruction) => instruction,
        Err(Undecoded::Locked) => {
            exit::inject(cx, Event::exception(6));
            return true;
        }
        Err(Undecoded::Truncated | Undecoded::Foreign) => return false,
    };
    // Nobody but the kernel has the hypervisor write where the CPU has not checked that it may, or copy from or to other memory.
    let unchecked = instruction.op == Op::Copy || instruction.writes() && access != Access::Write;
    if unchecked && cx.state.pvh.as_deref().is_none_or(|pvh| pvh.container.cpl() != 0) {
        return false;
    }
    let over = match instruction.elements {
        Some(elements) => match element(cx, address, access, &instruction, &elements, size) {
            Some(over) => over,
            None => return false,
        },
        None => {
            whole(cx, address, &instruction);
            true
        }
    };
    if over {
        let next = cx.regs.rip.wrapping_add(instruction.length.into());
        let next = if long_mode { next } else { next & 0xffff_ffff };
        if let Some(pvh) = cx.state.pvh.as_deref_mut() {
            exit::go_on(pvh, cx.regs, next);
        }
    }
    true
}

/// An instruction that accesses nothing but these bytes.
fn whole(cx: &mut Context<'_>, address: u64, instruction: &Instruction) {
    let old = if instruction.reads() { read(cx, address, instruction.bytes) } else { 0 };
    let effect = instruction.apply(old, cx.regs);
    if let Some(new) = effect.memory {
        write(cx, address, instruction.bytes, new);
    }
    if let Some((register, value)) = effect.register {
        register.write(cx.regs, value);
    }
    cx.regs.rflags = effect.rflags;
}

/// One element of a string: whether it is the last. `None`: the other side of a copy is no memory.
fn element(
    cx: &mut Context<'_>,
    address: u64,
    access: Access,
    instruction: &Instruction,
    elements: &Elements,
    size: AddressSize,
) -> Option<bool> {
    let bytes = instruction.bytes;
    if let Some(next) = mmio::next_element(cx.regs, elements, bytes) {
        match (elements.source, elements.destination) {
            (Some(segment), true) if access == Access::Write => {
                let mut value = [0; 8];
                let from = linear(cx, segment, next.source, size)?;
                Series::<u8, In>::new(from).read_into(value.get_mut(..bytes.into())?).ok()?;
                write(cx, address, bytes, u64::from_le_bytes(value));
            }
            (Some(_), true) => {
                let value = read(cx, address, bytes).to_le_bytes();
                let to = linear(cx, Name::Es, next.destination, size)?;
                Series::<u8, Out>::new(to).write_from(value.get(..bytes.into())?).ok()?;
            }
            _ => whole(cx, address, instruction),
        }
    }
    Some(mmio::advance(cx.regs, elements, bytes))
}

/// Where in the guest's linear addresses an offset in a segment is.
fn linear(cx: &Context<'_>, name: Name, offset: u64, size: AddressSize) -> Option<u64> {
    let state = cx.state.pvh.as_deref()?.container.state();
    let segment = match name {
        Name::Es => state.es,
        Name::Cs => state.cs,
        Name::Ss => state.ss,
        Name::Ds => state.ds,
        Name::Fs => state.fs,
        Name::Gs => state.gs,
    };
    Some(match (size, name) {
        (AddressSize::Long, Name::Fs | Name::Gs) => segment.base.wrapping_add(offset),
        (AddressSize::Long, _) => offset,
        _ => segment.base.wrapping_add(offset) & 0xffff_ffff,
    })
}

fn read(cx: &mut Context<'_>, address: u64, bytes: u8) -> u64 {
    let Some(pvh) = cx.state.pvh.as_deref_mut() else { return 0 };
    match pvh.apic.offset_of(address) {
        Some(offset) => apic::read_part(pvh, cx.domain, offset, bytes).into(),
        None => mask(bytes),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "no register has more than 32 bits")]
fn write(cx: &mut Context<'_>, address: u64, bytes: u8, value: u64) {
    if let Some(offset) = cx.state.pvh.as_deref().and_then(|pvh| pvh.apic.offset_of(address)) {
        apic::write_part(cx, offset, bytes, value as u32);
    }
}
