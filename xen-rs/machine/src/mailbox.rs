//! Requests from one CPU to another. Filled in with the start of secondary processors; until then a wait is a pause.

/// How a spinning CPU waits: it serves the requests of other CPUs.
#[derive(Clone, Copy, Debug)]
pub struct Poll;

impl spin::RelaxStrategy for Poll {
    fn relax() {
        core::hint::spin_loop();
    }
}
