//! `HYPERVISOR_set_segment_base`: the bases of FS and GS, and the user's GS selector.

use logic::{hypercall::Outcome, trap::is_canonical};
use machine::arch::x86_64::segments;
use xen_abi::{
    arch_x86::{SEGBASE_FS, SEGBASE_GS_KERNEL, SEGBASE_GS_USER, SEGBASE_GS_USER_SEL},
    errno::Errno,
};

use crate::cpu::Context;

/// The hypercall: rdi says which, rsi is the base or selector. Only kernels make hypercalls, so the live GS base is the
/// kernel's.
pub fn set_segment_base(cx: &mut Context<'_>) -> Outcome {
    let [which, base, ..] = cx.args();
    let bases = &mut cx.state.pv.bases;
    match u32::try_from(which & 0xffff_ffff) {
        Ok(SEGBASE_GS_USER_SEL) => {
            #[allow(clippy::cast_possible_truncation, reason = "a selector")]
            let selector = base as u16;
            let selector = if selector > 3 { selector | 3 } else { selector };
            // A selector that cannot be loaded leaves a null one behind.
            let _loaded = segments::load_other_gs(selector);
            bases.gs_user = segments::other_gs_base();
        }
        _ if !is_canonical(base) => return Outcome::Fail(Errno::EINVAL),
        Ok(SEGBASE_FS) => {
            segments::set_fs_base(base);
            bases.fs = base;
        }
        Ok(SEGBASE_GS_USER) => {
            segments::set_other_gs_base(base);
            bases.gs_user = base;
        }
        Ok(SEGBASE_GS_KERNEL) => {
            segments::set_gs_base(base);
            bases.gs_kernel = base;
        }
        _ => return Outcome::Fail(Errno::EINVAL),
    }
    Outcome::OK
}
