//! `HYPERVISOR_set_gdt`: the guest's part of its GDT (public header `arch-x86/xen.h`).

use logic::{guest::In, hypercall::Outcome, page::Fail, trap::selector};
use machine::arch::x86_64::descriptors;
use xen_abi::{errno::Errno, ids::Mfn};

use crate::{cpu::Context, domain::context, guest::Series, memory, memory::mmu};

/// Descriptors in one page.
const PER_PAGE: u32 = 512;

/// The hypercall: rdi points to frame numbers, rsi is the number of descriptors.
pub fn set_gdt(cx: &mut Context<'_>) -> Outcome {
    let [list, entries, ..] = cx.args();
    let Some(entries) =
        u32::try_from(entries & 0xffff_ffff).ok().filter(|n| *n <= u32::from(selector::FIRST_RESERVED_ENTRY))
    else {
        return Outcome::Fail(Errno::EINVAL);
    };
    let mut frames = [Mfn(0); 14];
    let count = entries.div_ceil(PER_PAGE) as usize;
    for (frame, named) in frames.iter_mut().take(count).zip(Series::<u64, In>::new(list)) {
        match named.read() {
            Ok(number) => *frame = Mfn(number),
            Err(errno) => return Outcome::Fail(errno),
        }
    }
    if !memory::finish_deferred(cx) {
        return Outcome::Again;
    }
    let mut mm = mmu(cx.held.again(), cx.domain, &mut cx.state.paging.deferred);
    let new = match context::hold_descriptors(&mut mm, cx.domain, frames.into_iter().take(count), entries) {
        Ok(new) => new,
        Err(Fail::Again) => return Outcome::Again,
        Err(Fail::Refused(errno)) => return Outcome::Fail(errno),
    };
    descriptors::load_gdt(&new.pages);
    let old = core::mem::replace(&mut cx.state.pv.gdt, new);
    for page in old.pages {
        mm.put_ref(page);
    }
    Outcome::OK
}
