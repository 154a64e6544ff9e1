//! What the firmware left behind. Most of what is asked for here only real mode's BIOS calls would say, and none are made:
//! the answers are those of Xen on a machine whose BIOS knows no disk and no screen.

use core::mem::offset_of;

use logic::guest::Out;
use machine::arch::x86_64::bios;
use xen_abi::{errno::Errno, platform as abi};

use super::Reply;
use crate::guest::Handle;

/// `XENPF_firmware_info`, of which only what is told is written. `ESRCH`: there is nothing with that index; `ENOSYS`: no
/// EFI.
pub(super) fn info(va: u64, op: &abi::FirmwareInfo) -> Result<Reply, Errno> {
    let told = va.wrapping_add((offset_of!(abi::PlatformOp, u) + offset_of!(abi::FirmwareInfo, u)) as u64);
    match op.type_ {
        abi::XEN_FW_KBD_SHIFT_FLAGS if op.index == 0 => {
            Handle::<u8, Out>::new(told).write(&bios::keyboard_shift_flags()).map(|()| Reply::Nothing)
        }
        abi::XEN_FW_DISK_INFO
        | abi::XEN_FW_DISK_MBR_SIGNATURE
        | abi::XEN_FW_VBEDDC_INFO
        | abi::XEN_FW_KBD_SHIFT_FLAGS => Err(Errno::ESRCH),
        abi::XEN_FW_EFI_INFO => Err(Errno::ENOSYS),
        _ => Err(Errno::EINVAL),
    }
}
