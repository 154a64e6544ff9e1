//! A PVH guest's local APIC: registers as memory and as MSRs, vectors and signals from outside, time that passes. No vector
//! below 16 is ever delivered, none that its priority keeps back, and the timer goes off no earlier than it said. Hardware may serve
//! its interrupts meanwhile: what it gets has no vector below 16 either, and none is lost on the way there and back.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::hvm::apic::{Apic, Clock, Effect, Inbox, Interrupts, Message, Role, Target};
use logic::time::Nanos;

struct At(u64);

impl Clock for At {
    fn now(&self) -> Nanos {
        Nanos(self.0)
    }
    fn when_tsc_is(&self, ticks: u64) -> Nanos {
        Nanos(ticks / 3)
    }
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::new(data);
    let mut apic = Apic::new(u32::from(bytes.u8()) * 2, Role::First);
    let inbox = Inbox::new(apic.id());
    let mut clock = At(0);
    // What the hardware has, while it serves.
    let mut hardware: Option<Interrupts> = None;
    while !bytes.is_empty() {
        let (step, small, value) = (bytes.u8(), bytes.u8(), bytes.u64());
        let (offset, word) = (u32::from(small) << 4, (value & 0xffff_ffff) as u32);
        let effect = match step % 13 {
            0 | 1 => apic.write(offset, word, &clock),
            2 => apic.write(word & 0xfff, word, &clock),
            3 => {
                let _ = apic.read(word & 0xfff, &clock);
                let _ = apic.read(offset, &clock);
                Effect::None
            }
            4 | 5 => apic.write_msr(0x800 + u32::from(small), value, &clock).unwrap_or(Effect::None),
            6 => apic.write_msr(0x1b, 0xfee0_0000 | value & 0xd00, &clock).unwrap_or(Effect::None),
            7 => apic.write_msr(0x6e0, value, &clock).unwrap_or(Effect::None),
            8 => {
                let _ = apic.read_msr(0x800 + u32::from(small), &clock);
                apic.accept(small);
                Effect::None
            }
            9 => {
                inbox.set_address(apic.address());
                let message = match small % 4 {
                    0 => Message::Init,
                    1 => Message::Nmi,
                    2 => Message::Startup(step),
                    _ => Message::Fixed(step),
                };
                inbox.post(message);
                let signals = apic.take(&inbox);
                assert!(inbox.is_empty());
                if signals.init {
                    apic.init();
                    assert_eq!(apic.pending(), None);
                }
                Effect::None
            }
            10 => {
                clock.0 = clock.0.max(value >> 8);
                let due = apic.deadline().is_some_and(|deadline| deadline.0 <= clock.0);
                let before = apic.clone();
                apic.expire(clock.now());
                assert!(due || apic == before, "before its time");
                assert!(apic.deadline().is_none_or(|deadline| deadline.0 > clock.0), "due and not gone off");
                Effect::None
            }
            11 => {
                if hardware.is_none() {
                    hardware = apic.hand_over();
                    assert!(hardware.is_none() || !apic.has_requests());
                }
                Effect::None
            }
            _ => match apic.pending() {
                Some(vector) => {
                    apic.begin(vector);
                    Effect::None
                }
                None => Effect::None,
            },
        };
        if let Some(had) = &mut hardware {
            if let Some(new) = apic.pass_on() {
                had.requested = had.requested.with(new);
            }
            if small & 1 != 0 && let Some(vector) = had.requested.highest() {
                had.requested.clear(vector);
                had.in_service.set(vector);
                if small & 2 != 0 {
                    had.put_back(vector);
                }
            }
            assert_eq!(*had, had.legal(), "an exception's vector");
            assert_eq!(apic.pending(), None, "two who serve");
            if !(apic.is_served_by_hardware() && apic.may_be_served_by_hardware()) {
                let had = hardware.take().unwrap_or_default();
                let reset = !apic.is_served_by_hardware();
                apic.take_back(had);
                assert!(reset || had.requested.is_empty() != apic.has_requests());
            }
        }
        if let Effect::Send(ipi) = effect {
            inbox.set_address(apic.address());
            let _ = inbox.is_reached(ipi.to, apic.id());
            assert!(!matches!(ipi.message, Message::Fixed(0..16)), "an exception's vector was sent");
            assert!(inbox.is_reached(Target::All, 1) || !(apic.is_memory() || apic.is_x2apic()));
        }
        if let Some(vector) = apic.pending() {
            assert!(vector >= 16 && vector >> 4 > apic.processor_priority() >> 4 && apic.is_enabled());
        }
    }
});
