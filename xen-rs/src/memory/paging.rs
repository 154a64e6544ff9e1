//! A vCPU's page-table roots, and the page-table work it still owes.

use alloc::{sync::Arc, vec::Vec};

use logic::{
    lock::Held,
    page::{Deferred, Fail, RootTable, TypeRef},
};
use machine::mem::{pv_pte, tlb};
use xen_abi::{
    ids::{DomId, Mfn},
    vm_assist::VMASST_TYPE_M2P_STRICT,
};

use super::{Mm, mmu};
use crate::{cpu::Context, domain::Domain, trap::ldt, vcpu::VcpuState};

/// A root held by a vCPU.
pub type Root = TypeRef<'static, RootTable>;

/// What a vCPU translates addresses by.
#[derive(Default)]
pub struct Paging {
    /// Root for kernel mode.
    pub kernel: Option<Root>,
    /// Root for user mode.
    pub user: Option<Root>,
    /// Tables given up that are not devalidated yet.
    pub deferred: Vec<Deferred>,
}

impl Paging {
    /// Frame of the kernel's root.
    #[must_use]
    pub fn kernel_mfn(&self) -> Option<Mfn> {
        self.kernel.as_ref().map(TypeRef::mfn)
    }

    /// Frame of the user root.
    #[must_use]
    pub fn user_mfn(&self) -> Option<Mfn> {
        self.user.as_ref().map(TypeRef::mfn)
    }

    /// Loads the root of a mode on a CPU that ran something else; false if there is none.
    pub fn load(&self, domain: DomId, in_kernel: bool) -> bool {
        let root = if in_kernel { &self.kernel } else { &self.user };
        match root {
            Some(root) => tlb::load_root(root, domain),
            None => tlb::load_idle_root(),
        }
        root.is_some()
    }

    /// Changes between the two roots; false if there is no root for the mode.
    #[inline]
    pub fn switch_mode(&self, in_kernel: bool) -> bool {
        let root = if in_kernel { &self.kernel } else { &self.user };
        if let Some(root) = root {
            tlb::switch_mode_root(root);
        }
        root.is_some()
    }

    /// Gives everything up, of a vCPU that does not run and whose roots no CPU has loaded; false: call again.
    pub fn release(&mut self, domain: &Arc<Domain>, held: &mut Held<'_, 0>) -> bool {
        let mut mm = mmu(held.again(), domain, &mut self.deferred);
        loop {
            if !finish(&mut mm) {
                return false;
            }
            let Some(root) = self.user.take().or_else(|| self.kernel.take()) else { return true };
            mm.put_ref(root);
        }
    }
}

/// Goes on with the tables that were given up before; false: not finished in this slice.
#[must_use]
pub fn finish(mm: &mut Mm<'_>) -> bool {
    while let Some(next) = mm.env.deferred.pop() {
        if let Some(rest) = mm.finish(next) {
            mm.env.deferred.push(rest);
            if mm.env.is_spent() {
                return false;
            }
        }
    }
    true
}

/// [`finish`] for the running vCPU, at the beginning of a hypercall on page tables.
#[inline]
#[must_use]
pub fn finish_deferred(cx: &mut Context<'_>) -> bool {
    cx.state.paging.deferred.is_empty() || finish(&mut mmu(cx.held.again(), cx.domain, &mut cx.state.paging.deferred))
}

/// Makes a frame the kernel's root and loads it (`MMUEXT_NEW_BASEPTR`, `mov` to CR3).
///
/// After [`Fail::Again`] with the root already changed, the next try finds nothing left but deferred work.
pub fn set_kernel_root(cx: &mut Context<'_>, mfn: Mfn) -> Result<(), Fail> {
    let domain = cx.domain.id;
    if let Some(root) = &cx.state.paging.kernel
        && root.mfn() == mfn
    {
        tlb::load_root(root, domain);
        return Ok(());
    }
    let strict = cx.domain.assists(VMASST_TYPE_M2P_STRICT);
    let paging = &mut cx.state.paging;
    let mut mm = mmu(cx.held.again(), cx.domain, &mut paging.deferred);
    let root = mm.get_ref::<RootTable>(mfn, domain)?;
    if !strict {
        pv_pte::show_m2p(&root, true);
    }
    tlb::load_root(&root, domain);
    if let Some(old) = paging.kernel.replace(root) {
        mm.put_ref(old);
    }
    ldt::forget(cx);
    Ok(())
}

/// Makes a frame the root for user mode, or with `None` leaves none.
pub fn set_user_root(cx: &mut Context<'_>, mfn: Option<Mfn>) -> Result<(), Fail> {
    let paging = &mut cx.state.paging;
    if paging.user_mfn() == mfn {
        return Ok(());
    }
    let mut mm = mmu(cx.held.again(), cx.domain, &mut paging.deferred);
    let root = match mfn {
        Some(mfn) => {
            let root = mm.get_ref::<RootTable>(mfn, cx.domain.id)?;
            if cx.domain.assists(VMASST_TYPE_M2P_STRICT) {
                pv_pte::show_m2p(&root, false);
            }
            Some(root)
        }
        None => None,
    };
    if let Some(old) = core::mem::replace(&mut paging.user, root) {
        mm.put_ref(old);
    }
    Ok(())
}

/// Sets both roots of a vCPU that does not run (`setvcpucontext`, `VCPUOP_initialise`, the dom0 builder).
pub fn set_roots(
    state: &mut VcpuState,
    domain: &Arc<Domain>,
    kernel: Mfn,
    user: Option<Mfn>,
    held: &mut Held<'_, 0>,
) -> Result<(), Fail> {
    let strict = domain.assists(VMASST_TYPE_M2P_STRICT);
    let Paging { kernel: kernel_root, user: user_root, deferred } = &mut state.paging;
    let mut mm = mmu(held.again(), domain, deferred);
    if !finish(&mut mm) {
        return Err(Fail::Again);
    }
    if kernel_root.as_ref().map(TypeRef::mfn) != Some(kernel) {
        let root = mm.get_ref::<RootTable>(kernel, domain.id)?;
        if !strict {
            pv_pte::show_m2p(&root, true);
        }
        if let Some(old) = kernel_root.replace(root) {
            mm.put_ref(old);
        }
    }
    if user_root.as_ref().map(TypeRef::mfn) != user {
        let root = match user {
            Some(mfn) => {
                let root = mm.get_ref::<RootTable>(mfn, domain.id)?;
                if strict {
                    pv_pte::show_m2p(&root, false);
                }
                Some(root)
            }
            None => None,
        };
        if let Some(old) = core::mem::replace(user_root, root) {
            mm.put_ref(old);
        }
    }
    Ok(())
}
