//! Signals: to oneself, between threads, queued with values, nested, blocked, and as the answer to a fault.

use super::sys;
use super::tap::Tap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

static SEEN: AtomicUsize = AtomicUsize::new(0);
static DEPTH: AtomicUsize = AtomicUsize::new(0);
/// The last value that came, and whether one came out of order.
static LAST: AtomicUsize = AtomicUsize::new(0);
static DISORDER: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    SEEN.fetch_add(1, Ordering::SeqCst);
}

/// Raises the signal again from within, until it is eight deep.
extern "C" fn nest(signal: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    if DEPTH.fetch_add(1, Ordering::SeqCst) < 7 {
        let _ = sys::signal_thread(sys::thread(), signal);
    }
}

extern "C" fn value(_: i32, info: *mut libc::siginfo_t, _: *mut c_void) {
    let value = sys::queued_value(info);
    if LAST.swap(value, Ordering::SeqCst) + 1 != value {
        DISORDER.fetch_add(1, Ordering::SeqCst);
    }
}

pub fn run(tap: &mut Tap) {
    let fine = sys::on_signal(libc::SIGUSR1, count, 0).is_ok()
        && sys::on_signal(libc::SIGUSR2, nest, libc::SA_NODEFER).is_ok()
        && sys::on_signal(libc::SIGRTMIN(), value, 0).is_ok();
    tap.claim(fine, "handlers are taken");
    SEEN.store(0, Ordering::SeqCst);
    let sent = (0..2000).filter(|_| sys::signal_thread(sys::thread(), libc::SIGUSR1).is_ok()).count();
    tap.same(&SEEN.load(Ordering::SeqCst), &sent, "2000 signals to oneself are all seen");
    DEPTH.store(0, Ordering::SeqCst);
    let _ = sys::signal_thread(sys::thread(), libc::SIGUSR2);
    tap.same(&DEPTH.load(Ordering::SeqCst), &8, "a handler that raises its own signal nests");
    queued(tap);
    tap.same(&between(500), &500, "500 signals from one thread to another, each answered");
    faults(tap);
}

/// Blocked signals of the real-time kind wait in a queue, in order and with their values.
fn queued(tap: &mut Tap) {
    LAST.store(0, Ordering::SeqCst);
    DISORDER.store(0, Ordering::SeqCst);
    let _ = sys::block(libc::SIGRTMIN(), true);
    let queued = (1..=100).filter(|value| sys::queue(libc::SIGRTMIN(), *value).is_ok()).count();
    tap.same(&LAST.load(Ordering::SeqCst), &0, "a blocked signal waits");
    let _ = sys::block(libc::SIGRTMIN(), false);
    let seen = (queued, LAST.load(Ordering::SeqCst), DISORDER.load(Ordering::SeqCst));
    tap.same(&seen, &(100, 100, 0), "100 queued signals come in order, with their values");
}

/// Ping to the other thread, which counts; its count is the answer.
fn between(rounds: usize) -> usize {
    SEEN.store(0, Ordering::SeqCst);
    let (tell, told) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        let _ = tell.send(sys::thread());
        // Waits until the sender is gone, interrupted by each signal.
        let _ = stopped.recv();
    });
    let Ok(thread) = told.recv() else { return 0 };
    let mut answered = 0;
    for round in 0..rounds {
        if sys::signal_thread(thread, libc::SIGUSR1).is_err() {
            break;
        }
        let deadline = sys::monotonic() + 20_000_000_000;
        while SEEN.load(Ordering::SeqCst) <= round && sys::monotonic() < deadline {
            std::thread::yield_now();
        }
        answered += usize::from(SEEN.load(Ordering::SeqCst) == round + 1);
    }
    drop(stop);
    let _ = other.join();
    answered
}

/// Each exception of the processor kills a child by its own signal.
fn faults(tap: &mut Tap) {
    for (what, signal, fault) in super::vectors::FAULTS {
        // A copy that does what must not be done; the default action ends it.
        let child = move || {
            super::vectors::default_action(signal);
            fault();
            0
        };
        let ended = sys::fork(child).and_then(sys::wait).ok();
        tap.same(&ended, &Some(Err(signal)), what);
    }
}
