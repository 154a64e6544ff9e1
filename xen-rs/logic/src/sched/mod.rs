//! Which vCPU runs where: who may run, pools of CPUs, the run queues and their schedulers, caps, where a woken vCPU goes,
//! and the time that each spends.

mod budget;
#[cfg(all(test, loom))]
mod loom;
mod place;
mod policy;
pub mod pools;
mod queue;
mod readiness;
mod runstate;
mod slice;
#[cfg(test)]
mod tests;

pub use budget::{Allowance, Budget, PERIOD};
pub use place::{CpuMask, place};
pub use policy::{Rules, Scheduler, Settings};
pub use queue::{CPUS as QUEUE_CPUS, RunQueue, Wish};
pub use readiness::{PauseState, Readiness, Wake};
pub use runstate::{RunClock, RunSnapshot, Runstate};
pub use slice::{Account, CREDIT_INIT, SLICE_MAX, SLICE_MIN, WEIGHT_DEFAULT};
