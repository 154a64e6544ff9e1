//! The APIC as a guest sees it.

use super::registers::offset;
use super::*;
use core::cell::Cell;
use std::vec::Vec;

/// A clock that stands where it was put. The guest's TSC has 2 ticks per nanosecond.
struct At(Cell<u64>);

impl Clock for At {
    fn now(&self) -> Nanos {
        Nanos(self.0.get())
    }
    fn when_tsc_is(&self, ticks: u64) -> Nanos {
        Nanos(ticks / 2)
    }
}

fn at(now: u64) -> At {
    At(Cell::new(now))
}

/// One that is on.
fn enabled(id: u32) -> Apic {
    let mut apic = Apic::new(id, Role::First);
    assert_eq!(apic.write(offset::SPURIOUS, 0x1ff, &at(0)), Effect::None);
    apic
}

fn x2apic(id: u32) -> Apic {
    let mut apic = enabled(id);
    assert_eq!(apic.write_msr(0x1b, 0xfee0_0d00, &at(0)), Some(Effect::Timer));
    apic
}

#[test]
fn after_reset() {
    let mut apic = Apic::new(6, Role::Other);
    let clock = at(0);
    let values: Vec<_> = [0x20, 0x30, 0x80, 0xd0, 0xe0, 0xf0, 0x320, 0x370, 0x390].map(|r| apic.read(r, &clock)).into();
    assert_eq!(values, [6 << 24, 0x5_0014, 0, 0, u32::MAX, 0xff, 0x1_0000, 0x1_0000, 0]);
    assert_eq!((apic.base_msr(), Apic::new(0, Role::First).base_msr()), (0xfee0_0800, 0xfee0_0900));
    // Off by software: nothing gets in, the table stays masked.
    apic.accept(0x40);
    let _ = apic.write(offset::TABLE_TIMER, 0x30, &clock);
    assert_eq!((apic.pending(), apic.read(offset::TABLE_TIMER, &clock)), (None, 0x1_0030));
    assert_eq!((apic.offset_of(0xfee0_0030), apic.offset_of(0xfee0_1000)), (Some(0x30), None));
}

#[test]
fn what_was_begun_can_be_put_back() {
    let mut apic = enabled(0);
    apic.accept(0x45);
    apic.begin(0x45);
    assert_eq!(apic.pending(), None);
    apic.put_back(0x45);
    assert_eq!((apic.pending(), apic.processor_priority()), (Some(0x45), 0));
    // What is not being served did not come from here.
    apic.put_back(0x52);
    assert_eq!(apic.pending(), Some(0x45));
}

#[test]
fn priorities() {
    let mut apic = enabled(0);
    let clock = at(0);
    for vector in [0x31, 0x45, 0x52, 0xf3] {
        apic.accept(vector);
    }
    assert_eq!(apic.pending(), Some(0xf3));
    apic.begin(0xf3);
    assert_eq!((apic.pending(), apic.processor_priority()), (None, 0xf0));
    let _ = apic.write(offset::EOI, 0, &clock);
    let _ = apic.write(offset::TASK_PRIORITY, 0x45, &clock);
    assert_eq!((apic.pending(), apic.processor_priority()), (Some(0x52), 0x45));
    apic.begin(0x52);
    assert_eq!(apic.read(offset::IN_SERVICE + 0x20, &clock), 1 << 18);
    assert_eq!(apic.read(offset::REQUESTED + 0x20, &clock), 1 << 5);
    let _ = apic.write(offset::EOI, 0, &clock);
    // The same class as the task's priority waits.
    assert_eq!(apic.pending(), None);
    apic.set_task_priority(0x3f);
    assert_eq!(apic.pending(), Some(0x45));
}

#[test]
fn timer_once_and_periodic() {
    let mut apic = enabled(0);
    let clock = at(1000);
    let _ = apic.write(offset::DIVIDE, 0b1011, &clock);
    let _ = apic.write(offset::TABLE_TIMER, 0x30, &clock);
    assert_eq!(apic.write(offset::INITIAL_COUNT, 100_000, &clock), Effect::Timer);
    assert_eq!(apic.deadline(), Some(Nanos(1_001_000)));
    clock.0.set(501_000);
    assert_eq!(apic.read(offset::CURRENT_COUNT, &clock), 50_000);
    // Half the speed for the rest.
    let _ = apic.write(offset::DIVIDE, 0, &clock);
    assert_eq!((apic.deadline(), apic.read(offset::CURRENT_COUNT, &clock)), (Some(Nanos(1_501_000)), 50_000));
    apic.expire(Nanos(1_500_999));
    assert_eq!(apic.pending(), None);
    apic.expire(Nanos(1_501_000));
    assert_eq!((apic.pending(), apic.deadline()), (Some(0x30), None));

    apic.begin(0x30);
    let _ = apic.write(offset::EOI, 0, &clock);
    let _ = apic.write(offset::TABLE_TIMER, 1 << 17 | 0x31, &clock);
    clock.0.set(2_000_000);
    let _ = apic.write(offset::INITIAL_COUNT, 50_000, &clock);
    assert_eq!(apic.deadline(), Some(Nanos(3_000_000)));
    // Two and a half periods late is one interrupt, and the rhythm stays.
    apic.expire(Nanos(5_500_000));
    assert_eq!((apic.pending(), apic.deadline()), (Some(0x31), Some(Nanos(6_000_000))));
    let _ = apic.write(offset::INITIAL_COUNT, 0, &clock);
    assert_eq!(apic.deadline(), None);
    // A storm is not to be had.
    let _ = apic.write(offset::INITIAL_COUNT, 1, &clock);
    apic.expire(Nanos(6_000_000));
    assert!(apic.deadline().unwrap() >= Nanos(6_000_000));
    let first = apic.deadline().unwrap();
    apic.expire(first);
    assert_eq!(apic.deadline(), Some(Nanos(first.0 + 50_000)));
}

#[test]
fn timer_by_tsc() {
    let mut apic = x2apic(2);
    let clock = at(1000);
    assert_eq!(apic.write_msr(0x6e0, 5000, &clock), Some(Effect::Timer));
    assert_eq!((apic.read_msr(0x6e0, &clock), apic.deadline()), (Some(0), None), "not in this mode");
    assert_eq!(apic.write_msr(0x832, 2 << 17 | 0x40, &clock), Some(Effect::Timer));
    assert_eq!(apic.write_msr(0x6e0, 5000, &clock), Some(Effect::Timer));
    assert_eq!((apic.read_msr(0x6e0, &clock), apic.deadline()), (Some(5000), Some(Nanos(2500))));
    apic.expire(Nanos(2500));
    assert_eq!((apic.pending(), apic.read_msr(0x6e0, &clock), apic.deadline()), (Some(0x40), Some(0), None));
    assert_eq!(apic.write_msr(0x838, 77, &clock), Some(Effect::Timer));
    assert_eq!(apic.deadline(), None, "counts start nothing in this mode");
}

#[test]
fn modes_change_one_step_at_a_time() {
    let clock = at(0);
    let mut apic = Apic::new(4, Role::Other);
    assert_eq!(apic.read_msr(0x802, &clock), None, "not in xAPIC mode");
    for wrong in [0xfee0_0400, 0xfee0_0900, 0xfee0_0801, 1 << 60 | 0xfee0_0800] {
        assert_eq!(apic.write_msr(0x1b, wrong, &clock), None, "{wrong:#x}");
    }
    assert!(apic.write_msr(0x1b, 0xfee0_0c00, &clock).is_some());
    assert_eq!(apic.write_msr(0x1b, 0xfee0_0800, &clock), None, "back to memory");
    assert_eq!((apic.read_msr(0x802, &clock), apic.read_msr(0x80d, &clock)), (Some(4), Some(1 << 4)));
    assert!(apic.write_msr(0x1b, 0xfee0_0000, &clock).is_some());
    assert_eq!(apic.write_msr(0x1b, 0xfee0_0c00, &clock), None, "from off to x2APIC");
    assert!(!apic.is_memory() && !apic.is_x2apic());
    assert!(apic.write_msr(0x1b, 0xfee0_0800, &clock).is_some());
}

#[test]
fn x2apic_refuses_what_is_reserved() {
    let mut apic = x2apic(0);
    let clock = at(0);
    for (msr, value) in [
        (0x802, 1),
        (0x803, 0),
        (0x808, 0x100),
        (0x80b, 1),
        (0x80d, 0),
        (0x80e, 0),
        (0x80f, 0x400),
        (0x828, 1),
        (0x830, 1 << 12),
        (0x831, 0),
        (0x832, 1 << 20),
        (0x83e, 4),
        (0x83f, 0x100),
        (0x8ff, 0),
        (0x838, 1 << 32),
    ] {
        assert_eq!(apic.write_msr(msr, value, &clock), None, "{msr:#x}");
    }
    for msr in [0x80b, 0x80e, 0x831, 0x83f, 0x800, 0x8ff] {
        assert_eq!(apic.read_msr(msr, &clock), None, "{msr:#x}");
    }
    assert_eq!(apic.write_msr(0x83f, 0x77, &clock), Some(Effect::None));
    assert_eq!(apic.pending(), Some(0x77));
}

#[test]
fn commands() {
    let clock = at(0);
    let mut apic = enabled(2);
    let send = |apic: &mut Apic, high: u32, low: u32| {
        let _ = apic.write(offset::COMMAND_HIGH, high, &clock);
        apic.write(offset::COMMAND_LOW, low, &clock)
    };
    let ipi = |to, message| Effect::Send(Ipi { to, message, first_only: false });
    assert_eq!(send(&mut apic, 6 << 24, 0x4500), ipi(Target::Physical(6), Message::Init));
    assert_eq!(send(&mut apic, 6 << 24, 0x8500), Effect::None, "de-assert");
    assert_eq!(send(&mut apic, 6 << 24, 0x4698), ipi(Target::Physical(6), Message::Startup(0x98)));
    assert_eq!(send(&mut apic, 0, 0xc_04fd), ipi(Target::Others, Message::Nmi));
    assert_eq!(send(&mut apic, 3 << 24, 0x8fd), ipi(Target::Logical(3), Message::Fixed(0xfd)));
    assert_eq!(send(&mut apic, 0, 0x4_00fb), Effect::None);
    assert_eq!(apic.pending(), Some(0xfb), "itself");
    assert_eq!(apic.read(offset::COMMAND_LOW, &clock), 0x4_00fb);
    // An illegal vector, and the error's own interrupt.
    let _ = apic.write(offset::TABLE_ERROR, 0xfe, &clock);
    assert_eq!(send(&mut apic, 0, 0xc_000f), Effect::None);
    assert_eq!(apic.pending(), Some(0xfe));
    assert_eq!(apic.read(offset::ERRORS, &clock), 0, "until it is written");
    let _ = apic.write(offset::ERRORS, 0, &clock);
    assert_eq!(apic.read(offset::ERRORS, &clock), 1 << 5);

    let mut apic = x2apic(2);
    assert_eq!(apic.write_msr(0x830, 300 << 32 | 0xfd, &clock), Some(ipi(Target::Physical(300), Message::Fixed(0xfd))));
}

#[test]
fn whom_it_reaches() {
    let inbox = |apic: &Apic| {
        let inbox = Inbox::new(apic.id());
        inbox.set_address(apic.address());
        inbox
    };
    let clock = at(0);
    let mut flat = enabled(2);
    let _ = flat.write(offset::LOGICAL, 0b10 << 24, &clock);
    let mut cluster = enabled(4);
    let _ = cluster.write(offset::FORMAT, 0, &clock);
    let _ = cluster.write(offset::LOGICAL, 0x21 << 24, &clock);
    let new = x2apic(0x23);
    let inboxes = [&flat, &cluster, &new].map(inbox);
    let reached = |to| inboxes.iter().map(|inbox| inbox.is_reached(to, 4)).collect::<Vec<_>>();
    assert_eq!(reached(Target::Myself), [false, true, false]);
    assert_eq!(reached(Target::Others), [true, false, true]);
    assert_eq!(reached(Target::All), [true; 3]);
    assert_eq!(reached(Target::Physical(2)), [true, false, false]);
    assert_eq!(reached(Target::Physical(0xff)), [true, true, false]);
    assert_eq!(reached(Target::Physical(u32::MAX)), [true; 3]);
    assert_eq!(reached(Target::Logical(2)), [true, false, false]);
    assert_eq!(reached(Target::Logical(0x21)), [false, true, false]);
    assert_eq!(reached(Target::Logical(2 << 16 | 8)), [false, false, true]);
}

#[test]
fn an_inbox_keeps_what_was_sent() {
    let mut apic = enabled(0);
    let inbox = Inbox::new(0);
    assert!(!inbox.post(Message::Fixed(0x40)), "it is off, as far as anyone knows");
    inbox.set_address(apic.address());
    assert!(inbox.post(Message::Fixed(0x40)) && inbox.post(Message::Fixed(0xff)));
    assert!(!inbox.post(Message::Fixed(0x40)), "there already");
    assert!(inbox.post(Message::Startup(1)), "forgotten by the INIT");
    assert!(inbox.post(Message::Init) && inbox.post(Message::Startup(0x98)) && inbox.post(Message::Nmi));
    assert!(!inbox.post(Message::Startup(0x99)), "the first one counts");
    let signals = apic.take(&inbox);
    assert_eq!(signals, Signals { nmi: true, init: true });
    assert_eq!(inbox.take_start(false), Start::At(0x98), "what began with INIT is there when the vCPU is parked");
    assert_eq!(apic.pending(), Some(0xff));
    apic.begin(0xff);
    let _ = apic.write(offset::EOI, 0, &at(0));
    assert_eq!((apic.pending(), inbox.is_empty()), (Some(0x40), true));
    apic.init();
    assert_eq!((apic.pending(), apic.take(&inbox)), (None, Signals::default()));
}

#[test]
fn only_a_vcpu_that_waits_takes_a_sipi() {
    let mut apic = Apic::new(2, Role::Other);
    let inbox = Inbox::new(2);
    inbox.post(Message::Startup(7));
    assert_eq!(inbox.take_start(false), Start::Nothing, "it goes down without INIT, while a SIPI is on its way");
    assert_eq!(apic.take(&inbox), Signals::default());
    assert_eq!(inbox.take_start(true), Start::Nothing, "one that runs on has had it");
    inbox.post(Message::Init);
    assert_eq!(apic.take(&inbox), Signals { nmi: false, init: true });
    assert_eq!((inbox.take_start(false), inbox.take_start(true)), (Start::Wait, Start::Nothing), "INIT alone");
    inbox.post(Message::Nmi);
    inbox.post(Message::Startup(8));
    assert_eq!(inbox.take_start(true), Start::At(8));
    assert_eq!(apic.take(&inbox), Signals::default(), "an NMI from before is forgotten");
}

fn vectors<const N: usize>(of: [u8; N]) -> Vectors {
    let mut vectors = Vectors::default();
    of.into_iter().for_each(|vector| vectors.set(vector));
    vectors
}

#[test]
fn one_that_hardware_serves_has_nothing_itself() {
    let clock = at(0);
    let mut apic = Apic::new(2, Role::Other);
    assert_eq!(apic.hand_over(), None, "neither x2APIC nor on");
    let _ = apic.write(offset::SPURIOUS, 0x1ff, &clock);
    assert_eq!(apic.hand_over(), None, "its registers are memory");
    let mut apic = x2apic(2);
    apic.set_task_priority(0x23);
    for vector in [0x31, 0x45, 0x52] {
        apic.accept(vector);
    }
    apic.begin(0x52);
    let handed = Interrupts { task_priority: 0x23, requested: vectors([0x31, 0x45]), in_service: vectors([0x52]) };
    assert_eq!(apic.hand_over(), Some(handed));
    assert_eq!(apic.hand_over(), None, "once");
    assert!(apic.is_served_by_hardware() && !apic.has_requests());
    assert_eq!((apic.pending(), apic.held_off(), apic.on_its_way()), (None, None, None));

    // What comes is on its way.
    apic.accept(0x99);
    apic.accept(5);
    assert_eq!((apic.pending(), apic.has_requests(), apic.on_its_way()), (None, true, Some(0x99)));
    assert_eq!(apic.pass_on(), Some(vectors([0x99])));
    assert_eq!(apic.pass_on(), None);
    // What only the hardware knows has no value here, and changes nothing.
    for msr in [0x808, 0x80a, 0x812] {
        assert_eq!(apic.read_msr(msr, &clock), None, "{msr:#x}");
    }
    let before = apic.clone();
    apic.set_task_priority(0xff);
    apic.begin(0x31);
    apic.put_back(0x52);
    assert_eq!(apic.write_msr(0x80b, 0, &clock), Some(Effect::None));
    assert_eq!(apic, before);

    // It comes back with what has come meanwhile.
    apic.accept(0x77);
    apic.take_back(Interrupts { task_priority: 0x40, requested: vectors([0x99]), in_service: vectors([0x31]) });
    assert_eq!((apic.pending(), apic.task_priority(), apic.processor_priority()), (Some(0x99), 0x40, 0x40));
    apic.begin(0x99);
    apic.end();
    assert_eq!(apic.pending(), Some(0x77));
}

#[test]
fn a_reset_one_wants_nothing_back() {
    let clock = at(0);
    let had = Interrupts { task_priority: 0x40, requested: vectors([0x99]), in_service: vectors([0x31]) };
    let mut apic = x2apic(2);
    assert!(apic.hand_over().is_some());
    apic.init();
    assert!(!apic.is_served_by_hardware() && !apic.may_be_served_by_hardware());
    apic.take_back(had);
    assert_eq!((apic.task_priority(), apic.has_requests()), (0, false));

    let mut apic = x2apic(2);
    assert!(apic.hand_over().is_some());
    assert!(apic.write_msr(0x1b, 0xfee0_0100, &clock).is_some());
    apic.take_back(had);
    assert_eq!((apic.task_priority(), apic.has_requests()), (0, false));

    // One whose software switch is off is its own again, and keeps what there was.
    let mut apic = x2apic(2);
    assert!(apic.hand_over().is_some());
    assert!(apic.write_msr(0x80f, 0xff, &clock).is_some());
    assert!(apic.is_served_by_hardware() && !apic.may_be_served_by_hardware());
    apic.take_back(had);
    assert_eq!((apic.task_priority(), apic.pending()), (0x40, None));
    assert!(apic.write_msr(0x80f, 0x1ff, &clock).is_some());
    assert_eq!(apic.hand_over(), Some(had));
}

#[test]
fn the_mirror_is_what_an_msr_says() {
    let clock = at(0);
    let mut apic = x2apic(0x23);
    for (msr, value) in
        [(0x830, 0x1234_5678 << 32 | 0x40_0045), (0x832, 1 << 16 | 0x61), (0x837, 0x62), (0x83e, 0b1011)]
    {
        let _ = apic.write_msr(msr, value, &clock);
    }
    let _ = apic.write_msr(0x83f, 3, &clock);
    let _ = apic.write_msr(0x828, 0, &clock);
    assert!(apic.hand_over().is_some());
    let mut page = [0u32; 1024];
    for (at, word) in apic.mirror() {
        page[at as usize / 4] = word;
    }
    // Every register that the hardware is to answer out of the page, but those that it writes itself.
    for msr in (0x800..=0x8ff).filter(|msr| !matches!(msr, 0x808 | 0x80a | 0x810..=0x817 | 0x820..=0x827 | 0x839)) {
        let at = (msr as usize - 0x800) * 4;
        let shown = u64::from(page[at]) | u64::from(page[at + 1]) << 32;
        match apic.read_msr(msr, &clock) {
            Some(value) => assert_eq!(shown, value, "{msr:#x}"),
            None => assert_eq!(shown, 0, "{msr:#x}"),
        }
    }
}

#[test]
fn what_hardware_would_do() {
    let mut interrupts =
        Interrupts { task_priority: 0x20, requested: vectors([0x31, 0x45]), in_service: vectors([0x52, 0x91]) };
    assert_eq!(interrupts.status(), 0x9145);
    interrupts.put_back(0x91);
    assert_eq!((interrupts.status(), interrupts.requested.has(0x91)), (0x5291, true));
    interrupts.put_back(0x77);
    assert_eq!(interrupts.status(), 0x5291, "it was not served");
    let mut illegal = interrupts;
    illegal.requested.set(15);
    illegal.in_service.set(0);
    assert_eq!(illegal.legal(), interrupts);
    assert_eq!(Interrupts::default().status(), 0);

    let due = would_deliver;
    assert!(due(0, 0x0031, None) && !due(0x30, 0x0031, None) && due(0x2f, 0x0031, None));
    assert!(!due(0, 0x3031, None) && due(0, 0x2f31, None));
    assert!(due(0x50, 0x3031, Some(0x60)) && !due(0x60, 0x3031, Some(0x60)));
    assert!(!due(0, 0, None) && !due(0, 0, Some(15)));
}

/// Two threads that come as close as they can for half a second: the order of plain accesses is the processor's own.
#[test]
#[cfg_attr(miri, ignore = "an interpreter has no store buffers")]
fn what_comes_while_its_vcpu_goes_to_sleep_wakes_it() {
    use crate::sched::Readiness;
    use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
    let (inbox, ready) = (Inbox::new(0), Readiness::new());
    let _ = ready.bring_up();
    assert!(ready.switch_in());
    let (arrived, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let meet = |both: u32| {
        arrived.fetch_add(1, SeqCst);
        for tries in 0.. {
            if arrived.load(SeqCst) >= both {
                break;
            }
            if tries < 1000 { core::hint::spin_loop() } else { std::thread::yield_now() }
        }
    };
    let mut lost = 0;
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for round in (0..).step_by(4) {
                meet(round + 2);
                if over.load(SeqCst) {
                    break;
                }
                inbox.post_vector(0x40);
                let _ = ready.unblock();
                meet(round + 4);
            }
        });
        let begin = std::time::Instant::now();
        for round in (0..).step_by(4) {
            over.store(begin.elapsed().as_millis() > 500, SeqCst);
            meet(round + 2);
            if over.load(SeqCst) {
                break;
            }
            ready.block();
            let sees = !inbox.is_empty();
            meet(round + 4);
            lost += u32::from(!sees && ready.is_blocked());
            let _ = ready.unblock();
            let _ = inbox.drain(|_| {});
        }
    });
    assert_eq!(lost, 0, "rounds in which it sleeps and nobody wakes it");
}
