//! The smallest guest: it boots, sees its start information, prints TAP and shuts down.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::tap::Tap;

guest_pv::test!(run);

fn run(tap: &mut Tap) {
    let boot = guest_pv::boot();
    tap.ok(true, "the guest reached its main function");
    // The start info of a hardware container has a magic of its own, which the entry code has seen already.
    let magic = boot.magic.starts_with(b"xen-3.0-x86_64");
    tap.ok(magic || guest_pv::mode() == guest_pv::Mode::Pvh, "start_info carries Xen's magic");
    tap.ok(boot.nr_pages > 0, "the domain has memory");
    tap.ok(boot.shared_info != 0 && boot.shared_info.trailing_zeros() >= 12, "the shared info page is page aligned");

    let numbers: guest_pv::alloc::vec::Vec<u64> = (0..1000).collect();
    tap.is(numbers.iter().sum::<u64>(), 499_500, "the heap works");
}
