//! Cross-CPU requests, and what a waiting CPU does about them.

/// How the hypervisor's spin locks wait.
#[derive(Clone, Copy, Debug)]
pub struct Poll;

impl spin::RelaxStrategy for Poll {
    #[inline]
    fn relax() {
        core::hint::spin_loop();
    }
}
