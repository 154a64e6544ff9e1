//! Requests from one CPU to another, without a lock: each CPU has one request under way at a time, in its own block, and
//! each receiver has a word with one bit for each CPU that wants something.
//!
//! Every spin in ring 0 polls ([`Poll`]), so a CPU that waits for an answer or a lock answers others meanwhile. What is
//! asked for takes no lock and asks for nothing itself.
//!
//! Unsafe: a block that belongs to another CPU is reached.

use logic::sched::CpuMask;

/// How a spinning CPU waits: it serves the requests of other CPUs.
#[derive(Clone, Copy, Debug)]
pub struct Poll;

impl spin::RelaxStrategy for Poll {
    #[inline]
    fn relax() {
        #[cfg(target_os = "none")]
        poll();
        core::hint::spin_loop();
    }
}

#[cfg(target_os = "none")]
pub use bare::{call, kick, online, poll};

#[cfg(target_os = "none")]
pub(crate) use bare::{set_online, stop_others};

#[cfg(target_os = "none")]
mod bare {
    use super::CpuMask;
    use crate::arch::x86_64::{lapic, percpu};
    use core::sync::atomic::{AtomicU64, Ordering};

    /// CPUs that answer.
    static ONLINE: AtomicU64 = AtomicU64::new(1);

    /// CPUs that run.
    #[inline]
    #[must_use]
    pub fn online() -> CpuMask {
        CpuMask(ONLINE.load(Ordering::Acquire))
    }

    pub(crate) fn set_online(cpu: u32) {
        ONLINE.fetch_or(1 << cpu, Ordering::AcqRel);
    }

    /// The numbers of the CPUs in a word.
    fn bits(mut word: u64) -> impl Iterator<Item = u32> {
        core::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros())?;
            word &= word - 1;
            Some(bit)
        })
    }

    /// Serves what others have asked of this CPU.
    #[inline]
    pub fn poll() {
        if percpu::this().inbox.load(Ordering::Relaxed) != 0 {
            serve();
        }
    }

    #[cold]
    fn serve() {
        let senders = percpu::this().inbox.swap(0, Ordering::Acquire);
        for sender in bits(senders) {
            let sender = percpu::of(sender);
            let work = sender.request_work.load(Ordering::Relaxed);
            let argument = sender.request_argument.load(Ordering::Relaxed);
            // SAFETY: only `call` stores here, a `fn(u64)`, before it sets the bit that was just seen.
            let work = unsafe { core::mem::transmute::<u64, fn(u64)>(work) };
            work(argument);
            sender.request_open.fetch_sub(1, Ordering::Release);
        }
    }

    /// Has every CPU of `targets` that is online run `work(argument)`, this one too if it is among them, and returns when
    /// all have done so. The work runs in the middle of whatever a CPU does: it takes no lock, waits for nothing and
    /// calls nobody. Never called from such work.
    pub fn call(targets: CpuMask, work: fn(u64), argument: u64) {
        let this = percpu::this();
        let own = percpu::number();
        let others = targets.0 & online().0 & !(1 << own);
        if others != 0 {
            this.request_work.store(work as usize as u64, Ordering::Relaxed);
            this.request_argument.store(argument, Ordering::Relaxed);
            this.request_open.store(others.count_ones(), Ordering::Relaxed);
            for cpu in bits(others) {
                let other = percpu::of(cpu);
                other.inbox.fetch_or(1 << own, Ordering::AcqRel);
                lapic::send_kick(other.apic_id.load(Ordering::Relaxed));
            }
        }
        if targets.has(own) {
            work(argument);
        }
        while others != 0 && this.request_open.load(Ordering::Acquire) != 0 {
            <super::Poll as spin::RelaxStrategy>::relax();
        }
    }

    /// Makes a CPU leave its guest, or wake from its idle state, and go through `before_guest` again.
    #[inline]
    pub fn kick(cpu: u32) {
        if online().has(cpu) && cpu != percpu::number() {
            lapic::send_kick(percpu::of(cpu).apic_id.load(Ordering::Relaxed));
        }
    }

    /// Stops all other CPUs for good: this one has a last report to write.
    pub(crate) fn stop_others() {
        let own = percpu::number();
        for cpu in bits(ONLINE.swap(1 << own, Ordering::AcqRel) & !(1 << own)) {
            let other = percpu::of(cpu);
            other.panicking.store(true, Ordering::Release);
            lapic::send_nmi(other.apic_id.load(Ordering::Relaxed));
        }
    }
}
