//! Debug keys: single letters by which whoever administers the machine asks the hypervisor about itself, from dom0's
//! toolstack (`debug-keys`) or on the serial port once input was switched to the hypervisor. The letters are Xen's.

use logic::lock::Held;
use machine::arch::x86_64::{panic, power, tsc};

use xen_abi::ids::DomId;

use crate::{console, domain, time};

/// A key, what it is for, and what it does.
struct Key {
    key: u8,
    about: &'static str,
    act: fn(&mut Held<'_, 0>),
}

const KEYS: &[Key] = &[
    Key { key: b'C', about: "crash the hypervisor, for its report", act: crash },
    Key { key: b'R', about: "reboot machine", act: reboot },
    Key { key: b'd', about: "dump registers", act: dump },
    Key { key: b'h', about: "show this message", act: help },
    Key { key: b'q', about: "dump domain (and guest debug) info", act: domains },
    Key { key: b't', about: "display multi-cpu clock info", act: clock },
];

/// A key was pressed.
pub fn handle(key: u8, held: &mut Held<'_, 0>) {
    let Some(known) = KEYS.iter().find(|known| known.key == key) else {
        return;
    };
    log::warn!("'{}' pressed -> {}", char::from(key), known.about);
    (known.act)(held);
}

fn help(_held: &mut Held<'_, 0>) {
    for Key { key, about, .. } in KEYS {
        log::warn!(" key '{}' (ascii '{key:02x}') => {about}", char::from(*key));
    }
}

fn dump(_held: &mut Held<'_, 0>) {
    panic::show_trace();
}

fn domains(held: &mut Held<'_, 0>) {
    log::warn!("'q' at {} ns", time::now().0);
    let mut from = DomId(0);
    while let Some(domain) = domain::next_from(from, held) {
        log::warn!("domain {}: {} vCPUs", domain.id.0, domain.vcpus().len());
        for vcpu in domain.vcpus() {
            let seat = &vcpu.seat;
            log::warn!(
                "    VCPU{}: CPU{} cpu_hard_affinity={:#x} cpu_soft_affinity={:#x}",
                vcpu.id.0,
                seat.processor(),
                seat.hard_affinity().0,
                seat.soft_affinity().0
            );
        }
        from = DomId(domain.id.0.saturating_add(1));
    }
}

fn clock(_held: &mut Held<'_, 0>) {
    log::warn!("TSC {}, {} kHz", if tsc::is_reliable() { "reliable" } else { "not reliable" }, time::tsc_khz());
    log::warn!("system time {} ns", time::now().0);
}

fn reboot(_held: &mut Held<'_, 0>) {
    console::flush();
    power::reboot();
}

/// Xen starts its crash kernel here. There is none, so what remains of a crash is its report; it stops the machine, as
/// whoever asks for it wants.
#[allow(clippy::panic, reason = "the control domain or the operator asks for it")]
fn crash(_held: &mut Held<'_, 0>) {
    panic!("crashed on request (debug key 'C')");
}
