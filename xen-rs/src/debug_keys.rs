//! Debug keys: single letters by which whoever administers the machine asks the hypervisor about itself, from dom0's
//! toolstack (`debug-keys`) or on the serial port once input was switched to the hypervisor. The letters are Xen's, but for
//! `f`, which Xen does not have.

mod registers;

pub use registers::{answer, answer_idle};

use logic::{hvm::p2m::Order, lock::Held};
use machine::arch::x86_64::{panic, power, tsc};
use machine::mem::heap;

use xen_abi::{errno::Errno, ids::DomId};

use crate::{
    console, domain,
    memory::{self, Asker},
    time,
    vcpu::Vcpu,
};

/// A key, what it is for, and what it does.
struct Key {
    key: u8,
    about: &'static str,
    act: fn(Option<Asker<'_>>, &mut Held<'_, 0>),
}

const KEYS: &[Key] = &[
    Key { key: b'C', about: "crash the hypervisor, for its report", act: crash },
    Key { key: b'H', about: "dump heap info", act: free },
    Key { key: b'R', about: "reboot machine", act: reboot },
    Key { key: b'd', about: "dump registers", act: dump },
    Key { key: b'f', about: "recount the references to all domains' frames", act: recount },
    Key { key: b'h', about: "show this message", act: help },
    Key { key: b'q', about: "dump domain (and guest debug) info", act: domains },
    Key { key: b't', about: "display multi-cpu clock info", act: clock },
];

/// A key was pressed, by a vCPU or on the console.
pub fn handle(key: u8, asker: Option<Asker<'_>>, held: &mut Held<'_, 0>) {
    let Some(known) = KEYS.iter().find(|known| known.key == key) else {
        return;
    };
    log::warn!("'{}' pressed -> {}", char::from(key), known.about);
    (known.act)(asker, held);
}

fn help(_: Option<Asker<'_>>, _held: &mut Held<'_, 0>) {
    for Key { key, about, .. } in KEYS {
        log::warn!(" key '{}' (ascii '{key:02x}') => {about}", char::from(*key));
    }
}

fn dump(_: Option<Asker<'_>>, held: &mut Held<'_, 0>) {
    panic::show_trace();
    registers::ask(held);
}

fn domains(_: Option<Asker<'_>>, held: &mut Held<'_, 0>) {
    log::warn!("'q' at {} ns", time::now().0);
    let mut from = DomId(0);
    while let Some(domain) = domain::next_from(from, held) {
        log::warn!("domain {}: {} vCPUs", domain.id.0, domain.vcpus().len());
        if let Some(pvh) = domain.pvh() {
            let mut entries = [0u64; Order::ALL.len()];
            pvh.physmap.each(held, |found| {
                for (order, count) in Order::ALL.iter().zip(&mut entries) {
                    *count += u64::from(found.order == *order);
                }
            });
            let [huge, large, small] = entries;
            log::warn!("    nested page tables: {huge} entries of 1 GiB, {large} of 2 MiB, {small} of 4 KiB");
        }
        for vcpu in domain.vcpus() {
            show(vcpu, held);
        }
        from = DomId(domain.id.0.saturating_add(1));
    }
}

/// What keeps a vCPU from running, and what may end that. One that runs has its registers and timers to itself.
fn show(vcpu: &Vcpu, held: &mut Held<'_, 0>) {
    let (seat, info) = (&vcpu.seat, vcpu.info.get());
    log::warn!(
        "    VCPU{}: CPU{} [has={}] upcall_pend={:02x} upcall_mask={:02x}",
        vcpu.id.0,
        seat.processor(),
        if seat.ready.is_running() { 'T' } else { 'F' },
        u8::from(info.upcall_pending()),
        u8::from(info.upcall_mask())
    );
    log::warn!(
        "        cpu_hard_affinity={:#x} cpu_soft_affinity={:#x}",
        seat.hard_affinity().0,
        seat.soft_affinity().0
    );
    log::warn!(
        "        pause_count={} blocked={} down={} capped={}",
        seat.ready.pauses(),
        u8::from(seat.ready.is_blocked()),
        u8::from(!seat.ready.is_up()),
        u8::from(seat.ready.is_held_by_cap())
    );
    let parked = vcpu.parked.lock(held).0.as_ref().map(|state| (state.regs.rip, state.timers.next_parked()));
    if let Some((rip, timer)) = parked {
        let timer = timer.map_or(-1, |at| i64::try_from(at.0).unwrap_or(i64::MAX));
        log::warn!("        rip={rip:016x}, its next timer at {timer} ns");
    }
}

/// Of each domain that stands still, but for the vCPU that asks.
fn recount(asker: Option<Asker<'_>>, held: &mut Held<'_, 0>) {
    let mut from = DomId(0);
    while let Some(domain) = domain::next_from(from, held) {
        let id = domain.id.0;
        match memory::audit(&domain, asker, held) {
            Ok(report) if report.wrong == 0 => {
                log::warn!("d{id}: the counts of {} pages are right ({} tables)", report.pages, report.tables);
            }
            Ok(report) => log::error!("d{id}: the counts of {} of {} pages are WRONG", report.wrong, report.pages),
            Err(Errno::EBUSY) => log::warn!("d{id}: runs, so its pages cannot be counted"),
            Err(errno) => log::warn!("d{id}: its pages cannot be counted: {errno:?}"),
        }
        from = DomId(domain.id.0.saturating_add(1));
    }
}

/// Xen's heap is all free memory; here the hypervisor has one of its own besides.
fn free(_: Option<Asker<'_>>, held: &mut Held<'_, 0>) {
    let census = memory::census(held);
    log::warn!("free memory: {} pages, {} of them to be scrubbed", census.free, census.dirty);
    log::warn!("heap: {} KiB in use of {} KiB", heap::used() >> 10, heap::size() >> 10);
}

fn clock(_: Option<Asker<'_>>, _held: &mut Held<'_, 0>) {
    log::warn!("TSC {}, {} kHz", if tsc::is_reliable() { "reliable" } else { "not reliable" }, time::tsc_khz());
    log::warn!("system time {} ns", time::now().0);
}

fn reboot(_: Option<Asker<'_>>, _held: &mut Held<'_, 0>) {
    console::flush();
    power::reboot();
}

/// Xen starts its crash kernel here. There is none, so what remains of a crash is its report; it stops the machine, as
/// whoever asks for it wants.
#[allow(clippy::panic, reason = "the control domain or the operator asks for it")]
fn crash(_: Option<Asker<'_>>, _held: &mut Held<'_, 0>) {
    panic!("crashed on request (debug key 'C')");
}
