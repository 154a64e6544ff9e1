//! Physical interrupts and devices as the control domain has them: what `physdev_op` and `bind_pirq` accept and refuse, an
//! edge and a level that really interrupt, and what a level does whose guest does not say that it is done.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Ports of devices.

use core::arch::asm;
use guest_pv::call::{domctl, event_channel as ec};
use guest_pv::tap::Tap;
use guest_pv::{events, time};
use guests::child::Child;
use guests::{op, page};
use xen_abi::Errno;
use xen_abi::domctl::{
    IomemPermission, IoportPermission, IrqPermission, XEN_DOMCTL_IOMEM_PERMISSION, XEN_DOMCTL_IOPORT_PERMISSION,
    XEN_DOMCTL_IRQ_PERMISSION,
};
use xen_abi::event_channel::{BIND_PIRQ__WILL_SHARE, EVTCHNOP_BIND_PIRQ, EVTCHNSTAT_PIRQ, EvtchnBindPirq};
use xen_abi::hypercall::{HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_PHYSDEV_OP};
use xen_abi::ids::{DomId, Port, VcpuId};
use xen_abi::physdev::*;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

guest_pv::test!(run);

/// The real-time clock's line: an edge.
const RTC: u32 = 8;
/// The line of ACPI: a level.
const SCI: u32 = 9;
/// The PS/2 mouse's line: an edge.
const MOUSE: u32 = 12;
/// Not a number for an interrupt.
const BEYOND: u32 = 9999;
/// A line that nobody maps.
const UNMAPPED: u32 = 21;

fn run(tap: &mut Tap) {
    pointers(tap);
    lines(tap);
    io_apic(tap);
    pci(tap);
    let level = binding(tap);
    physdev(PHYSDEVOP_SET_IOPL, &mut SetIopl { iopl: 1 }).expect("a level");
    edge(tap);
    level_triggered(tap, level);
    eoi_page(tap);
    permissions(tap);
}

fn physdev<T: FromBytes + IntoBytes>(command: u32, argument: &mut T) -> Result<u64, Errno> {
    op(HYPERVISOR_PHYSDEV_OP, command, argument)
}

fn map_line(index: i32, pirq: i32, domid: DomId) -> Result<i32, Errno> {
    let mut map = MapPirq { domid, type_: MAP_PIRQ_TYPE_GSI.cast_signed(), index, pirq, ..MapPirq::new_zeroed() };
    physdev(PHYSDEVOP_MAP_PIRQ, &mut map).map(|_| map.pirq)
}

fn unmap(pirq: i32) -> Result<u64, Errno> {
    physdev(PHYSDEVOP_UNMAP_PIRQ, &mut UnmapPirq { domid: DomId::SELF, _pad: 0, pirq })
}

fn set_up(gsi: i32, triggering: u8, polarity: u8) -> Result<u64, Errno> {
    physdev(PHYSDEVOP_SETUP_GSI, &mut SetupGsi { gsi, triggering, polarity, _pad: 0 })
}

fn bind(pirq: u32, flags: u32) -> Result<Port, Errno> {
    let mut bind = EvtchnBindPirq { pirq, flags, port: Port(0) };
    op(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_PIRQ, &mut bind).map(|_| bind.port)
}

fn end(irq: u32) -> Result<u64, Errno> {
    physdev(PHYSDEVOP_EOI, &mut Eoi { irq })
}

fn pointers(tap: &mut Tap) {
    for (name, command) in [
        ("eoi", PHYSDEVOP_EOI),
        ("pirq_eoi_gmfn_v2", PHYSDEVOP_PIRQ_EOI_GMFN_V2),
        ("irq_status_query", PHYSDEVOP_IRQ_STATUS_QUERY),
        ("map_pirq", PHYSDEVOP_MAP_PIRQ),
        ("unmap_pirq", PHYSDEVOP_UNMAP_PIRQ),
        ("apic_read", PHYSDEVOP_APIC_READ),
        ("apic_write", PHYSDEVOP_APIC_WRITE),
        ("alloc_irq_vector", PHYSDEVOP_ALLOC_IRQ_VECTOR),
        ("setup_gsi", PHYSDEVOP_SETUP_GSI),
        ("get_free_pirq", PHYSDEVOP_GET_FREE_PIRQ),
        ("pci_device_add", PHYSDEVOP_PCI_DEVICE_ADD),
        ("pci_device_remove", PHYSDEVOP_PCI_DEVICE_REMOVE),
        ("pci_mmcfg_reserved", PHYSDEVOP_PCI_MMCFG_RESERVED),
        ("manage_pci_add", PHYSDEVOP_MANAGE_PCI_ADD),
        ("restore_msi_ext", PHYSDEVOP_RESTORE_MSI_EXT),
        ("prepare_msix", PHYSDEVOP_PREPARE_MSIX),
        ("dbgp_op", PHYSDEVOP_DBGP_OP),
    ] {
        let got = guests::call(HYPERVISOR_PHYSDEV_OP, [command.into(), 0x1000]);
        tap.is(got, Err(Errno::EFAULT), name);
    }
    let got = guests::call(HYPERVISOR_PHYSDEV_OP, [PHYSDEVOP_FREE_IRQ_VECTOR.into(), 0x1000]);
    tap.is(got, Err(Errno::ENOSYS), "free_irq_vector is obsolete");
    tap.is(guests::call(HYPERVISOR_PHYSDEV_OP, [99, 0x1000]), Err(Errno::ENOSYS), "there is no operation 99");
}

fn lines(tap: &mut Tap) {
    let own = DomId::SELF;
    tap.is(map_line(-1, -1, own), Err(Errno::EINVAL), "there is no line -1");
    tap.is(map_line(9999, -1, own), Err(Errno::EINVAL), "there is no line 9999");
    tap.is(map_line(11, 9999, own), Err(Errno::EINVAL), "there is no number 9999");
    tap.is(map_line(11, 11, DomId(1234)), Err(Errno::ESRCH), "there is no domain 1234");
    let mut map = MapPirq { domid: own, type_: 99, ..MapPirq::new_zeroed() };
    tap.is(physdev(PHYSDEVOP_MAP_PIRQ, &mut map), Err(Errno::EINVAL), "there is no kind 99");
    tap.is(map_line(9, 9, own), Ok(9), "line 9 by its own number");
    tap.is(map_line(9, 9, own), Ok(9), "once more");
    tap.is(map_line(9, 10, own), Err(Errno::EEXIST), "it has a number");
    tap.is(map_line(9, -1, own), Ok(9), "and keeps it");
    tap.is(map_line(10, -1, own), Ok(16), "any number: the first above the ISA interrupts");
    tap.is(unmap(16), Ok(0), "unmap");
    tap.is(unmap(16), Err(Errno::EINVAL), "it stands for nothing now");
    tap.is(unmap(-1), Err(Errno::EINVAL), "nor does -1");
    tap.is(unmap(9999), Err(Errno::EINVAL), "nor does 9999");
    let mut free = GetFreePirq { type_: MAP_PIRQ_TYPE_GSI.cast_signed(), pirq: 0 };
    let got = physdev(PHYSDEVOP_GET_FREE_PIRQ, &mut free).map(|_| free.pirq);
    tap.is(got, Ok(16), "a free number among the lines");
    let got = physdev(PHYSDEVOP_GET_FREE_PIRQ, &mut free).map(|_| free.pirq);
    tap.is(got, Ok(17), "and the next");
    free.type_ = MAP_PIRQ_TYPE_MSI.cast_signed();
    let got = physdev(PHYSDEVOP_GET_FREE_PIRQ, &mut free).map(|_| free.pirq);
    tap.ok(got.is_ok_and(|pirq| pirq >= 24), "a free number above them");
    tap.is(set_up(-1, 0, 0), Err(Errno::EINVAL), "line -1 cannot be set up");
    tap.is(set_up(9999, 0, 0), Err(Errno::EINVAL), "nor can 9999");
    tap.is(set_up(20, 1, 1), Ok(0), "a level, active low");
    tap.is(set_up(20, 1, 1), Err(Errno::EEXIST), "once");
    let mut vector = Irq { irq: 20, vector: 0 };
    let got = physdev(PHYSDEVOP_ALLOC_IRQ_VECTOR, &mut vector).map(|_| vector.vector);
    tap.is(got, Ok(20), "a vector is what one makes of it");
    let mut query = IrqStatusQuery { irq: 9, flags: !0 };
    let got = physdev(PHYSDEVOP_IRQ_STATUS_QUERY, &mut query).map(|_| query.flags);
    tap.is(got, Ok(XENIRQSTAT_NEEDS_EOI), "it needs an end, and is not shared");
    query.irq = BEYOND;
    tap.is(physdev(PHYSDEVOP_IRQ_STATUS_QUERY, &mut query), Err(Errno::EINVAL), "there is no 9999 to ask about");
    tap.is(end(BEYOND), Err(Errno::EINVAL), "nor to end");
    tap.is(end(UNMAPPED), Err(Errno::EINVAL), "nor one that stands for nothing");
}

fn io_apic(tap: &mut Tap) {
    let mut apic = Apic { apic_physbase: 0xfec0_0000, reg: 1, value: 0 };
    let got = physdev(PHYSDEVOP_APIC_READ, &mut apic).map(|_| apic.value >> 16 & 0xff);
    tap.is(got, Ok(23), "the I/O APIC has 24 lines");
    apic.apic_physbase = 0x1234_0000;
    tap.is(physdev(PHYSDEVOP_APIC_READ, &mut apic), Err(Errno::EINVAL), "there is none elsewhere");
    tap.is(physdev(PHYSDEVOP_APIC_WRITE, &mut apic), Err(Errno::EINVAL), "to be written neither");
    let mut apic = Apic { apic_physbase: 0xfec0_0000, reg: 0, value: !0 };
    tap.is(physdev(PHYSDEVOP_APIC_WRITE, &mut apic), Ok(0), "its own number can be written");
    let got = physdev(PHYSDEVOP_APIC_READ, &mut apic).map(|_| apic.value);
    tap.ok(got.is_ok_and(|id| id != !0), "without effect");
}

fn pci(tap: &mut Tap) {
    let mut add = PciDeviceAdd { bus: 0, devfn: 0xf0, ..PciDeviceAdd::new_zeroed() };
    let mut device = PciDevice { seg: 0, bus: 0, devfn: 0xf0 };
    tap.is(physdev(PHYSDEVOP_PCI_DEVICE_REMOVE, &mut device), Err(Errno::ENODEV), "a device that was not added");
    tap.is(physdev(PHYSDEVOP_PCI_DEVICE_ADD, &mut add), Ok(0), "add it");
    tap.is(physdev(PHYSDEVOP_PCI_DEVICE_ADD, &mut add), Ok(0), "once more");
    let mut map = MapPirq {
        domid: DomId::SELF,
        type_: MAP_PIRQ_TYPE_MSI_SEG.cast_signed(),
        index: -1,
        pirq: -1,
        devfn: 0xf0,
        ..MapPirq::new_zeroed()
    };
    let got = physdev(PHYSDEVOP_MAP_PIRQ, &mut map);
    tap.is(got, Err(Errno::ENODEV), "it has no messages");
    map.devfn = 0xe8;
    tap.is(physdev(PHYSDEVOP_MAP_PIRQ, &mut map), Err(Errno::ENODEV), "nor has one that was not added");
    map.type_ = MAP_PIRQ_TYPE_MULTI_MSI.cast_signed();
    for (count, want) in [(0, Errno::EDOM), (33, Errno::EDOM), (2, Errno::EOPNOTSUPP)] {
        map.entry_nr = count;
        tap.is(physdev(PHYSDEVOP_MAP_PIRQ, &mut map), Err(want), "several messages take interrupt remapping");
    }
    tap.is(physdev(PHYSDEVOP_RESTORE_MSI_EXT, &mut device), Ok(0), "nothing is to be restored");
    tap.is(physdev(PHYSDEVOP_PCI_DEVICE_REMOVE, &mut device), Ok(0), "remove it");
    tap.is(
        physdev(PHYSDEVOP_RESTORE_MSI_EXT, &mut device),
        Err(Errno::ENODEV),
        "now there is nothing to restore it to",
    );
    tap.is(physdev(PHYSDEVOP_PREPARE_MSIX, &mut device), Err(Errno::ENODEV), "nor a table to prepare");
    let mut region = PciMmcfgReserved { address: 0x1234_0000, end_bus: 255, ..PciMmcfgReserved::new_zeroed() };
    tap.is(physdev(PHYSDEVOP_PCI_MMCFG_RESERVED, &mut region), Err(Errno::ENODEV), "memory that leads to no bus");
}

/// Binds the SCI, which is mapped, and returns its port.
fn binding(tap: &mut Tap) -> Port {
    tap.is(bind(BEYOND, 0), Err(Errno::EINVAL), "number 9999 cannot be bound");
    tap.is(bind(UNMAPPED, 0), Err(Errno::EPERM), "nor one that stands for nothing");
    let port = bind(SCI, BIND_PIRQ__WILL_SHARE).expect("it is mapped");
    let status = ec::status(DomId::SELF, port).unwrap_or_default();
    tap.is((status.status, status.u, status.vcpu), (EVTCHNSTAT_PIRQ, SCI, VcpuId(0)), "the port is bound to it");
    tap.is(bind(SCI, BIND_PIRQ__WILL_SHARE), Err(Errno::EEXIST), "once");
    tap.is(ec::send(port), Err(Errno::EINVAL), "nobody sends on it");
    tap.is(events::bind_vcpu(port, VcpuId(0)), Ok(()), "it moves");
    tap.is(set_up(SCI.cast_signed(), 0, 0), Err(Errno::EEXIST), "a line in use keeps its signal");
    tap.is(end(SCI), Ok(0), "an end of nothing");
    tap.is(ec::close(port), Ok(()), "close it");
    tap.is(end(SCI), Ok(0), "an end without a port");
    bind(SCI, BIND_PIRQ__WILL_SHARE).expect("it is free again")
}

fn outb(port: u16, value: u8) {
    // SAFETY: the ports of the clock, which is ours.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value) };
}

fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value) };
    value
}

fn outw(port: u16, value: u16) {
    // SAFETY: the ports of ACPI, which are ours.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value) };
}

fn inw(port: u16) -> u16 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value) };
    value
}

fn rtc(register: u8) -> u8 {
    outb(0x70, register);
    inb(0x71)
}

fn set_rtc(register: u8, value: u8) {
    outb(0x70, register);
    outb(0x71, value);
}

/// How often a port becomes pending within some time, its event taken each time and `then` run.
fn count(port: Port, nanoseconds: u64, mut then: impl FnMut()) -> u32 {
    let until = time::now() + nanoseconds;
    let mut times = 0;
    while time::now() < until {
        if events::clear(port) {
            times += 1;
            then();
        }
        time::sleep(200_000);
    }
    times
}

/// The clock's periodic interrupt, 64 times a second.
fn edge(tap: &mut Tap) {
    tap.is(map_line(8, 8, DomId::SELF), Ok(8), "the clock's line");
    tap.is(set_up(8, 0, 0), Ok(0), "is an edge");
    tap.is(set_up(8, 0, 0), Err(Errno::EEXIST), "as was said");
    let port = bind(RTC, 0).expect("nobody else has it");
    events::mask(port);
    const STATUS_A: u8 = 0x0a;
    const STATUS_B: u8 = 0x0b;
    const STATUS_C: u8 = 0x0c;
    const PERIODIC: u8 = 1 << 6;
    let (a, b) = (rtc(STATUS_A), rtc(STATUS_B));
    set_rtc(STATUS_A, a & 0xf0 | 10);
    set_rtc(STATUS_B, b | PERIODIC);
    rtc(STATUS_C);
    let times = count(port, 500_000_000, || {
        rtc(STATUS_C);
        let _ = end(RTC);
    });
    set_rtc(STATUS_B, b);
    set_rtc(STATUS_A, a);
    rtc(STATUS_C);
    tap.note(format_args!("the clock interrupted {times} times in half a second"));
    tap.ok((8..=40).contains(&times), "the clock interrupts");
    events::clear(port);
    tap.is(ec::close(port), Ok(()), "close the clock's port");
    tap.is(unmap(8), Ok(0), "and unmap its line");
    tap.is(map_line(8, 8, DomId::SELF), Err(Errno::EPERM), "which is no longer ours then");
}

/// Where QEMU's chipsets have ACPI's registers. Bochs has them elsewhere, and its ACPI tables do not say that the SCI is a
/// level.
const ACPI: u16 = 0x600;

fn has_acpi_here() -> bool {
    inw(ACPI) != u16::MAX
}

/// ACPI's timer, whose counter overflows every 2.3 seconds: the line stays asserted until the status is cleared.
fn level_triggered(tap: &mut Tap, port: Port) {
    const STATUS: u16 = ACPI;
    const ENABLE: u16 = ACPI + 2;
    const TIMER: u16 = 1;
    if !has_acpi_here() {
        tap.skip("a line that stays asserted", "no ACPI timer at these ports");
        tap.is(ec::close(port), Ok(()), "close its port");
        return;
    }
    events::mask(port);
    let enabled = inw(ENABLE);
    outw(STATUS, TIMER);
    outw(ENABLE, TIMER);
    let until = time::now() + 4_000_000_000;
    while !events::is_pending(port) && time::now() < until {
        time::sleep(1_000_000);
    }
    tap.ok(events::clear(port), "the line interrupts");
    tap.ok(inw(STATUS) & TIMER != 0, "for the reason it should");
    // It is asserted still, and nobody says that it was served: the hypervisor gives it up after a while and tries again.
    // On a busy machine the guest may sleep through most of a span.
    let (mut times, mut spans) = (0, 0);
    while times < 2 && spans < 50 {
        times += count(port, 100_000_000, || {});
        spans += 1;
    }
    tap.note(format_args!("an interrupt that is not served came {times} times in {spans} times 100 ms"));
    tap.ok((2..=200 * spans).contains(&times), "not served, it comes again, but not in a flood");
    outw(STATUS, TIMER);
    outw(ENABLE, enabled & !TIMER);
    time::sleep(5_000_000);
    let _ = end(SCI);
    events::clear(port);
    tap.is(count(port, 50_000_000, || {}), 0, "served, it is quiet");
    tap.is(ec::close(port), Ok(()), "close its port");
}

/// The page of bits that say which interrupts need an end.
fn eoi_page(tap: &mut Tap) {
    let register = |gmfn: u64| physdev(PHYSDEVOP_PIRQ_EOI_GMFN_V2, &mut PirqEoiGmfn { gmfn });
    tap.is(register(1 << 40), Err(Errno::EINVAL), "a frame that does not exist");
    let shared = page();
    tap.is(register(shared.mfn().0), Ok(0), "a page of ours");
    tap.is(register(shared.mfn().0), Err(Errno::EBUSY), "once");
    let bit = |pirq: u32| {
        // SAFETY: a byte of our page, which the hypervisor writes too.
        let byte = unsafe { core::ptr::read_volatile((shared.address() + u64::from(pirq / 8)) as *const u8) };
        byte >> (pirq % 8) & 1
    };
    let port = bind(SCI, BIND_PIRQ__WILL_SHARE).expect("it is free");
    tap.is(bit(SCI), u8::from(has_acpi_here()), "a level needs an end");
    tap.is(ec::close(port), Ok(()), "close it");
    tap.is(map_line(12, 12, DomId::SELF), Ok(12), "the mouse's line");
    let port = bind(MOUSE, 0).expect("it is free");
    tap.is(bit(MOUSE), 0, "an edge needs none");
    tap.is(ec::close(port), Ok(()), "close it, too");
    shared.leak();
}

/// What the control domain gives to another: only what it has itself.
fn permissions(tap: &mut Tap) {
    let child = Child::new(16);
    let ports = |first_port: u32, nr_ports: u32, allow_access: u8| {
        let mut op = IoportPermission { first_port, nr_ports, allow_access, _pad: [0; 3] };
        // SAFETY: the operation writes to nothing of ours.
        unsafe { domctl::payload(XEN_DOMCTL_IOPORT_PERMISSION, child.id(), &mut op) }.map(drop)
    };
    tap.is(ports(0x1f0, 8, 1), Ok(()), "eight ports");
    tap.is(ports(0x1f0, 8, 0), Ok(()), "and back");
    tap.is(ports(0x1f0, 0, 1), Err(Errno::EINVAL), "no ports");
    tap.is(ports(0xffff, 2, 1), Err(Errno::EINVAL), "ports beyond the last");
    tap.is(ports(!0, 2, 1), Err(Errno::EINVAL), "ports that wrap around");
    for (what, port) in [("8259", 0x20), ("8254", 0x40), ("PM timer", 0x608), ("PCI data", 0xcfc), ("UART", 0x3f8)] {
        if port == 0x608 && !has_acpi_here() {
            tap.skip(what, "it is elsewhere");
        } else {
            tap.is(ports(port, 1, 1), Err(Errno::EPERM), what);
        }
    }
    for port in [0x61, 0x70, 0x71, 0x92, 0xf0, 0x4d0, 0xcf8, 0xcf9, 0x604] {
        tap.note(format_args!("value port_{port:x}={}", ports(port, 1, 1).is_ok()));
    }
    tap.is(ports(0x18, 16, 1), Err(Errno::EPERM), "some that are not ours among them");
    let memory = |first_mfn: u64, nr_mfns: u64, allow_access: u8| {
        let mut op = IomemPermission { first_mfn, nr_mfns, allow_access, _pad: [0; 7] };
        // SAFETY: as above.
        unsafe { domctl::payload(XEN_DOMCTL_IOMEM_PERMISSION, child.id(), &mut op) }.map(drop)
    };
    tap.is(memory(0xf_e000, 16, 1), Ok(()), "sixteen frames of devices");
    tap.is(memory(0xf_e000, 16, 0), Ok(()), "and back again");
    tap.is(memory(0xf_e000, 0, 1), Err(Errno::EINVAL), "no frames");
    tap.is(memory(!0, 2, 1), Err(Errno::EINVAL), "frames that wrap around");
    tap.is(memory(0xf_ee00, 1, 1), Err(Errno::EPERM), "the local APIC");
    let interrupt = |pirq: u32, allow_access: u8| {
        let mut op = IrqPermission { pirq, allow_access, pad: [0; 3] };
        // SAFETY: as above.
        unsafe { domctl::payload(XEN_DOMCTL_IRQ_PERMISSION, child.id(), &mut op) }.map(drop)
    };
    tap.is(interrupt(SCI, 1), Ok(()), "an interrupt of ours");
    tap.is(interrupt(SCI, 0), Ok(()), "and it back");
    tap.is(interrupt(UNMAPPED, 1), Err(Errno::EPERM), "one that stands for nothing");
    tap.is(interrupt(BEYOND, 1), Err(Errno::EINVAL), "interrupt 9999");
    tap.is(map_line(9, 9, child.id()), Ok(9), "a number of the other domain's for a line of ours");
    tap.is(map_line(11, 17, child.id()), Ok(17), "and another");
    let mut op = UnmapPirq { domid: child.id(), _pad: 0, pirq: 17 };
    tap.is(physdev(PHYSDEVOP_UNMAP_PIRQ, &mut op), Ok(0), "unmap one, leave one to its end");
}
