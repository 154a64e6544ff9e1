//! Where a vCPU's `vcpu_info` lies (public header `xen.h`): in its domain's shared page at first, in a page of the
//! guest's choice once it has registered one.

use alloc::sync::Arc;
use core::{
    mem::offset_of,
    sync::atomic::{AtomicUsize, Ordering},
};

use logic::time::{TimeBody, TimePage};
use machine::mem::shared::{SharedPage, SharedSlot, SharedView};
use xen_abi::arch_x86::{self as abi, VcpuTimeInfo, XEN_LEGACY_MAX_VCPUS, shared_info, vcpu_info};

/// Bytes of one.
const SIZE: usize = shared_info::VCPU_INFO_STRIDE;
const TIME: usize = offset_of!(abi::VcpuInfo, time);

/// The places of one vCPU's information.
pub struct VcpuInfoPlace {
    /// The domain's shared page.
    shared: Arc<SharedSlot>,
    /// Where in it, for the first vCPUs of a domain.
    initial: Option<usize>,
    /// The page of the guest's choice. It is registered once and stays until the domain goes.
    registered: SharedSlot,
    offset: AtomicUsize,
}

/// The information where it lies now. Each access is one atomic operation, since the guest writes there at any time.
#[derive(Clone, Copy)]
pub struct VcpuInfo<'a> {
    page: Option<SharedView<'a>>,
    base: usize,
}

impl VcpuInfoPlace {
    /// The place of the vCPU of this number in its domain's shared page; vCPUs from 32 on have none there.
    #[must_use]
    pub fn new(shared: Arc<SharedSlot>, number: u32) -> Self {
        let number = usize::try_from(number).ok().filter(|number| *number < XEN_LEGACY_MAX_VCPUS);
        let initial = number.map(|number| shared_info::VCPU_INFO + number * SIZE);
        Self { shared, initial, registered: SharedSlot::new(), offset: AtomicUsize::new(0) }
    }

    /// Whether a place was registered.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.registered.mfn().is_some()
    }

    /// Registers a place in a page of the guest's (`VCPUOP_register_vcpu_info`), with what the old place held: news since
    /// then may be lost, so the caller calls [`VcpuInfo::set_all_pending`] afterwards. Gives the page back when there is
    /// such a place already, or the offset is not one of a whole `vcpu_info`.
    pub fn register(&self, page: SharedPage, offset: usize) -> Result<(), SharedPage> {
        if self.is_registered() || !offset.is_multiple_of(8) || offset > 4096 - SIZE {
            return Err(page);
        }
        let new = VcpuInfo::at(page.view(), offset);
        match self.get() {
            VcpuInfo { page: Some(_), .. } => self.get().copy_to(new),
            VcpuInfo { page: None, .. } => new.reset(),
        }
        self.offset.store(offset, Ordering::Relaxed);
        self.registered.fill(page)
    }

    /// The slot of the registered page, for its end.
    #[must_use]
    pub const fn registered(&self) -> &SharedSlot {
        &self.registered
    }

    /// The information.
    #[inline]
    #[must_use]
    pub fn get(&self) -> VcpuInfo<'_> {
        if let Some(page) = self.registered.view() {
            return VcpuInfo { page: Some(page), base: self.offset.load(Ordering::Relaxed) };
        }
        match self.initial {
            Some(base) => VcpuInfo { page: self.shared.view(), base },
            None => VcpuInfo { page: None, base: 0 },
        }
    }
}

impl<'a> VcpuInfo<'a> {
    /// The information at `offset` of a page.
    #[must_use]
    pub const fn at(page: SharedView<'a>, offset: usize) -> Self {
        VcpuInfo { page: Some(page), base: offset }
    }

    /// Whether there is none: the vCPU is beyond the shared page and has not registered a place, or all is over.
    #[must_use]
    pub const fn is_missing(self) -> bool {
        self.page.is_none()
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

    /// Whether an upcall is to be delivered.
    #[inline]
    #[must_use]
    pub fn needs_delivery(self) -> bool {
        self.upcall_pending() && !self.upcall_mask()
    }

    /// Sets a bit of `evtchn_pending_sel`; whether it was set.
    #[inline]
    pub fn set_selector(self, word: u32) -> bool {
        self.page.is_none_or(|page| page.test_and_set(self.base + vcpu_info::EVTCHN_PENDING_SEL, word))
    }

    /// Makes the guest look at all its ports: what came while the place changed is not lost.
    pub fn set_all_pending(self) {
        if let Some(page) = self.page {
            page.or64(self.base + vcpu_info::EVTCHN_PENDING_SEL, u64::MAX);
        }
        self.set_upcall_pending();
    }

    /// Writes `arch.cr2`.
    #[inline]
    pub fn set_cr2(self, address: u64) {
        if let Some(page) = self.page {
            page.store64(self.base + vcpu_info::ARCH_CR2, address);
        }
    }

    /// The TSC of the time record's reference moment.
    #[inline]
    #[must_use]
    pub fn tsc_timestamp(self) -> u64 {
        self.load(TIME + offset_of!(VcpuTimeInfo, tsc_timestamp))
    }

    fn load(self, offset: usize) -> u64 {
        self.page.map_or(0, |page| page.load64(self.base + offset))
    }

    fn store(self, offset: usize, value: u64) {
        if let Some(page) = self.page {
            page.store64(self.base + offset, value);
        }
    }

    /// Copies all of it to another place, which nobody else uses yet.
    fn copy_to(self, to: VcpuInfo<'_>) {
        (0..SIZE).step_by(8).for_each(|word| to.store(word, self.load(word)));
    }

    /// Zeroes it, masked.
    fn reset(self) {
        (0..SIZE).step_by(8).for_each(|word| self.store(word, 0));
        self.set_upcall_mask(true);
    }
}

impl TimePage<TimeBody> for VcpuInfo<'_> {
    fn version(&self) -> u32 {
        self.page.map_or(0, |page| page.load32(self.base + TIME + offset_of!(VcpuTimeInfo, version)))
    }

    fn set_version(&self, version: u32) {
        if let Some(page) = self.page {
            page.store32(self.base + TIME + offset_of!(VcpuTimeInfo, version), version);
        }
    }

    fn set_body(&self, body: &TimeBody) {
        // Scale, shift and flags share one word.
        let [shift, flags] = [body.tsc_shift.cast_unsigned(), body.flags].map(u64::from);
        let scale = u64::from(body.tsc_to_system_mul) | shift << 32 | flags << 40;
        self.store(TIME + offset_of!(VcpuTimeInfo, tsc_timestamp), body.tsc_timestamp);
        self.store(TIME + offset_of!(VcpuTimeInfo, system_time), body.system_time);
        self.store(TIME + offset_of!(VcpuTimeInfo, tsc_to_system_mul), scale);
    }
}
