//! Where a vCPU's `vcpu_info` lies (public header `xen.h`): in its domain's shared page at first, in a page of the
//! guest's choice once it has registered one.

use alloc::sync::Arc;
use core::{
    mem::offset_of,
    sync::atomic::{AtomicBool, Ordering},
};

use logic::{
    time::{TimeBody, TimePage},
    width::Width,
};
use machine::mem::shared::{Quiesced, RECORD, RecordSlot, SharedPage, SharedRecord, SharedView};
use xen_abi::{
    arch_x86::{self as abi, VcpuTimeInfo, XEN_LEGACY_MAX_VCPUS, shared_info, vcpu_info},
    ids::Mfn,
};

/// Bytes of one.
const SIZE: usize = shared_info::VCPU_INFO_STRIDE;
const _: () = assert!(SIZE == RECORD, "a place holds one vcpu_info");
const TIME: usize = offset_of!(abi::VcpuInfo, time);

/// The place of one vCPU's information.
#[derive(Default)]
pub struct VcpuInfoPlace {
    record: RecordSlot,
    /// It is in a page of the guest's choice: registered once, until the domain goes.
    registered: AtomicBool,
}

/// The information where it lies now. Each access is one atomic operation, since the guest writes there at any time.
#[derive(Clone, Copy)]
pub struct VcpuInfo<'a>(Option<SharedRecord<'a>>);

impl VcpuInfoPlace {
    /// The place of the vCPU of this number in its domain's shared page; vCPUs from 32 on have none there.
    #[must_use]
    pub fn new(shared: Option<Arc<SharedPage>>, number: u32) -> Self {
        let place = Self::default();
        let number = usize::try_from(number).ok().filter(|number| *number < XEN_LEGACY_MAX_VCPUS);
        if let (Some(page), Some(number)) = (shared, number) {
            // An empty slot takes a record that fits.
            let _ = place.record.point(page, shared_info::VCPU_INFO + number * SIZE);
        }
        place
    }

    /// Registers a place in a page of the guest's (`VCPUOP_register_vcpu_info`), with what the old place held: news since
    /// then may be lost, so the caller calls [`VcpuInfo::set_all_pending`] afterwards. Gives the page back when there is
    /// such a place already, or the offset is not one of a whole `vcpu_info`.
    pub fn register(&self, page: Arc<SharedPage>, offset: usize) -> Result<(), Arc<SharedPage>> {
        if !offset.is_multiple_of(8) || offset > 4096 - SIZE || self.registered.swap(true, Ordering::AcqRel) {
            return Err(page);
        }
        let new = VcpuInfo::at(page.view(), offset);
        match self.get() {
            VcpuInfo(None) => new.reset(),
            old => old.copy_to(new),
        }
        self.record.point(page, offset)
    }

    /// The frames of the pages it is or was in.
    pub fn frames(&self, each: impl FnMut(Mfn)) {
        self.record.frames(each);
    }

    /// Nobody finds the information any more.
    pub fn close(&self) {
        self.record.close();
    }

    /// Takes the pages it is or was in out, one with each call, after [`VcpuInfoPlace::close`].
    pub fn take(&self, proof: &Quiesced) -> Option<Arc<SharedPage>> {
        self.record.take(proof)
    }

    /// The information.
    #[inline(always)]
    #[must_use]
    pub fn get(&self) -> VcpuInfo<'_> {
        VcpuInfo(self.record.view())
    }
}

impl<'a> VcpuInfo<'a> {
    /// The information at `offset` of a page.
    #[must_use]
    pub const fn at(page: SharedView<'a>, offset: usize) -> Self {
        VcpuInfo(Some(page.record(offset)))
    }

    /// Whether there is none: the vCPU is beyond the shared page and has not registered a place, or all is over.
    #[must_use]
    pub const fn is_missing(self) -> bool {
        self.0.is_none()
    }

    /// Sets `evtchn_upcall_pending`; whether it was set.
    #[inline]
    pub fn set_upcall_pending(self) -> bool {
        self.0.is_none_or(|record| record.swap8(vcpu_info::EVTCHN_UPCALL_PENDING, 1) != 0)
    }

    /// `evtchn_upcall_pending`.
    #[inline(always)]
    #[must_use]
    pub fn upcall_pending(self) -> bool {
        self.0.is_some_and(|record| record.load8(vcpu_info::EVTCHN_UPCALL_PENDING) != 0)
    }

    /// `evtchn_upcall_mask`; masked where there is no information.
    #[inline]
    #[must_use]
    pub fn upcall_mask(self) -> bool {
        self.0.is_none_or(|record| record.load8(vcpu_info::EVTCHN_UPCALL_MASK) != 0)
    }

    /// Sets `evtchn_upcall_mask`.
    #[inline]
    pub fn set_upcall_mask(self, masked: bool) {
        if let Some(record) = self.0 {
            record.store8(vcpu_info::EVTCHN_UPCALL_MASK, masked.into());
        }
    }

    /// Whether an upcall is to be delivered.
    #[inline(always)]
    #[must_use]
    pub fn needs_delivery(self) -> bool {
        // Pending is the low byte, the mask the high one.
        const _: () = assert!(vcpu_info::EVTCHN_UPCALL_PENDING == 0 && vcpu_info::EVTCHN_UPCALL_MASK == 1);
        self.0.is_some_and(|record| u32::from(record.load16(0)).wrapping_sub(1) < 0xff)
    }

    /// Sets a bit of `evtchn_pending_sel`; whether it was set.
    #[inline]
    pub fn set_selector(self, width: Width, word: u32) -> bool {
        let (at, bit) = width.selector(word);
        self.0.is_none_or(|record| record.test_and_set(at, bit))
    }

    /// Makes the guest look at all its ports: what came while the place changed is not lost.
    pub fn set_all_pending(self, width: Width) {
        if let Some(record) = self.0 {
            let (at, bits) = width.selectors();
            record.or64(at, bits);
        }
        self.set_upcall_pending();
    }

    /// Writes `arch.cr2`.
    #[inline]
    pub fn set_cr2(self, address: u64) {
        if let Some(record) = self.0 {
            record.store64(vcpu_info::ARCH_CR2, address);
        }
    }

    /// The TSC of the time record's reference moment.
    #[inline]
    #[must_use]
    pub fn tsc_timestamp(self) -> u64 {
        self.load(TIME + offset_of!(VcpuTimeInfo, tsc_timestamp))
    }

    fn load(self, offset: usize) -> u64 {
        self.0.map_or(0, |record| record.load64(offset))
    }

    fn store(self, offset: usize, value: u64) {
        if let Some(record) = self.0 {
            record.store64(offset, value);
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
        self.0.map_or(0, |record| record.load32(TIME + offset_of!(VcpuTimeInfo, version)))
    }

    fn set_version(&self, version: u32) {
        if let Some(record) = self.0 {
            record.store32(TIME + offset_of!(VcpuTimeInfo, version), version);
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
