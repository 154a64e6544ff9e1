//! Timers, periodic ones and polls in any order (set_timer_op, vcpu_op, sched_op), and where a vCPU's time goes: what is due
//! fires once, in order, nothing else does, and no nanosecond is lost.
#![no_main]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::sched::{RunClock, Runstate};
use logic::time::{Nanos, Periodic, Scale, TimerQueue, VcpuTimers};

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::new(data);
    let (mut queue, mut model) = (TimerQueue::new(), BTreeMap::new());
    let mut vcpu = VcpuTimers::of_new_vcpu(Nanos(0));
    let clock = RunClock::new(Nanos(0));
    let mut now = Nanos(0);
    // The end of time never comes.
    let reach = |time: Nanos| time.min(Nanos(Nanos::NEVER.0 - 1));
    while !bytes.is_empty() {
        let (step, key, time) = (bytes.u8(), bytes.u8() % 16, bytes.u64());
        match step % 8 {
            0 => {
                assert!(queue.set(key, Nanos(time)));
                model.insert(key, time);
            }
            1 => assert_eq!(queue.cancel(key), model.remove(&key).is_some()),
            2 => {
                now = reach(now.max(Nanos(time)));
                let mut last = 0;
                while let Some(key) = queue.pop_due(now) {
                    let due = model.remove(&key).expect("fired twice");
                    assert!(due <= now.0 && due >= last, "too early, or out of order");
                    last = due;
                }
                assert!(model.values().all(|due| *due > now.0), "not fired");
            }
            3 => vcpu.singleshot = Some(Nanos(time)),
            4 => vcpu.poll = (key & 1 == 0).then_some(Nanos(time)),
            5 => {
                let period = Nanos(time >> 8);
                vcpu.periodic = (key != 0 && period.0 != 0).then_some(Periodic { period, next: now.after(period) });
            }
            6 => {
                now = reach(now.after(Nanos(time >> 20)));
                let due = vcpu.next().is_some_and(|next| next <= now);
                let fired = vcpu.expire(now);
                assert_eq!(fired.virq || fired.poll, due);
                assert!(vcpu.next().is_none_or(|next| next > now || next.0 == u64::MAX), "due and not fired");
            }
            _ => {
                let to = [Runstate::Running, Runstate::Runnable, Runstate::Blocked, Runstate::Offline];
                clock.change(to[usize::from(key) % 4], now);
                assert_eq!(clock.at(now).time.iter().sum::<u64>(), now.0, "time was lost");
            }
        }
        assert_eq!(queue.next().map(|next| next.0), model.values().min().copied());
        if let Some(scale) = Scale::from_hertz(time >> 24) {
            let (early, late) = (scale.nanos(time >> 16), scale.nanos((time >> 16) + u64::from(key)));
            assert!(early <= late, "a clock that runs backwards");
        }
    }
});
