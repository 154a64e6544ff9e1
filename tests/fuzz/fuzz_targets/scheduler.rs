//! A vCPU that is blocked, paused and switched in any order: never lost, never twice on a queue.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use logic::sched::{Readiness, Wake};

fuzz_target!(|data: &[u8]| {
    let vcpu = Readiness::new();
    let mut queued = u32::from(vcpu.bring_up().1 == Wake::Enqueue);
    let (mut running, mut blocked, mut pauses, mut up) = (false, false, 0, true);
    for step in data {
        match step % 8 {
            0 if running => {
                vcpu.block();
                blocked = true;
            }
            1 => {
                queued += u32::from(vcpu.unblock() == Wake::Enqueue);
                blocked = false;
            }
            2 => {
                let _ = vcpu.pause();
                pauses += 1;
            }
            3 if pauses > 0 => {
                queued += u32::from(vcpu.unpause() == Wake::Enqueue);
                pauses -= 1;
            }
            4 if queued > 0 && !running => {
                queued -= 1;
                running = vcpu.switch_in();
                assert_eq!(running, !blocked && pauses == 0 && up);
            }
            5 if running => {
                queued += u32::from(vcpu.switch_out());
                running = false;
            }
            6 => {
                let _ = vcpu.take_down();
                up = false;
            }
            7 => {
                queued += u32::from(vcpu.bring_up().1 == Wake::Enqueue);
                up = true;
            }
            _ => {}
        }
        assert!(queued + u32::from(running) <= 1, "twice on a queue");
        assert_eq!(vcpu.is_runnable(), !blocked && pauses == 0 && up);
        assert!(!vcpu.is_runnable() || running || queued == 1, "lost");
    }
});
