//! The MSI-X tables that the hypervisor programs: domains map them read-only while they are in use ([`logic::irq::Tables`]).

use core::sync::atomic::{AtomicBool, Ordering};

use logic::{
    irq::Tables,
    lock::{Held, rank},
};
use machine::arch::x86_64::{msi::Message, pci::Function};
use xen_abi::{errno::Errno, ids::Mfn};

use super::{Device, STATE};
use crate::sync::Lock;

/// The tables in use.
static TABLES: Lock<Tables, { rank::LEAF }> = Lock::new(Tables::new());
/// Whether there are any: nearly every machine of a test's has none.
static ANY: AtomicBool = AtomicBool::new(false);

fn change<R>(with: impl FnOnce(&mut Tables) -> R) -> R {
    TABLES.lock_leaf(|tables| {
        let result = with(tables);
        ANY.store(!tables.is_empty(), Ordering::Release);
        result
    })
}

fn number(function: Function) -> u32 {
    u32::from(function.bus) << 8 | u32::from(function.devfn)
}

/// A message is about to be programmed. `ENOMEM`; `ENODEV`: its table cannot be where its device says.
pub(super) fn begin(message: &Message) -> Result<(), Errno> {
    if !message.is_in_table() {
        return Ok(());
    }
    let frames = Message::table_frames(message.function()).ok_or(Errno::ENODEV)?;
    change(|tables| tables.begin(number(message.function()), frames))
}

/// A message is programmed no more.
pub(super) fn end(message: &Message) {
    if message.is_in_table() {
        change(|tables| tables.end(number(message.function())));
    }
}

/// Whether a frame of device memory has something of a table in use, or of its pending bits.
pub fn has_message_table(mfn: Mfn) -> bool {
    ANY.load(Ordering::Acquire) && TABLES.lock_leaf(|tables| tables.has(mfn.0))
}

/// `PHYSDEVOP_prepare_msix`: the table of a device that somebody else will drive counts as in use. `ENODEV` without a
/// device or a table; `EBUSY` if it is in use; `ENOMEM`.
pub fn prepare(device: Device, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let (state, _held) = STATE.lock(held);
    let frames = Some(device.function).filter(|_| state.devices.contains(&device)).and_then(Message::table_frames);
    let frames = frames.ok_or(Errno::ENODEV)?;
    change(|tables| match tables.uses(number(device.function)) {
        0 => tables.begin(number(device.function), frames),
        _ => Err(Errno::EBUSY),
    })
}

/// `PHYSDEVOP_release_msix`: the end of [`prepare`]. `EBUSY` if that is not the table's only use.
pub fn release(device: Device, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let (state, _held) = STATE.lock(held);
    if !state.devices.contains(&device) || Message::table_frames(device.function).is_none() {
        return Err(Errno::ENODEV);
    }
    change(|tables| match tables.uses(number(device.function)) {
        1 => {
            tables.end(number(device.function));
            Ok(())
        }
        _ => Err(Errno::EBUSY),
    })
}
