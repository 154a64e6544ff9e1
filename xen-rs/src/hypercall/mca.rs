//! `HYPERVISOR_mca`: machine checks. One that arrives is the machine's end, so there is never a record to fetch; but the
//! control domain asks which CPUs there are.

use logic::{
    access::{Allowed, McaOp as Op},
    control::payload,
    guest::{InOut, Out},
    hypercall::Outcome,
};
use xen_abi::{errno::Errno, mca as abi};
use zerocopy::{FromZeros, IntoBytes};

use crate::{
    cpu::Context,
    guest::{Handle, Series},
    topology,
};

/// The hypercall: rdi points to a `struct xen_mc`.
pub fn mca(cx: &mut Context<'_>) -> Outcome {
    // As in Xen rights come before anything else; they are the same for all operations.
    if let Err(errno) = cx.permit::<Op>(abi::XEN_MC_FETCH) {
        return Outcome::Fail(errno);
    }
    let (raw, answer) = match Handle::<abi::Mc, InOut>::new(cx.args()[0]).read() {
        Ok(read) => read,
        Err(errno) => return Outcome::Fail(errno),
    };
    if raw.interface_version != abi::XEN_MCA_INTERFACE_VERSION {
        return Outcome::Fail(Errno::EACCES);
    }
    cx.permit::<Op>(raw.cmd).and_then(|op| carry_out(&op, raw)).and_then(|raw| answer.write(&raw)).into()
}

fn carry_out(op: &Allowed<Op>, mut raw: abi::Mc) -> Result<abi::Mc, Errno> {
    match op.op() {
        Op::Fetch => {
            let mut fetch: abi::McFetch = payload(raw.u.as_bytes())?;
            let queue = fetch.flags & (abi::MC_NONURGENT | abi::MC_URGENT);
            if queue != abi::MC_NONURGENT && queue != abi::MC_URGENT {
                return Err(Errno::EINVAL);
            }
            if fetch.flags & abi::MC_ACK == 0 {
                (fetch.flags, fetch.fetch_id) = (abi::MC_NODATA, 0);
            }
            fetch.write_to_prefix(raw.u.as_mut_bytes()).map_err(|_| Errno::EINVAL)?;
        }
        Op::PhysCpuInfo => {
            let mut info: abi::McPhyscpuinfo = payload(raw.u.as_bytes())?;
            let cpus = topology::online();
            if info.info != 0 {
                if info.ncpus == 0 {
                    return Err(Errno::EINVAL);
                }
                for (cpu, told) in (0..cpus.min(info.ncpus)).zip(Series::<_, Out>::new(info.info)) {
                    told.write(&describe(cpu))?;
                }
                info.ncpus = cpus.min(info.ncpus);
            } else {
                info.ncpus = cpus;
            }
            info.write_to_prefix(raw.u.as_mut_bytes()).map_err(|_| Errno::EINVAL)?;
        }
    }
    Ok(raw)
}

fn describe(cpu: u32) -> abi::LogicalCpu {
    let mut all = abi::LogicalCpu::new_zeroed();
    let model = topology::model();
    let cpus = topology::online();
    all.mc_cpunr = cpu;
    all.mc_coreid = u16::try_from(cpu).unwrap_or(u16::MAX);
    all.mc_apicid = topology::ids(cpu).map_or(0, |ids| ids.apic);
    (all.mc_ncores, all.mc_ncores_active, all.mc_nthreads) = (cpus, cpus, 1);
    all.mc_cpuid_level = model.highest_leaf.cast_signed();
    (all.mc_family, all.mc_model, all.mc_step) = (model.family, model.model, model.stepping);
    for (to, from) in all.mc_vendorid.iter_mut().zip(model.vendor) {
        *to = from;
    }
    all.mc_brandid = topology::brand();
    let [std_edx, std_ecx, ext_edx, ext_ecx, ..] = topology::feature_words();
    all.mc_cpu_caps = [std_edx, ext_edx, 0, 0, std_ecx, 0, ext_ecx];
    all.mc_cache_alignment = 64;
    all
}
