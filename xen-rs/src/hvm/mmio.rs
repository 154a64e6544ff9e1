//! A guest's accesses to addresses where it has no memory: the page of its local APIC, and everything else, which nobody
//! answers for: reads give ones, and writes go nowhere.

use logic::{
    hvm::{
        length::MAX_LENGTH,
        mmio::{self, Operation},
    },
    regs::rflags,
};
use machine::container::{Access, attributes, memory};

use super::apic;
use crate::cpu::Context;

/// Carries out the instruction that made the access. False: it is none that can be carried out.
pub fn access(cx: &mut Context<'_>, address: u64, access: Access) -> bool {
    if access == Access::Execute {
        return false;
    }
    let Some(pvh) = cx.state.pvh.as_deref_mut() else { return false };
    let register_offset = pvh.apic.offset_of(address);
    let segment = pvh.container.code();
    let long_mode = segment.attributes & attributes::LONG != 0;
    let linear = if long_mode { cx.regs.rip } else { segment.base.wrapping_add(cx.regs.rip) & 0xffff_ffff };
    let mut code = [0; MAX_LENGTH];
    let there = memory::fetch(linear, &mut code);
    let Some(decoded) = code.get(..there).and_then(|code| mmio::decode(code, long_mode)) else { return false };
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    let ones = if decoded.bytes == 8 { u64::MAX } else { 0xffff_ffff };
    match (decoded.operation, register_offset) {
        (Operation::Load(to), Some(offset)) => {
            let value = apic::read(pvh, cx.domain, offset);
            to.write(cx.regs, value.into());
        }
        (Operation::Load(to), None) => to.write(cx.regs, ones),
        (Operation::Store(from), Some(offset)) => apic::write(cx, offset, low(from.read(cx.regs))),
        (Operation::StoreConstant(value), Some(offset)) => apic::write(cx, offset, value),
        (Operation::Store(_) | Operation::StoreConstant(_), None) => {}
    }
    let next = cx.regs.rip.wrapping_add(decoded.length.into());
    cx.regs.rip = if long_mode { next } else { next & 0xffff_ffff };
    cx.regs.rflags &= !rflags::RF;
    if let Some(pvh) = cx.state.pvh.as_deref_mut() {
        pvh.container.end_shadow();
    }
    true
}
