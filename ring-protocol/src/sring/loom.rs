//! The two ends of a ring on two CPUs, in all interleavings of three preemptions: nobody sleeps while there is something to do, and what is read
//! is what was written.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p ring-protocol --release --lib loom`
//!
//! What the model takes as given, since it has no total order of plain accesses: indices are read by read-modify-write.

use super::{Back, Front, Shape, Wake};
use crate::page::Page;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering::SeqCst};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::vec::Vec;
use xen_abi::io::ring::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, SLOTS};

/// The four indices, and two slots of four bytes.
struct Memory(Vec<AtomicU32>);

const INDICES: [usize; 4] = [REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT];
const SHAPE: Shape = Shape { slots: 2, slot: 4 };

impl Memory {
    fn new() -> Arc<Self> {
        let this = Self((0..6).map(|_| AtomicU32::new(0)).collect());
        this.at(REQ_EVENT).store(1, SeqCst);
        this.at(RSP_EVENT).store(1, SeqCst);
        Arc::new(this)
    }

    fn at(&self, offset: usize) -> &AtomicU32 {
        let index = INDICES.iter().position(|index| *index == offset).unwrap_or_else(|| 4 + (offset - SLOTS) / 4);
        &self.0[index]
    }
}

impl Page for Memory {
    fn load_u32(&self, offset: usize) -> u32 {
        self.at(offset).fetch_or(0, SeqCst)
    }
    fn store_u32(&self, offset: usize, value: u32) {
        self.at(offset).swap(value, SeqCst);
    }
    fn read(&self, offset: usize, to: &mut [u8]) {
        to.copy_from_slice(&self.at(offset).load(SeqCst).to_le_bytes());
    }
    fn write(&self, offset: usize, from: &[u8]) {
        self.at(offset).store(u32::from_le_bytes(from.try_into().unwrap()), SeqCst);
    }
    fn fence(&self) {}
}

/// An event channel: pending until taken. Who waits for one that never comes is a deadlock, which loom reports.
struct Event {
    pending: Mutex<bool>,
    sent: Condvar,
}

impl Event {
    fn new() -> Arc<Self> {
        Arc::new(Self { pending: Mutex::new(false), sent: Condvar::new() })
    }
    fn wait(&self) {
        let mut pending = self.pending.lock().unwrap();
        while !*pending {
            pending = self.sent.wait(pending).unwrap();
        }
        *pending = false;
    }
    fn send(&self, wake: Wake) {
        if wake == Wake::Yes {
            *self.pending.lock().unwrap() = true;
            self.sent.notify_one();
        }
    }
}

/// The front end asks twice and waits for both answers; the back end serves until it has answered both. Whoever slept while
/// there was something to do would sleep for good, and loom would say so.
#[test]
fn nobody_oversleeps() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (page, to_back, to_front) = (Memory::new(), Event::new(), Event::new());
        let server = {
            let (page, to_back, to_front) = (page.clone(), to_back.clone(), to_front.clone());
            thread::spawn(move || {
                let mut back = Back::attach(SHAPE, &*page).unwrap();
                let mut answered = 0;
                while answered < 2 {
                    let mut slot = [0; 4];
                    match back.take(&*page, &mut slot).unwrap() {
                        Some(ticket) => {
                            slot[0] += 100;
                            back.answer(&*page, ticket, &slot);
                            to_front.send(back.announce(&*page));
                            answered += 1;
                        }
                        None if back.sleep(&*page).unwrap() => {}
                        None => to_back.wait(),
                    }
                }
            })
        };
        let mut front = Front { shape: SHAPE, asked: 0, announced: 0, taken: 0 };
        for request in [1u8, 2] {
            assert!(front.ask(&*page, &[request, 0, 0, 0]));
            to_back.send(front.announce(&*page));
        }
        let mut answers = Vec::new();
        while answers.len() < 2 {
            let mut slot = [0; 4];
            if front.take(&*page, &mut slot).unwrap() {
                answers.push(slot[0]);
            } else if !front.sleep(&*page).unwrap() {
                to_front.wait();
            }
        }
        assert_eq!(answers, [101, 102]);
        server.join().unwrap();
    });
}
