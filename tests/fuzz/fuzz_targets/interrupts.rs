//! physdev_op's rules: numbers mapped, bound, ended and unmapped in any order by several domains, on few lines and messages.
//! A vector leads to one interrupt, a number to one interrupt; a level is masked exactly as long as somebody is waited for.
#![no_main]
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::irq::{Irq, Irqs, Kind, Mode, Pirq, Pirqs, RangeSet, Unbound, Vectors};
use logic::time::Nanos;
use xen_abi::ids::{DomId, Port};

const LINES: u32 = 20;
const MESSAGES: u32 = 6;
const DOMAINS: u16 = 3;

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::new(data);
    let mut irqs = Irqs::new(Vectors::new(0x30..=0x48));
    irqs.grow(LINES, MESSAGES);
    let mut pirqs: Vec<Pirqs> = (0..DOMAINS).map(|_| Pirqs::new(LINES, MESSAGES).unwrap()).collect();
    let mut masked: BTreeSet<u32> = BTreeSet::new();
    let mut allowed = RangeSet::new();
    let mut now = Nanos(0);
    while !bytes.is_empty() {
        let (step, who, number) = (bytes.u8(), u16::from(bytes.u8()) % DOMAINS, u32::from(bytes.u8()));
        let domain = DomId(who);
        let mine = &mut pirqs[usize::from(who)];
        let pirq = Pirq(number % (LINES + MESSAGES + 1));
        now = now.after(Nanos(u64::from(bytes.u8()) * 10_000));
        match step % 10 {
            0 => {
                let irq = Irq(number % LINES);
                let before = mine.irq(pirq);
                match mine.map(pirq, irq) {
                    Ok(true) => assert_eq!(mine.irq(pirq), Some(irq)),
                    Ok(false) => assert!(before.is_some() && mine.irq(pirq) == before),
                    Err(_) => assert!(!mine.has(pirq)),
                }
            }
            1 => {
                let kind = if number & 1 == 0 { Kind::Line } else { Kind::Message };
                if let Ok(free) = mine.take(kind) {
                    assert!(mine.irq(free).is_none());
                }
            }
            2 => {
                if let Some(irq) = mine.unmap(pirq)
                    && let Some(desc) = irqs.get_mut(irq)
                {
                    let last = desc.unbind(domain, pirq, None);
                    if matches!(last, Some(Unbound::Last | Unbound::Unmask)) {
                        masked.remove(&irq.0);
                    }
                }
            }
            3 => {
                if let Ok((irq, vector)) = irqs.new_message() {
                    assert!((0x30..=0x48).contains(&vector) && irq.0 >= LINES && irq.0 < LINES + MESSAGES);
                    let _ = mine.map(pirq, irq);
                }
            }
            4 => {
                let irq = Irq(number);
                if irqs.get(irq).is_some_and(logic::irq::Desc::is_unused) {
                    irqs.end_message(irq);
                    assert!(irq.0 < LINES || irqs.get(irq).is_none());
                }
            }
            5 => {
                if let Some(irq) = mine.irq(pirq)
                    && irqs.get(irq).is_some()
                    && irqs.vector(irq).is_ok()
                    && let Some(desc) = irqs.get_mut(irq)
                    && desc.guests().iter().all(|guest| (guest.domain, guest.pirq) != (domain, pirq))
                {
                    if irq.0 < LINES && number & 2 != 0 && desc.is_unused() {
                        desc.mode = Mode::Level;
                    }
                    let _ = desc.bind(domain, pirq, Port(number), number & 1 == 0);
                }
            }
            6 => {
                let vector = 0x2f + number as u8 % 0x1c;
                if let Some(arrival) = irqs.arrived(vector, now) {
                    let desc = irqs.get(arrival.irq).unwrap();
                    assert_eq!(desc.vector, Some(vector));
                    assert_eq!(desc.guests().len(), arrival.guests.len());
                    if arrival.waits && !arrival.guests.is_empty() || arrival.flood {
                        masked.insert(arrival.irq.0);
                    }
                }
            }
            7 => {
                if let Some(irq) = mine.irq(pirq)
                    && let Some(desc) = irqs.get_mut(irq)
                    && desc.end(domain, pirq)
                {
                    assert!(masked.remove(&irq.0), "unmasked, and it was not masked");
                }
            }
            8 => {
                let irq = Irq(number % (LINES + MESSAGES));
                if let Some(desc) = irqs.get_mut(irq) {
                    if desc.time_is_up(now) {
                        masked.remove(&irq.0);
                    }
                    let _ = (number & 1 == 0).then(|| desc.set_up());
                }
            }
            _ => {
                let range = u64::from(number % 32)..u64::from(number % 32 + u32::from(step) / 16 + 1);
                if number & 1 == 0 {
                    allowed.add(range.clone()).unwrap();
                    assert!(allowed.contains(&range));
                } else {
                    allowed.remove(&range).unwrap();
                    assert!(!allowed.contains(&range));
                }
                assert!(allowed.ranges().windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }
        let vectors: Vec<u8> = (0..irqs.count()).filter_map(|irq| irqs.get(Irq(irq))?.vector).collect();
        assert_eq!(vectors.iter().collect::<BTreeSet<_>>().len(), vectors.len(), "a vector of two");
        for irq in (0..irqs.count()).map(Irq) {
            let Some(desc) = irqs.get(irq) else { continue };
            let waited = desc.guests().iter().any(|guest| guest.busy);
            assert!(!waited || masked.contains(&irq.0), "somebody is waited for, and it is not masked");
        }
    }
});
