//! Sleep states by `XENPF_enter_acpi_sleep`, as an ACPI kernel asks for them. With `off` on its command line the guest
//! does switch the machine off.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::tap::Tap;
use guests::address_of;
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_PLATFORM_OP;
use xen_abi::platform::{EnterAcpiSleep, PlatformOp, XENPF_ENTER_ACPI_SLEEP, XENPF_INTERFACE_VERSION};
use zerocopy::IntoBytes;

guest_pv::test!(run);

/// The value for the PM1 register: sleep type 0, which is S5 on the chipsets that are emulated, and the enable bit.
const OFF: u16 = 1 << 13;

fn sleep(sleep_state: u32, flags: u32) -> Result<u64, Errno> {
    let asked = EnterAcpiSleep { val_a: OFF, val_b: 0, sleep_state, flags };
    let mut u = [0; 128];
    u[..size_of::<EnterAcpiSleep>()].copy_from_slice(asked.as_bytes());
    let mut op = PlatformOp { cmd: XENPF_ENTER_ACPI_SLEEP, interface_version: XENPF_INTERFACE_VERSION, u };
    guests::call(HYPERVISOR_PLATFORM_OP, [address_of(&mut op)])
}

fn run(tap: &mut Tap) {
    if guest_pv::boot().command_line().contains("off") {
        let answer = sleep(5, 0);
        tap.note(format_args!("still here: {answer:?}"));
    }
    tap.is(sleep(0, 0), Err(Errno::EINVAL), "to be awake is no sleep state");
    tap.is(sleep(6, 0), Err(Errno::EINVAL), "there are five");
    tap.is(sleep(5, 2), Err(Errno::EINVAL), "flags that nobody has defined");
}
