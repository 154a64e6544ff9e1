//! What a boot loader leaves, as anything: reading it comes to an end, and what is found is in order.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use logic::boot::loader::{PVH_MAGIC, Physical, read};

/// Memory that holds an input from its beginning on, and again and again behind it.
#[derive(Clone, Copy)]
struct Memory<'a>(&'a [u8]);

impl Physical for Memory<'_> {
    fn byte(self, at: u64) -> u8 {
        let length = self.0.len() as u64;
        if at >= 1 << 20 || length == 0 { 0 } else { self.0[usize::try_from(at % length).unwrap_or(0)] }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    let magic = [0x2bad_b002, 0x36d7_6289, PVH_MAGIC][usize::from(*which) % 3];
    if let Some(told) = read(magic, 0, Memory(data)) {
        assert!(told.memory_map.windows(2).all(|pair| pair[0].end <= pair[1].start));
        assert!(told.memory_map.iter().all(|range| range.start < range.end));
    }
});
