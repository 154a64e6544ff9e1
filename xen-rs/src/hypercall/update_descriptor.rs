//! `HYPERVISOR_update_descriptor`: writes one descriptor of a page that the guest itself may not write.

use logic::{
    hypercall::Outcome,
    page::{Descriptors, Kind, Slot, Writable},
    trap::descriptor::Checked,
};
use machine::mem::{frame_table::frames, pv_pte};
use xen_abi::{errno::Errno, ids::Mfn};

use crate::{cpu::Context, memory::mmu};

/// The hypercall: rdi is the machine address of the descriptor, rsi its new value.
pub fn update_descriptor(cx: &mut Context<'_>) -> Outcome {
    let [address, value, ..] = cx.args();
    let (mfn, slot) = (Mfn(address >> 12), Slot::of_address(address));
    let Ok(value) = Checked::new(value) else {
        return Outcome::Fail(Errno::EINVAL);
    };
    if address % 8 != 0 {
        return Outcome::Fail(Errno::EINVAL);
    }
    let mut mm = mmu(cx.held.again(), cx.domain, &mut cx.state.paging.deferred);
    // A table in use, or a page that will become one and is plain memory still.
    let in_use = frames().ram(mfn).is_some_and(|frame| frame.word().is_valid(Kind::SegDesc));
    if in_use {
        return match mm.get_ref::<Descriptors>(mfn, cx.domain.id) {
            Ok(page) => {
                pv_pte::write_descriptor(&page, slot, value);
                mm.put_ref(page);
                Outcome::OK
            }
            Err(_) => Outcome::Fail(Errno::EINVAL),
        };
    }
    match mm.get_ref::<Writable>(mfn, cx.domain.id) {
        Ok(page) => {
            pv_pte::write_word(&page, slot, value.raw());
            mm.put_ref(page);
            Outcome::OK
        }
        Err(_) => Outcome::Fail(Errno::EINVAL),
    }
}
