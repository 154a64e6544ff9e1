//! `HYPERVISOR_set_trap_table`: fills the vCPU's IDT (public header `arch-x86/xen.h`).

use logic::{guest::In, hypercall::Outcome, trap::gate::Gate};
use xen_abi::{arch_x86::TrapInfo, errno::Errno};

use crate::{cpu::Context, guest::Series};

/// Entries that one round takes: a whole table and its end.
const ROUND: u32 = 257;

/// The hypercall: rdi points to entries of which the last has no address; a null pointer clears the table.
pub fn set_trap_table(cx: &mut Context<'_>) -> Outcome {
    let [va, ..] = cx.args();
    if va == 0 {
        cx.state.pv.traps.clear();
        return Outcome::OK;
    }
    let mut entries = Series::<TrapInfo, In>::new(va);
    for _ in 0..ROUND {
        let entry = match entries.step().read() {
            Ok(entry) => entry,
            Err(errno) => return Outcome::Fail(errno),
        };
        if entry.address == 0 {
            return Outcome::OK;
        }
        let gate = Gate { flags: entry.flags, cs: entry.cs, address: entry.address };
        if cx.state.pv.traps.set(entry.vector, gate).is_err() {
            return Outcome::Fail(Errno::EINVAL);
        }
    }
    cx.set_arg(0, entries.address());
    Outcome::Again
}
