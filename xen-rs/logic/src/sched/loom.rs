//! A vCPU that is paused, woken and switched by three CPUs at once, in all interleavings: it is never lost, never twice
//! on a queue, and never runs while somebody was told that it has stopped.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering::SeqCst};
use loom::thread;

use super::{PauseState, Readiness, Wake};

struct Shared {
    ready: Readiness,
    queue: AtomicU32,
}

impl Shared {
    fn woken(&self, wake: Wake) {
        if wake == Wake::Enqueue {
            assert_eq!(self.queue.fetch_add(1, SeqCst), 0, "on the queue already");
        }
    }

    /// A CPU takes the vCPU off the queue, if it is there, runs it for a moment and puts it back.
    fn run_once(&self) {
        if self.queue.compare_exchange(1, 0, SeqCst, SeqCst).is_ok()
            && self.ready.switch_in()
            && self.ready.switch_out()
        {
            assert_eq!(self.queue.fetch_add(1, SeqCst), 0, "on the queue already");
        }
    }
}

fn queued() -> Arc<Shared> {
    let shared = Shared { ready: Readiness::new(), queue: AtomicU32::new(0) };
    shared.woken(shared.ready.bring_up().1);
    Arc::new(shared)
}

#[test]
fn pausing_and_unpausing_races_with_a_switch() {
    loom::model(|| {
        let shared = queued();
        let cpu = {
            let shared = shared.clone();
            thread::spawn(move || shared.run_once())
        };
        let _ = shared.ready.pause();
        shared.woken(shared.ready.unpause());
        cpu.join().unwrap();
        assert_eq!(shared.queue.load(SeqCst), 1);
        assert!(shared.ready.is_runnable() && !shared.ready.is_running());
    });
}

#[test]
fn a_stopped_vcpu_does_not_start() {
    loom::model(|| {
        let shared = queued();
        let cpu = {
            let shared = shared.clone();
            thread::spawn(move || {
                if shared.queue.compare_exchange(1, 0, SeqCst, SeqCst).is_ok() && shared.ready.switch_in() {
                    // It runs: whoever pauses it now is told so.
                    return true;
                }
                false
            })
        };
        let told = shared.ready.pause();
        let runs = cpu.join().unwrap();
        if told == PauseState::Stopped {
            assert!(!runs, "somebody relies on its registers being parked");
        }
    });
}

#[test]
fn block_pause_and_wake_at_once() {
    // Three CPUs: all interleavings with up to three switches that nobody asked for.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = queued();
        shared.queue.store(0, SeqCst);
        assert!(shared.ready.switch_in());
        let waker = {
            let shared = shared.clone();
            thread::spawn(move || shared.woken(shared.ready.unblock()))
        };
        let pauser = {
            let shared = shared.clone();
            thread::spawn(move || {
                let _ = shared.ready.pause();
                shared.woken(shared.ready.unpause());
            })
        };
        shared.ready.block();
        if shared.ready.switch_out() {
            assert_eq!(shared.queue.fetch_add(1, SeqCst), 0, "on the queue already");
        }
        waker.join().unwrap();
        pauser.join().unwrap();
        // The wake-up may have come before it was blocked; then it sleeps on, and is on no queue.
        assert_eq!(shared.queue.load(SeqCst), u32::from(!shared.ready.is_blocked()));
    });
}
