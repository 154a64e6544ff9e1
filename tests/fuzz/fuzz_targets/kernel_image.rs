//! A kernel file: bzImage or ELF, packed in any way, its notes, and its place in a domain.
#![no_main]
#![forbid(unsafe_code)]

use domain_image::{Kernel, Payload, Plan, Request, Role};
use libfuzzer_sys::fuzz_target;

/// More than any seed unpacks to; small, so that a length from the file cannot make the fuzzer run out of memory.
const LIMIT: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(payload) = Payload::find(data) else { return };
    let Ok(image) = payload.unpack(LIMIT) else { return };
    let Ok(kernel) = Kernel::parse(&image) else { return };
    for (pages, ramdisk_len) in [(0, 0), (8192, 0), (8192, 5 << 20), (u64::MAX, u64::MAX)] {
        for role in [Role::Dom0, Role::DomU] {
            if let Ok(plan) = Plan::new(&kernel, &Request { pages, ramdisk_len, role }) {
                assert!(plan.needed <= pages);
                assert!(plan.stack.0 < pages);
            }
        }
    }
});
