//! What an NVMe controller tells of its own accord (NVM Express 1.4, 5.2): a command waits for that, and its end is the event.
//! The interrupt is the first one, which the controller's own queues share with the first queue of a disk.

use super::queue::Command;
use super::{Controller, SET_FEATURES};
use crate::drivers::BRIEFLY;
use core::cell::Cell;
use dom0_hal::dma::Page;
use guest_pv::println;
use xen_abi::ids::Port;

/// The number of the command that waits; all others of the controller's own are 0.
pub const NUMBER: u16 = 1;

/// Admin commands.
const GET_LOG_PAGE: u8 = 0x02;
const WAIT: u8 = 0x0c;
/// A feature: of what events are told. All of the disk's health, and that a namespace has changed.
const EVENTS: u32 = 0x0b;
const HEALTH: u32 = 0x1f;
const NAMESPACES: u32 = 1 << 8;
/// Words of a page of the log that are read, less one. That it was read lets the next event come.
const WORDS: u32 = 127;

/// Kinds of events: an error, the disk's health, a notice; and the notice of namespaces that have changed.
const KIND_HEALTH: u32 = 1;
const KIND_NOTICE: u32 = 2;
const NAMESPACES_CHANGED: u32 = 0;

/// What was told.
#[derive(Debug, Default)]
pub struct Events {
    /// And not looked at yet.
    news: Cell<Option<u32>>,
    /// How often namespaces were said to have changed.
    changes: Cell<u32>,
}

impl Events {
    /// The command that waits has ended.
    pub fn came(&self, status: u16, said: u32) {
        // One that was refused is not asked for again.
        if status == 0 {
            self.news.set(Some(said));
        }
    }

    /// How often namespaces were said to have changed.
    pub fn changes(&self) -> u32 {
        self.changes.get()
    }
}

impl Controller {
    /// Asks to be told of events. Not every controller tells of any.
    pub(super) fn listen(&self) {
        let words = [EVENTS, NAMESPACES | HEALTH, 0];
        if self.run(&Command { code: SET_FEATURES, words, ..Command::default() }, BRIEFLY).is_ok() {
            self.wait_for_event();
        }
    }

    /// The event of its first interrupt.
    pub(super) fn port(&self) -> Option<Port> {
        self.interrupts.borrow().first().map(|interrupt| interrupt.port())
    }

    fn wait_for_event(&self) {
        let mut admin = self.admin.borrow_mut();
        admin.push(NUMBER, &Command { code: WAIT, ..Command::default() });
        self.ring(&admin, 0, admin.tail);
    }

    /// Looks whether there is an event, and asks for the next one.
    pub(super) fn take_events(&self) {
        if self.dead.get() {
            return;
        }
        {
            let mut admin = self.admin.borrow_mut();
            let mut any = false;
            while let Some((number, status)) = admin.pop() {
                any = true;
                if number == NUMBER {
                    self.events.came(status, admin.said());
                }
            }
            if any {
                self.ring(&admin, 1, admin.head);
            }
        }
        let Some(said) = self.events.news.take() else {
            return;
        };
        let (kind, what, log) = (said & 7, said >> 8 & 0xff, said >> 16 & 0xff);
        let about = match kind {
            KIND_HEALTH => "its health",
            KIND_NOTICE => "a change",
            _ => "an error",
        };
        println!("pci {}: NVMe controller: tells of {about} ({kind:#x}, {what:#x})", self.device.address());
        if (kind, what) == (KIND_NOTICE, NAMESPACES_CHANGED) {
            self.events.changes.set(self.events.changes.get() + 1);
        }
        let Some(page) = Page::new() else {
            return;
        };
        let (prp, words) = ([page.machine_address(), 0], [log | WORDS << 16, 0, 0]);
        // Of the whole controller.
        let read = Command { code: GET_LOG_PAGE, namespace: u32::MAX, prp, words };
        match self.run(&read, BRIEFLY) {
            Ok(()) => self.wait_for_event(),
            // It may have the page still.
            Err(why) => self.reset(&why),
        }
    }
}
