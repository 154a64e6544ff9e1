//! The end of a guest by its own fault, with the report that Xen prints: registers, code and stack.

use core::fmt;

use log::error;
use logic::guest::In;
use logic::trap::is_guest_address;
use machine::arch::x86_64::{guest_registers, segments};

use crate::cpu::Context;
use crate::guest::Handle;
use crate::vcpu::Vcpu;

/// A vCPU's name in messages: `d1v0`.
pub struct Name<'a>(pub &'a Vcpu);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}v{}", self.0.domain_id.0, self.0.id.0)
    }
}

/// Prints the vCPU's state and crashes its domain.
pub fn crash(cx: &mut Context<'_>, why: &dyn fmt::Display) {
    error!("{} {why}", Name(cx.vcpu));
    error!("Domain {} (vcpu#{}) crashed on cpu#{}:", cx.vcpu.domain_id.0, cx.vcpu.id.0, cx.cpu.id);
    dump(cx);
    let domain = cx.domain.clone();
    domain.crash(why, &mut cx.held);
}

/// Prints the registers of the running vCPU, the bytes at its instruction pointer and the top of its stack.
pub fn dump(cx: &Context<'_>) {
    let regs = &*cx.regs;
    let pv = &cx.state.pv;
    let live = segments::read();
    let (gs, other) = (segments::gs_base(), segments::other_gs_base());
    let (gsb, gss) = if pv.in_kernel { (gs, other) } else { (other, gs) };
    let paging = &cx.state.paging;
    let root = if pv.in_kernel { paging.kernel_mfn() } else { paging.user_mfn() };
    let mode = if pv.in_kernel { "pv guest" } else { "pv guest user" };
    error!("----[ {}  x86_64  debug=n  Not tainted ]----", crate::hypercall::xen_version::BANNER);
    error!("CPU:    {}", cx.cpu.id);
    error!("RIP:    {:04x}:[<{:016x}>]", regs.cs & 0xffff, regs.rip);
    error!(
        "RFLAGS: {:016x}   EM: {}   CONTEXT: {mode} ({})",
        regs.rflags,
        u8::from(cx.vcpu.info.get().upcall_mask()),
        Name(cx.vcpu)
    );
    error!("rax: {:016x}   rbx: {:016x}   rcx: {:016x}", regs.rax, regs.rbx, regs.rcx);
    error!("rdx: {:016x}   rsi: {:016x}   rdi: {:016x}", regs.rdx, regs.rsi, regs.rdi);
    error!("rbp: {:016x}   rsp: {:016x}   r8:  {:016x}", regs.rbp, regs.rsp, regs.r8);
    error!("r9:  {:016x}   r10: {:016x}   r11: {:016x}", regs.r9, regs.r10, regs.r11);
    error!("r12: {:016x}   r13: {:016x}   r14: {:016x}", regs.r12, regs.r13, regs.r14);
    error!("r15: {:016x}   cr0: {:016x}   cr4: {:016x}", regs.r15, guest_registers::read_cr0(), pv.cr4);
    error!("cr3: {:016x}   cr2: {:016x}", root.map_or(0, |mfn| mfn.0 << 12), pv.cr2);
    error!("fsb: {:016x}   gsb: {gsb:016x}   gss: {gss:016x}", segments::fs_base());
    error!(
        "ds: {:04x}   es: {:04x}   fs: {:04x}   gs: {:04x}   ss: {:04x}   cs: {:04x}",
        live.ds,
        live.es,
        live.fs,
        live.gs,
        regs.ss & 0xffff,
        regs.cs & 0xffff
    );
    code(regs.rip);
    stack(regs.rsp);
}

/// Bytes before and after the instruction pointer, which stands in angle brackets.
fn code(rip: u64) {
    const BEFORE: u64 = 16;
    let mut line = arrayvec::ArrayString::<160>::new();
    for at in (0..32).map(|i| rip.wrapping_sub(BEFORE).wrapping_add(i)) {
        use fmt::Write;
        let byte = if is_guest_address(at) { Handle::<u8, In>::new(at).read().ok() } else { None };
        // The line has room for all 32.
        let _fits = match byte {
            Some(byte) if at == rip => write!(line, " <{byte:02x}>"),
            Some(byte) => write!(line, " {byte:02x}"),
            None => write!(line, " --"),
        };
    }
    error!("Guest code around RIP:{line}");
}

fn stack(rsp: u64) {
    error!("Guest stack trace from rsp={rsp:016x}:");
    for row in 0..20_u64 {
        use fmt::Write;
        let mut line = arrayvec::ArrayString::<100>::new();
        for column in 0..4 {
            let at = rsp.wrapping_add((row * 4 + column) * 8);
            let word = is_guest_address(at).then(|| Handle::<u64, In>::new(at).read());
            let Some(Ok(word)) = word else {
                error!("   {line}");
                error!("  Fault while accessing guest memory.");
                return;
            };
            let _fits = write!(line, " {word:016x}");
        }
        error!("   {line}");
    }
}
