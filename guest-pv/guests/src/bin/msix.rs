//! The MSI-X table of a device: while the hypervisor programs it the control domain maps it read-only, whatever it asks for,
//! and a store there comes to nothing.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Device memory is mapped, and written to where that is not allowed.

use core::arch::asm;

use guest_pv::mem::Frame;
use guest_pv::mem::table::{self, READ_ONLY, READ_WRITE, UNCACHED, WRITE};
use guest_pv::tap::Tap;
use guests::{make_writable, op, page, trap_of, update_va_mapping};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_PHYSDEV_OP;
use xen_abi::ids::DomId;
use xen_abi::mmu::UVMF_INVLPG;
use xen_abi::physdev::*;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

guest_pv::test!(run);

/// Offsets in configuration space (PCI Local Bus Specification 3.0, 6.1 and 6.8.2).
const COMMAND: u8 = 0x04;
const FIRST_BAR: u8 = 0x10;
const CAPABILITIES: u8 = 0x34;
const MSIX: u32 = 0x11;
const MEMORY_ON: u32 = 1 << 1;
const CAPABILITIES_LIST: u32 = 1 << 20;
/// Offset of the word with an entry's mask, and its bytes.
const CONTROL: u64 = 12;
const ENTRY: u64 = 16;

/// A page fault of the kernel's at a page that is there, by a write.
const FAULT: Option<(u64, u64)> = Some((14, 3));

fn read_config(devfn: u8, register: u8) -> u32 {
    let (address, value) = (1u32 << 31 | u32::from(devfn) << 8 | u32::from(register & 0xfc), &mut 0u32);
    // SAFETY: a register of configuration space is read.
    unsafe {
        asm!("out dx, eax", in("dx") 0xcf8u16, in("eax") address);
        asm!("in eax, dx", in("dx") 0xcfcu16, out("eax") *value);
    }
    *value
}

/// A device with a table.
struct Device {
    devfn: u8,
    /// Physical addresses of the memory that it is in, and of the table.
    base: u64,
    table: u64,
}

/// The table of a function.
fn table_of(devfn: u8) -> Option<Device> {
    if read_config(devfn, 0) == u32::MAX || read_config(devfn, COMMAND) & CAPABILITIES_LIST == 0 {
        return None;
    }
    let mut at = read_config(devfn, CAPABILITIES).to_le_bytes()[0];
    while read_config(devfn, at) & 0xff != MSIX {
        at = read_config(devfn, at).to_le_bytes()[1];
        if at == 0 {
            return None;
        }
    }
    let place = read_config(devfn, at + 4);
    let bar = FIRST_BAR + 4 * (place & 7).to_le_bytes()[0];
    let low = read_config(devfn, bar);
    let high = if low & 7 == 4 { read_config(devfn, bar + 4) } else { 0 };
    let base = u64::from(high) << 32 | u64::from(low & !0xf);
    Some(Device { devfn, base, table: base + u64::from(place & !7) })
}

fn physdev<T: FromBytes + IntoBytes>(command: u32, mut argument: T) -> (Result<u64, Errno>, T) {
    (op(HYPERVISOR_PHYSDEV_OP, command, &mut argument), argument)
}

/// Where the table is mapped, in place of a page of ours.
struct Window(Frame);

impl Window {
    fn new() -> Self {
        Window(page())
    }

    /// Maps the table, writable if that is given: whether it was.
    fn map(&self, device: &Device, flags: u64) -> Result<bool, Errno> {
        let entry = device.table & table::FRAME_MASK | flags | UNCACHED;
        update_va_mapping(self.0.address(), entry, UVMF_INVLPG)?;
        Ok(table::lookup(self.0.address()).is_some_and(|entry| entry & WRITE != 0))
    }

    fn at(&self, device: &Device, offset: u64) -> u64 {
        self.0.address() + (device.table & 0xfff) + offset
    }

    fn read(&self, device: &Device, offset: u64) -> u32 {
        // SAFETY: a word of the table, which is mapped.
        unsafe { (self.at(device, offset) as *const u32).read_volatile() }
    }

    fn store(&self, device: &Device, offset: u64, value: u32) -> Option<(u64, u64)> {
        let at = self.at(device, offset);
        // SAFETY: a store into the table, which is mapped.
        trap_of(|| unsafe { asm!("mov dword ptr [{at}], {value:e}", at = in(reg) at, value = in(reg) value) })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        make_writable(&self.0).expect("it is our own page");
    }
}

fn run(tap: &mut Tap) {
    physdev(PHYSDEVOP_SET_IOPL, SetIopl { iopl: 1 }).0.expect("a level");
    let Some(device) = (0..=u8::MAX).find_map(table_of) else {
        tap.ok(false, "the machine has a device with a table");
        return;
    };
    tap.ok(read_config(device.devfn, COMMAND) & MEMORY_ON != 0, "the machine has a device with a table in memory");
    let added = PciDeviceAdd { devfn: device.devfn, ..PciDeviceAdd::new_zeroed() };
    tap.is(physdev(PHYSDEVOP_PCI_DEVICE_ADD, added).0, Ok(0), "the hypervisor hears of it");
    let before = Window::new();
    tap.is(before.map(&device, READ_WRITE), Ok(true), "nobody uses its table: it can be mapped to be written");
    in_use(tap, &device, &before);
    prepared(tap, &device);
}

/// An entry of the table has an interrupt.
fn in_use(tap: &mut Tap, device: &Device, before: &Window) {
    let wanted = MapPirq {
        domid: DomId::SELF,
        type_: MAP_PIRQ_TYPE_MSI_SEG.cast_signed(),
        index: -1,
        pirq: -1,
        devfn: device.devfn.into(),
        table_base: device.base,
        ..MapPirq::new_zeroed()
    };
    let (mapped, map) = physdev(PHYSDEVOP_MAP_PIRQ, wanted);
    tap.is(mapped, Ok(0), "its first message gets a number");
    let kept = table::lookup(before.0.address()).is_some_and(|entry| entry & WRITE != 0);
    tap.ok(kept, "a mapping that was there is left as it is");
    let window = Window::new();
    tap.is(window.map(device, READ_WRITE), Ok(false), "a new one is read-only, without a word");
    let control = window.read(device, CONTROL);
    tap.is(window.store(device, CONTROL, !control), None, "a store passes");
    tap.is(window.read(device, CONTROL), control, "and does nothing");
    let address = window.read(device, 0);
    let at = window.at(device, 0);
    // SAFETY: stores into the table, which is mapped.
    let (wide, byte) = unsafe {
        (
            trap_of(|| asm!("mov qword ptr [{}], {}", in(reg) at, in(reg) 0x1234_5678u64)),
            trap_of(|| asm!("mov byte ptr [{}], 0x77", in(reg) at)),
        )
    };
    tap.is((wide, byte), (None, None), "so do others");
    tap.is(window.read(device, 0), address, "that do nothing either");
    // SAFETY: as above.
    let changed = trap_of(|| unsafe { asm!("or dword ptr [{}], 1", in(reg) window.at(device, CONTROL)) });
    tap.is(changed, FAULT, "what reads before it writes faults");
    tap.is(window.store(device, CONTROL + 1, 0), FAULT, "and what is not on its boundary");
    tap.is(window.map(device, READ_ONLY), Ok(false), "it can be mapped read-only");
    tap.is(window.map(device, READ_WRITE), Ok(false), "and made writable no more");
    let unmapped = UnmapPirq { domid: DomId::SELF, _pad: 0, pirq: map.pirq };
    tap.is(physdev(PHYSDEVOP_UNMAP_PIRQ, unmapped).0, Ok(0), "the message is given up");
    tap.is(window.store(device, CONTROL, 0), FAULT, "the mapping stays read-only, and now a store faults");
    tap.is(window.map(device, READ_WRITE), Ok(true), "another one is writable");
    tap.is(window.store(device, ENTRY + 8, 0x1234), None, "a store into the next entry passes");
    tap.is(window.read(device, ENTRY + 8), 0x1234, "and is there");
}

/// Somebody else is going to use the table.
fn prepared(tap: &mut Tap, device: &Device) {
    let named = || PciDevice { seg: 0, bus: 0, devfn: device.devfn };
    let window = Window::new();
    tap.is(physdev(PHYSDEVOP_RELEASE_MSIX, named()).0, Err(Errno::EBUSY), "it is not prepared");
    tap.is(physdev(PHYSDEVOP_PREPARE_MSIX, named()).0, Ok(0), "prepare_msix");
    tap.is(physdev(PHYSDEVOP_PREPARE_MSIX, named()).0, Err(Errno::EBUSY), "once");
    tap.is(window.map(device, READ_WRITE), Ok(false), "it is read-only again");
    tap.is(window.store(device, CONTROL, 0), None, "and a store does nothing");
    tap.is(physdev(PHYSDEVOP_RELEASE_MSIX, named()).0, Ok(0), "release_msix");
    tap.is(physdev(PHYSDEVOP_RELEASE_MSIX, named()).0, Err(Errno::EBUSY), "once");
    tap.is(window.map(device, READ_WRITE), Ok(true), "it is writable again");
}
