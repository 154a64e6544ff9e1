//! Entries of grant tables of version 1, and the transfers that they wait for.

use crate::{address_of, call};
use core::sync::atomic::Ordering::SeqCst;
use guest_pv::mem::SharedBytes;
use xen_abi::Errno;
use xen_abi::grant_table::{GNTTABOP_TRANSFER, GnttabTransfer};
use xen_abi::hypercall::HYPERVISOR_GRANT_TABLE_OP;
use xen_abi::ids::{DomId, GrantRef};

/// Bytes of an entry: flags, domain, frame.
const BYTES: usize = 8;

/// Writes an entry, its flags last.
pub fn set(table: &SharedBytes, reference: u32, flags: u16, dom: DomId, frame: u32) {
    let at = reference as usize * BYTES;
    table.u16_at(at).store(0, SeqCst);
    table.u16_at(at + 2).store(dom.0, SeqCst);
    table.u32_at(at + 4).store(frame, SeqCst);
    table.u16_at(at).store(flags, SeqCst);
}

/// An entry's flags.
#[must_use]
pub fn flags_of(table: &SharedBytes, reference: u32) -> u16 {
    table.u16_at(reference as usize * BYTES).load(SeqCst)
}

/// An entry's frame.
#[must_use]
pub fn frame_of(table: &SharedBytes, reference: u32) -> u64 {
    table.u32_at(reference as usize * BYTES + 4).load(SeqCst).into()
}

/// Offers a page to an entry of another domain: the call's result, and the transfer's own.
pub fn transfer(mfn: u64, domid: DomId, reference: u32) -> (Result<u64, Errno>, i16) {
    let mut op = GnttabTransfer { mfn, domid, ref_: GrantRef(reference), ..Default::default() };
    let result = call(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_TRANSFER.into(), address_of(&mut op), 1]);
    (result, op.status)
}
