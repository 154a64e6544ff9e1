//! Each unpacker by itself, with the buffer as large as the first byte says.
#![no_main]
#![forbid(unsafe_code)]

use domain_image::Payload;
use libfuzzer_sys::fuzz_target;

const MAGICS: [&[u8]; 5] = [
    &[0x1f, 0x8b, 8],
    &[0xfd, b'7', b'z', b'X', b'Z', 0],
    &[0x5d, 0, 0],
    &[2, 0x21, 0x4c, 0x18],
    &[0x28, 0xb5, 0x2f, 0xfd],
];

fuzz_target!(|data: &[u8]| {
    let [size, which, rest @ ..] = data else { return };
    let mut file = MAGICS[usize::from(*which) % MAGICS.len()].to_vec();
    file.extend_from_slice(rest);
    let Ok(payload) = Payload::find(&file) else { return };
    let mut out = vec![0; usize::from(*size) << 10];
    if let Ok(length) = payload.unpack_into(&mut out) {
        assert!(length <= out.len());
    }
});
