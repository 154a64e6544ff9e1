//! Port I/O of PV guests, and of a control domain in a container. The control domain drives the machine's devices; for all
//! others no port answers.

use logic::emulate::decode::{CodeSize, Port, Segment, StringIo, Width};
use logic::emulate::io::{self, Target};
use logic::emulate::pit::Pit;
use logic::emulate::privilege;
use logic::lock::rank;
use logic::regs::{GuestRegs, rflags};
use machine::arch::x86_64::guest_port::{self, PortWidth};
use machine::arch::x86_64::{descriptors, segments};

use super::mode;
use super::privileged::{self, Done};
use crate::cpu::Context;
use crate::domain::Domain;
use crate::sync::Lock;
use crate::time;

/// The control domain's timer channel.
static PIT: Lock<Pit, { rank::LEAF }> = Lock::new(Pit::new());

/// Elements of a string instruction that one entry carries out.
const SLICE: u64 = 256;

/// Whether the guest's own bitmap lets its user mode use the ports. Not in line, as the string instructions: the registers that
/// they take would be missing where instructions are emulated that are more frequent.
#[cold]
#[inline(never)]
pub fn bitmap_allows(cx: &mut Context<'_>, port: u16, bytes: u16) -> bool {
    let bitmap = cx.state.pv.io_bitmap;
    if u32::from(port) + u32::from(bytes) > bitmap.ports {
        return false;
    }
    // The bitmap lies in the kernel's address space.
    let from_user = !cx.state.pv.in_kernel;
    if from_user {
        mode::toggle(cx);
    }
    let word = privileged::bitmap_word(bitmap.va.wrapping_add(u64::from(port / 8)));
    if from_user {
        mode::toggle(cx);
    }
    privilege::bitmap_allows(word, port, bytes)
}

/// Where an access goes: to the ports that the domain was given, and what only the control domain finds, which has a
/// configuration address, an RTC and a timer of its own.
fn target(domain: &Domain, port: u16, width: Width) -> Target {
    let first = u32::from(port);
    let owned = domain.devices.has_ports(first..first + u32::from(width.bytes()));
    match io::route(port, width, owned) {
        Target::Hardware => Target::Hardware,
        // From a container it drives no devices that reach memory (`domain::build_dom0::pvh`).
        Target::PciAddress | Target::PciData(_) if domain.pvh().is_some() => Target::Nowhere,
        other if domain.is_control() => other,
        _ => Target::Nowhere,
    }
}

const fn port_width(width: Width) -> PortWidth {
    match width {
        Width::Byte => PortWidth::Byte,
        Width::Word => PortWidth::Word,
        Width::Dword => PortWidth::Dword,
    }
}

/// Reads a port.
pub fn read(cx: &Context<'_>, port: u16, width: Width) -> u32 {
    let all_ones = io::all_ones(width);
    let Some(right) = guest_port::Right::of(cx.domain.devices.has_any_port()) else {
        return all_ones;
    };
    match target(cx.domain, port, width) {
        Target::Hardware => guest_port::read(right, port, port_width(width)),
        Target::PciAddress => guest_port::pci_address(right),
        Target::PciData(offset) => guest_port::pci_read(right, offset, port_width(width)),
        Target::RtcIndex => all_ones,
        Target::RtcData => guest_port::rtc_read(right).into(),
        Target::Timer => PIT.lock_leaf(|pit| pit.read(port, time::now().0)).into(),
        Target::Nowhere => all_ones,
    }
}

/// Writes a port.
pub fn write(cx: &Context<'_>, port: u16, width: Width, value: u32) {
    let Some(right) = guest_port::Right::of(cx.domain.devices.has_any_port()) else {
        return;
    };
    match target(cx.domain, port, width) {
        Target::Hardware => guest_port::write(right, port, port_width(width), value),
        Target::PciAddress => guest_port::set_pci_address(right, value),
        Target::PciData(offset) => guest_port::pci_write(right, offset, port_width(width), value),
        #[allow(clippy::cast_possible_truncation, reason = "a byte register")]
        Target::RtcIndex => guest_port::set_rtc_index(right, value as u8),
        #[allow(clippy::cast_possible_truncation, reason = "a byte register")]
        Target::RtcData => guest_port::rtc_write(right, value as u8),
        #[allow(clippy::cast_possible_truncation, reason = "a byte register")]
        Target::Timer => PIT.lock_leaf(|pit| pit.write(port, value as u8, time::now().0)),
        Target::Nowhere => {}
    }
}

fn number(port: Port, regs: &GuestRegs) -> u16 {
    match port {
        Port::Immediate(number) => number.into(),
        #[allow(clippy::cast_possible_truncation, reason = "DX")]
        Port::Dx => regs.rdx as u16,
    }
}

/// `in`
#[inline(always)]
pub(super) fn input(cx: &mut Context<'_>, port: Port, width: Width) -> Done {
    let value = read(cx, number(port, cx.regs), width);
    io::set_accumulator(cx.regs, width, value);
    Done::Step
}

/// `out`
#[inline(always)]
pub(super) fn output(cx: &mut Context<'_>, port: Port, width: Width) -> Done {
    write(cx, number(port, cx.regs), width, io::accumulator(cx.regs, width));
    Done::Step
}

/// `ins`
#[cold]
#[inline(never)]
pub(super) fn string_input(cx: &mut Context<'_>, string: StringIo) -> Done {
    each(cx, string, Index::Rdi, |cx, port, address| {
        let mut bytes = read(cx, port, string.width).to_le_bytes();
        privileged::copy_element(address, part(&mut bytes, string.width), true)
    })
}

/// `outs`
#[cold]
#[inline(never)]
pub(super) fn string_output(cx: &mut Context<'_>, string: StringIo) -> Done {
    each(cx, string, Index::Rsi, |cx, port, address| {
        let mut bytes = [0; 4];
        privileged::copy_element(address, part(&mut bytes, string.width), false)?;
        write(cx, port, string.width, u32::from_le_bytes(bytes));
        Ok(())
    })
}

fn part(bytes: &mut [u8; 4], width: Width) -> &mut [u8] {
    match width {
        Width::Byte => &mut bytes[..1],
        Width::Word => &mut bytes[..2],
        Width::Dword => &mut bytes[..],
    }
}

/// What a memory operand is relative to.
#[derive(Clone, Copy)]
struct Operand {
    base: u64,
    /// Last offset, and the width of addresses, of 32-bit code.
    limit: Option<u64>,
}

impl Operand {
    /// The address of `size` bytes at an offset, if the segment holds them.
    fn address(self, offset: u64, size: u64) -> Option<u64> {
        match self.limit {
            None => Some(self.base.wrapping_add(offset)),
            Some(limit) => (offset + (size - 1) <= limit).then_some(self.base.wrapping_add(offset) & 0xffff_ffff),
        }
    }
}

/// The segment of a string instruction; `None` if it cannot be used like this.
fn segment(cx: &Context<'_>, string: StringIo, index: Index) -> Option<Operand> {
    if string.size == CodeSize::Long {
        let base = match string.segment {
            Segment::Fs => segments::fs_base(),
            Segment::Gs => segments::gs_base(),
            _ => 0,
        };
        return Some(Operand { base, limit: None });
    }
    let live = segments::read();
    #[allow(clippy::cast_possible_truncation, reason = "selectors")]
    let selector = match string.segment {
        Segment::Es => live.es,
        Segment::Ds => live.ds,
        Segment::Fs => live.fs,
        Segment::Gs => live.gs,
        Segment::Cs => cx.regs.cs as u16,
        Segment::Ss => cx.regs.ss as u16,
    };
    let found = descriptors::data(selector)?;
    let usable = match index {
        Index::Rdi => found.writable,
        Index::Rsi => found.readable,
    };
    usable.then_some(Operand { base: found.base.into(), limit: Some(found.limit.into()) })
}

/// The register that a string instruction goes along.
#[derive(Clone, Copy)]
enum Index {
    /// `ins`
    Rdi,
    /// `outs`
    Rsi,
}

impl Index {
    const fn of(self, regs: &mut GuestRegs) -> &mut u64 {
        match self {
            Self::Rdi => &mut regs.rdi,
            Self::Rsi => &mut regs.rsi,
        }
    }
}

/// Runs a string instruction for one slice; what is left stays in the registers and the instruction is met again.
fn each(
    cx: &mut Context<'_>,
    string: StringIo,
    index: Index,
    mut element: impl FnMut(&Context<'_>, u16, u64) -> Result<(), Done>,
) -> Done {
    let mask = if string.address32 { 0xffff_ffff } else { u64::MAX };
    let port = number(Port::Dx, cx.regs);
    let Some(segment) = segment(cx, string, index) else { return Done::Fault };
    let size = u64::from(string.width.bytes());
    let forward = cx.regs.rflags & rflags::DF == 0;
    for _ in 0..SLICE {
        if string.repeated && cx.regs.rcx & mask == 0 {
            return Done::Step;
        }
        let at = *index.of(cx.regs) & mask;
        let Some(address) = segment.address(at, size) else { return Done::Fault };
        if let Err(done) = element(cx, port, address) {
            return done;
        }
        *index.of(cx.regs) = if forward { at.wrapping_add(size) } else { at.wrapping_sub(size) } & mask;
        if !string.repeated {
            return Done::Step;
        }
        cx.regs.rcx = (cx.regs.rcx & mask).wrapping_sub(1) & mask;
    }
    if cx.regs.rcx & mask == 0 { Done::Step } else { Done::Stay }
}
