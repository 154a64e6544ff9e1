//! Where a vCPU's `vcpu_info` lies (public header `xen.h`): in its domain's shared page at first, in a page of the
//! guest's choice once it has registered one.

use alloc::sync::Arc;

use machine::mem::shared::SharedPage;
use xen_abi::arch_x86::{shared_info, vcpu_info};

use crate::sync::Once;

/// The places of one vCPU's information.
pub struct VcpuInfoPlace {
    initial: Once<(Arc<SharedPage>, usize)>,
    registered: Once<(SharedPage, usize)>,
}

/// The information where it lies now. Each access is one atomic operation, since the guest writes there at any time.
#[derive(Clone, Copy)]
pub struct VcpuInfo<'a> {
    page: Option<&'a SharedPage>,
    base: usize,
}

impl VcpuInfoPlace {
    /// Nowhere yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { initial: Once::new(), registered: Once::new() }
    }

    /// Its place in the domain's shared page, by the vCPU's number; vCPUs from 32 on have none there.
    pub fn place(&self, shared: &Arc<SharedPage>, number: u32) {
        if let Some(offset) = offset_in_shared_info(number) {
            self.initial.call_once(|| (shared.clone(), offset));
        }
    }

    /// Its place in a page of the guest's (`VCPUOP_register_vcpu_info`), with what the old place held: news since then
    /// may be lost, so the caller sets all selector bits and the pending flag afterwards. Gives the page back when there
    /// is such a place already, or the offset is not that of 64 bytes.
    pub fn register(&self, page: SharedPage, offset: usize) -> Result<(), SharedPage> {
        if self.registered.get().is_some() || offset % 8 != 0 || offset > 4096 - shared_info::VCPU_INFO_STRIDE {
            return Err(page);
        }
        match self.initial.get() {
            Some((old, from)) => {
                for word in (0..shared_info::VCPU_INFO_STRIDE).step_by(8) {
                    page.store64(offset + word, old.load64(from + word));
                }
            }
            None => {
                for word in (0..shared_info::VCPU_INFO_STRIDE).step_by(8) {
                    page.store64(offset + word, 0);
                }
                page.store8(offset + vcpu_info::EVTCHN_UPCALL_MASK, 1);
            }
        }
        let mut page = Some(page);
        self.registered.call_once(|| match page.take() {
            Some(page) => (page, offset),
            None => unreachable!("the closure runs once"),
        });
        match page {
            None => Ok(()),
            Some(page) => Err(page),
        }
    }

    /// Takes the registered page back, when the domain goes.
    pub fn into_registered(self) -> Option<SharedPage> {
        self.registered.try_into_inner().map(|(page, _)| page)
    }

    /// The information.
    #[inline]
    #[must_use]
    pub fn get(&self) -> VcpuInfo<'_> {
        if let Some((page, base)) = self.registered.get() {
            return VcpuInfo { page: Some(page), base: *base };
        }
        match self.initial.get() {
            Some((page, base)) => VcpuInfo { page: Some(page), base: *base },
            None => VcpuInfo { page: None, base: 0 },
        }
    }
}

/// Offset of a vCPU's information in the shared page.
#[must_use]
pub fn offset_in_shared_info(number: u32) -> Option<usize> {
    let number = usize::try_from(number).ok().filter(|n| *n < xen_abi::arch_x86::XEN_LEGACY_MAX_VCPUS)?;
    Some(shared_info::VCPU_INFO + number * shared_info::VCPU_INFO_STRIDE)
}

impl<'a> VcpuInfo<'a> {
    /// The page and the offset of the information in it, for what has no method here.
    #[must_use]
    pub const fn parts(self) -> Option<(&'a SharedPage, usize)> {
        match self.page {
            Some(page) => Some((page, self.base)),
            None => None,
        }
    }

    /// `evtchn_upcall_pending`
    #[inline]
    #[must_use]
    pub fn upcall_pending(self) -> bool {
        self.page.is_some_and(|page| page.load8(self.base + vcpu_info::EVTCHN_UPCALL_PENDING) != 0)
    }

    /// Sets `evtchn_upcall_pending`; whether it was set.
    #[inline]
    pub fn set_upcall_pending(self) -> bool {
        self.page.is_none_or(|page| page.swap8(self.base + vcpu_info::EVTCHN_UPCALL_PENDING, 1) != 0)
    }

    /// `evtchn_upcall_mask`; masked where there is no information.
    #[inline]
    #[must_use]
    pub fn upcall_mask(self) -> bool {
        self.page.is_none_or(|page| page.load8(self.base + vcpu_info::EVTCHN_UPCALL_MASK) != 0)
    }

    /// Sets `evtchn_upcall_mask`.
    #[inline]
    pub fn set_upcall_mask(self, masked: bool) {
        if let Some(page) = self.page {
            page.store8(self.base + vcpu_info::EVTCHN_UPCALL_MASK, masked.into());
        }
    }

    /// Sets a bit of `evtchn_pending_sel`; whether it was set.
    #[inline]
    pub fn set_selector(self, word: u32) -> bool {
        let bit = 1 << (word & 63);
        self.page.is_none_or(|page| page.or64(self.base + vcpu_info::EVTCHN_PENDING_SEL, bit) & bit != 0)
    }

    /// Sets all bits of `evtchn_pending_sel`.
    pub fn set_all_selectors(self) {
        if let Some(page) = self.page {
            page.or64(self.base + vcpu_info::EVTCHN_PENDING_SEL, u64::MAX);
        }
    }

    /// Writes `arch.cr2`.
    #[inline]
    pub fn set_cr2(self, address: u64) {
        if let Some(page) = self.page {
            page.store64(self.base + vcpu_info::ARCH_CR2, address);
        }
    }
}
