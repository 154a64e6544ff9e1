//! Debug key `d`: each CPU tells what registers its guest has. Only the CPU itself has them, so it is asked to, and answers
//! when it looks around next: on its way back to the guest, or when it finds nothing to run.

use core::sync::atomic::{AtomicU64, Ordering};

use logic::{lock::Held, regs::GuestRegs};
use machine::mailbox;

use crate::{
    cpu::Cpu,
    cpu_loop, hvm,
    trap::crash::{self, Name},
};

/// CPUs that have not answered yet, a bit each.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// Asks all CPUs, this one, too.
pub fn ask(_held: &mut Held<'_, 0>) {
    let all = mailbox::online();
    ASKED.fetch_or(all.0, Ordering::SeqCst);
    for cpu in all.iter() {
        cpu_loop::look_again(cpu);
        mailbox::kick(cpu);
    }
}

/// A CPU looks around: it answers if it was asked. The registers are its guest's, if it runs one.
#[inline]
pub fn answer(cpu: &mut Cpu, regs: &mut GuestRegs, held: &mut Held<'_, 0>) {
    if is_asked(cpu.local.id) {
        tell(cpu, regs, held);
    }
}

/// A CPU that has run nothing wakes up.
pub fn answer_idle(cpu: u32) {
    if is_asked(cpu) {
        begin(cpu);
        log::warn!("No guest context (CPU{cpu} is idle).");
    }
}

fn is_asked(cpu: u32) -> bool {
    ASKED.load(Ordering::Relaxed) & (1 << cpu) != 0
}

fn begin(cpu: u32) {
    ASKED.fetch_and(!(1 << cpu), Ordering::SeqCst);
    log::warn!("*** Dumping CPU{cpu} guest state: ***");
}

#[cold]
#[inline(never)]
fn tell(cpu: &mut Cpu, regs: &mut GuestRegs, held: &mut Held<'_, 0>) {
    let id = cpu.local.id;
    // Without a guest it will sleep, and answers when it wakes up.
    if let Some(cx) = cpu.context(regs, held.again()) {
        begin(id);
        if cx.state.pvh.is_some() {
            log::warn!("CONTEXT: hvm guest ({})", Name(cx.vcpu));
            hvm::exit::show(&cx);
        } else {
            crash::dump(&cx);
        }
    }
}
