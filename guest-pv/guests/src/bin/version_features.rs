//! `xen_version`: every command, as the initial domain sees it.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::call::version;
use guest_pv::tap::Tap;
use guest_pv::{Mode, boot, mode};
use guests::{address_of, call, op};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_XEN_VERSION;
use xen_abi::version::{
    FeatureInfo, XENVER_BUILD_ID, XENVER_CAPABILITIES, XENVER_COMMANDLINE, XENVER_COMPILE_INFO, XENVER_EXTRAVERSION,
    XENVER_GET_FEATURES, XENVER_PAGESIZE, XENVER_PLATFORM_PARAMETERS, XENVER_VERSION,
};

guest_pv::test!(run);

fn features_of_pv(tap: &mut Tap, features: u32) {
    tap.ok(features & 1 << 5 != 0, "feature mmu_pt_update_preserve_ad");
    tap.ok(features & 1 << 7 != 0, "feature gnttab_map_avail_bits");
    tap.ok(features & 1 << 11 != 0, "feature dom0");
    tap.ok(features & 1 << 2 == 0, "no feature auto_translated_physmap");
    tap.ok(features & 1 << 8 == 0, "no feature hvm_callback_vector");
    tap.is(features, 0x2_28f0, "exactly the features of a PV control domain");
}

fn features_of_pvh(tap: &mut Tap, features: u32) {
    tap.ok(features & 1 << 2 != 0, "feature auto_translated_physmap");
    tap.ok(features & 1 << 8 != 0, "feature hvm_callback_vector");
    tap.ok(features & 1 << 9 != 0, "feature hvm_safe_pvclock");
    tap.ok(features & 1 << 10 == 0, "no feature hvm_pirqs");
    tap.ok(features & 1 << 11 == 0, "no feature dom0");
    tap.is(features, 0x1_2305, "exactly the features of a domain in a container");
}

fn run(tap: &mut Tap) {
    tap.is(version::version(), Ok((4, 17)), "version 4.17");
    tap.is(call(HYPERVISOR_XEN_VERSION, [XENVER_VERSION.into(), 0x1000]), Ok(4 << 16 | 17), "its pointer is ignored");
    let extra = version::extraversion().unwrap_or_default();
    tap.ok(extra.starts_with('.'), "the extra version continues the number");
    let capabilities = version::capabilities().unwrap_or_default();
    tap.ok(capabilities.split(' ').any(|word| word == "xen-3.0-x86_64"), "64-bit PV guests can run");
    tap.ok(version::changeset().is_ok(), "there is a changeset");
    tap.ok(version::compile_info().is_ok(), "there is compile information");
    tap.is(
        version::virt_start(),
        Ok(0xffff_8000_0000_0000),
        "the hypervisor's addresses start at the architectural hole",
    );
    tap.is(call(HYPERVISOR_XEN_VERSION, [XENVER_PAGESIZE.into(), 0]), Ok(4096), "the page size");
    if boot().is_initial_domain() {
        tap.is(version::guest_handle(), Ok([0; 16]), "the initial domain's handle is zero");
        tap.ok(version::command_line().is_ok_and(|line| line.contains("console=")), "the command line");
    } else {
        tap.ok(version::guest_handle().is_ok_and(|handle| handle != [0; 16]), "an ordinary domain has a handle");
        tap.is(version::command_line().as_deref(), Ok("<denied>"), "and does not see the command line");
    }

    let features = version::features(0).unwrap_or(0);
    match mode() {
        Mode::Pv => features_of_pv(tap, features),
        Mode::Pvh => features_of_pvh(tap, features),
    }
    tap.is(version::features(1), Err(Errno::EINVAL), "there is one submap of features");

    for (name, command) in [
        ("extraversion", XENVER_EXTRAVERSION),
        ("compile_info", XENVER_COMPILE_INFO),
        ("capabilities", XENVER_CAPABILITIES),
        ("platform_parameters", XENVER_PLATFORM_PARAMETERS),
        ("get_features", XENVER_GET_FEATURES),
        ("commandline", XENVER_COMMANDLINE),
    ] {
        tap.is(call(HYPERVISOR_XEN_VERSION, [command.into(), 0x1000]), Err(Errno::EFAULT), name);
    }
    tap.is(call(HYPERVISOR_XEN_VERSION, [99, 0]), Err(Errno::ENOSYS), "an unknown command");
    build_id(tap);

    let mut info = FeatureInfo { submap_idx: 0, submap: 0 };
    // The command is 32 bits wide; what is above does not matter.
    let wide = 1 << 40 | u64::from(XENVER_GET_FEATURES);
    tap.is(call(HYPERVISOR_XEN_VERSION, [wide, address_of(&mut info)]), Ok(0), "the command is 32 bits wide");
    tap.is(call(55, []), Err(Errno::ENOSYS), "a hypercall that does not exist");
    tap.is(call(1000, []), Err(Errno::ENOSYS), "a hypercall number that is too high");
    tap.is(call(u32::MAX, []), Err(Errno::ENOSYS), "a hypercall number that is far too high");
}

fn build_id(tap: &mut Tap) {
    if !boot().is_initial_domain() {
        let refused = call(HYPERVISOR_XEN_VERSION, [XENVER_BUILD_ID.into(), 0]);
        tap.is(refused, Err(Errno::EPERM), "the build id is for the control domain");
        return;
    }
    let length = call(HYPERVISOR_XEN_VERSION, [XENVER_BUILD_ID.into(), 0]);
    tap.is(length, Ok(20), "the build id is a SHA-1");
    let mut id = [0u32; 6];
    id[0] = 4;
    tap.is(op(HYPERVISOR_XEN_VERSION, XENVER_BUILD_ID, &mut id), Err(Errno::ENOBUFS), "it does not fit into 4 bytes");
    id[0] = 20;
    tap.is(op(HYPERVISOR_XEN_VERSION, XENVER_BUILD_ID, &mut id), Ok(20), "it fits into 20");
    tap.ok(id[1..].iter().any(|&word| word != 0), "and is not zero");
}
