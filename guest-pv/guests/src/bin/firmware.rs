//! What the control domain is told of what real mode's BIOS said (`XENPF_firmware_info`), on a machine without disks and
//! without a screen.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::tap::Tap;
use guests::address_of;
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_PLATFORM_OP;
use xen_abi::platform::*;
use zerocopy::{FromBytes, IntoBytes};

guest_pv::test!(run);

fn ask(type_: u32, index: u32, u: [u64; 4]) -> (Result<u64, Errno>, [u64; 4]) {
    let info = FirmwareInfo { type_, index, u };
    let mut bytes = [0; 128];
    bytes[..size_of::<FirmwareInfo>()].copy_from_slice(info.as_bytes());
    let mut op = PlatformOp { cmd: XENPF_FIRMWARE_INFO, interface_version: XENPF_INTERFACE_VERSION, u: bytes };
    let answer = guests::call(HYPERVISOR_PLATFORM_OP, [address_of(&mut op)]);
    let after = FirmwareInfo::read_from_prefix(&op.u).map_or([0; 4], |(info, _)| info.u);
    (answer, after)
}

fn run(tap: &mut Tap) {
    const LEFT: [u64; 4] = [0x5555_5555_5555_5555; 4];
    for (type_, name) in [(XEN_FW_DISK_INFO, "no disk"), (XEN_FW_DISK_MBR_SIGNATURE, "no boot record")] {
        for index in [0, 1, 255, u32::MAX] {
            let (answer, after) = ask(type_, index, [0; 4]);
            tap.is(answer, Err(Errno::ESRCH), name);
            tap.ok(after == [0; 4], "and nothing is told");
        }
    }
    for index in [1, u32::MAX] {
        tap.is(ask(XEN_FW_KBD_SHIFT_FLAGS, index, LEFT).0, Err(Errno::ESRCH), "there is one keyboard");
        tap.is(ask(XEN_FW_VBEDDC_INFO, index, LEFT).0, Err(Errno::ESRCH), "and one screen");
    }
    let (answer, after) = ask(XEN_FW_KBD_SHIFT_FLAGS, 0, LEFT);
    tap.is(answer, Ok(0), "its shift keys");
    tap.is(after, [0x5555_5555_5555_5500, LEFT[1], LEFT[2], LEFT[3]], "are up, and that is all");
    tap.is(ask(XEN_FW_VBEDDC_INFO, 0, LEFT).0, Err(Errno::ESRCH), "no screen that says what it can");
    tap.is(ask(XEN_FW_EFI_INFO, 0, LEFT).0, Err(Errno::ENOSYS), "no EFI");
    tap.is(ask(77, 0, LEFT).0, Err(Errno::EINVAL), "nothing known");
}
