//! The machine's frames: who gets them, how many are left; and the way into the rules of page types.

mod audit;
mod environment;
mod heap;
mod paging;

pub use audit::{Asker, audit};
pub use environment::{Mm, mmu, mmu_with, mmu_within};
pub use heap::{
    alloc, alloc_for, census, change_claim, claim, feed_heap, free, free_batch, free_module, free_of, init,
    machine_map, scrub_some, shared_page,
};
pub use paging::{Paging, finish, finish_deferred, set_kernel_root, set_roots, set_user_root};
