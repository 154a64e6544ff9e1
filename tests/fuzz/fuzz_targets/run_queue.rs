//! A run queue: nobody is lost or doubled, the one with most credit goes first, and whoever waits gets to run.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::sched::{Account, CpuMask, RunQueue, Wish};
use logic::time::Nanos;

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::new(data);
    let mut queue: RunQueue<u8> = RunQueue::new();
    let all = CpuMask(0xf);
    let mut waits = [false; 32];
    let mut running: [Option<(Account, u8, Nanos)>; 4] = [None; 4];
    let mut now = Nanos(0);
    // How many were taken off before one that waits.
    let mut passed = [0u32; 32];
    while !bytes.is_empty() {
        let (step, who) = (bytes.u8(), bytes.u8() % 32);
        let cpu = usize::from(step >> 6);
        now = now.after(Nanos(u64::from(bytes.u16()) * 1000));
        let is_running = running.iter().flatten().any(|(_, other, _)| *other == who);
        match step % 4 {
            0 if !waits[usize::from(who)] && !is_running => {
                let wish = Wish { allowed: all, preferred: all, last: u32::from(who) % 4, key: who.into() };
                let told = queue.insert(Account::new(u16::from(bytes.u8()) + 1), who, now, wish);
                assert!(told.is_none_or(|cpu| cpu < 4));
                (waits[usize::from(who)], passed[usize::from(who)]) = (true, 0);
            }
            1 => {
                if let Some((mut account, unit, since)) = running[cpu].take() {
                    account.burn(now.since(since));
                    let wish = Wish { allowed: all, preferred: all, last: cpu as u32, key: unit.into() };
                    let _ = queue.insert(account, unit, now, wish);
                    (waits[usize::from(unit)], passed[usize::from(unit)]) = (true, 0);
                }
                let next = queue.pop(cpu as u32, |_| true);
                assert_eq!(next.is_some(), waits.iter().any(|waits| *waits));
                let Some((mut account, unit)) = next else {
                    queue.idle(cpu as u32);
                    continue;
                };
                assert!(std::mem::take(&mut waits[usize::from(unit)]), "twice");
                let slice = queue.begin(cpu as u32, &mut account, now, |_| true);
                assert_eq!(slice.is_none(), queue.is_empty());
                running[cpu] = Some((account, unit, now));
            }
            2 => {
                if let Some((account, unit)) = queue.steal(|unit| *unit >= who) {
                    assert!(unit >= who && std::mem::take(&mut waits[usize::from(unit)]), "twice");
                    let wish = Wish { allowed: all, preferred: all, last: 0, key: unit.into() };
                    let _ = queue.insert(account, unit, now, wish);
                    waits[usize::from(unit)] = true;
                }
            }
            _ => {
                let count = queue.remove(|unit| *unit == who);
                assert_eq!(count, usize::from(std::mem::take(&mut waits[usize::from(who)])));
            }
        }
        assert_eq!(queue.len(), waits.iter().filter(|waits| **waits).count());
    }
});
