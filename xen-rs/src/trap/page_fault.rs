//! Page faults of a PV guest: writes of its kernel to page tables that it sees read-only are carried out, the control
//! domain's to tables of devices' messages come to nothing; all others are the guest's own.

use logic::{
    emulate::{decode::MAX_LENGTH, pt_write},
    page::{Entry, Fail, Kind, Owners, Replace, Slot, entry::bit},
};
use machine::mem::{guest_copy, pv_pte};
use xen_abi::{errno::Errno, vm_assist::VMASST_TYPE_WRITABLE_PAGETABLES};

use super::{deliver, ldt, privileged};
use crate::{cpu::Context, irq, memory};

/// Bits of the error code (SDM vol. 3A, 4.7).
const PRESENT: u32 = 1 << 0;
const WRITE: u32 = 1 << 1;
const USER: u32 = 1 << 2;
const RESERVED: u32 = 1 << 3;
const FETCH: u32 = 1 << 4;

/// How often a write is tried that another vCPU's write to the same entry gets in the way of.
const ATTEMPTS: u32 = 8;

/// Whether nobody but the guest itself can have to do with a fault: it was no write that its tables forbade, and no look of
/// the CPU's into the LDT.
#[inline(always)]
pub const fn is_surely_the_guests(error_code: u32) -> bool {
    error_code & USER != 0 && error_code & (PRESENT | WRITE) != PRESENT | WRITE
}

/// A page fault at `address`.
#[inline]
pub fn page_fault(cx: &mut Context<'_>, address: u64, error_code: u32) {
    if ldt::fault(cx, address, error_code) {
        return;
    }
    let could_be_a_table = error_code & (PRESENT | WRITE | RESERVED | FETCH) == PRESENT | WRITE;
    if could_be_a_table && cx.state.pv.in_kernel && may_write(cx) && write_to_table(cx, address) {
        return;
    }
    deliver::page_fault(cx, address, error_code);
}

/// Whether the domain's plain writes to page tables are carried out: it has asked for that, or is the control domain, which
/// Xen does not ask.
fn may_write(cx: &Context<'_>) -> bool {
    cx.domain.assists(VMASST_TYPE_WRITABLE_PAGETABLES) || cx.domain.is_control()
}

/// Lets a store into a table of messages, which the hypervisor programs, come to nothing: the control domain's kernel may
/// mask its device's messages there. False: it is none, or no plain store.
#[cold]
#[inline(never)]
fn discard_write(cx: &mut Context<'_>, address: u64, mapping: Entry) -> bool {
    if !cx.domain.is_control() || !irq::has_message_table(mapping.mfn()) {
        return false;
    }
    let mut code = [0; MAX_LENGTH];
    let missing = guest_copy::copy_in_up_to(cx.regs.rip, &mut code);
    let write = code.get(..MAX_LENGTH - missing).and_then(|code| pt_write::decode(code, cx.regs));
    match write.filter(|write| write.is_store() && write.is_aligned_at(address)) {
        Some(write) => {
            privileged::step(cx, write.length());
            true
        }
        None => false,
    }
}

/// Carries a write to a last-level page table out. False: it is none, or not one that may be done.
fn write_to_table(cx: &mut Context<'_>, address: u64) -> bool {
    // The mapping that forbade the write, and the table it shows.
    let Some((_, _, mapping)) = pv_pte::walk(address) else { return false };
    if mapping.0 & (bit::PRESENT | bit::RW) != bit::PRESENT {
        return false;
    }
    let mut mm = memory::mmu(cx.held.again(), cx.domain, &mut cx.state.paging.deferred);
    let Some(f) = mm.frames.ram(mapping.mfn()) else { return discard_write(cx, address, mapping) };
    let word = f.word();
    if !word.is_valid(Kind::L1) {
        return false;
    }
    let mut code = [0; MAX_LENGTH];
    let missing = guest_copy::copy_in_up_to(cx.regs.rip, &mut code);
    let Some(code) = code.get(..MAX_LENGTH - missing) else { return false };
    let Some(write) = pt_write::decode(code, cx.regs) else { return false };
    if !write.is_aligned_at(address) {
        return false;
    }
    let owner = cx.domain.id;
    let owners = Owners { pages: owner, caller: owner };
    let slot = Slot::of_address(address);
    if let Some(new) = write.whole_entry() {
        // A plain write wins over whatever the CPU notes in the entry meanwhile.
        let done = mm.update_data(f, slot, Entry(new), Replace::Whole, owner, owners).is_ok();
        if done {
            privileged::step(cx, write.length());
        }
        return done;
    }
    for _ in 0..ATTEMPTS {
        let Some(locked) = mm.lock_table(f, owner) else { return false };
        if locked.table().kind() != Kind::L1 {
            return false;
        }
        let old = pv_pte::read(locked.table(), slot);
        let effect = write.apply(old.0, address, cx.regs);
        let result = match effect.memory {
            Some(new) => mm.update(locked, slot, Entry(new), Replace::IfStill(old), owner, owners),
            None => {
                drop(locked);
                Ok(logic::page::Changed::Data)
            }
        };
        match result {
            Ok(_) => {
                if let Some((register, value)) = effect.register {
                    register.write(cx.regs, value);
                }
                cx.regs.rflags = effect.rflags;
                privileged::step(cx, write.length());
                return true;
            }
            // Either the entry changed under us, or the page it is to map is in use as something else.
            Err(Fail::Refused(Errno::EBUSY)) if pv_pte::peek(f, slot) != old => {}
            // The guest executes the instruction again.
            Err(Fail::Again) => return true,
            Err(Fail::Refused(errno)) => {
                log::debug!("d{} page table write at {address:#x} refused: {errno:?}", owner.0);
                return false;
            }
        }
    }
    // Another vCPU keeps changing the entry: the guest executes the instruction again.
    true
}
