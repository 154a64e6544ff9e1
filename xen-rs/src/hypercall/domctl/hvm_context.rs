//! The state of a PVH domain's vCPUs: `XEN_DOMCTL_gethvmcontext`, `XEN_DOMCTL_sethvmcontext`.

use alloc::{vec, vec::Vec};

use logic::guest::{In, Out};
use xen_abi::{
    domctl::{self as abi, Domctl},
    errno::Errno,
};

use super::{Reply, put, vcpu::while_all_stopped};
use crate::{
    cpu::{Context, Target},
    guest::Series,
    hvm::context,
};

/// Writes it, or tells how many bytes it has.
pub(super) fn get(
    cx: &mut Context<'_>,
    target: &Target,
    arg: &abi::HvmContext,
    raw: &mut Domctl,
) -> Result<Reply, Errno> {
    // Nobody stops itself.
    if target.pvh().is_none() || target.id == cx.domain.id {
        return Err(Errno::EINVAL);
    }
    let Some(stream) = while_all_stopped(target, &mut cx.held, |held| context::save(target, held)) else {
        return Ok(Reply::Again);
    };
    let stream = stream?;
    let size = u32::try_from(stream.len()).map_err(|_| Errno::ENOMEM)?;
    if arg.buffer != 0 {
        if arg.size < size {
            return Err(Errno::ENOSPC);
        }
        Series::<u8, Out>::new(arg.buffer).write_from(&stream)?;
    }
    put(raw, &abi::HvmContext { size, ..*arg })
}

/// Sets it, while none of its vCPUs runs.
pub(super) fn set(cx: &mut Context<'_>, target: &Target, arg: &abi::HvmContext) -> Result<Reply, Errno> {
    if target.pvh().is_none() || target.id == cx.domain.id || arg.size > context::MAX_BYTES {
        return Err(Errno::EINVAL);
    }
    let mut stream = Vec::new();
    let size = usize::try_from(arg.size).map_err(|_| Errno::EINVAL)?;
    stream.try_reserve_exact(size).map_err(|_| Errno::ENOMEM)?;
    stream.extend(vec![0; size]);
    Series::<u8, In>::new(arg.buffer).read_into(&mut stream)?;
    match while_all_stopped(target, &mut cx.held, |held| context::load(target, &stream, held)) {
        Some(result) => result.map(|()| Reply::Nothing),
        // A CPU has not let go of one yet.
        None => Ok(Reply::Again),
    }
}
