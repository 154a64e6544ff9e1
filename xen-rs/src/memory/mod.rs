//! The machine's frames: who gets them, how many are left; and the way into the rules of page types.

mod environment;
mod heap;
mod paging;

pub use environment::{Environment, Mm, mmu, mmu_with};
pub use heap::{Census, alloc, census, feed_heap, free, free_module, init, machine_map, scrub_some, shared_page};
pub use paging::{Paging, Root, finish, finish_deferred, load_root, set_kernel_root, set_roots, set_user_root};

use logic::{hypercall::Outcome, page::Fail};

/// A failed operation on pages as the end of a round of a hypercall.
#[must_use]
pub fn outcome(fail: Fail) -> Outcome {
    match fail {
        Fail::Again => Outcome::Again,
        Fail::Refused(errno) => Outcome::Fail(errno),
    }
}
