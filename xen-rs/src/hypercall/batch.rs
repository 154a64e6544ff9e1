//! What `mmu_update` and `mmuext_op` have in common: a list of requests of which a call may do a part at a time.
//!
//! The continuation is Xen's: the address moves on, the top bit of the count says that `done_out` holds what was done
//! before. A call that only has deferred work left goes on with no list and its result in place of the domain.

use alloc::sync::Arc;

use logic::{
    guest::{In, Out},
    hvm::p2m::Found,
    hypercall::Outcome,
    num,
    page::{Entry, Fail},
};
use xen_abi::{
    errno::Errno,
    ids::{DomId, Gfn},
};

use crate::{
    cpu::Context,
    domain::{self, Domain},
    guest::{Handle, is_guest_range},
    memory,
};

/// `MMU_UPDATE_PREEMPTED`.
const PREEMPTED: u32 = 1 << 31;

/// The arguments.
pub struct Batch {
    /// Address of the first request.
    pub requests: u64,
    /// Number of requests.
    pub count: u32,
    /// Address of the number of requests done, or 0.
    done_out: u64,
    /// Whose pages, and whose tables.
    pub foreign: u32,
    /// Requests done by earlier rounds.
    done_before: u32,
}

/// Whether these arguments are those of a call that only has deferred work left.
#[inline(always)]
pub fn is_end_of_call(requests: u64, count: u64) -> bool {
    num::uint(count) == PREEMPTED && requests == 0
}

impl Batch {
    /// Finishes what earlier calls deferred and reads the arguments. `Err`: the call ends here.
    pub fn begin(cx: &mut Context<'_>) -> Result<Batch, Outcome> {
        if !memory::finish_deferred(cx) {
            return Err(Outcome::Again);
        }
        let [requests, count, done_out, foreign, ..] = cx.args();
        let ends = is_end_of_call(requests, count);
        let (count, foreign) = (num::uint(count), num::uint(foreign));
        if ends {
            // The end of a call whose last request left deferred work: its result came along.
            return Err(Outcome::Done(num::int_result(foreign)));
        }
        let mut done_before = 0;
        if count & PREEMPTED != 0 && done_out != 0 {
            done_before = Handle::<u32, In>::new(done_out).read().unwrap_or(0);
        }
        let count = count & !PREEMPTED;
        if !is_guest_range(requests, 1) {
            return Err(Outcome::Fail(Errno::EFAULT));
        }
        Ok(Batch { requests, count, done_out, foreign, done_before })
    }

    /// Ends this round after `done` more requests of `size` bytes.
    pub fn end_sized(&self, cx: &mut Context<'_>, size: u64, done: u32, result: Result<(), Fail>) -> Outcome {
        if self.done_out != 0 {
            let total = self.done_before.wrapping_add(done);
            // As in Xen a bad address here is the caller's own loss.
            let _ = Handle::<u32, Out>::new(self.done_out).write(&total);
        }
        let value = match result {
            Err(Fail::Again) => {
                cx.set_arg(0, self.requests + u64::from(done) * size);
                cx.set_arg(1, u64::from((self.count - done) | PREEMPTED));
                return Outcome::Again;
            }
            Ok(()) => 0,
            Err(Fail::Refused(errno)) => errno.as_ret(),
        };
        if !cx.state.paging.deferred.is_empty() {
            cx.set_args([0, u64::from(PREEMPTED), 0, value & u64::from(u32::MAX)]);
            return Outcome::Again;
        }
        Outcome::Done(value)
    }

    /// [`Batch::end_sized`] for `mmu_update`.
    pub fn end(&self, cx: &mut Context<'_>, done: u32, result: Result<(), Fail>) -> Outcome {
        self.end_sized(cx, size_of::<xen_abi::mmu::MmuUpdate>() as u64, done, result)
    }
}

/// The domain of a number, `DOMID_SELF` too.
pub fn find(cx: &mut Context<'_>, id: DomId) -> Option<Arc<Domain>> {
    if id == DomId::SELF || id == cx.domain.id {
        return Some(cx.domain.clone());
    }
    domain::find(id, &mut cx.held)
}

/// Whose pages a caller means: itself, another domain that exists, device memory, or the hypervisor's shared pages. As in
/// Xen a caller means itself by `DOMID_SELF` only, not by its number.
pub fn page_owner(cx: &mut Context<'_>, id: u16) -> Option<DomId> {
    let id = DomId(id);
    if id == DomId::SELF {
        return Some(cx.domain.id);
    }
    if id == cx.domain.id {
        return None;
    }
    if id == DomId::IO || id == DomId::XEN {
        return Some(id);
    }
    domain::find(id, &mut cx.held).map(|d| d.id)
}

/// The domain, if it is a PVH domain: what a caller says of its pages are guest frame numbers.
pub fn translated(cx: &mut Context<'_>, pages: DomId) -> Option<Arc<Domain>> {
    if pages == cx.domain.id {
        return None;
    }
    domain::find(pages, &mut cx.held).filter(|domain| domain.pvh().is_some())
}

/// An entry that names a page of such a domain by its guest frame number, with the frame that is there now. Whoever counts
/// the entry finds out whether the frame is the domain's. `EINVAL`.
pub fn translate(new: Entry, find: impl FnOnce(Gfn) -> Option<Found>) -> Result<Entry, Errno> {
    if !new.is_present() {
        return Ok(new);
    }
    let found = find(Gfn(new.mfn().0)).ok_or(Errno::EINVAL)?;
    if new.is_writable() && !found.access.write {
        return Err(Errno::EINVAL);
    }
    Ok(new.with_mfn(found.mfn))
}
