//! Threads: on every CPU, with locks, condition variables and atomics that all of them use.

use super::sys;
use super::tap::Tap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex};

pub fn run(tap: &mut Tap) {
    let cpus = sys::cpus();
    let wrong = cpus.iter().filter(|cpu| !is_on(**cpu)).count();
    tap.same(&wrong, &0, "a thread kept on a CPU runs there, on each of them");
    tap.same(&counted(4, 20_000), &(80_000, 80_000), "4 threads count by a lock and by an atomic, and lose nothing");
    tap.same(&passed(4, 2_000), &2_000, "4 threads pass a token in turn, 2000 times");
    tap.same(&met(4, 500), &0, "4 threads meet at a barrier 500 times, and none is early");
    tap.same(&(0..100).filter(|_| std::thread::spawn(|| ()).join().is_err()).count(), &0, "100 threads come and go");
    tap.same(&backwards(&cpus), &0, "the monotonic clock never goes back, whichever CPU is asked");
}

fn is_on(cpu: usize) -> bool {
    let thread = std::thread::spawn(move || {
        sys::pin(cpu).is_ok()
            && (0..50).all(|_| {
                std::thread::yield_now();
                sys::cpu() == cpu
            })
    });
    thread.join().unwrap_or(false)
}

fn counted(threads: usize, rounds: usize) -> (usize, usize) {
    let (locked, atomic) = (Mutex::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..rounds {
                    if let Ok(mut count) = locked.lock() {
                        *count += 1;
                    }
                    atomic.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    (locked.into_inner().unwrap_or(0), atomic.into_inner())
}

/// How often the token was passed.
fn passed(threads: usize, rounds: usize) -> usize {
    let token = (Mutex::new(0), Condvar::new());
    std::thread::scope(|scope| {
        for own in 0..threads {
            let (lock, turn) = &token;
            scope.spawn(move || {
                loop {
                    let Ok(guard) = lock.lock() else { return };
                    let waited = turn.wait_while(guard, |at| *at % threads != own && *at < rounds);
                    let Ok(mut at) = waited else { return };
                    if *at >= rounds {
                        turn.notify_all();
                        return;
                    }
                    *at += 1;
                    turn.notify_all();
                }
            });
        }
    });
    token.0.into_inner().unwrap_or(0)
}

/// How often a thread was past the barrier before all had come.
fn met(threads: usize, rounds: usize) -> usize {
    let (barrier, came, early) = (Barrier::new(threads), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for round in 1..=rounds {
                    came.fetch_add(1, Ordering::SeqCst);
                    barrier.wait();
                    if came.load(Ordering::SeqCst) < round * threads {
                        early.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    early.into_inner()
}

/// A thread on each CPU reads the clock and compares with the latest that any of them has read before.
fn backwards(cpus: &[usize]) -> usize {
    const ROUNDS: usize = 20_000;
    let (latest, back) = (AtomicI64::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for &cpu in cpus {
            let (latest, back) = (&latest, &back);
            scope.spawn(move || {
                let _ = sys::pin(cpu);
                for _ in 0..ROUNDS {
                    let before = latest.load(Ordering::SeqCst);
                    let now = i64::try_from(sys::monotonic()).unwrap_or(0);
                    back.fetch_add(usize::from(now < before), Ordering::Relaxed);
                    latest.fetch_max(now, Ordering::SeqCst);
                }
            });
        }
    });
    back.into_inner()
}
