//! The state of PVH vCPUs as their builder (`XEN_DOMCTL_sethvmcontext`, public header `arch-x86/hvm/save.h`) and their own
//! kernel (`VCPUOP_initialise`, `hvm/hvm_vcpu.h`) hand it in.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use logic::{
    hvm::{first_state, msr},
    lock::Held,
    regs::{GuestRegs, rflags},
};
use machine::container::{CpuState, DescriptorTable, Segment, attributes};
use machine::mem::heap;
use xen_abi::{
    arch_x86::VcpuGuestContext,
    errno::Errno,
    hvm::{
        self as abi, HvmHwCpu, HvmHwMtrr, HvmSaveDescriptor, HvmSaveHeader, VcpuHvmContext, VcpuHvmX86_32,
        VcpuHvmX86_64,
    },
    ids::VcpuId,
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::PvhVcpu;
use crate::{
    cpu_loop,
    domain::{Domain, Life},
    memory,
    time::{self, DomainTsc},
    vcpu::{Vcpu, VcpuFlags, VcpuState},
};

const EFER_ALLOWED: u64 = 1 | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 14;
/// The largest image that is taken: as many records as there can be vCPUs, of the largest kinds.
pub const MAX_BYTES: u32 = 512 * 1024;

/// Gives a vCPU that does not run a state. `EBUSY`: it runs; `EINVAL`: its domain dies.
fn change(
    domain: &Domain,
    vcpu: &Vcpu,
    held: &mut Held<'_, 0>,
    fill: impl FnOnce(&mut VcpuState, &mut CpuState) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let tables = domain.pvh().and_then(|pvh| pvh.physmap.tables()).ok_or(Errno::EINVAL)?.clone();
    memory::feed_heap(held);
    let (mut parked, _held) = vcpu.parked.lock(held);
    let state = parked.as_mut().ok_or(Errno::EBUSY)?;
    if domain.life.get() != Life::Alive {
        return Err(Errno::EINVAL);
    }
    if state.pvh.is_none() {
        if heap::is_low() {
            return Err(Errno::ENOMEM);
        }
        state.pvh = Some(Box::new(PvhVcpu::new(tables, vcpu.id).ok_or(Errno::ENOMEM)?));
    }
    state.timers.periodic = None;
    let mut cpu = CpuState::after_init();
    fill(state, &mut cpu)?;
    if let Some(pvh) = state.pvh.as_deref_mut() {
        pvh.container.set_state(&cpu);
    }
    vcpu.set(VcpuFlags::INITIALISED);
    Ok(())
}

/// A vCPU begins as after INIT, but at another place.
pub fn start(domain: &Domain, vcpu: &Vcpu, at: &CpuState, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    change(domain, vcpu, held, |state, cpu| {
        *cpu = *at;
        state.regs = GuestRegs { rflags: rflags::FIXED, ..GuestRegs::default() };
        state.fpu.reset();
        Ok(())
    })
}

/// What no CPU takes, and what would mean something else here.
fn check(cpu: &CpuState) -> Result<(), Errno> {
    const PE: u64 = 1;
    const PG: u64 = 1 << 31;
    /// Those that may be offered to a guest: neither VMX, SMX, protection keys nor shadow stacks.
    const CR4_ALLOWED: u64 = 0x0037_0fff;
    let paging = cpu.cr0 & PG == 0 || cpu.cr0 & PE != 0;
    let good = paging && cpu.cr0 >> 32 == 0 && cpu.cr4 & !CR4_ALLOWED == 0 && cpu.efer & !EFER_ALLOWED == 0;
    if good { Ok(()) } else { Err(Errno::EINVAL) }
}

/// `VCPUOP_initialise`: the vCPU stays down.
pub fn initialise(domain: &Domain, vcpu: &Vcpu, wanted: &VcpuHvmContext, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    if wanted.pad != 0 {
        return Err(Errno::EINVAL);
    }
    change(domain, vcpu, held, |state, cpu| {
        let raw = wanted.cpu_regs.as_bytes();
        state.regs = match wanted.mode {
            abi::VCPU_HVM_MODE_32B => set_32(cpu, &VcpuHvmX86_32::read_from_prefix(raw).map_err(|_| Errno::EINVAL)?.0)?,
            abi::VCPU_HVM_MODE_64B => set_64(cpu, &VcpuHvmX86_64::read_from_prefix(raw).map_err(|_| Errno::EINVAL)?.0)?,
            _ => return Err(Errno::EINVAL),
        };
        state.fpu.reset();
        check(cpu)
    })
}

/// A segment as it is given, with the accessed or busy flag that the CPU wants to find.
fn segment(base: u32, limit: u32, ar: u16, flag: u16) -> Segment {
    let given = ar & 0xfff;
    let attributes = if given & attributes::PRESENT != 0 { given | flag } else { given };
    Segment { selector: 0, attributes, limit, base: base.into() }
}

fn set_32(cpu: &mut CpuState, from: &VcpuHvmX86_32) -> Result<GuestRegs, Errno> {
    if !first_state::is_good_32(from) {
        return Err(Errno::EINVAL);
    }
    (cpu.cr0, cpu.cr3, cpu.cr4) = (from.cr0.into(), from.cr3.into(), from.cr4.into());
    cpu.efer = from.efer;
    cpu.cs = segment(from.cs_base, from.cs_limit, from.cs_ar, 1);
    cpu.ds = segment(from.ds_base, from.ds_limit, from.ds_ar, 1);
    cpu.ss = segment(from.ss_base, from.ss_limit, from.ss_ar, 1);
    cpu.es = segment(from.es_base, from.es_limit, from.es_ar, 1);
    cpu.tr = segment(from.tr_base, from.tr_limit, from.tr_ar, 2);
    Ok(GuestRegs {
        rax: from.eax.into(),
        rcx: from.ecx.into(),
        rdx: from.edx.into(),
        rbx: from.ebx.into(),
        rsp: from.esp.into(),
        rbp: from.ebp.into(),
        rsi: from.esi.into(),
        rdi: from.edi.into(),
        rip: from.eip.into(),
        rflags: u64::from(from.eflags) | rflags::FIXED,
        ..GuestRegs::default()
    })
}

fn set_64(cpu: &mut CpuState, from: &VcpuHvmX86_64) -> Result<GuestRegs, Errno> {
    const LMA: u64 = 1 << 10;
    if !first_state::is_good_64(from) {
        return Err(Errno::EINVAL);
    }
    (cpu.cr0, cpu.cr3, cpu.cr4) = (from.cr0, from.cr3, from.cr4);
    cpu.efer = from.efer | LMA;
    let flat = |attributes| Segment { selector: 0, attributes, limit: u32::MAX, base: 0 };
    cpu.cs = flat(attributes::CODE64);
    (cpu.ds, cpu.ss, cpu.es) = (flat(attributes::DATA32), flat(attributes::DATA32), flat(attributes::DATA32));
    cpu.tr = Segment { selector: 0, attributes: attributes::TSS, limit: 0x67, base: 0 };
    Ok(GuestRegs {
        rax: from.rax,
        rcx: from.rcx,
        rdx: from.rdx,
        rbx: from.rbx,
        rsp: from.rsp,
        rbp: from.rbp,
        rsi: from.rsi,
        rdi: from.rdi,
        rip: from.rip,
        rflags: from.rflags | rflags::FIXED,
        ..GuestRegs::default()
    })
}

/// `XEN_DOMCTL_sethvmcontext`: a stream of records.
pub fn load(domain: &Arc<Domain>, mut stream: &[u8], held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let (first, header) = record(&mut stream)?;
    let header = HvmSaveHeader::read_from_bytes(header).map_err(|_| Errno::EINVAL)?;
    if first.typecode != abi::HVM_SAVE_CODE_HEADER
        || header.magic != abi::HVM_FILE_MAGIC
        || header.version != abi::HVM_FILE_VERSION
    {
        return Err(Errno::EINVAL);
    }
    // Each round takes a descriptor off the stream, whose length is limited.
    loop {
        let (descriptor, body) = record(&mut stream)?;
        let vcpu = domain.vcpu(VcpuId(descriptor.instance.into()));
        match descriptor.typecode {
            abi::HVM_SAVE_CODE_END => return Ok(()),
            abi::HVM_SAVE_CODE_CPU => {
                let cpu = HvmHwCpu::read_from_prefix(body).map_err(|_| Errno::EINVAL)?.0;
                load_cpu(domain, vcpu.ok_or(Errno::EINVAL)?, &cpu, held)?;
            }
            abi::HVM_SAVE_CODE_MTRR => {
                let mtrr = HvmHwMtrr::read_from_prefix(body).map_err(|_| Errno::EINVAL)?.0;
                load_memory_types(vcpu.ok_or(Errno::EINVAL)?, &mtrr, held)?;
            }
            // As after INIT: no image of a running domain is taken yet.
            abi::HVM_SAVE_CODE_LAPIC | abi::HVM_SAVE_CODE_LAPIC_REGS => {}
            _ => return Err(Errno::EINVAL),
        }
    }
}

/// Takes the first record off.
fn record<'a>(stream: &mut &'a [u8]) -> Result<(HvmSaveDescriptor, &'a [u8]), Errno> {
    let (descriptor, rest) = HvmSaveDescriptor::read_from_prefix(stream).map_err(|_| Errno::EINVAL)?;
    let length = usize::try_from(descriptor.length).map_err(|_| Errno::EINVAL)?;
    let (body, rest) = rest.split_at_checked(length).ok_or(Errno::EINVAL)?;
    *stream = rest;
    Ok((descriptor, body))
}

fn load_memory_types(vcpu: &Vcpu, from: &HvmHwMtrr, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let (pat, mtrr_default) = (from.msr_pat_cr, from.msr_mtrr_def_type);
    if !msr::is_pat(pat) || !msr::is_mtrr_default(mtrr_default) {
        return Err(Errno::EINVAL);
    }
    let (mut parked, _held) = vcpu.parked.lock(held);
    let state = parked.as_mut().ok_or(Errno::EBUSY)?;
    // A vCPU that has no state yet gets the usual one when it is started.
    if let Some(pvh) = state.pvh.as_deref_mut() {
        pvh.container.set_pat(pat);
        pvh.mtrr_default = mtrr_default;
    }
    Ok(())
}

fn load_cpu(domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, from: &HvmHwCpu, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    change(domain, vcpu, held, |state, cpu| {
        state.regs = general(from);
        if from.flags & abi::XEN_X86_FPU_INITIALISED != 0 {
            state.fpu.set_legacy(&from.fpu_regs);
        } else {
            state.fpu.reset();
        }
        *cpu = CpuState { pat: cpu.pat, ..cpu_state(from)? };
        if let Some(pvh) = state.pvh.as_deref_mut() {
            pvh.tsc_aux = u32::try_from(from.msr_tsc_aux).map_err(|_| Errno::EINVAL)?;
        }
        check(cpu)
    })?;
    time::show_wall_clock(domain, held);
    let (_, woken) = vcpu.seat.ready.bring_up();
    cpu_loop::wake(vcpu, woken, held);
    Ok(())
}

fn general(from: &HvmHwCpu) -> GuestRegs {
    GuestRegs {
        r15: from.r15,
        r14: from.r14,
        r13: from.r13,
        r12: from.r12,
        rbp: from.rbp,
        rbx: from.rbx,
        r11: from.r11,
        r10: from.r10,
        r9: from.r9,
        r8: from.r8,
        rax: from.rax,
        rcx: from.rcx,
        rdx: from.rdx,
        rsi: from.rsi,
        rdi: from.rdi,
        rip: from.rip,
        rflags: from.rflags | rflags::FIXED,
        rsp: from.rsp,
        ..GuestRegs::default()
    }
}

fn cpu_state(from: &HvmHwCpu) -> Result<CpuState, Errno> {
    let segment = |selector: u32, ar: u32, limit: u32, base: u64| {
        let selector = u16::try_from(selector).map_err(|_| Errno::EINVAL)?;
        let attributes = u16::try_from(ar & 0xfff).map_err(|_| Errno::EINVAL)?;
        Ok::<_, Errno>(Segment { selector, attributes, limit, base })
    };
    Ok(CpuState {
        cr0: from.cr0,
        cr2: from.cr2,
        cr3: from.cr3,
        cr4: from.cr4,
        efer: from.msr_efer,
        cs: segment(from.cs_sel, from.cs_arbytes, from.cs_limit, from.cs_base)?,
        ss: segment(from.ss_sel, from.ss_arbytes, from.ss_limit, from.ss_base)?,
        ds: segment(from.ds_sel, from.ds_arbytes, from.ds_limit, from.ds_base)?,
        es: segment(from.es_sel, from.es_arbytes, from.es_limit, from.es_base)?,
        fs: segment(from.fs_sel, from.fs_arbytes, from.fs_limit, from.fs_base)?,
        gs: segment(from.gs_sel, from.gs_arbytes, from.gs_limit, from.gs_base)?,
        ldtr: segment(from.ldtr_sel, from.ldtr_arbytes, from.ldtr_limit, from.ldtr_base)?,
        tr: segment(from.tr_sel, from.tr_arbytes, from.tr_limit, from.tr_base)?,
        gdtr: DescriptorTable { limit: from.gdtr_limit, base: from.gdtr_base },
        idtr: DescriptorTable { limit: from.idtr_limit, base: from.idtr_base },
        dr: [from.dr0, from.dr1, from.dr2, from.dr3],
        dr6: from.dr6 & 0xe00f | 0xffff_0ff0,
        dr7: from.dr7 & 0xffff_2fff | 0x400,
        star: from.msr_star,
        lstar: from.msr_lstar,
        cstar: from.msr_cstar,
        sfmask: from.msr_syscall_mask,
        kernel_gs_base: from.shadow_gs,
        sysenter_cs: from.sysenter_cs,
        sysenter_esp: from.sysenter_esp,
        sysenter_eip: from.sysenter_eip,
        pat: 0,
    })
}

/// `XEN_DOMCTL_getvcpucontext`: what a container holds of the vCPU. As in Xen nothing else of the structure is set.
pub fn describe(cpu: &CpuState, to: &mut VcpuGuestContext) {
    [to.ctrlreg[0], to.ctrlreg[2], to.ctrlreg[3], to.ctrlreg[4]] = [cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4];
    let user = &mut to.user_regs;
    [user.cs, user.ss, user.ds] = [cpu.cs, cpu.ss, cpu.ds].map(|segment| segment.selector);
    [user.es, user.fs, user.gs] = [cpu.es, cpu.fs, cpu.gs].map(|segment| segment.selector);
    to.fs_base = cpu.fs.base;
    let in_kernel = cpu.cs.selector & 3 == 0;
    (to.gs_base_kernel, to.gs_base_user) =
        if in_kernel { (cpu.gs.base, cpu.kernel_gs_base) } else { (cpu.kernel_gs_base, cpu.gs.base) };
    for (to, from) in to.debugreg.iter_mut().zip(cpu.dr) {
        *to = from;
    }
    (to.debugreg[6], to.debugreg[7]) = (cpu.dr6, cpu.dr7);
}

/// `XEN_DOMCTL_gethvmcontext`: a stream of records; `EBUSY`: a vCPU runs.
pub fn save(domain: &Domain, held: &mut Held<'_, 0>) -> Result<Vec<u8>, Errno> {
    let mut stream = Vec::new();
    let header = HvmSaveHeader {
        magic: abi::HVM_FILE_MAGIC,
        version: abi::HVM_FILE_VERSION,
        changeset: 0,
        cpuid: machine::arch::x86_64::cpu::cpuid(1, 0).eax,
        gtsc_khz: domain.tsc.rules().khz,
    };
    put(&mut stream, abi::HVM_SAVE_CODE_HEADER, 0, &header)?;
    for vcpu in domain.vcpus() {
        let instance = u16::try_from(vcpu.id.0).map_err(|_| Errno::EINVAL)?;
        let (parked, _held) = vcpu.parked.lock(held);
        let state = parked.as_ref().ok_or(Errno::EBUSY)?;
        let Some(pvh) = state.pvh.as_deref() else { continue };
        put(&mut stream, abi::HVM_SAVE_CODE_CPU, instance, &*save_cpu(state, pvh, &domain.tsc))?;
    }
    for vcpu in domain.vcpus() {
        let instance = u16::try_from(vcpu.id.0).map_err(|_| Errno::EINVAL)?;
        let (parked, _held) = vcpu.parked.lock(held);
        let state = parked.as_ref().ok_or(Errno::EBUSY)?;
        let usual = (CpuState::after_init().pat, msr::MTRR_DEFAULT);
        let (msr_pat_cr, msr_mtrr_def_type) =
            state.pvh.as_deref().map_or(usual, |pvh| (pvh.container.pat(), pvh.mtrr_default));
        let mtrr = HvmHwMtrr { msr_pat_cr, msr_mtrr_def_type, ..FromZeros::new_zeroed() };
        put(&mut stream, abi::HVM_SAVE_CODE_MTRR, instance, &mtrr)?;
    }
    put(&mut stream, abi::HVM_SAVE_CODE_END, 0, &[0u8; 0])?;
    Ok(stream)
}

fn put<T: IntoBytes + Immutable>(stream: &mut Vec<u8>, typecode: u16, instance: u16, body: &T) -> Result<(), Errno> {
    let bytes = body.as_bytes();
    let length = u32::try_from(bytes.len()).map_err(|_| Errno::EINVAL)?;
    stream.try_reserve(bytes.len() + size_of::<HvmSaveDescriptor>()).map_err(|_| Errno::ENOMEM)?;
    stream.extend_from_slice(HvmSaveDescriptor { typecode, instance, length }.as_bytes());
    stream.extend_from_slice(bytes);
    Ok(())
}

fn save_cpu(state: &VcpuState, pvh: &PvhVcpu, tsc: &DomainTsc) -> Box<HvmHwCpu> {
    let mut to: Box<HvmHwCpu> = Box::new(HvmHwCpu::new_zeroed());
    let (regs, cpu) = (&state.regs, pvh.container.state());
    to.fpu_regs = state.fpu.legacy();
    (to.rax, to.rbx, to.rcx, to.rdx) = (regs.rax, regs.rbx, regs.rcx, regs.rdx);
    (to.rbp, to.rsi, to.rdi, to.rsp) = (regs.rbp, regs.rsi, regs.rdi, regs.rsp);
    (to.r8, to.r9, to.r10, to.r11) = (regs.r8, regs.r9, regs.r10, regs.r11);
    (to.r12, to.r13, to.r14, to.r15) = (regs.r12, regs.r13, regs.r14, regs.r15);
    (to.rip, to.rflags) = (regs.rip, regs.rflags);
    (to.cr0, to.cr2, to.cr3, to.cr4) = (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4);
    [to.dr0, to.dr1, to.dr2, to.dr3] = cpu.dr;
    (to.dr6, to.dr7) = (cpu.dr6, cpu.dr7);
    macro_rules! segments {
        ($($name:ident: $sel:ident $ar:ident $limit:ident $base:ident;)*) => {
            $(to.$sel = cpu.$name.selector.into();
            to.$ar = cpu.$name.attributes.into();
            to.$limit = cpu.$name.limit;
            to.$base = cpu.$name.base;)*
        };
    }
    segments! {
        cs: cs_sel cs_arbytes cs_limit cs_base;
        ds: ds_sel ds_arbytes ds_limit ds_base;
        es: es_sel es_arbytes es_limit es_base;
        fs: fs_sel fs_arbytes fs_limit fs_base;
        gs: gs_sel gs_arbytes gs_limit gs_base;
        ss: ss_sel ss_arbytes ss_limit ss_base;
        tr: tr_sel tr_arbytes tr_limit tr_base;
        ldtr: ldtr_sel ldtr_arbytes ldtr_limit ldtr_base;
    }
    (to.gdtr_limit, to.gdtr_base) = (cpu.gdtr.limit, cpu.gdtr.base);
    (to.idtr_limit, to.idtr_base) = (cpu.idtr.limit, cpu.idtr.base);
    (to.sysenter_cs, to.sysenter_esp, to.sysenter_eip) = (cpu.sysenter_cs, cpu.sysenter_esp, cpu.sysenter_eip);
    (to.shadow_gs, to.msr_lstar, to.msr_star) = (cpu.kernel_gs_base, cpu.lstar, cpu.star);
    (to.msr_cstar, to.msr_syscall_mask, to.msr_efer) = (cpu.cstar, cpu.sfmask, cpu.efer);
    to.msr_tsc_aux = pvh.tsc_aux.into();
    to.tsc = tsc.read();
    to.flags = abi::XEN_X86_FPU_INITIALISED;
    to
}
