//! What the firmware left behind. Only what real mode's BIOS calls would say is asked for here, and a multiboot loader
//! makes none of them for us.

use xen_abi::{errno::Errno, platform as abi};

use super::Reply;

/// `XENPF_firmware_info`. `ESRCH`: nothing of that kind is known; `ENOSYS`: no EFI.
pub(super) fn info(op: &abi::FirmwareInfo) -> Result<Reply, Errno> {
    Err(match op.type_ {
        abi::XEN_FW_DISK_INFO
        | abi::XEN_FW_DISK_MBR_SIGNATURE
        | abi::XEN_FW_VBEDDC_INFO
        | abi::XEN_FW_KBD_SHIFT_FLAGS => Errno::ESRCH,
        abi::XEN_FW_EFI_INFO => Errno::ENOSYS,
        _ => Errno::EINVAL,
    })
}
