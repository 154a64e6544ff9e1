//! Timers: sleeps that are never early, and a periodic signal that comes as often as it should.

use super::sys;
use super::tap::Tap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

static ALARMS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_alarm(_: i32, _: *mut libc::siginfo_t, _: *mut c_void) {
    ALARMS.fetch_add(1, Ordering::SeqCst);
}

/// An emulated machine shares its host with others, so only a timer that was lost is told from one that is late.
const LATE: i128 = 10_000_000_000;

pub fn run(tap: &mut Tap) {
    let cpus = sys::cpus();
    for millis in [1, 10, 50] {
        let worst = slept(&cpus, millis);
        tap.claim(worst.0 >= 0, &format!("sleeps of {millis} ms are never early, on any CPU"));
        tap.claim(worst.1 < LATE, &format!("nor lost, at most {:.1} ms late", to_ms(worst.1)));
    }
    let until = sys::monotonic() + 100_000_000;
    sys::sleep_until(until);
    tap.claim(sys::monotonic() >= until, "a sleep until a moment lasts until then");
    alarms(tap);
    waits(tap);
}

fn to_ms(nanos: i128) -> f64 {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)).as_secs_f64() * 1e3
}

/// The earliest and the latest of some sleeps on each CPU, against what was asked for.
fn slept(cpus: &[usize], millis: u64) -> (i128, i128) {
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = cpus
            .iter()
            .map(|&cpu| {
                scope.spawn(move || {
                    let _ = sys::pin(cpu);
                    let asked = Duration::from_millis(millis);
                    let once = || {
                        let begin = sys::monotonic();
                        std::thread::sleep(asked);
                        sys::monotonic() - begin - i128::from(millis) * 1_000_000
                    };
                    (0..10).map(|_| once()).collect::<Vec<_>>()
                })
            })
            .collect();
        for thread in threads {
            all.extend(thread.join().unwrap_or_default());
        }
    });
    (all.iter().copied().min().unwrap_or(-1), all.iter().copied().max().unwrap_or(LATE))
}

/// A periodic signal: one that comes while the last is not yet taken counts once, so there may be fewer, never more.
fn alarms(tap: &mut Tap) {
    const PERIOD: u64 = 10;
    let _ = sys::on_signal(libc::SIGALRM, on_alarm, libc::SA_RESTART);
    ALARMS.store(0, Ordering::SeqCst);
    let begin = sys::monotonic();
    let started = sys::alarm_every(Duration::from_millis(PERIOD));
    sys::sleep_until(begin + 1_000_000_000);
    let _ = sys::alarm_every(Duration::ZERO);
    let passed = (sys::monotonic() - begin) / 1_000_000;
    let count = i128::try_from(ALARMS.load(Ordering::SeqCst)).unwrap_or(0);
    let most = passed / i128::from(PERIOD) + 1;
    tap.claim(
        started.is_ok() && count > 10 && count <= most,
        &format!("an alarm every 10 ms comes {count} times in {passed} ms"),
    );
}

/// Waiting with a time limit ends in time, whether something comes or not.
fn waits(tap: &mut Tap) {
    let (send, receive) = channel::<u8>();
    let begin = sys::monotonic();
    let ended = receive.recv_timeout(Duration::from_millis(30));
    let took = sys::monotonic() - begin;
    tap.claim(
        ended == Err(RecvTimeoutError::Timeout) && (30_000_000..LATE).contains(&took),
        &format!("a wait of 30 ms for nothing takes that: {:.1} ms", to_ms(took)),
    );
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            let _ = send.send(7);
        });
        tap.same(&receive.recv_timeout(Duration::from_secs(20)), &Ok(7), "and one for something ends when it comes");
    });
}
