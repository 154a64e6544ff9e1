//! A vCPU's whole state as the toolstack (`XEN_DOMCTL_setvcpucontext`), `VCPUOP_initialise` and the builder of the
//! control domain hand it in (public header `arch-x86/xen.h`, `struct vcpu_guest_context`).

use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::Ordering;

use logic::{
    lock::Held,
    page::{Descriptors, Fail},
    regs::{GuestRegs, rflags},
    trap::{debug::DebugRegisters, gate::Gate, is_canonical, is_guest_address, selector},
};
use machine::arch::x86_64::segments::Selectors;
use xen_abi::{
    arch_x86::{
        CpuUserRegs, VGCF_FAILSAFE_DISABLES_EVENTS, VGCF_I387_VALID, VGCF_IN_KERNEL, VGCF_ONLINE,
        VGCF_SYSCALL_DISABLES_EVENTS, VcpuGuestContext,
    },
    errno::Errno,
    ids::{Mfn, VcpuId},
};
use zerocopy::FromZeros;

use super::{Domain, Life};
use crate::{
    cpu_loop, hvm,
    hypercall::vm_assist,
    memory::{self, mmu},
    trap::{
        self, PvState,
        ldt::Ldt,
        state::{Bases, Callback, Callbacks, Gdt},
    },
    vcpu::{Vcpu, VcpuFlags, VcpuState},
};

const CR0_TS: u64 = 1 << 3;
/// Descriptors that an LDT can have.
const LDT_LIMIT: u64 = 8192;

/// Gives a vCPU that does not run its state; `Ok(false)`: not finished, call again.
pub fn set(
    domain: &Arc<Domain>,
    vcpu: &Arc<Vcpu>,
    wanted: &VcpuGuestContext,
    held: &mut Held<'_, 0>,
) -> Result<bool, Errno> {
    check(wanted)?;
    // The assists are the domain's; only its first vCPU brings them.
    let first = vcpu.id == VcpuId(0);
    if first && wanted.vm_assist & !vm_assist::VALID != 0 {
        return Err(Errno::EINVAL);
    }
    let Some(mut state) = vcpu.parked.lock(held).0.take() else {
        return Err(Errno::EBUSY); // a CPU still runs it
    };
    // What a dying domain's vCPUs hold has been given up, or is going to be while the state is where it belongs.
    let result = if domain.life.get() == Life::Alive {
        fill(domain, vcpu, &mut state, wanted, held)
    } else {
        Err(Fail::Refused(Errno::EINVAL))
    };
    *vcpu.parked.lock(held).0 = Some(state);
    match result {
        Ok(()) => {}
        Err(Fail::Again) => return Ok(false),
        Err(Fail::Refused(errno)) => return Err(errno),
    }
    if first {
        domain.vm_assist.store(wanted.vm_assist, Ordering::Relaxed);
        crate::time::show_wall_clock(domain, held);
    }
    vcpu.set(VcpuFlags::INITIALISED);
    if wanted.flags & VGCF_ONLINE != 0 {
        let (_, woken) = vcpu.seat.ready.bring_up();
        cpu_loop::wake(vcpu, woken, held);
    }
    Ok(true)
}

/// Everything that must not be taken on trust.
fn check(wanted: &VcpuGuestContext) -> Result<(), Errno> {
    let addresses = [
        wanted.user_regs.rsp,
        wanted.kernel_sp,
        wanted.user_regs.rip,
        wanted.event_callback_eip,
        wanted.failsafe_callback_eip,
        wanted.syscall_callback_eip,
        wanted.fs_base,
        wanted.gs_base_kernel,
        wanted.gs_base_user,
    ];
    let gates = wanted.trap_ctxt.iter().map(|gate| gate.address);
    let ldt = is_guest_address(wanted.ldt_base) && wanted.ldt_base & 0xfff == 0 && wanted.ldt_ents <= LDT_LIMIT;
    if addresses.into_iter().chain(gates).all(is_canonical) && ldt { Ok(()) } else { Err(Errno::EINVAL) }
}

fn fill(
    domain: &Arc<Domain>,
    vcpu: &Arc<Vcpu>,
    state: &mut VcpuState,
    wanted: &VcpuGuestContext,
    held: &mut Held<'_, 0>,
) -> Result<(), Fail> {
    // What takes references comes first: it can fail, or take several rounds.
    let kernel = Mfn(wanted.ctrlreg[3] >> 12);
    let user = (wanted.ctrlreg[1] >> 12 != 0).then_some(Mfn(wanted.ctrlreg[1] >> 12));
    memory::set_roots(state, domain, kernel, user, held)?;
    let gdt = gdt_pages(domain, state, wanted, held)?;
    let old = core::mem::replace(&mut state.pv.gdt, gdt);
    let mut mm = mmu(held.again(), domain, &mut state.paging.deferred);
    for page in old.pages {
        mm.put_ref(page);
    }
    state.pv.ldt.release(&mut mm);
    if wanted.flags & VGCF_I387_VALID != 0 {
        state.fpu.set_legacy(&wanted.fpu_ctxt);
    } else if !vcpu.flags().contains(VcpuFlags::INITIALISED) {
        state.fpu.reset();
    }
    state.regs = regs(&wanted.user_regs);
    set_pv(&mut state.pv, domain, wanted);
    Ok(())
}

fn gdt_pages(
    domain: &Arc<Domain>,
    state: &mut VcpuState,
    wanted: &VcpuGuestContext,
    held: &mut Held<'_, 0>,
) -> Result<Gdt, Fail> {
    let entries = u32::try_from(wanted.gdt_ents)
        .ok()
        .filter(|entries| *entries <= u32::from(selector::FIRST_RESERVED_ENTRY))
        .ok_or(Fail::Refused(Errno::EINVAL))?;
    let mut mm = mmu(held.again(), domain, &mut state.paging.deferred);
    let frames = wanted.gdt_frames.iter().take(entries.div_ceil(512) as usize);
    hold_descriptors(&mut mm, domain, frames.map(|frame| Mfn(*frame)), entries)
}

/// Takes pages as a GDT: all of them or none.
pub fn hold_descriptors(
    mm: &mut memory::Mm<'_>,
    domain: &Domain,
    frames: impl Iterator<Item = Mfn>,
    entries: u32,
) -> Result<Gdt, Fail> {
    let mut gdt = Gdt { pages: arrayvec::ArrayVec::new(), entries };
    for frame in frames {
        let held = mm.get_ref::<Descriptors>(frame, domain.id);
        let full = match held {
            Ok(page) => gdt.pages.try_push(page).map_err(|e| (Some(e.element()), Errno::EINVAL)),
            Err(_) => Err((None, Errno::EINVAL)),
        };
        if let Err((extra, errno)) = full {
            for page in gdt.pages.into_iter().chain(extra) {
                mm.put_ref(page);
            }
            return Err(Fail::Refused(errno));
        }
    }
    Ok(gdt)
}

fn regs(user: &CpuUserRegs) -> GuestRegs {
    GuestRegs {
        r15: user.r15,
        r14: user.r14,
        r13: user.r13,
        r12: user.r12,
        rbp: user.rbp,
        rbx: user.rbx,
        r11: user.r11,
        r10: user.r10,
        r9: user.r9,
        r8: user.r8,
        rax: user.rax,
        rcx: user.rcx,
        rdx: user.rdx,
        rsi: user.rsi,
        rdi: user.rdi,
        error_code: 0,
        entry_vector: 0,
        rip: user.rip,
        cs: u64::from(user.cs) | 3,
        rflags: user.rflags & !(rflags::IOPL | rflags::VM) | rflags::IF | rflags::FIXED,
        rsp: user.rsp,
        ss: u64::from(user.ss) | 3,
    }
}

fn set_pv(pv: &mut PvState, domain: &Domain, wanted: &VcpuGuestContext) {
    pv.traps.clear();
    for (vector, gate) in (0..=255).zip(&wanted.trap_ctxt) {
        // Addresses have been checked.
        let _canonical = pv.traps.set(vector, Gate { flags: gate.flags, cs: gate.cs, address: gate.address });
    }
    pv.callbacks = Callbacks {
        event: wanted.event_callback_eip,
        failsafe: Callback {
            address: wanted.failsafe_callback_eip,
            masks_events: wanted.flags & VGCF_FAILSAFE_DISABLES_EVENTS != 0,
        },
        syscall: Callback {
            address: wanted.syscall_callback_eip,
            masks_events: wanted.flags & VGCF_SYSCALL_DISABLES_EVENTS != 0,
        },
        ..Callbacks::default()
    };
    pv.in_kernel = wanted.flags & VGCF_IN_KERNEL != 0;
    pv.kernel_ss = wanted.kernel_ss | 3;
    pv.kernel_sp = wanted.kernel_sp;
    pv.task_switched = wanted.ctrlreg[0] & CR0_TS != 0;
    pv.cr2 = wanted.ctrlreg[2];
    pv.cr4 = trap::guest_cr4(domain, wanted.ctrlreg[4]);
    pv.iopl = wanted.user_regs.rflags & rflags::IOPL;
    pv.debug = DebugRegisters::default();
    for (number, value) in (0..).zip(wanted.debugreg) {
        // What is not allowed stays as after reset.
        let _refused = pv.debug.write(number, value, pv.cr4);
    }
    let user = &wanted.user_regs;
    pv.selectors = Selectors { ds: user.ds, es: user.es, fs: user.fs, gs: user.gs };
    pv.bases = Bases { fs: wanted.fs_base, gs_kernel: wanted.gs_base_kernel, gs_user: wanted.gs_base_user };
    #[allow(clippy::cast_possible_truncation, reason = "at most LDT_LIMIT")]
    let entries = wanted.ldt_ents as u32;
    pv.ldt = Ldt::new(wanted.ldt_base, entries);
}

/// The state of a vCPU that does not run.
pub fn get(domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, held: &mut Held<'_, 0>) -> Result<Box<VcpuGuestContext>, Errno> {
    let mut context: Box<VcpuGuestContext> = Box::new(VcpuGuestContext::new_zeroed());
    if !vcpu.flags().contains(VcpuFlags::INITIALISED) {
        return Err(Errno::ENODATA);
    }
    context.flags = if vcpu.flags().contains(VcpuFlags::DOWN) { 0 } else { VGCF_ONLINE };
    let (parked, _held) = vcpu.parked.lock(held);
    let state = parked.as_ref().ok_or(Errno::EBUSY)?;
    context.flags |= VGCF_I387_VALID;
    context.fpu_ctxt = state.fpu.legacy();
    context.vm_assist = domain.vm_assist.load(Ordering::Relaxed);
    context.user_regs = general(&state.regs);
    if let Some(pvh) = &state.pvh {
        hvm::context::describe(&pvh.container.state(), &mut context);
        return Ok(context);
    }
    let pv = &state.pv;
    for (flag, on) in [
        (VGCF_IN_KERNEL, pv.in_kernel),
        (VGCF_FAILSAFE_DISABLES_EVENTS, pv.callbacks.failsafe.masks_events),
        (VGCF_SYSCALL_DISABLES_EVENTS, pv.callbacks.syscall.masks_events),
    ] {
        context.flags |= if on { flag } else { 0 };
    }
    let user = &mut context.user_regs;
    user.rflags = user.rflags & !rflags::IOPL | pv.iopl;
    (user.ds, user.es, user.fs, user.gs) = (pv.selectors.ds, pv.selectors.es, pv.selectors.fs, pv.selectors.gs);
    for (vector, entry) in (0..=255).zip(&mut context.trap_ctxt) {
        let gate = pv.traps.gate(vector);
        entry.vector = vector;
        entry.flags = gate.flags;
        entry.cs = gate.cs;
        entry.address = gate.address;
    }
    context.ldt_base = pv.ldt.base;
    context.ldt_ents = pv.ldt.entries.into();
    context.gdt_ents = pv.gdt.entries.into();
    for (to, page) in context.gdt_frames.iter_mut().zip(&pv.gdt.pages) {
        *to = page.mfn().0;
    }
    context.kernel_ss = pv.kernel_ss;
    context.kernel_sp = pv.kernel_sp;
    context.ctrlreg[0] = if pv.task_switched { CR0_TS } else { 0 };
    context.ctrlreg[1] = state.paging.user_mfn().map_or(0, |mfn| mfn.0 << 12);
    context.ctrlreg[2] = pv.cr2;
    context.ctrlreg[3] = state.paging.kernel_mfn().map_or(0, |mfn| mfn.0 << 12);
    context.ctrlreg[4] = pv.cr4;
    for (to, from) in context.debugreg.iter_mut().zip(pv.debug.address) {
        *to = from;
    }
    context.debugreg[6] = pv.debug.dr6;
    context.debugreg[7] = pv.debug.dr7 | pv.debug.io_enable;
    context.event_callback_eip = pv.callbacks.event;
    context.failsafe_callback_eip = pv.callbacks.failsafe.address;
    context.syscall_callback_eip = pv.callbacks.syscall.address;
    context.fs_base = pv.bases.fs;
    context.gs_base_kernel = pv.bases.gs_kernel;
    context.gs_base_user = pv.bases.gs_user;
    Ok(context)
}

fn general(regs: &GuestRegs) -> CpuUserRegs {
    let mut user = CpuUserRegs::new_zeroed();
    (user.r15, user.r14, user.r13, user.r12) = (regs.r15, regs.r14, regs.r13, regs.r12);
    (user.rbp, user.rbx, user.r11, user.r10) = (regs.rbp, regs.rbx, regs.r11, regs.r10);
    (user.r9, user.r8, user.rax, user.rcx) = (regs.r9, regs.r8, regs.rax, regs.rcx);
    (user.rdx, user.rsi, user.rdi) = (regs.rdx, regs.rsi, regs.rdi);
    (user.rip, user.rflags, user.rsp) = (regs.rip, regs.rflags, regs.rsp);
    #[allow(clippy::cast_possible_truncation, reason = "selectors")]
    {
        (user.cs, user.ss) = (regs.cs as u16, regs.ss as u16);
    }
    user
}
